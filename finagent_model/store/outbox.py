"""What a platform elsewhere is still to have, kept in our database until it has it.

A row an artifact; it is queued in the transaction that writes the artifact, and tells the artifact
as it is when it is sent. Within one execution they go in the order in which they were queued, by
one sender at a time. A row that the platform refuses is parked with the reason, and the next ones
go on; while it is down nothing is parked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, select

from finagent_model.domain.artifact import Artifact
from finagent_model.errors import PlatformDownError, PlatformRefusedError
from finagent_model.store.artifacts import artifact_of, utc_now
from finagent_model.store.database import Database
from finagent_model.store.platform import PlatformClient
from finagent_model.store.schema import outbox as table

WAITING, SENT, PARKED = "waiting", "sent", "parked"
LEASE = timedelta(seconds=120)
"""How long the rows of an execution are kept for a sender that no longer says anything. Each row
that it goes on to renews it; one row takes less.
"""
ROW_S = 30.0
ATTEMPTS = 5
"""Rounds after which a row over which the platform stumbles (HTTP 500) no longer holds up its
execution. If it takes others then, the row is the cause, and parked: the platform has no better
word for one that it can't read.
"""
STUMBLES = 3
"""Rows over which it stumbles, taking none, before it is left alone for this round."""


@dataclass(frozen=True)
class Sent:
    """What one round came to."""

    sent: int = 0
    parked: int = 0
    waiting: int = 0
    """Still to be sent."""
    why: str | None = None
    """What the platform said last to one that still waits."""

    def row(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Due:
    """A row of the outbox."""

    id: int
    artifact_id: int
    attempts: int
    remote_id: str | None


def enqueue(connection: Connection, numbers: Sequence[int], execution: str, now: datetime) -> None:
    """Queue artifacts, in this order; one that was sent before goes to its place there again."""
    mine = table.c.artifact_id.in_(numbers)
    columns = (table.c.artifact_id, table.c.remote_id, table.c.attempts)
    # A sender may be about to write down that it tries one of them.
    there = select(*columns).where(mine).with_for_update()
    known = {n: rest for n, *rest in connection.execute(there)}
    connection.execute(delete(table).where(mine))
    rows = []
    for number in numbers:
        remote_id, attempts = known.get(number, (None, 0))
        rows.append(
            {
                "artifact_id": number,
                "execution": execution,
                "state": WAITING,
                "attempts": attempts,
                "remote_id": remote_id,
                "queued_at": now,
            }
        )
    connection.execute(table.insert(), rows)


class Outbox:
    """Every method raises StoreError where the database can't be used."""

    def __init__(self, database: Database, clock: Callable[[], datetime] = utc_now) -> None:
        self._database, self._clock = database, clock

    def status(self) -> dict[str, Any]:
        """How many are in which state, since when and why the oldest waits, what is parked why."""
        by_state = select(table.c.state, func.count()).group_by(table.c.state)
        oldest = select(table.c.queued_at, table.c.reason).where(table.c.state == WAITING)
        columns = ("artifact_id", "execution", "attempts", "reason", "tried_at")
        parked = select(*(table.c[name] for name in columns)).where(table.c.state == PARKED)
        with self._database.reading() as connection:
            counts: dict[str, int] = {state: n for state, n in connection.execute(by_state)}
            first = connection.execute(oldest.order_by(table.c.id).limit(1)).one_or_none()
            rows = connection.execute(parked.order_by(table.c.id)).mappings().all()
        return {
            **{state: counts.get(state, 0) for state in (WAITING, SENT, PARKED)},
            "oldest_waiting": first.queued_at.isoformat() if first else None,
            "why": first.reason if first else None,
            "parked_rows": [
                dict(row) | {"tried_at": row["tried_at"].isoformat() if row["tried_at"] else None}
                for row in rows
            ],
        }

    def unpark(self) -> int:
        """Let what was parked be sent again, once whatever was wrong is mended; how many."""
        again = {"state": WAITING, "attempts": 1, "reason": None}  # it may have arrived
        with self._database.writing() as connection:
            parked = table.update().where(table.c.state == PARKED)
            return connection.execute(parked.values(**again)).rowcount

    def send(self, client: PlatformClient, within_s: float = float("inf")) -> Sent:
        """What waits, until all of it is there, the platform is down, or time is over."""
        until = time.monotonic() + within_s
        sent, parked = 0, 0
        stumbled: list[Due] = []
        why: str | None = None
        for execution in self._executions():
            due = self._claim(execution)
            try:
                for row in due:
                    left = until - time.monotonic()
                    if left <= 0 or (len(stumbled) >= STUMBLES and not sent):
                        break
                    state, why = self._send(client, row, execution, min(left, ROW_S))
                    sent, parked = sent + (state == SENT), parked + (state == PARKED)
                    if state == WAITING:
                        stumbled.append(row)
                        if row.attempts + 1 < ATTEMPTS:
                            break  # the next ones of this execution wait for it
            except PlatformDownError as error:
                why = str(error)
                break
            finally:
                if due:
                    self._release(execution)
        if sent:
            parked += self._park([row.id for row in stumbled if row.attempts + 1 >= ATTEMPTS])
        waiting = self._waiting()
        return Sent(sent, parked, waiting, why if waiting else None)

    def _send(
        self, client: PlatformClient, due: Due, execution: str, within_s: float
    ) -> tuple[str, str | None]:
        """The row's new state, and why; it waits where the platform stumbled (HTTP 500). Raises
        PlatformDownError, where all others would fail as well.
        """
        artifact = self._begin(due, execution)
        state, reason, remote_id, down = SENT, None, due.remote_id, None
        try:
            remote_id = client.put(
                artifact, due.remote_id, sent_before=due.attempts > 0, within_s=within_s
            )
        except PlatformRefusedError as error:
            state, reason = PARKED, str(error)
        except PlatformDownError as error:
            state, reason = WAITING, str(error)
            down = None if error.status == 500 else error
        said = {"state": state, "reason": reason, "remote_id": remote_id, "leased_until": None}
        with self._database.writing() as connection:
            connection.execute(table.update().where(table.c.id == due.id).values(**said))
        if down:
            raise down
        return state, reason

    def _park(self, ids: Sequence[int]) -> int:
        with self._database.writing() as connection:
            mine = table.update().where(table.c.id.in_(ids))
            return connection.execute(mine.values(state=PARKED)).rowcount

    def _executions(self) -> list[str]:
        """Those with something to send, who waits longest first."""
        query = (
            select(table.c.execution)
            .where(table.c.state == WAITING)
            .group_by(table.c.execution)
            .order_by(func.min(table.c.id))
        )
        with self._database.reading() as connection:
            return list(connection.execute(query).scalars())

    def _claim(self, execution: str) -> list[Due]:
        """What waits of it, in order, for us alone; nothing where another sender has it."""
        mine = (table.c.execution == execution) & (table.c.state == WAITING)
        columns = (table.c.id, table.c.artifact_id, table.c.attempts, table.c.remote_id)
        query = select(*columns, table.c.leased_until).where(mine).order_by(table.c.id)
        now = self._clock()
        with self._database.writing() as connection:
            rows = connection.execute(query.with_for_update()).all()
            if any(leased and leased > now for *_, leased in rows):
                return []
            connection.execute(table.update().where(mine).values(leased_until=now + LEASE))
        return [Due(*row[:-1]) for row in rows]

    def _begin(self, due: Due, execution: str) -> Artifact:
        """Write down that it may arrive, before it can; the artifact as it is now."""
        mine = (table.c.execution == execution) & (table.c.state == WAITING)
        now = self._clock()
        with self._database.writing() as connection:
            connection.execute(table.update().where(mine).values(leased_until=now + LEASE))
            tried = {"attempts": due.attempts + 1, "tried_at": now}
            connection.execute(table.update().where(table.c.id == due.id).values(**tried))
            return artifact_of(connection, due.artifact_id)

    def _release(self, execution: str) -> None:
        mine = (table.c.execution == execution) & (table.c.state == WAITING)
        with self._database.writing() as connection:
            connection.execute(table.update().where(mine).values(leased_until=None))

    def _waiting(self) -> int:
        query = select(func.count()).select_from(table).where(table.c.state == WAITING)
        with self._database.reading() as connection:
            return connection.execute(query).scalar_one()
