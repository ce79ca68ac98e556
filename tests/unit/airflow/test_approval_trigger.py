"""The trigger of a task that waits for approvals."""

from __future__ import annotations

from importlib import import_module

from finagent_model.airflow import tasks
from finagent_model.airflow.approval_trigger import ApprovalTrigger


def test_approval_trigger_serializes_to_its_import_path() -> None:
    path, arguments = ApprovalTrigger("approvals.sqlite", ["a1"]).serialize()
    assert path == "finagent_model.airflow.approval_trigger.ApprovalTrigger"
    module, _, name = path.rpartition(".")
    copy = getattr(import_module(module), name)(**arguments)
    assert copy.serialize() == (path, arguments)


def test_approval_trigger_is_found_by_its_earlier_path() -> None:
    assert tasks.ApprovalTrigger is ApprovalTrigger
