"""Do the work of the DAG's tasks from Airflow's context, and wait for approvals in its triggerer.

A task returns ids and small numbers; what it makes is in MLflow, below one run that stands for the
whole DAG run. The first task opens that run, however often it is retried, and the last one closes
it with a summary. Bad input and a refusal by the gate fail a task at once, and whatever may pass is
left to Airflow's retries.

The package's heavy modules are imported inside the functions: the triggerer imports this module for
`ApprovalTrigger` alone, and MLflow must not be imported before `configure_mlflow_environment`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from finagent_model._base import FrozenModel
from finagent_model._secrets import environment_secrets, redact_message
from finagent_model.approvals import APPROVALS_FILE, ApprovalStore
from finagent_model.decision.decision import Execution
from finagent_model.decision.signal import Status
from finagent_model.errors import BadInputError, FinagentError, StoreError, is_retryable_error
from finagent_model.market.bars import parse_as_of, parse_symbol
from finagent_model.market.news import sanitize_text
from finagent_model.settings import Settings, configure_mlflow_environment

if TYPE_CHECKING:
    from finagent_model.config.desk_config import DeskConfig
    from finagent_model.tracking.runs import RunLog

log = logging.getLogger(__name__)
Context = Mapping[str, Any]
"""Airflow's context of a task instance, or of a callback."""
P = ParamSpec("P")
T = TypeVar("T")
REGISTER, DECIDE = "train_backtest.register", "inference.decide"
"""Ids of the tasks whose state or results `close_run` reads."""
DAG_RUN = "finagent.dag_run"
"""Tag that only a DAG run's MLflow run has; its value is `DAG_ID/RUN_ID`."""
FAILED = "finagent.failed"
"""Prefix of the tags `finagent.failed/TASK` that hold why a task failed last."""
# A task that is cleared and then succeeds keeps its tag: the tag is history, not a state.
MAX_NOTE_CHARS = 500
POLL_S = 2.0
"""Seconds between two reads of the file of approvals."""


class SymbolOutcome(FrozenModel):
    """One symbol's line of the summary, as the task `decide` passes it to `close_run`."""

    symbol: str
    status: str | None = None
    """None: the task failed, and there is no signal."""
    action: str | None = None
    run_id: str | None = None
    model_version: str | None = None


def as_airflow_errors(work: Callable[P, T]) -> Callable[P, T]:
    """Wrap a task's work so that an error which no retry can cure fails the task at once.

    Secrets of the environment are masked in the task's log.
    """

    @wraps(work)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        from airflow.sdk.exceptions import AirflowFailException
        from airflow.sdk.log import mask_secret

        # Airflow knows the secrets of its own configuration alone.
        for secret in environment_secrets():
            mask_secret(secret)
        # Before the work imports MLflow, which would report its use to its makers.
        configure_mlflow_environment()
        try:
            return _with_typed_errors(work, *args, **kwargs)
        except FinagentError as error:
            if is_retryable_error(error):
                raise
            # `from None`: Airflow logs the cause too, with whatever a vendor or driver put in it.
            raise AirflowFailException(f"{type(error).__name__}: {error}") from None

    return wrapped


