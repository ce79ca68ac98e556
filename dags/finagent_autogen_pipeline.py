"""Train and register the desk, or infer with a registered version, or both, as an Airflow DAG.

Modes, by `dag_run.conf`: `inference` (default), `train_backtest`, `both`, which infers with the
version that it has just registered. A symbol is a mapped task, so that Airflow's executor spreads
the work. Ids and small numbers pass between tasks; everything else is in MLflow, below one run for
the whole DAG run. `as_of` comes from the run, never from the clock: a retry asks the same question.

Runs on Airflow 2.10, 2.11 and 3, and needs Airflow and the standard library alone. What tasks do is
in the package `finagent_model`: in Airflow's own Python, or in the one that FINAGENT_DAG_PYTHON
names, so that nothing is installed into Airflow's environment. The environment variables that say
how the DAG is wired into this Airflow are read when the file is parsed.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

# Only Airflow here: the scheduler parses this file every few seconds, and the package takes longer
# to import than that. Each task imports what it needs.
try:
    from airflow.sdk import (
        DAG,
        Asset,
        AssetAlias,
        BaseOperator,
        Param,
        TaskGroup,
        get_current_context,
        task,
    )

    IS_AIRFLOW_2 = False
except ImportError:
    from airflow.datasets import Dataset as Asset
    from airflow.datasets import DatasetAlias as AssetAlias
    from airflow.decorators import task
    from airflow.models import BaseOperator, Param
    from airflow.operators.python import get_current_context
    from airflow.utils.task_group import TaskGroup

    IS_AIRFLOW_2 = True

    from airflow import DAG
try:
    from airflow.sdk import CronTriggerTimetable
except ImportError:  # before 3.2
    from airflow.timetables.trigger import CronTriggerTimetable
try:
    from airflow.sdk.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowSkipException,
    )
except ImportError:  # before 3.2
    from airflow.exceptions import AirflowException, AirflowFailException, AirflowSkipException

T = TypeVar("T")
log = logging.getLogger(__name__)


def read_variable(name: str, parse: Callable[[str], T], default: T) -> T:
    """Return an environment variable, parsed; `default` where it is empty or not set."""
    text = os.environ.get(name, "")
    try:
        return parse(text) if text else default
    except ValueError as error:
        shown = f"the default is {default!r}"
        raise ValueError(f"{name}={text!r} can't be used: {error}; {shown}") from None


def parse_seconds(text: str) -> timedelta:
    """Return the duration of a number of seconds. Raises ValueError."""
    return timedelta(seconds=float(text))


def parse_cron(text: str) -> CronTriggerTimetable:
    """Return the timetable of a cron expression in UTC. Raises ValueError."""
    # Given as text, `create_cron_data_intervals`, which Airflow 2 sets, would date each run by the
    # start of its interval: it would decide a session late.
    try:
        timetable = CronTriggerTimetable(text, timezone="UTC")
        getattr(timetable, "validate", bool)()  # before 3.2; later Airflow does it itself
    except Exception as error:  # of Airflow or of its parser of cron, by version
        raise ValueError(f"{error}; write it as cron, such as 0 22 * * 1-5") from None
    return timetable


def parse_mode(text: str) -> str:
    """Return a mode of the DAG. Raises ValueError."""
    if text.strip().lower() not in MODES:
        raise ValueError(f"it is none of {', '.join(MODES)}")
    return text.strip().lower()


def parse_symbols(text: str) -> list[str]:
    """Return symbols separated by commas. Raises ValueError."""
    symbols = [name.strip() for name in text.split(",") if name.strip()]
    if not symbols or len(set(symbols)) < len(symbols):
        raise ValueError("write different symbols with commas between them, such as GOOG,IBM")
    return symbols


def parse_execution_name(text: str) -> str:
    """Return what names an execution. Raises ValueError."""
    if text.strip() not in EXECUTION_NAMES:
        raise ValueError(f"it is none of {', '.join(EXECUTION_NAMES)}")
    return text.strip()


MODES = ("inference", "train_backtest", "both")
EXECUTION_NAMES = ("run_id", "logical_date")
# A Python that has the package, or a command that starts one, such as a container's.
PYTHON = read_variable("FINAGENT_DAG_PYTHON", shlex.split, [])
SCHEDULE = read_variable("FINAGENT_DAG_SCHEDULE", parse_cron, None)
POOL = read_variable("FINAGENT_DAG_POOL", str, "default_pool")
MAX_CONCURRENCY = read_variable("FINAGENT_DAG_AT_ONCE", int, None)
MAX_CONCURRENCY_PER_RUN = read_variable("FINAGENT_DAG_AT_ONCE_A_RUN", int, None)
RETRIES = read_variable("FINAGENT_DAG_RETRIES", int, 2)
RETRY_DELAY = read_variable("FINAGENT_DAG_RETRY_DELAY_S", parse_seconds, timedelta(seconds=30))
TRAIN_TIMEOUT = read_variable("FINAGENT_DAG_TRAIN_WITHIN_S", parse_seconds, timedelta(hours=6))
DECIDE_TIMEOUT = read_variable("FINAGENT_DAG_DECIDE_WITHIN_S", parse_seconds, timedelta(minutes=15))
DEFAULT_MODEL = read_variable("FINAGENT_MODEL", str, "models:/finagent@champion")
# The platform's page of a DAG run finds artifacts by the run's date; its other pages by any name.
EXECUTION_NAME = read_variable("FINAGENT_DAG_EXECUTION_ID", parse_execution_name, "run_id")
# Names of the platform that this DAG was made for.
DEFAULT_MODE = read_variable("FINAGENT_AUTOGEN_DEFAULT_MODE", parse_mode, MODES[0])
DEFAULT_SYMBOLS = read_variable("STOCK_SYMBOLS", parse_symbols, ["GOOG"])

TICKER = {
    "type": "string",
    "pattern": r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]{0,18}[^\s\x00-\x1f\x7f])?$",
    "description": "A symbol as its source lists it, such as GOOG; at most 20 characters.",
}
# Sections of the form; those without a field in them are not shown.
WHAT, RULES, TRAIN, PLATFORM = (
    "What to do",
    "When the run fails",
    "Training (modes train_backtest and both)",
    "For platforms and programs",
)
MODE_WORDS = {
    "inference": "inference: decide with a registered version",
    "train_backtest": "train_backtest: train, backtest and register a version",
    "both": "both: train, then decide with the new version",
}
REPLY_WORDS = {
    "cached": "cached: recorded replies first, then the model",
    "live": "live: always the model",
    "replay": "replay: recorded replies alone",
}
# A schedule of Airflow 2 needs one. In Airflow 3 it would start a run once the DAG is unpaused.
START = datetime(1970, 1, 1, tzinfo=timezone.utc) if IS_AIRFLOW_2 else None  # noqa: UP017
MAX_SYMBOLS = 600
"""The most symbols whose list of map indices fits the 2 KiB that may pass between tasks."""
MODELS = AssetAlias("finagent-models")
REGISTER, DECIDE = "train_backtest.register", "inference.decide"
TRAINING = {"pool": POOL, "execution_timeout": TRAIN_TIMEOUT}
MAPPED = {
    "max_active_tis_per_dag": MAX_CONCURRENCY,
    "max_active_tis_per_dagrun": MAX_CONCURRENCY_PER_RUN,
}
SYMBOL = "{{ params.symbols[ti.map_index] }}"
"""Name of a mapped task's instance in Airflow's UI."""


ASK_AGAIN = timedelta(minutes=1)
"""Between two looks at an approval where Airflow's triggerer doesn't have the package."""
STOP_S = 30
"""Seconds that the process of a task has to end, before it is stopped, and then killed."""
MAX_REPLY_CHARS = 1_000_000
MAX_LINE_CHARS = 10_000


def run_task(name: str, *arguments: Any) -> Any:
    """Do a task's work and return its result. Raises AirflowException, or AirflowFailException."""
    return get_result(ask_package(get_current_context(), name, *arguments))


