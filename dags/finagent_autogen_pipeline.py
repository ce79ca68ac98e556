"""Train and register the desk, or infer with a registered version, or both, as an Airflow DAG.

Modes, by `dag_run.conf`: `inference` (default), `train_backtest`, `both`, which infers with the
version that it has just registered. A symbol is a mapped task, so that Airflow's executor spreads
the work. Ids and small numbers pass between tasks; everything else is in MLflow, below one run for
the whole DAG run. `as_of` comes from the run, never from the clock: a retry asks the same question.

This file is wiring; what tasks do is in `finagent_model/airflow`. Its environment variables say how
it is wired into this Airflow and are read when it is parsed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

# Only Airflow here: the scheduler parses this file every few seconds, and the package takes longer
# to import than that. Each task imports what it needs.
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
from airflow.sdk.exceptions import AirflowSkipException

T = TypeVar("T")


def read_variable(name: str, parse: Callable[[str], T], default: T) -> T:
    """Return an environment variable, parsed; `default` where it is empty or not set."""
    text = os.environ.get(name, "")
    try:
        return parse(text) if text else default
    except ValueError:
        raise ValueError(f"{name}={text!r} can't be used; the default is {default!r}") from None


def parse_seconds(text: str) -> timedelta:
    """Return the duration of a number of seconds. Raises ValueError."""
    return timedelta(seconds=float(text))


SCHEDULE = read_variable("FINAGENT_DAG_SCHEDULE", str, None)
POOL = read_variable("FINAGENT_DAG_POOL", str, "default_pool")
MAX_CONCURRENCY = read_variable("FINAGENT_DAG_AT_ONCE", int, None)
MAX_CONCURRENCY_PER_RUN = read_variable("FINAGENT_DAG_AT_ONCE_A_RUN", int, None)
RETRIES = read_variable("FINAGENT_DAG_RETRIES", int, 2)
RETRY_DELAY = read_variable("FINAGENT_DAG_RETRY_DELAY_S", parse_seconds, timedelta(seconds=30))
TRAIN_TIMEOUT = read_variable("FINAGENT_DAG_TRAIN_WITHIN_S", parse_seconds, timedelta(hours=6))
DECIDE_TIMEOUT = read_variable("FINAGENT_DAG_DECIDE_WITHIN_S", parse_seconds, timedelta(minutes=15))

MODES = ("inference", "train_backtest", "both")
TICKER = {
    "type": "string",
    "pattern": r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]{0,18}[^\s\x00-\x1f\x7f])?$",
    "description": "A symbol as its source lists it, such as GOOG; at most 20 characters.",
}
MAX_SYMBOLS = 600
"""The most symbols whose list of map indices fits the 2 KiB that may pass between tasks."""
MODELS = AssetAlias("finagent-models")
REGISTER = "train_backtest.register"
TRAINING = {"pool": POOL, "execution_timeout": TRAIN_TIMEOUT}
MAPPED = {
    "max_active_tis_per_dag": MAX_CONCURRENCY,
    "max_active_tis_per_dagrun": MAX_CONCURRENCY_PER_RUN,
}
SYMBOL = "{{ params.symbols[ti.map_index] }}"
"""Name of a mapped task's instance in Airflow's UI."""


def note_failure(context: Any) -> None:
    """Tag the MLflow run with why a task failed; Airflow calls this after the last retry."""
    from finagent_model.airflow import tasks

    tasks.note_failure(context)


@task
def open_run() -> str:
    """Check the run's parameters, open its MLflow run, and return that run's id."""
    from finagent_model.airflow import tasks

    return tasks.open_run(get_current_context())


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
    from finagent_model.airflow import tasks

    return tasks.fit(get_current_context(), parent)


# `symbol_index` is not read: it is what Airflow maps over.
@task(**TRAINING, **MAPPED, map_index_template=SYMBOL)
def backtest(training: str, symbol_index: int) -> str:
    """Backtest the desk on one symbol and return the id of the backtest's MLflow run."""
    from finagent_model.airflow import tasks

    return tasks.backtest(get_current_context(), training)


