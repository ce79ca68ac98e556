"""The work of the DAG's tasks, and the trigger that waits for approvals.

`dags/finagent_autogen_pipeline.py` wires `airflow.tasks` into a DAG; `ApprovalTrigger` runs in
Airflow's triggerer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.airflow.tasks import ApprovalTrigger, as_airflow_errors
else:
    __getattr__ = lazy_exports(__name__, {"tasks": ["ApprovalTrigger", "as_airflow_errors"]})

__all__ = ["ApprovalTrigger", "as_airflow_errors"]
