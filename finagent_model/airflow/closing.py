"""How a DAG run ends: its run in MLflow is closed, and it looks as it went."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from finagent_model.airflow.asked import Context, execution_of, worked
from finagent_model.domain.signal import Status
from finagent_model.settings import Settings, keep_to_ourselves

if TYPE_CHECKING:
    from finagent_model.pipeline.workflow import Decided

log = logging.getLogger(__name__)

REGISTER, DECIDE = "train_backtest.register", "inference.decide"


def note_failure(context: Context) -> None:
    """Airflow's `on_failure_callback`: the workflow's run says which task failed, and why."""
    keep_to_ourselves()
    from finagent_model.pipeline.workflow import note_failure as note

    note(execution_of(context), context.get("exception") or "failed", Settings.load())


@worked
def close(context: Context, parent: str) -> None:
    """End the workflow's run, and fail where the others' success would hide that a task failed, or
    that too many decisions are no decisions.
    """
    from airflow.sdk.exceptions import AirflowFailException

    from finagent_model.pipeline.workflow import close_workflow

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
    close_workflow(parent, decided, wrong)
    if wrong:
        raise AirflowFailException("; ".join(wrong))


def _states(context: Context) -> dict[str, str | None]:
    """Of the run's other tasks, each of a mapped one under its name and index."""
    run, ti = context["dag_run"], context["ti"]
    found = ti.get_task_states(dag_id=run.dag_id, run_ids=[run.run_id])[run.run_id]
    return {name: state for name, state in found.items() if name != ti.task_id}


def _summary(context: Context) -> list[Decided]:
    """A row a symbol, in the order in which they were asked for."""
    from finagent_model.pipeline.workflow import Decided

    symbols = context["params"]["symbols"]
    pulled = context["ti"].xcom_pull(task_ids=[DECIDE])
    rows = {row["symbol"]: Decided.model_validate(row) for row in pulled if row}
    return [rows.get(symbol, Decided(symbol=symbol)) for symbol in symbols]
