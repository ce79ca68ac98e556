"""Which workflow asked for a decision, in the words of the platform and of Airflow."""

from __future__ import annotations

from pydantic import Field

from finagent_model.domain.row import Row


class Execution(Row):
    """All of it is empty where a person asked."""

    execution_id: str | None = None
    """Groups what one run of a workflow made; the platform's `workflow_execution_id`."""
    workflow_id: str | None = None
    dag_id: str | None = None
    dag_run_id: str | None = None
    task_id: str | None = None
    map_index: int | None = Field(None, ge=-1)
    """Airflow's; -1 for a task that is not mapped."""
    parent_run_id: str | None = None
    """The MLflow run that the decision's own is a child of."""


NOBODYS = Execution()
