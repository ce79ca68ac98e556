"""Do the work of the DAG's tasks, from requests of plain values.

`answer` takes a request that the DAG file made of Airflow's context, and returns a reply of plain
values: a result, what the task waits for, or why it failed. Nothing here imports Airflow, so that a
Python without it can do the work (`task_process`).

A task returns ids and small numbers; what it makes is in MLflow, below one run that stands for the
whole DAG run. The first task opens that run, however often it is retried, and the last one closes
it with a summary. Bad input and a refusal by the gate fail a task at once, and whatever may pass is
left to Airflow's retries.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finagent_model._base import FrozenModel, InputModel, show_value
from finagent_model._secrets import environment_secrets as environment_secrets
from finagent_model._secrets import redact_message
from finagent_model.approvals import APPROVALS_FILE, ApprovalStore
from finagent_model.decision.decision import Execution
from finagent_model.decision.signal import Status
from finagent_model.errors import (
    ApprovalPendingError,
    BadInputError,
    DagRunFailedError,
    FinagentError,
    StoreError,
    is_retryable_error,
)
from finagent_model.market.bars import parse_as_of, parse_symbol
from finagent_model.market.news import sanitize_text
from finagent_model.settings import Settings, configure_mlflow_environment

if TYPE_CHECKING:
    from finagent_model.config.desk_config import DeskConfig
    from finagent_model.tracking.runs import RunLog
    from finagent_model.training.request import TrainRequest

log = logging.getLogger(__name__)
REGISTER = "train_backtest.register"
"""Id of the task whose state `close_run` reads."""
DAG_RUN = "finagent.dag_run"
"""Tag that only a DAG run's MLflow run has; its value is `DAG_ID/RUN_ID`."""
TRAIN_MODE = "train_mode"
"""The DAG's parameter that is a training's `mode`."""
FAILED = "finagent.failed"
"""Prefix of the tags `finagent.failed/TASK` that hold why a task failed last."""
# A task that is cleared and then succeeds keeps its tag: the tag is history, not a state.
MAX_NOTE_CHARS = 500


class TaskContext(InputModel):
    """A task of a DAG run, as the DAG file describes it."""

    dag_id: str
    dag_run_id: str
    run_date: str
    """ISO date of the run's logical date, or else of the moment after which it runs."""
    execution_id: str
    """Name that groups the artifacts of a run that names no execution."""
    task_id: str
    map_index: int | None = None
    """Number of a mapped task's instance from 0; -1 or None for every other task."""
    try_number: int
    """Counts from 1."""
    max_tries: int
    """Retries: the last try is `max_tries + 1`."""
    params: dict[str, Any]

    @property
    def is_last_try(self) -> bool:
        """Whether Airflow will not try the task again."""
        return self.try_number > self.max_tries

    @property
    def symbol(self) -> str:
        """The symbol of a mapped task: its map index counts the run's symbols."""
        return str(self.params["symbols"][self.map_index])


