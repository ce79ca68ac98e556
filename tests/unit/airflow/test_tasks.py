"""The trigger of a task that waits for approvals."""

from __future__ import annotations

from importlib import import_module

from finagent_model.airflow.tasks import ApprovalTrigger


def test_approval_trigger_serializes_to_its_import_path() -> None:
    path, arguments = ApprovalTrigger("approvals.sqlite", ["a1"]).serialize()
    assert path == "finagent_model.airflow.tasks.ApprovalTrigger"
    module, _, name = path.rpartition(".")
    copy = getattr(import_module(module), name)(**arguments)
    assert copy.serialize() == (path, arguments)
