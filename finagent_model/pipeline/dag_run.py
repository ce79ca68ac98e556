"""The run in MLflow of a whole workflow: opened by its first task, parent of what the others
record, closed by its last. Whoever asks for the run of the same workflow gets the same one.
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
"""Tag of a workflow's run, and of no other: the DAG and its run, by a slash."""
FAILED = "finagent.failed"
"""Tags of a workflow's run that begin so, a slash and a task: why that task failed last. It may
have succeeded since.
"""
NOTE_LENGTH = 500


class SymbolOutcome(FrozenModel):
    """One line of a workflow's summary; what passes from the task that decided to the last one."""

    symbol: str
    status: str | None = None
    """None: the task failed, and there is no signal."""
    action: str | None = None
    run_id: str | None = None
    model_version: str | None = None


def open_dag_run(execution: Execution, asked: Mapping[str, Any]) -> str:
    """The id of the workflow's run, which holds what was asked. Raises TrackingError."""
    name = _name(execution)
    if (known := find_dag_run(execution)) is not None:
        known.resume()
        return known.run_id
    run = open_tagged_run("workflow", f"workflow {name}", {DAG_RUN: name}, execution=execution)
    with run.failed_on_error():
        run.log_json("asked.json", dict(asked))
    return run.run_id


def find_dag_run(execution: Execution) -> RunLog | None:
    """Raises TrackingError."""
    return next(iter(find_runs_by_tag(DAG_RUN, _name(execution))), None)


def note_failure(execution: Execution, error: object, settings: Settings) -> None:
    """Say on the workflow's run why one of its tasks failed, without keys."""
    run = find_dag_run(execution)
    if run is None:
        return
    index = execution.map_index if execution.map_index is not None else -1
    task = f"{execution.task_id}/{index}" if index >= 0 else execution.task_id
    said = sanitize_text(make_redactor(settings.secrets)(str(error)), NOTE_LENGTH)
    run.set_tags({f"{FAILED}/{task}": said or type(error).__name__})


def close_dag_run(run_id: str, decided: Sequence[SymbolOutcome], wrong: Sequence[str]) -> None:
    """End the run with its summary; FAILED where something went wrong. What still runs below it is
    nobody's any more.
    """
    run = RunLog(run_id)
    kill_children(run_id)
    with run.failed_on_error():
        if decided:
            run.log_json("summary.json", [row.model_dump() for row in decided])
            signals = sum(row.status is not None for row in decided)
            run.log(metrics={"signals": signals, "without_signal": len(decided) - signals})
        run.set_description(
            "\n\n".join(wrong)
        )  # also where none is: an earlier end may have had some
    run.end("FAILED" if wrong else "FINISHED")


def _name(execution: Execution) -> str:
    return f"{execution.dag_id}/{execution.dag_run_id}"