def get_result(reply: dict[str, Any]) -> Any:
    """Return the result of a reply; raise its error, which is tried again if that may help."""
    if error := reply.get("error"):
        raise (AirflowException if reply["retry"] else AirflowFailException)(error)
    return reply["result"]


def ask_package(
    context: Any, name: str, *arguments: Any, timeout: timedelta | None = None
) -> dict[str, Any]:
    """Have the package do a task's work, and return its reply.

    `timeout` holds for another Python alone; Airflow's own time-outs stop both.
    """
    request = {"task": name, "context": describe_task(context), "arguments": arguments}
    return ask_other_python(request, timeout) if PYTHON else ask_own_python(request)


def describe_task(context: Any) -> dict[str, Any]:
    """Return what the package must know of a task, as plain values."""
    run, ti = context["dag_run"], context["ti"]
    # Airflow 3 gives no logical date to a run that was triggered by hand.
    moment = run.logical_date or run.run_after
    return {
        "dag_id": run.dag_id,
        "dag_run_id": run.run_id,
        "run_date": moment.date().isoformat(),
        "execution_id": run.run_id if EXECUTION_NAME == "run_id" else moment.isoformat(),
        "task_id": ti.task_id,
        "map_index": ti.map_index,
        "try_number": ti.try_number,
        "max_tries": ti.max_tries,
        "params": dict(context["params"]),
    }