class SymbolOutcome(FrozenModel):
    """One symbol's line of the summary, as the task `decide` passes it to `close_run`."""

    symbol: str
    status: str | None = None
    """None: the task failed, and there is no signal."""
    action: str | None = None
    run_id: str | None = None
    model_version: str | None = None


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Do the work of one task, and return its reply.

    `request` has the name of the `task`, its `context` and further `arguments`. Of the reply see
    `reply_of`; an exception that is none of this package passes through.
    """
    # Before the work imports MLflow, which would report its use to its makers.
    configure_mlflow_environment()

    def work() -> Any:
        task = TASKS.get(request["task"])
        if task is None:
            raise BadInputError(
                f"task {show_value(request['task'])} is unknown; there is: {', '.join(TASKS)}. "
                "The DAG file and this package must be of one version"
            )
        return task(TaskContext.parse(**request["context"]), *request["arguments"])

    return reply_of(work)


def reply_of(work: Callable[[], Any]) -> dict[str, Any]:
    """Return what became of `work` as plain values.

    They are `{"result": ...}`; or `{"waits_for": [ids of approvals], "message": ...}`; or, for an
    error of this package or of MLflow, `{"error": "CLASS: message", "retry": whether the same may
    succeed later}`, without the class where the DAG run itself failed. Other exceptions pass
    through.
    """
    try:
        return {"result": _with_typed_errors(work)}
    except ApprovalPendingError as error:
        return {"waits_for": list(error.approval_ids), "message": str(error)}
    except DagRunFailedError as error:
        return {"error": str(error), "retry": False}
    except FinagentError as error:
        message = f"{type(error).__name__}: {error}"
        return {"error": message, "retry": is_retryable_error(error)}


def _with_typed_errors(work: Callable[[], Any]) -> Any:
    """Return what `work` returns. Raises TrackingError for an error of MLflow or its stores."""
    try:
        return work()
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


def open_run(context: TaskContext, conf_keys: Sequence[str], known: Sequence[str]) -> str:
    """Check the parameters beyond their schema, open the MLflow run, and return its id.

    `conf_keys` are the names that the run was triggered with, `known` those of the DAG.
    """
    params = dict(context.params)
    # Airflow accepts any key in `conf`: a misspelt one would silently mean the default.
    if unknown := sorted(set(conf_keys) - set(known)):
        raise BadInputError(f"parameter {unknown[0]!r} is unknown; there is: {', '.join(known)}")
    _refuse_contradictions(params, conf_keys)
    # Parsed only for its errors: nothing is decided or trained if the request is wrong.
    read_train_request(params)
    return open_dag_run(execution_of(context), params, _day_of(context))


def fit(context: TaskContext, parent: str) -> str:
    """Fit the policies and return the id of the training's run, a child of the run `parent`."""
    from finagent_model.agents.list_prices import settle_models
    from finagent_model.config.desk_config import load_config
    from finagent_model.pipeline.train import start_training

    request, settings = read_train_request(context.params), Settings.load()
    run_id = start_training(request, settings, execution=execution_of(context, parent))
    _log_desk(parent, settle_models(load_config(request.config), settings))
    return run_id


def backtest(context: TaskContext, training: str) -> str:
    """Backtest the task's symbol out of sample and return the id of the backtest's run."""
    from finagent_model.pipeline.train import backtest_symbol

    execution = execution_of(context)
    return backtest_symbol(training, context.symbol, Settings.load(), execution=execution)


def register(context: TaskContext, training: str, children: Sequence[str]) -> dict[str, str]:
    """Package the training, ask the gate, and return name, version and run of what it registered.

    `children` are the ids of the backtests' runs.
    """
    from finagent_model.pipeline.finalize import finish_training

    version = finish_training(training, list(children), Settings.load())
    return {"name": version.name, "version": version.version, "run_id": version.run_id}


def resolve_inputs(context: TaskContext, registered: Mapping[str, str] | None) -> dict[str, str]:
    """Return `as_of` as an ISO date and `model_uri` by version number, for all symbols of the run.

    `registered` is what `register` returned in the same DAG run; None where it did not run.
    """
    from finagent_model.tracking.registry import resolve_version

    params = context.params
    fresh = f"models:/{registered['name']}/{registered['version']}" if registered else None
    # By number: an alias that moves during the run changes nothing in it.
    uri = fresh or resolve_version(params["model"])
    return {"as_of": _day_of(context), "model_uri": uri}


def decide(context: TaskContext, inputs: Mapping[str, str], parent: str) -> dict[str, Any]:
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
        Question(parse_symbol(context.symbol), parse_as_of(inputs["as_of"])),
        inputs["model_uri"],
        execution=execution_of(context, parent),
        # The triggerer waits for the human instead of a worker.
        wait=False,
        vendor_raises=not context.is_last_try,
    )
    signal = result.signal
    return SymbolOutcome(
        symbol=signal.symbol,
        status=signal.status.value,
        action=signal.action,
        run_id=result.run_id,
        model_version=signal.model_version,
    ).model_dump()


def close_run(
    context: TaskContext,
    parent: str,
    states: Mapping[str, str | None],
    results: Sequence[Mapping[str, Any] | None],
) -> None:
    """End the MLflow run `parent` with a summary.

    `states` are those of the run's other tasks, a mapped one as `NAME_INDEX`; `results` is what
    `decide` returned. A decision that reached no table of the database is written once more. Raises
    DagRunFailedError where a task failed, too many decisions are failures, or one reached no table
    and `require_stored` holds; StoreError for the latter before the last try.
    """
    params = context.params
    outcomes = _summarize(context, results) if params["mode"] != "train_backtest" else []
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
        if not context.is_last_try:
            raise StoreError(notes[0])  # the database may be back by the next try
        problems, notes = problems + notes, []
    for note in notes:
        log.warning(note)
    for row in outcomes:
        log.info("%-20s %-18s %-4s %s", row.symbol, row.status, row.action, row.run_id)
    close_dag_run(parent, outcomes, problems, notes)
    if problems:
        raise DagRunFailedError("; ".join(problems))


