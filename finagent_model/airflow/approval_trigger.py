"""Waits in Airflow's triggerer, where no worker is occupied, until a human has answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from finagent_model.approvals import ApprovalStore

LOOK_S = 2.0
"""Between two looks at the file."""


class ApprovalTrigger(BaseTrigger):
    """Fires once none of the approvals `keys` in the file `path` is pending: each was approved,
    rejected, or is past its deadline. The triggerer must see the same file as the workers.
    """

    def __init__(self, path: str, keys: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.path, self.keys = path, keys

    def serialize(self) -> tuple[str, dict[str, Any]]:
        kind = type(self)
        return f"{kind.__module__}.{kind.__qualname__}", {"path": self.path, "keys": self.keys}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        approvals = ApprovalStore(Path(self.path))
        # It is settled by another process: there is no event to wait for.
        while await asyncio.to_thread(approvals.pending_ids, self.keys):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        yield TriggerEvent(self.keys)