def ask_own_python(request: dict[str, Any]) -> dict[str, Any]:
    """Have the package do a task's work in this process."""
    try:
        from finagent_model.airflow import tasks
    except ModuleNotFoundError as error:
        if error.name != "finagent_model":
            raise
        raise AirflowFailException(
            "finagent_model is not installed beside Airflow; set FINAGENT_DAG_PYTHON to a Python "
            "that has it"
        ) from None
    if IS_AIRFLOW_2:
        from airflow.utils.log.secrets_masker import mask_secret
    else:
        from airflow.sdk.log import mask_secret

    # Airflow knows the secrets of its own configuration alone.
    for secret in tasks.environment_secrets():
        mask_secret(secret)
    return tasks.answer(request)


def ask_other_python(request: dict[str, Any], timeout: timedelta | None) -> dict[str, Any]:
    """Have the package do a task's work in a process of FINAGENT_DAG_PYTHON, and return the reply.

    What the process logs goes to the task's log. Airflow's own operator for another Python hands
    over pickles, and tells neither errors that need no retry nor approvals from other failures.
    """
    # Packages of Airflow's Python don't fit another one.
    hidden = ("PYTHONPATH", "PYTHONHOME")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    try:
        process = subprocess.Popen(
            [*PYTHON, "-P", "-m", "finagent_model.airflow.task_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
        )
    except OSError as error:
        raise AirflowFailException(
            f"FINAGENT_DAG_PYTHON={shlex.join(PYTHON)} can't be started: {error.strerror}; name a "
            "Python that has finagent_model"
        ) from None
    timed_out = threading.Event()
    last_line = [""]

    def stop() -> None:
        timed_out.set()
        process.kill()

    def read_log() -> None:
        with process.stderr as stream:
            while line := stream.readline(MAX_LINE_CHARS):
                if line.strip():
                    last_line[0] = line.strip()
                    log.info("%s", last_line[0])

    timer = threading.Timer(timeout.total_seconds(), stop) if timeout else None
    reader = threading.Thread(target=read_log, daemon=True)
    try:
        reader.start()
        if timer:
            timer.start()
        # A process that has ended already says why in its log.
        with suppress(BrokenPipeError):
            # Left open: the process ends when this one does, however that happens.
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        reply = process.stdout.read(MAX_REPLY_CHARS)
        # With the reply at hand, a slow end is no failure.
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    finally:
        # Also where Airflow stops the task: then the block above was left by an exception.
        if timer:
            timer.cancel()
        end_process(process)
        reader.join(STOP_S)  # a child of the process may still hold its log open
    if timed_out.is_set():
        raise AirflowException(f"{request['task']} took longer than {timeout.total_seconds():g} s")
    try:
        return json.loads(reply)
    except ValueError:
        raise AirflowException(
            f"the process of FINAGENT_DAG_PYTHON={shlex.join(PYTHON)} ended with code "
            f"{process.returncode} and no result; it said last: {last_line[0] or 'nothing'}. It "
            "must be a Python 3.11 that has finagent_model"
        ) from None


def end_process(process: subprocess.Popen[str]) -> None:
    """End a process that may have ended by itself."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with suppress(BrokenPipeError):
        process.stdin.close()
    process.stdout.close()


def note_failure(context: Any) -> None:
    """Tag the MLflow run with why a task failed; Airflow calls this after the last retry."""
    reason = context.get("exception") or "failed"
    get_result(ask_package(context, "note_failure", str(reason) or type(reason).__name__))


@task
def open_run() -> str:
    """Check the run's parameters, open its MLflow run, and return that run's id."""
    context = get_current_context()
    return run_task("open_run", list(context["dag_run"].conf or {}), list(context["dag"].params))


@task
def symbol_indices() -> list[int]:
    """Return one item a symbol, to map tasks over; only the number of items counts."""
    # A mapped task finds its symbol by its map index. Names would pass the limit of an XCom.
    return [0] * len(get_current_context()["params"]["symbols"])


@task.branch
def choose_branch() -> str:
    """Return the id of the first task of the mode."""
    mode = get_current_context()["params"]["mode"]
    return "inference.resolve_inputs" if mode == "inference" else "train_backtest.fit"


@task(**TRAINING)
def fit(parent: str) -> str:
    """Fit the policies and return the id of the training's MLflow run."""
    return run_task("fit", parent)


# `symbol_index` is not read: it is what Airflow maps over.
@task(**TRAINING, **MAPPED, map_index_template=SYMBOL)
def backtest(training: str, symbol_index: int) -> str:
    """Backtest the desk on one symbol and return the id of the backtest's MLflow run."""
    return run_task("backtest", training)


@task(**TRAINING, outlets=[MODELS], multiple_outputs=False)
def register(training: str, children: Any) -> dict[str, str]:
    """Register a version, update the asset of its model, and return name, version and run."""
    version = run_task("register", training, list(children))
    if has_alias():
        # The model's name is known only now, so the asset is added through its alias.
        asset = Asset(f"finagent-model://{version['name']}")
        get_current_context()["outlet_events"][MODELS].add(asset, extra=dict(version))
    return version


def has_alias() -> bool:
    """Return whether Airflow knows the alias of the models' assets."""
    if not IS_AIRFLOW_2:
        return True
    from airflow.models.dataset import DatasetAliasModel
    from airflow.utils.session import create_session

    # `airflow dags test` of Airflow 2 alone doesn't make it known, and would fail at the event.
    with create_session() as session:
        is_known = session.query(DatasetAliasModel).filter_by(name=MODELS.name).count() > 0
    if not is_known:
        log.warning("no asset is updated: no scheduler has read this DAG yet")
    return is_known


# The training's branch may be skipped, but a failed registration must not lead to inference.
@task(trigger_rule="none_failed_min_one_success", multiple_outputs=False)
def resolve_inputs() -> dict[str, str]:
    """Return `as_of` and the version's URI, which all symbols of the run share."""
    context = get_current_context()
    if context["params"]["mode"] == "train_backtest":
        raise AirflowSkipException("nothing is to be inferred")
    return run_task("resolve_inputs", context["ti"].xcom_pull(task_ids=REGISTER))


class Decide(BaseOperator):
    """Decide on one symbol; deferred while a human is asked to approve, so no worker is held."""

    template_fields = ("inputs", "parent")

    def __init__(self, *, inputs: Any, parent: Any, symbol_index: int, **options: Any) -> None:
        super().__init__(**options)
        self.inputs, self.parent, self.symbol_index = inputs, parent, symbol_index

    def execute(self, context: Any) -> dict[str, Any]:
        """Return the decision's outcome, or defer until its approvals are settled."""
        reply = ask_package(context, "decide", self.inputs, self.parent, timeout=DECIDE_TIMEOUT)
        if keys := reply.get("waits_for"):
            self.log.info("%s", reply["message"])
            self.wait_for(keys)
        return get_result(reply)

    def resume(self, context: Any, event: Any, keys: list[str]) -> dict[str, Any]:
        """Return the outcome after a human has answered, or the deadline has passed."""
        if PYTHON and get_result(ask_package(context, "has_pending_approval", keys)):
            self.wait_for(keys)
        # The replies are recorded, so this decides nothing anew.
        return self.execute(context)

    def wait_for(self, keys: list[str]) -> None:
        """Defer the task until the approvals are settled, or are to be looked at again."""
        if PYTHON:
            # The triggerer doesn't have the package: one of Airflow's own triggers.
            if IS_AIRFLOW_2:
                from airflow.triggers.temporal import TimeDeltaTrigger
            else:
                from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

            trigger = TimeDeltaTrigger(ASK_AGAIN)
        else:
            from finagent_model.airflow.approval_trigger import approval_trigger

            trigger = approval_trigger(keys)
        self.defer(trigger=trigger, method_name="resume", kwargs={"keys": keys})


@task
def close_run(parent: str) -> None:
    """End the MLflow run; raises where the DAG run must not look green."""
    context = get_current_context()
    results = context["ti"].xcom_pull(task_ids=[DECIDE])
    # Airflow 2 has a lazy sequence, which has no truth value where it is empty.
    rows = [] if results is None else [row for row in results if row]
    run_task("close_run", parent, find_task_states(context), rows)


def find_task_states(context: Any) -> dict[str, str | None]:
    """Return the states of the run's other tasks; a mapped one is under `NAME_INDEX`."""
    run, ti = context["dag_run"], context["ti"]
    if IS_AIRFLOW_2:
        states = {
            each.task_id if each.map_index < 0 else f"{each.task_id}_{each.map_index}": each.state
            for each in run.get_task_instances()
        }
    else:
        states = ti.get_task_states(dag_id=run.dag_id, run_ids=[run.run_id])[run.run_id]
    return {name: state and str(state) for name, state in states.items() if name != ti.task_id}


with DAG(
    "finagent_autogen_pipeline",
    schedule=SCHEDULE,
    start_date=START,
    catchup=False,
    tags=["finagent"],
    doc_md=__doc__,
    default_args={
        "retries": RETRIES,
        "retry_delay": RETRY_DELAY,
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
        "execution_timeout": timedelta(minutes=10),
        "on_failure_callback": note_failure,
    },
    params={
        "mode": Param(
            DEFAULT_MODE,
            type="string",
            enum=list(MODES),
            values_display=MODE_WORDS,
            title="What to do",
            description=f"Infer, train, or train and infer with the new version. Default: "
            f"{DEFAULT_MODE}.",
            section=WHAT,
        ),
        "symbols": Param(
            DEFAULT_SYMBOLS,
            type="array",
            items=TICKER,
            minItems=1,
            maxItems=MAX_SYMBOLS,
            uniqueItems=True,
            title="Symbols",
            description=f"One a line, as their source lists them; at most {MAX_SYMBOLS}. Default: "
            f"{', '.join(DEFAULT_SYMBOLS)}.",
            section=WHAT,
        ),
        "as_of": Param(
            None,
            type=["null", "string"],
            format="date",
            pattern=r"^\d{4}-\d\d-\d\d$",
            examples=["2012-06-29"],  # unlike a description, an error shows it
            title="As of",
            description="A day, after its close, such as 2012-06-29. Empty, the default: the run's "
            "own date.",
            section=WHAT,
        ),
        "model": Param(
            DEFAULT_MODEL,
            type="string",
            minLength=1,
            title="Model",
            description=f"What infers, as MLflow names it; not read in the mode both. Default: "
            f"{DEFAULT_MODEL}.",
            section=WHAT,
        ),
        "max_failed_share": Param(
            0.2,
            type="number",
            minimum=0,
            maximum=1,
            title="Most failed decisions",
            description="Fraction of a run's decisions whose status is a failure, 0 to 1; beyond "
            "it, the run fails. Default: 0.2.",
            section=RULES,
        ),
        "require_stored": Param(
            True,
            type="boolean",
            title="Decisions must be stored",
            description="Whether a decision that reached no table of FINAGENT_DATABASE fails the "
            "run; else the run's description in MLflow says it. Default: yes.",
            section=RULES,
        ),
        "config": Param(
            "default",
            type="string",
            minLength=1,
            title="Desk",
            description="Preset's name (default, lean, debate, production, upstream) or the path "
            "of a YAML file. Default: default.",
            section=TRAIN,
        ),
        "train_mode": Param(
            "cached",
            type="string",
            enum=["cached", "live", "replay"],
            values_display=REPLY_WORDS,
            title="Replies of chat models",
            description="Where they come from. Default: cached.",
            section=TRAIN,
        ),
        "register_as": Param(
            None,
            type=["null", "string"],
            pattern=r"^[A-Za-z0-9_\-]{1,100}$",
            title="Name of the registered model",
            description="Letters, digits, - and _. Empty, the default: FINAGENT_MODEL_NAME, else "
            "finagent.",
            section=TRAIN,
        ),
        "train_bars": Param(
            504,
            type="integer",
            minimum=120,
            maximum=10_000,
            title="Bars of each fit",
            description="Bars in each training window, 120 to 10,000. Default: 504, two years of "
            "daily bars.",
            section=TRAIN,
        ),
        "test_bars": Param(
            126,
            type="integer",
            minimum=5,
            maximum=5_000,
            title="Bars that a fit decides on",
            description="Bars that no fit has seen, 5 to 5,000. Default: 126, half a year of daily "
            "bars.",
            section=TRAIN,
        ),
        "purge_bars": Param(
            5,
            type="integer",
            minimum=1,
            maximum=500,
            title="Bars left out between both",
            description="Bars, 1 to 500, so that no outcome straddles them. Default: 5.",
            section=TRAIN,
        ),
        "schedule": Param(
            "1",
            type="string",
            pattern=r"^(change|[1-9][0-9]?|1[0-9][0-9]|2[0-4][0-9]|250)$",
            examples=["1", "5", "change"],
            title="Bars between decisions",
            description="Bars from one decision to the next, 1 to 250, or change. Default: 1.",
            section=TRAIN,
        ),
        "candidates": Param(
            96,
            type="integer",
            minimum=2,
            maximum=20_000,
            title="Policies scored in each fold",
            description="Number of policies, 2 to 20,000. Default: 96.",
            section=TRAIN,
        ),
        "pooled": Param(
            True,
            type="boolean",
            title="One policy for all symbols",
            description="No: one for each symbol. Default: yes.",
            section=TRAIN,
        ),
        "allow_short": Param(
            False,
            type="boolean",
            title="Sell short",
            description="Whether a SELL may open a position. Default: no.",
            section=TRAIN,
        ),
        "commission": Param(
            0.001,
            type="number",
            minimum=0,
            exclusiveMaximum=0.1,
            title="Commission",
            description="Fraction of the notional of every fill, below 0.1: 0.001 is 10 basis "
            "points. Default: 0.001.",
            section=TRAIN,
        ),
        "slippage": Param(
            0.0005,
            type="number",
            minimum=0,
            exclusiveMaximum=0.1,
            title="Slippage",
            description="Fraction of the price on market and stop fills, below 0.1. Default: "
            "0.0005.",
            section=TRAIN,
        ),
        "cash": Param(
            10_000.0,
            type="number",
            exclusiveMinimum=0,
            title="Cash to begin with",
            description="In the currency of the bars. Default: 10,000.",
            section=TRAIN,
        ),
        "seed": Param(
            7,
            type="integer",
            minimum=0,
            exclusiveMaximum=2**32,
            title="Seed",
            description="Of the search and of the statistics; equal seeds give equal versions. "
            "Default: 7.",
            section=TRAIN,
        ),
        "execution_id": Param(
            None,
            type=["null", "string"],
            maxLength=200,
            title="Execution",
            description="Name that groups the run's artifacts, at most 200 characters. Empty, the "
            "default: the DAG run's id, or its date as FINAGENT_DAG_EXECUTION_ID says.",
            section=PLATFORM,
        ),
        "platform_execution_id": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Number of the platform's execution",
            description="Row of workflow_executions, to which agent_conversations refers. Empty, "
            "the default: none.",
            section=PLATFORM,
        ),
        "workflow_id": Param(
            None,
            type=["null", "string"],
            maxLength=200,
            title="Workflow",
            description="At most 200 characters. Empty, the default: the DAG's id.",
            section=PLATFORM,
        ),
        "train": Param(
            {},
            type="object",
            title="Training, for programs",
            description="Parameters of the training by name, for callers by REST. They override "
            "the defaults of the fields above; two different values are refused. Default: none.",
            section=PLATFORM,
        ),
    },
):
    parent, indices, branch = open_run(), symbol_indices(), choose_branch()
    with TaskGroup("train_backtest"):
        training = fit(parent)
        backtests = backtest.partial(training=training).expand(symbol_index=indices)
        version = register(training, backtests)
    with TaskGroup("inference"):
        inputs = resolve_inputs()
        outcomes = Decide.partial(
            task_id="decide",
            inputs=inputs,
            parent=parent,
            pool=POOL,
            # Airflow 2 counts the time that a human takes; another Python has its own time-out.
            execution_timeout=None if PYTHON else DECIDE_TIMEOUT,
            map_index_template=SYMBOL,
            **MAPPED,
        ).expand(symbol_index=indices)
    # A teardown runs whatever happened, also after somebody has stopped the DAG run.
    closing = close_run(parent).as_teardown(setups=parent, on_failure_fail_dagrun=True)
    parent >> [branch, indices]
    branch >> [training, inputs]
    version >> inputs
    [version, outcomes] >> closing