def read_train_request(params: Mapping[str, Any]) -> TrainRequest:
    """Return the training that a run's parameters ask for. Raises BadInputError."""
    from finagent_model.training.request import TrainRequest

    defaults = {"register_as": Settings.load().model_name}
    named = {**defaults, **_train_fields(params), **params["train"]}
    return TrainRequest.parse(**{**named, "symbols": params["symbols"]})


def _train_fields(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the training's parameters that have a field of their own in the DAG's form."""
    # An empty field means the default.
    return {
        name: params[field]
        for field, name in _names_by_field().items()
        if params.get(field) is not None
    }


def _refuse_contradictions(params: Mapping[str, Any], conf_keys: Sequence[str]) -> None:
    """Raise BadInputError where `train` names what a field or the run's symbols say otherwise."""
    from finagent_model.training.request import TrainRequest

    train = params["train"]
    if "symbols" in train:
        raise BadInputError(
            "train has symbols, which a run has once for all its tasks; write them into the "
            "parameter symbols"
        )
    for field, name in _names_by_field().items():
        if field not in conf_keys or name not in train:
            continue
        # Airflow's form sends every field, changed or not.
        default = TrainRequest.model_fields[name].default
        if params[field] is not None and str(params[field]) not in (str(default), str(train[name])):
            raise BadInputError(
                f"parameter {field!r} is given twice, as {params[field]!r} and in train as "
                f"{train[name]!r}; leave one of them out"
            )


def _names_by_field() -> dict[str, str]:
    """Return the name of a training's parameter by its field in the form."""
    from finagent_model.training.request import TrainRequest

    # Both groups read `symbols`, and `mode` is the DAG's own.
    names = [name for name in TrainRequest.model_fields if name != "symbols"]
    return {TRAIN_MODE if name == "mode" else name: name for name in names}


def note_failure(context: TaskContext, reason: str) -> None:
    """Tag the MLflow run with the task that failed and why: for `on_failure_callback`."""
    tag_failure(execution_of(context), reason, Settings.load())


def has_pending_approval(context: TaskContext, keys: Sequence[str]) -> bool:
    """Return whether one of the approvals `keys` has neither an answer nor a past deadline."""
    approvals = ApprovalStore(Settings.load().home.absolute() / APPROVALS_FILE)
    return bool(approvals.pending_ids(list(keys)))


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


def execution_of(context: TaskContext, parent: str | None = None) -> Execution:
    """Return the execution of a task, below the MLflow run `parent`.

    The platform's names come with the run's parameters; without them Airflow's own stand in.
    """
    params = context.params
    return Execution(
        execution_id=params["execution_id"] or context.execution_id,
        platform_execution_id=params["platform_execution_id"],
        workflow_id=params["workflow_id"] or context.dag_id,
        dag_id=context.dag_id,
        dag_run_id=context.dag_run_id,
        task_id=context.task_id,
        map_index=context.map_index,
        parent_run_id=parent,
    )


def _day_of(context: TaskContext) -> str:
    """Return the day that is asked about, as an ISO date."""
    # The run's date, not today's: a retry or a backfill asks the same question.
    return str(context.params["as_of"] or context.run_date)


def _summarize(
    context: TaskContext, results: Sequence[Mapping[str, Any] | None]
) -> list[SymbolOutcome]:
    """Return one outcome a symbol, in the order of the run's parameters."""
    # A task that failed passed nothing on; its symbol gets an empty outcome.
    rows = {row["symbol"]: SymbolOutcome.model_validate(row) for row in results if row}
    symbols = context.params["symbols"]
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


TASKS: Mapping[str, Callable[..., Any]] = {
    "open_run": open_run,
    "fit": fit,
    "backtest": backtest,
    "register": register,
    "resolve_inputs": resolve_inputs,
    "decide": decide,
    "has_pending_approval": has_pending_approval,
    "close_run": close_run,
    "note_failure": note_failure,
}
"""What a request may name. Each takes a TaskContext, and the request's arguments."""


def __getattr__(name: str) -> Any:
    # Airflow has stored this path for tasks that were deferred before the class moved.
    if name == "ApprovalTrigger":
        from finagent_model.airflow.approval_trigger import ApprovalTrigger

        return ApprovalTrigger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