@task(**TRAINING, outlets=[MODELS], multiple_outputs=False)
def register(training: str, children: Any) -> dict[str, str]:
    """Register a version, update the asset of its model, and return name, version and run."""
    from finagent_model.airflow import tasks

    version = tasks.register(training, children)
    # The model's name is known only now, so the asset is added through its alias.
    asset = Asset(f"finagent-model://{version['name']}")
    get_current_context()["outlet_events"][MODELS].add(asset, extra=dict(version))
    return version


# The training's branch may be skipped, but a failed registration must not lead to inference.
@task(trigger_rule="none_failed_min_one_success", multiple_outputs=False)
def resolve_inputs() -> dict[str, str]:
    """Return `as_of` and the version's URI, which all symbols of the run share."""
    from finagent_model.airflow import tasks

    context = get_current_context()
    if context["params"]["mode"] == "train_backtest":
        raise AirflowSkipException("nothing is to be inferred")
    return tasks.resolve_inputs(context, context["ti"].xcom_pull(task_ids=REGISTER))


class Decide(BaseOperator):
    """Decide on one symbol; deferred while a human is asked to approve, so no worker is held."""

    template_fields = ("inputs", "parent")

    def __init__(self, *, inputs: Any, parent: Any, symbol_index: int, **options: Any) -> None:
        super().__init__(**options)
        self.inputs, self.parent, self.symbol_index = inputs, parent, symbol_index

    def execute(self, context: Any) -> dict[str, Any]:
        """Return the decision's outcome, or defer until its approvals are settled."""
        from finagent_model.airflow import tasks
        from finagent_model.errors import ApprovalPendingError

        try:
            return tasks.decide(context, self.inputs, self.parent)
        except ApprovalPendingError as error:
            self.log.info("%s", error)
            self.defer(trigger=tasks.approval_trigger(error.approval_ids), method_name="resume")

    def resume(self, context: Any, event: Any) -> dict[str, Any]:
        """Return the outcome after a human has answered, or the deadline has passed."""
        # The replies are recorded, so this decides nothing anew.
        return self.execute(context)


@task
def close_run(parent: str) -> None:
    """End the MLflow run; raises where the DAG run must not look green."""
    from finagent_model.airflow import tasks

    tasks.close_run(get_current_context(), parent)


with DAG(
    "finagent_autogen_pipeline",
    schedule=SCHEDULE,
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
        "mode": Param("inference", enum=list(MODES)),
        "symbols": Param(
            ["GOOG"],
            type="array",
            items=TICKER,
            minItems=1,
            maxItems=MAX_SYMBOLS,
            uniqueItems=True,
        ),
        "as_of": Param(
            None,
            type=["null", "string"],
            format="date",
            pattern=r"^\d{4}-\d\d-\d\d$",
            examples=["2012-06-29"],  # unlike a description, an error shows it
            description="A day, after its close; empty: the run's own date.",
        ),
        "model": Param("models:/finagent@champion", type="string"),
        "train": Param({}, type="object", description="Parameters of the training, by name."),
        "max_failed_share": Param(
            0.2,
            type="number",
            minimum=0,
            maximum=1,
            description="Of a run's decisions whose status is a failure; beyond it, the run fails.",
        ),
        "require_stored": Param(
            True,
            type="boolean",
            description="Whether a decision that reached no table of FINAGENT_DATABASE fails the "
            "run; else the run's description in MLflow says it.",
        ),
        "execution_id": Param(
            None,
            type=["null", "string"],
            maxLength=200,
            description="What groups the run's artifacts; empty: the DAG run's id.",
        ),
        "platform_execution_id": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            description="Number of the platform's row of workflow_executions, to which "
            "agent_conversations refers.",
        ),
        "workflow_id": Param(None, type=["null", "string"], maxLength=200),
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
            execution_timeout=DECIDE_TIMEOUT,
            map_index_template=SYMBOL,
            **MAPPED,
        ).expand(symbol_index=indices)
    # A teardown runs whatever happened, also after somebody has stopped the DAG run.
    closing = close_run(parent).as_teardown(setups=parent, on_failure_fail_dagrun=True)
    parent >> [branch, indices]
    branch >> [training, inputs]
    version >> inputs
    [version, outcomes] >> closing
