"""The work of the DAG's tasks, by Airflow's context. A task passes on ids and small numbers; what
it makes is in MLflow.

What the caller got wrong, or the gate refused, fails a task at once; what may pass is left to
Airflow's retries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finagent_model.airflow.asked import Context, execution_of, symbol_of, worked
from finagent_model.domain.clock import parse_as_of
from finagent_model.errors import BadInputError
from finagent_model.settings import Settings


@worked
def begin(context: Context) -> str:
    """Check what the schema of the parameters can't, and open the workflow's run; gives its id."""
    from finagent_model.pipeline.workflow import open_workflow
    from finagent_model.training.request import TrainRequest

    params = dict(context["params"])
    if unknown := sorted(set(context["dag_run"].conf or {}) - set(context["dag"].params)):
        allowed = ", ".join(context["dag"].params)
        raise BadInputError(f"parameter {unknown[0]!r} is unknown; there is: {allowed}")
    TrainRequest.read(**{**params["train"], "symbols": params["symbols"]})
    return open_workflow(execution_of(context), params)


@worked
def fit(context: Context, parent: str) -> str:
    """Fit the policies; gives the id of the training's run."""
    from finagent_model.pipeline.train import start_training
    from finagent_model.training.request import TrainRequest

    params = context["params"]
    request = TrainRequest.read(**{**params["train"], "symbols": params["symbols"]})
    return start_training(request, Settings.load(), execution=execution_of(context, parent))


@worked
def backtest(context: Context, training: str) -> str:
    """Let the desk decide on what no fit has seen; gives the id of a run of its own."""
    from finagent_model.pipeline.train import backtest_symbol

    asked_by = execution_of(context)
    return backtest_symbol(training, symbol_of(context), Settings.load(), execution=asked_by)


@worked
def register(training: str, children: Sequence[str]) -> dict[str, str]:
    """Package, ask the gate, register; gives the version and its run."""
    from finagent_model.pipeline.finish import finish_training

    made = finish_training(training, list(children), Settings.load())
    return {"name": made.name, "version": made.version, "run_id": made.run_id}


@worked
def questions(context: Context, registered: Mapping[str, str] | None) -> dict[str, str]:
    """As of when the desk is asked, and which version, by its number: an alias that moves while the
    run goes on moves nothing in it.
    """
    from finagent_model.registry import pinned

    run, params = context["dag_run"], context["params"]
    day = params["as_of"] or (run.logical_date or run.run_after).date().isoformat()
    fresh = f"models:/{registered['name']}/{registered['version']}" if registered else None
    return {"as_of": day, "model_uri": fresh or pinned(params["model"])}


@worked
def decide(context: Context, asked: Mapping[str, str], parent: str) -> dict[str, Any]:
    """Decide, and log signal, conversation and chart to a run, whose id is given. Raises
    ApprovalPendingError where a human has yet to answer; and DataSourceError for a source that
    fails, but in the last try: then the signal says so.
    """
    from finagent_model.pipeline.infer import infer
    from finagent_model.pipeline.workflow import Decided

    inferred = infer(
        symbol_of(context),
        parse_as_of(asked["as_of"]),
        Settings.load(),
        asked["model_uri"],
        execution=execution_of(context, parent),
        wait=False,
        vendor_raises=context["ti"].try_number <= context["ti"].max_tries,
    )
    signal = inferred.signal
    return Decided(
        symbol=signal.symbol,
        status=signal.status.value,
        action=signal.action,
        run_id=inferred.run_id,
        model_version=signal.model_version,
    ).model_dump()


def approval_trigger(keys: Sequence[str]) -> Any:
    """What a task that can't go on without these approvals waits by."""
    from finagent_model.airflow.approval_trigger import ApprovalTrigger
    from finagent_model.serving.approvals import APPROVALS

    return ApprovalTrigger(str(Settings.load().home.absolute() / APPROVALS), list(keys))
