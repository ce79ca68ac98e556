"""Who asks, by Airflow's context, and how the work of a task fails.

How a DAG run ends: its run in MLflow is closed, and it looks as it went.

The work of the DAG's tasks, by Airflow's context. A task passes on ids and small numbers; what
it makes is in MLflow.

What the caller got wrong, or the gate refused, fails a task at once; what may pass is left to
Airflow's retries.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from finagent_model.approvals import ApprovalStore
from finagent_model.decision.decision import Execution
from finagent_model.decision.signal import Status
from finagent_model.errors import BadInputError, FinagentError, is_retryable_error
from finagent_model.market.bars import parse_as_of, parse_symbol
from finagent_model.settings import Settings, configure_mlflow_environment

if TYPE_CHECKING:
    from finagent_model.pipeline.dag_run import SymbolOutcome


LOOK_S = 2.0
"""Between two looks at the file."""


class ApprovalTrigger(BaseTrigger):
    """Fires once none of the approvals `keys` in the file `path` is pending: each was approved,
    rejected, or is past its deadline. The triggerer must see the same file as the workers.
    """

    def __init__(self, path: str, keys: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.path, self.keys = path, keys

    def serialize(self) -> tuple[str, dict[str, Any]]:
        kind = type(self)
        return f"{kind.__module__}.{kind.__qualname__}", {"path": self.path, "keys": self.keys}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        approvals = ApprovalStore(Path(self.path))
        # It is settled by another process: there is no event to wait for.
        while await asyncio.to_thread(approvals.pending_ids, self.keys):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        yield TriggerEvent(self.keys)


Context = Mapping[str, Any]
P = ParamSpec("P")
T = TypeVar("T")


def as_airflow_errors(work: Callable[P, T]) -> Callable[P, T]:
    """No task reports to MLflow's makers, and none is tried again in vain."""

    @wraps(work)
    def done(*given: P.args, **named: P.kwargs) -> T:
        from airflow.sdk.exceptions import AirflowFailException

        configure_mlflow_environment()  # before MLflow is imported
        try:
            return work(*given, **named)
        except FinagentError as error:
            if is_retryable_error(error):
                raise
            # Airflow logs what an error came from, with whatever a vendor's or driver's had in it.
            raise AirflowFailException(f"{type(error).__name__}: {error}") from None

    return done


def execution_of(context: Context, parent: str | None = None) -> Execution:
    """Who asks: names of the platform's that came with the run, else Airflow's own."""
    params, run, ti = context["params"], context["dag_run"], context["ti"]
    return Execution(
        execution_id=params["execution_id"] or run.run_id,
        workflow_id=params["workflow_id"] or run.dag_id,
        dag_id=run.dag_id,
        dag_run_id=run.run_id,
        task_id=ti.task_id,
        map_index=ti.map_index,
        parent_run_id=parent,
    )


def symbol_of(context: Context) -> str:
    """Of a mapped task: its index says which of the run's."""
    symbol: str = context["params"]["symbols"][context["ti"].map_index]
    return symbol


log = logging.getLogger(__name__)
REGISTER, DECIDE = "train_backtest.register", "inference.decide"


def note_failure(context: Context) -> None:
    """Airflow's `on_failure_callback`: the workflow's run says which task failed, and why."""
    configure_mlflow_environment()
    from finagent_model.pipeline.dag_run import note_failure as note

    note(execution_of(context), context.get("exception") or "failed", Settings.load())


@as_airflow_errors
def close_run(context: Context, parent: str) -> None:
    """End the workflow's run, and fail where the others' success would hide that a task failed, or
    that too many decisions are no decisions.
    """
    from airflow.sdk.exceptions import AirflowFailException

    from finagent_model.pipeline.dag_run import close_dag_run

    params, states = context["params"], _states(context)
    decided = _summary(context) if params["mode"] != "train_backtest" else []
    failed = sorted(task for task, state in states.items() if state == "failed")
    wrong = [f"failed: {', '.join(failed)}"] if failed else []
    if params["mode"] != "inference" and states.get(REGISTER) != "success":
        wrong.append("no version was registered")
    if missing := [row.symbol for row in decided if row.status is None]:
        wrong.append(f"no signal on {', '.join(missing)}")
    bad = [row for row in decided if row.status and Status(row.status).is_failure]
    if decided and len(bad) / len(decided) > params["max_failed_share"]:
        wrong.append(
            f"{len(bad)} of {len(decided)} decisions failed, more than max_failed_share "
            f"{params['max_failed_share']:g}: "
            + ", ".join(f"{row.symbol} {row.status}" for row in bad)
        )
    for row in decided:
        log.info("%-20s %-18s %-4s %s", row.symbol, row.status, row.action, row.run_id)
    close_dag_run(parent, decided, wrong)
    if wrong:
        raise AirflowFailException("; ".join(wrong))


