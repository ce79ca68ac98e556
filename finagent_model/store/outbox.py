"""What a platform elsewhere is still to have, kept in our database until it has it.

A row an artifact; it is queued in the transaction that writes the artifact, and tells the artifact
as it is when it is sent. Within one execution they go in the order in which they were queued.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, select

from finagent_model.store.schema import outbox as table

WAITING, SENT, PARKED = "waiting", "sent", "parked"


def enqueue(connection: Connection, numbers: Sequence[int], execution: str, now: datetime) -> None:
    """Queue artifacts, in this order; one that was sent before goes to its place there again."""
    mine = table.c.artifact_id.in_(numbers)
    sent = select(table.c.artifact_id, table.c.remote_id).where(mine)
    known = dict(connection.execute(sent).tuples().all())
    connection.execute(delete(table).where(mine))
    row = {"execution": execution, "state": WAITING, "attempts": 0, "queued_at": now}
    rows = [{**row, "artifact_id": n, "remote_id": known.get(n)} for n in numbers]
    connection.execute(table.insert(), rows)
