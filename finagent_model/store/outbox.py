"""What a platform elsewhere is still to have, kept in our database until it has it.

A row an artifact; it is queued in the transaction that writes the artifact, and tells the artifact
as it is when it is sent. Within one execution they go in the order in which they were queued, by
one sender at a time, who writes only to rows that have its name. A row that the platform refuses is
parked with the reason, and the next ones go on; while it is down nothing is parked.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, select

from finagent_model.errors import PlatformRefusedError, PlatformUnavailableError
from finagent_model.store.artifacts import Artifact, artifact_of, utc_now
from finagent_model.store.database import Database
from finagent_model.store.platform import PlatformClient
from finagent_model.store.schema import outbox as table

WAITING, SENT, PARKED = "waiting", "sent", "parked"
LEASE = timedelta(seconds=120)
"""How long the rows of an execution are kept for a sender that no longer says anything. Each row
that it goes on to renews it; one row takes less.
"""
ROW_S = 30.0
LONGEST_S = 24 * 3600.0
"""The platform may ask for longer; then it is asked again after this."""
MAX_ATTEMPTS = 5
"""Rounds after which a row over which the platform stumbles (HTTP 500) no longer holds up its
execution. If it takes others then, the row is the cause, and parked: the platform has no better
word for one that it can't read.
"""
MAX_SERVER_ERRORS = 3
"""Rows over which it stumbles, taking none, before it is left alone for this round."""
SHOWN = 20
"""Parked rows that `status` tells one by one."""


@dataclass(frozen=True)
class OutboxReport:
    """What one round came to."""

    sent: int = 0
    parked: int = 0
    waiting: int = 0
    """Still to be sent."""
    why: str | None = None
    """What the platform said last of one that still waits."""

    def row(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class OutboxRow:
    """A row of the outbox."""

    id: int
    artifact_id: int
    attempts: int
    remote_id: str | None


def enqueue(connection: Connection, numbers: Sequence[int], execution: str, now: datetime) -> None:
    """Queue artifacts, in this order; one that was sent before goes to its place there again."""
    mine = table.c.artifact_id.in_(numbers)
    columns = ("artifact_id", "remote_id", "attempts", "not_before", "leased_until")
    # A sender may be about to write down that it tries one of them.
    there = select(*(table.c[name] for name in columns)).where(mine).with_for_update()
    known = {row.artifact_id: row for row in connection.execute(there)}
    connection.execute(delete(table).where(mine))
    rows = []
    for number in numbers:
        before = known.get(number)
        rows.append(
            {
                "artifact_id": number,
                "execution": execution,
                "state": WAITING,
                "attempts": before.attempts if before else 0,
                "remote_id": before.remote_id if before else None,
                "not_before": before.not_before if before else None,
                # Whoever is about to store it there is let finish: then it is found there.
                "leased_until": before.leased_until if before and before.attempts else None,
                "queued_at": now,
            }
        )
    connection.execute(table.insert(), rows)


class Outbox:
    """Every method raises StoreError where the database can't be used."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime] = utc_now,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._clock, self._timer = database, clock, timer

    def status(self) -> dict[str, Any]:
        """How many are in which state, since when and why the oldest waits, which of those that
        are parked come first, and why.
        """
        by_state = select(table.c.state, func.count()).group_by(table.c.state)
        oldest = select(table.c.queued_at, table.c.reason).where(table.c.state == WAITING)
        columns = ("artifact_id", "execution", "attempts", "reason", "tried_at")
        parked = select(*(table.c[name] for name in columns)).where(table.c.state == PARKED)
        with self._database.reading() as connection:
            counts: dict[str, int] = {state: n for state, n in connection.execute(by_state)}
            first = connection.execute(oldest.order_by(table.c.id).limit(1)).one_or_none()
            rows = connection.execute(parked.order_by(table.c.id).limit(SHOWN)).mappings().all()
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
        """Let what was parked be sent again, once whatever was wrong is mended, and the platform be
        asked before the time that it named; how many were parked.
        """
        again = {"state": WAITING, "attempts": 1, "reason": None}  # it may have arrived
        with self._database.writing() as connection:
            asked = table.update().where(table.c.not_before.is_not(None))
            connection.execute(asked.values(not_before=None))
            parked = table.update().where(table.c.state == PARKED)
            return connection.execute(parked.values(**again)).rowcount

    def send(self, client: PlatformClient, within_s: float = float("inf")) -> OutboxReport:
        """What waits, until all of it is there, the platform is down, or time is over. Nothing
        while the platform wants to be left alone.
        """
        if (why := self._left_alone()) is not None:
            return OutboxReport(waiting=self._waiting(), why=why)
        until, sender = self._timer() + within_s, uuid.uuid4().hex
        sent, parked = 0, 0
        stumbled: list[OutboxRow] = []

        def over() -> bool:
            return self._timer() >= until or (len(stumbled) >= MAX_SERVER_ERRORS and not sent)

        for execution in self._executions():
            if over():
                break
            due = self._claim(execution, sender)
            try:
                for row in due:
                    if over():
                        break
                    left = min(until - self._timer(), ROW_S)
                    state, reason = self._send(client, row, sender, left)
                    sent, parked = sent + (state == SENT), parked + (state == PARKED)
                    if state == WAITING and reason is not None:
                        why = reason
                        stumbled.append(row)
                        if row.attempts + 1 < MAX_ATTEMPTS:
                            break  # the next ones of this execution wait for it
            except PlatformUnavailableError as error:
                why = str(error)
                break
            finally:
                if due:
                    self._release(sender)
        if sent:
            parked += self._park([row.id for row in stumbled if row.attempts + 1 >= MAX_ATTEMPTS])
        waiting = self._waiting()
        return OutboxReport(sent, parked, waiting, why if waiting else None)

    def _send(
        self, client: PlatformClient, due: OutboxRow, sender: str, within_s: float
    ) -> tuple[str, str | None]:
        """The row's new state, and why; it waits where the platform stumbled (HTTP 500), and, with
        no reason, where it is no longer ours. Raises PlatformDownError, where all others would fail
        as well.
        """
        artifact = self._begin(due, sender)
        if artifact is None:
            return WAITING, None
        state, reason, remote_id, not_before = SENT, None, due.remote_id, None
        down: PlatformUnavailableError | None = None
        try:
            remote_id = client.put(
                artifact, due.remote_id, sent_before=due.attempts > 0, within_s=within_s
            )
        except PlatformRefusedError as error:
            state, reason = PARKED, str(error)
        except PlatformUnavailableError as error:
            state, reason = WAITING, str(error)
            if error.status != 500:
                down = error
                if error.retry_after_s:
                    pause = min(error.retry_after_s, LONGEST_S)
                    not_before = self._clock() + timedelta(seconds=pause)
        free = {"sender": None, "leased_until": None}
        said = {"state": state, "reason": reason, "remote_id": remote_id, "not_before": not_before}
        with self._database.writing() as connection:
            ours = table.update().where(table.c.id == due.id, table.c.sender == sender)
            connection.execute(ours.values(**said | free))
        if down:
            raise down
        return state, reason

    def _park(self, ids: Sequence[int]) -> int:
        """But for those that another sender has begun, or sent, since they were let go."""
        free = table.c.id.in_(ids) & (table.c.state == WAITING) & table.c.sender.is_(None)
        with self._database.writing() as connection:
            return connection.execute(table.update().where(free).values(state=PARKED)).rowcount

    def _left_alone(self) -> str | None:
        """What the platform said when it asked for that, while it lasts."""
        until = table.c.not_before
        query = select(table.c.reason, until).where(table.c.state == WAITING, until > self._clock())
        with self._database.reading() as connection:
            found = connection.execute(query.order_by(until.desc()).limit(1)).one_or_none()
        if found is None:
            return None
        return f"{found.reason}; not asked again before {found.not_before:%Y-%m-%d %H:%M} UTC"

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

    def _claim(self, execution: str, sender: str) -> list[OutboxRow]:
        """What waits of it, in order, for us alone; nothing where another sender has it."""
        mine = (table.c.execution == execution) & (table.c.state == WAITING)
        columns = (table.c.id, table.c.artifact_id, table.c.attempts, table.c.remote_id)
        query = select(*columns, table.c.leased_until).where(mine).order_by(table.c.id)
        now = self._clock()
        with self._database.writing() as connection:
            rows = connection.execute(query.with_for_update()).all()
            if any(leased and leased > now for *_, leased in rows):
                return []
            ours = {"sender": sender, "leased_until": now + LEASE}
            connection.execute(table.update().where(mine).values(**ours))
        return [OutboxRow(*row[:-1]) for row in rows]

    def _begin(self, due: OutboxRow, sender: str) -> Artifact | None:
        """Write down that it may arrive, before it can; the artifact as it is now. None: it was
        queued anew since, or another sender has it.
        """
        ours, now = _of(sender), self._clock()
        tried = {"attempts": due.attempts + 1, "tried_at": now}
        with self._database.writing() as connection:
            connection.execute(table.update().where(ours).values(leased_until=now + LEASE))
            row = table.update().where(ours, table.c.id == due.id).values(**tried)
            if not connection.execute(row).rowcount:
                return None
            return artifact_of(connection, due.artifact_id)

    def _release(self, sender: str) -> None:
        free = {"sender": None, "leased_until": None}
        with self._database.writing() as connection:
            connection.execute(table.update().where(_of(sender)).values(**free))

    def _waiting(self) -> int:
        query = select(func.count()).select_from(table).where(table.c.state == WAITING)
        with self._database.reading() as connection:
            return connection.execute(query).scalar_one()


def _of(sender: str) -> ColumnElement[bool]:
    return (table.c.sender == sender) & (table.c.state == WAITING)