def _states(context: Context) -> dict[str, str | None]:
    """Of the run's other tasks, each of a mapped one under its name and index."""
    run, ti = context["dag_run"], context["ti"]
    found = ti.get_task_states(dag_id=run.dag_id, run_ids=[run.run_id])[run.run_id]
    return {name: state for name, state in found.items() if name != ti.task_id}


def _summary(context: Context) -> list[SymbolOutcome]:
    """A row a symbol, in the order in which they were asked for."""
    from finagent_model.pipeline.dag_run import SymbolOutcome

    symbols = context["params"]["symbols"]
    pulled = context["ti"].xcom_pull(task_ids=[DECIDE])
    rows = {row["symbol"]: SymbolOutcome.model_validate(row) for row in pulled if row}
    return [rows.get(symbol, SymbolOutcome(symbol=symbol)) for symbol in symbols]


@as_airflow_errors
def open_run(context: Context) -> str:
    """Check what the schema of the parameters can't, and open the workflow's run; gives its id."""
    from finagent_model.pipeline.dag_run import open_dag_run
    from finagent_model.training.request import TrainRequest

    params = dict(context["params"])
    if unknown := sorted(set(context["dag_run"].conf or {}) - set(context["dag"].params)):
        allowed = ", ".join(context["dag"].params)
        raise BadInputError(f"parameter {unknown[0]!r} is unknown; there is: {allowed}")
    TrainRequest.parse(**{**params["train"], "symbols": params["symbols"]})
    return open_dag_run(execution_of(context), params)


@as_airflow_errors
def fit(context: Context, parent: str) -> str:
    """Fit the policies; gives the id of the training's run."""
    from finagent_model.pipeline.train import start_training
    from finagent_model.training.request import TrainRequest

    params = context["params"]
    request = TrainRequest.parse(**{**params["train"], "symbols": params["symbols"]})
    return start_training(request, Settings.load(), execution=execution_of(context, parent))


@as_airflow_errors
def backtest(context: Context, training: str) -> str:
    """Let the desk decide on what no fit has seen; gives the id of a run of its own."""
    from finagent_model.pipeline.train import backtest_symbol

    asked_by = execution_of(context)
    return backtest_symbol(training, symbol_of(context), Settings.load(), execution=asked_by)


@as_airflow_errors
def register(training: str, children: Sequence[str]) -> dict[str, str]:
    """Package, ask the gate, register; gives the version and its run."""
    from finagent_model.pipeline.finalize import finish_training

    made = finish_training(training, list(children), Settings.load())
    return {"name": made.name, "version": made.version, "run_id": made.run_id}


@as_airflow_errors
def resolve_inputs(context: Context, registered: Mapping[str, str] | None) -> dict[str, str]:
    """As of when the desk is asked, and which version, by its number: an alias that moves while the
    run goes on moves nothing in it.
    """
    from finagent_model.tracking.registry import resolve_version

    run, params = context["dag_run"], context["params"]
    day = params["as_of"] or (run.logical_date or run.run_after).date().isoformat()
    fresh = f"models:/{registered['name']}/{registered['version']}" if registered else None
    return {"as_of": day, "model_uri": fresh or resolve_version(params["model"])}


@as_airflow_errors
def decide(context: Context, asked: Mapping[str, str], parent: str) -> dict[str, Any]:
    """Decide, and log signal, conversation and chart to a run, whose id is given. Raises
    ApprovalPendingError where a human has yet to answer; and DataSourceError for a source that
    fails, but in the last try: then the signal says so.
    """
    from finagent_model.model.loading import load_predictor
    from finagent_model.model.predictor import Question
    from finagent_model.pipeline.dag_run import SymbolOutcome
    from finagent_model.pipeline.infer import infer

    inferred = infer(
        load_predictor(asked["model_uri"]),
        Question(parse_symbol(symbol_of(context)), parse_as_of(asked["as_of"])),
        asked["model_uri"],
        execution=execution_of(context, parent),
        wait=False,
        vendor_raises=context["ti"].try_number <= context["ti"].max_tries,
    )
    signal = inferred.signal
    return SymbolOutcome(
        symbol=signal.symbol,
        status=signal.status.value,
        action=signal.action,
        run_id=inferred.run_id,
        model_version=signal.model_version,
    ).model_dump()


def approval_trigger(keys: Sequence[str]) -> Any:
    """What a task that can't go on without these approvals waits by."""
    from finagent_model.approvals import APPROVALS_FILE

    return ApprovalTrigger(str(Settings.load().home.absolute() / APPROVALS_FILE), list(keys))
