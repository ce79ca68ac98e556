"""Wait for approvals in Airflow's triggerer, which holds no worker meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from finagent_model.approvals import APPROVALS_FILE, ApprovalStore
from finagent_model.settings import Settings

POLL_S = 2.0
"""Seconds between two reads of the file of approvals."""


class ApprovalTrigger(BaseTrigger):
    """Fires once none of the approvals `keys` in the file `path` is pending.

    Each was approved or rejected, or is past its deadline. The triggerer must see the same file as
    the workers.
    """

    def __init__(self, path: str, keys: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.path, self.keys = path, keys

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that Airflow stores while a task is deferred."""
        # A stored path outlives a deployment: to move this class breaks tasks that are waiting.
        kind = type(self)
        return f"{kind.__module__}.{kind.__qualname__}", {"path": self.path, "keys": self.keys}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event, with `keys`, once nothing is pending."""
        approvals = ApprovalStore(Path(self.path))
        # Another process settles them: there is no event to wait for.
        while await asyncio.to_thread(approvals.pending_ids, self.keys):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        yield TriggerEvent(self.keys)


def approval_trigger(keys: Sequence[str]) -> ApprovalTrigger:
    """Return the trigger that fires once none of the approvals `keys` is pending."""
    return ApprovalTrigger(str(Settings.load().home.absolute() / APPROVALS_FILE), list(keys))