def _with_typed_errors(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `work` returns. Raises TrackingError for an error of MLflow or its stores."""
    try:
        return work(*args, **kwargs)
    except FinagentError:
        raise
    except Exception as error:
        # Nobody has imported it (it takes seconds), so that the error is not MLflow's.
        if "mlflow" not in sys.modules:
            raise
        from finagent_model.tracking.runs import as_tracking_error

        if tracking_error := as_tracking_error(error):
            raise tracking_error from None
        raise


@as_airflow_errors
def open_run(context: Context) -> str:
    """Check the parameters beyond their schema, open the MLflow run, and return its id."""
    from finagent_model.training.request import TrainRequest

    params = dict(context["params"])
    # Airflow accepts any key in `conf`: a misspelt one would silently mean the default.
    if unknown := sorted(set(context["dag_run"].conf or {}) - set(context["dag"].params)):
        allowed = ", ".join(context["dag"].params)
        raise BadInputError(f"parameter {unknown[0]!r} is unknown; there is: {allowed}")
    # Parsed only for its errors: nothing is decided or trained if the request is wrong.
    TrainRequest.parse(**{**params["train"], "symbols": params["symbols"]})
    return open_dag_run(execution_of(context), params, _day_of(context))


@as_airflow_errors
def fit(context: Context, parent: str) -> str:
    """Fit the policies and return the id of the training's run, a child of the run `parent`."""
    from finagent_model.config.desk_config import load_config
    from finagent_model.pipeline.train import start_training
    from finagent_model.training.request import TrainRequest

    params = context["params"]
    request = TrainRequest.parse(**{**params["train"], "symbols": params["symbols"]})
    run_id = start_training(request, Settings.load(), execution=execution_of(context, parent))
    _log_desk(parent, load_config(request.config))
    return run_id


@as_airflow_errors
def backtest(context: Context, training: str) -> str:
    """Backtest the task's symbol out of sample and return the id of the backtest's run."""
    from finagent_model.pipeline.train import backtest_symbol

    execution = execution_of(context)
    return backtest_symbol(training, symbol_of(context), Settings.load(), execution=execution)


@as_airflow_errors
def register(training: str, children: Sequence[str]) -> dict[str, str]:
    """Package the training, ask the gate, and return name, version and run of what it registered.

    `children` are the ids of the backtests' runs.
    """
    from finagent_model.pipeline.finalize import finish_training

    version = finish_training(training, list(children), Settings.load())
    return {"name": version.name, "version": version.version, "run_id": version.run_id}


@as_airflow_errors
def resolve_inputs(context: Context, registered: Mapping[str, str] | None) -> dict[str, str]:
    """Return `as_of` as an ISO date and `model_uri` by version number, for all symbols of the run.

    `registered` is what `register` returned in the same DAG run; None where it did not run.
    """
    from finagent_model.tracking.registry import resolve_version

    fresh = f"models:/{registered['name']}/{registered['version']}" if registered else None
    # By number: an alias that moves during the run changes nothing in it.
    uri = fresh or resolve_version(context["params"]["model"])
    return {"as_of": _day_of(context), "model_uri": uri}


@as_airflow_errors
def decide(context: Context, inputs: Mapping[str, str], parent: str) -> dict[str, Any]:
    """Decide on the task's symbol, record the decision, and return a `SymbolOutcome` as JSON.

    Raises ApprovalPendingError where a human has yet to approve, and DataSourceError for a source
    that fails, except in the last try: then the signal's status says so.
    """
    from finagent_model.model.loading import load_predictor
    from finagent_model.model.questions import Question
    from finagent_model.pipeline.infer import infer

    predictor = load_predictor(inputs["model_uri"])
    _log_desk(parent, predictor.config, inputs["model_uri"])
    result = infer(
        predictor,
        Question(parse_symbol(symbol_of(context)), parse_as_of(inputs["as_of"])),
        inputs["model_uri"],
        execution=execution_of(context, parent),
        # The triggerer waits for the human instead of a worker.
        wait=False,
        # Airflow counts tries from 1, and the last one is `max_tries + 1`.
        vendor_raises=context["ti"].try_number <= context["ti"].max_tries,
    )
    signal = result.signal
    return SymbolOutcome(
        symbol=signal.symbol,
        status=signal.status.value,
        action=signal.action,
        run_id=result.run_id,
        model_version=signal.model_version,
    ).model_dump()


@as_airflow_errors
def close_run(context: Context, parent: str) -> None:
    """End the MLflow run `parent` with a summary.

    A decision that reached no table of the database is written once more. Raises
    AirflowFailException where a task failed, too many decisions are failures, or one reached no
    table and `require_stored` holds; StoreError for the latter before the last try.
    """
    from airflow.sdk.exceptions import AirflowFailException

    params, states = context["params"], _task_states(context)
    outcomes = _summarize(context) if params["mode"] != "train_backtest" else []
    # A teardown that succeeds would make the DAG run green whatever failed before it.
    failed = sorted(task for task, state in states.items() if state == "failed")
    problems = [f"failed: {', '.join(failed)}"] if failed else []
    if params["mode"] != "inference" and states.get(REGISTER) != "success":
        problems.append("no version was registered")
    if missing := [row.symbol for row in outcomes if row.status is None]:
        problems.append(f"no signal on {', '.join(missing)}")
    failures = [row for row in outcomes if row.status and Status(row.status).is_failure]
    if outcomes and len(failures) / len(outcomes) > params["max_failed_share"]:
        problems.append(
            f"{len(failures)} of {len(outcomes)} decisions failed, more than max_failed_share "
            f"{params['max_failed_share']:g}: "
            + ", ".join(f"{row.symbol} {row.status}" for row in failures)
        )
    notes = _describe_unstored(outcomes)
    if notes and params["require_stored"]:
        if context["ti"].try_number <= context["ti"].max_tries:
            raise StoreError(notes[0])  # the database may be back by the next try
        problems, notes = problems + notes, []
    for note in notes:
        log.warning(note)
    for row in outcomes:
        log.info("%-20s %-18s %-4s %s", row.symbol, row.status, row.action, row.run_id)
    close_dag_run(parent, outcomes, problems, notes)
    if problems:
        raise AirflowFailException("; ".join(problems))


def note_failure(context: Context) -> None:
    """Tag the MLflow run with the task that failed and why: Airflow's `on_failure_callback`."""
    # Before MLflow is imported: a callback does not pass through `as_airflow_errors`.
    configure_mlflow_environment()
    tag_failure(execution_of(context), context.get("exception") or "failed", Settings.load())


def open_dag_run(execution: Execution, params: Mapping[str, Any], day: str | None = None) -> str:
    """Return the id of the DAG run's MLflow run, opened with `params` or resumed.

    `day` is the day that is asked about. Raises TrackingError.
    """
    from finagent_model.pipeline.run_metadata import open_tagged_run

    name = _run_name(execution)
    # A retry of the first task must not open a second parent.
    if (earlier := find_dag_run(execution)) is not None:
        earlier.resume()
        return earlier.run_id
    run = open_tagged_run("workflow", f"workflow {name}", {DAG_RUN: name}, execution=execution)
    with run.failed_on_error():
        run.log_json("asked.json", dict(params))
        symbols = ",".join(params.get("symbols", ()))
        asked = {"mode": params.get("mode"), "symbols": symbols, "as_of": day}
        run.log(params={name: value for name, value in asked.items() if value})
    return run.run_id


def _log_desk(run_id: str, config: DeskConfig, model_uri: str | None = None) -> None:
    """Log who decides as params of the DAG run's MLflow run, once it is known."""
    from finagent_model.pipeline.run_metadata import desk_params
    from finagent_model.tracking.runs import RunLog

    # Every symbol's task says the same, and so does a retry.
    uri = {"model_uri": model_uri} if model_uri else {}
    RunLog(run_id).log_missing_params({**desk_params(config), **uri})


def find_dag_run(execution: Execution) -> RunLog | None:
    """Return the DAG run's MLflow run; None before it is opened. Raises TrackingError."""
    from finagent_model.tracking.runs import find_runs_by_tag

    return next(iter(find_runs_by_tag(DAG_RUN, _run_name(execution))), None)


def tag_failure(execution: Execution, error: object, settings: Settings) -> None:
    """Tag the DAG run's MLflow run with why a task failed, keys redacted; do nothing without one.

    Raises TrackingError.
    """
    run = find_dag_run(execution)
    if run is None:
        return
    # Airflow numbers the instances of a mapped task from 0, and gives -1 to every other task.
    index = execution.map_index if execution.map_index is not None else -1
    task = f"{execution.task_id}/{index}" if index >= 0 else execution.task_id
    # Redact before cutting: half a key would no longer be recognised as one.
    reason = sanitize_text(redact_message(str(error), settings.secrets), MAX_NOTE_CHARS)
    run.set_tags({f"{FAILED}/{task}": reason or type(error).__name__})


def close_dag_run(
    run_id: str,
    outcomes: Sequence[SymbolOutcome],
    problems: Sequence[str],
    notes: Sequence[str] = (),
) -> None:
    """End the run with a summary of `outcomes`: FAILED where there are `problems`, else FINISHED.

    Its description has the problems, and the `notes`, which are no failure of the run. Children
    that are still running are marked as killed. Raises TrackingError.
    """
    from finagent_model.tracking.runs import RunLog, kill_children

    run = RunLog(run_id)
    # This is the last task, so whatever still runs below has lost its process.
    kill_children(run_id)
    with run.failed_on_error():
        if outcomes:
            run.log_json("summary.json", [row.model_dump() for row in outcomes])
            signals = sum(row.status is not None for row in outcomes)
            run.log(metrics={"signals": signals, "without_signal": len(outcomes) - signals})
        # Also without problems: it overwrites those of an earlier end.
        run.set_description("\n\n".join([*problems, *notes]))
    run.end("FAILED" if problems else "FINISHED")


def execution_of(context: Context, parent: str | None = None) -> Execution:
    """Return the execution of a task, below the MLflow run `parent`.

    The platform's names come with the run's parameters; without them Airflow's own stand in.
    """
    params, run, ti = context["params"], context["dag_run"], context["ti"]
    return Execution(
        execution_id=params["execution_id"] or run.run_id,
        platform_execution_id=params["platform_execution_id"],
        workflow_id=params["workflow_id"] or run.dag_id,
        dag_id=run.dag_id,
        dag_run_id=run.run_id,
        task_id=ti.task_id,
        map_index=ti.map_index,
        parent_run_id=parent,
    )


def _day_of(context: Context) -> str:
    """Return the day that is asked about, as an ISO date."""
    run, asked = context["dag_run"], context["params"]["as_of"]
    # The run's date, not today's: a retry or a backfill asks the same question.
    return str(asked or (run.logical_date or run.run_after).date().isoformat())


def symbol_of(context: Context) -> str:
    """Return the symbol of a mapped task: its map index counts the run's symbols from 0."""
    symbol: str = context["params"]["symbols"][context["ti"].map_index]
    return symbol


class ApprovalTrigger(BaseTrigger):
    """Fires once none of the approvals `keys` in the file `path` is pending.

    Each was approved or rejected, or is past its deadline. The triggerer must see the same file as
    the workers.
    """

    def __init__(self, path: str, keys: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.path, self.keys = path, keys

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that Airflow stores while a task is deferred."""
        # A stored path outlives a deployment: to move this class breaks tasks that are waiting.
        kind = type(self)
        return f"{kind.__module__}.{kind.__qualname__}", {"path": self.path, "keys": self.keys}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event, with `keys`, once nothing is pending."""
        approvals = ApprovalStore(Path(self.path))
        # Another process settles them: there is no event to wait for.
        while await asyncio.to_thread(approvals.pending_ids, self.keys):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        yield TriggerEvent(self.keys)


def approval_trigger(keys: Sequence[str]) -> ApprovalTrigger:
    """Return the trigger that fires once none of the approvals `keys` is pending."""
    return ApprovalTrigger(str(Settings.load().home.absolute() / APPROVALS_FILE), list(keys))


def _task_states(context: Context) -> dict[str, str | None]:
    """Return the states of the run's other tasks; a mapped one is under `NAME_INDEX`."""
    run, ti = context["dag_run"], context["ti"]
    states = ti.get_task_states(dag_id=run.dag_id, run_ids=[run.run_id])[run.run_id]
    return {name: state for name, state in states.items() if name != ti.task_id}


def _summarize(context: Context) -> list[SymbolOutcome]:
    """Return one outcome a symbol, in the order of the run's parameters."""
    symbols = context["params"]["symbols"]
    results = context["ti"].xcom_pull(task_ids=[DECIDE])
    # A task that failed passed nothing on; its symbol gets an empty outcome.
    rows = {row["symbol"]: SymbolOutcome.model_validate(row) for row in results if row}
    return [rows.get(symbol, SymbolOutcome(symbol=symbol)) for symbol in symbols]


def _describe_unstored(outcomes: Sequence[SymbolOutcome]) -> list[str]:
    """Return a sentence on the decisions that still reach no table; none where all of them do."""
    from finagent_model.pipeline.final_decisions import find_unstored_runs
    from finagent_model.pipeline.record import sync_decisions

    run_ids = {row.run_id for row in outcomes if row.run_id}
    if not run_ids & find_unstored_runs():
        return []
    try:
        sync_decisions(Settings.load(), run_ids)
    except StoreError as error:
        log.warning("%s", error)
    unstored = find_unstored_runs()
    rows = [row for row in outcomes if row.run_id in unstored]
    if not rows:
        return []
    return [
        f"require_stored: {len(rows)} of {len(outcomes)} decisions reached no table of the "
        "database, `finagent db sync` writes them: "
        + ", ".join(f"{row.symbol} in run {row.run_id}" for row in rows)
    ]


def _run_name(execution: Execution) -> str:
    return f"{execution.dag_id}/{execution.dag_run_id}"
