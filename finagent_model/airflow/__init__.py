"""The work of the DAG's tasks, and the trigger that waits for approvals.

`dags/finagent_autogen_pipeline.py` wires `tasks.answer` into a DAG, in Airflow's Python or, by
`task_process`, in another one; `ApprovalTrigger` runs in Airflow's triggerer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.airflow.approval_trigger import ApprovalTrigger
    from finagent_model.airflow.tasks import TaskContext, answer
else:
    __getattr__ = lazy_exports(
        __name__,
        {"approval_trigger": ["ApprovalTrigger"], "tasks": ["TaskContext", "answer"]},
    )

__all__ = ["ApprovalTrigger", "TaskContext", "answer"]
