"""Open, annotate and close the MLflow run that stands for a whole Airflow DAG run.

The first task opens it, trainings and decisions are recorded as its children, and the last task
closes it with a summary. Opening is idempotent: each DAG run has one MLflow run, however often its
tasks are retried or cleared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finagent_model._base import FrozenModel
from finagent_model._redact import make_redactor
from finagent_model.decision.decision import Execution
from finagent_model.market.news import sanitize_text
from finagent_model.pipeline.run_metadata import open_tagged_run
from finagent_model.settings import Settings
from finagent_model.tracking.runs import RunLog, find_runs_by_tag, kill_children

DAG_RUN = "finagent.dag_run"
"""Tag that only a DAG run's MLflow run has; its value is `DAG_ID/RUN_ID`."""
FAILED = "finagent.failed"
"""Prefix of the tags `finagent.failed/TASK` that hold why a task failed last."""
# A task that is cleared and then succeeds keeps its tag: the tag is history, not a state.
MAX_NOTE_CHARS = 500


class SymbolOutcome(FrozenModel):
    """One symbol's line of the summary, as the decision's task passes it to the last task."""

    symbol: str
    status: str | None = None
    """None: the task failed, and there is no signal."""
    action: str | None = None
    run_id: str | None = None
    model_version: str | None = None


def open_dag_run(execution: Execution, params: Mapping[str, Any]) -> str:
    """Return the id of the DAG run's MLflow run, opened with `params` or resumed.

    Raises TrackingError.
    """
    name = _run_name(execution)
    # A retry of the first task must not open a second parent.
    if (earlier := find_dag_run(execution)) is not None:
        earlier.resume()
        return earlier.run_id
    run = open_tagged_run("workflow", f"workflow {name}", {DAG_RUN: name}, execution=execution)
    with run.failed_on_error():
        run.log_json("asked.json", dict(params))
    return run.run_id


def find_dag_run(execution: Execution) -> RunLog | None:
    """Return the DAG run's MLflow run; None before it is opened. Raises TrackingError."""
    return next(iter(find_runs_by_tag(DAG_RUN, _run_name(execution))), None)


def note_failure(execution: Execution, error: object, settings: Settings) -> None:
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
    reason = sanitize_text(make_redactor(settings.secrets)(str(error)), MAX_NOTE_CHARS)
    run.set_tags({f"{FAILED}/{task}": reason or type(error).__name__})


def close_dag_run(run_id: str, outcomes: Sequence[SymbolOutcome], problems: Sequence[str]) -> None:
    """End the run with a summary of `outcomes`: FAILED where there are `problems`, else FINISHED.

    Children that are still running are marked as killed. Raises TrackingError.
    """
    run = RunLog(run_id)
    # This is the last task, so whatever still runs below has lost its process.
    kill_children(run_id)
    with run.failed_on_error():
        if outcomes:
            run.log_json("summary.json", [row.model_dump() for row in outcomes])
            signals = sum(row.status is not None for row in outcomes)
            run.log(metrics={"signals": signals, "without_signal": len(outcomes) - signals})
        # Also without problems: it overwrites those of an earlier end.
        run.set_description("\n\n".join(problems))
    run.end("FAILED" if problems else "FINISHED")


def _run_name(execution: Execution) -> str:
    return f"{execution.dag_id}/{execution.dag_run_id}"
