"""Outbox: a queue, in our database, of artifacts that a platform elsewhere is still to get.

An artifact is queued in the transaction that writes it, and is sent as it is at that later moment.
Rows of one execution are sent in the order in which they were queued, by one sender at a time,
which holds a lease and writes only to rows that carry its name. A row that the platform refuses
becomes a dead letter with the reason, and the next ones go on; while the platform is unavailable
no row does.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, select

from finagent_model.errors import PlatformRefusedError, PlatformUnavailableError
from finagent_model.store._schema import outbox as table
from finagent_model.store.artifact_models import Artifact
from finagent_model.store.artifacts import read_artifact, utc_now
from finagent_model.store.database import Database
from finagent_model.store.platform import PlatformClient

WAITING, SENT = "waiting", "sent"
DEAD_LETTER = "parked"
"""State of a row that is not sent again until somebody asks for it."""
LEASE = timedelta(seconds=120)
"""How long a silent sender keeps the rows of an execution. Each row that it goes on to renews the
lease; one row takes less.
"""
ROW_TIMEOUT_S = 30.0
MAX_PAUSE_S = 24 * 3600.0
"""The longest pause that the platform gets (Retry-After) before it is tried again."""
MAX_ATTEMPTS = 5
"""Rounds in which a row that gets a server error (HTTP 500) holds up its execution. If the platform
takes other rows after that, the row is the cause, and becomes a dead letter: the platform has no
better answer for a row that it can't read.
"""
MAX_SERVER_ERRORS = 3
"""Circuit breaker: rows with a server error, while none was taken, that end the round."""
MAX_ROWS_SHOWN = 20
"""Dead letters that `status` lists."""


@dataclass(frozen=True)
class OutboxReport:
    """What one round of sending did."""

    sent: int = 0
    parked: int = 0
    """Rows that became dead letters."""
    waiting: int = 0
    """Rows still to be sent."""
    why: str | None = None
    """The platform's last answer about a row that still waits."""


@dataclass(frozen=True)
class OutboxRow:
    """A row that a sender has claimed."""

    id: int
    artifact_id: int
    attempts: int
    remote_id: str | None
    """The artifact's id on the platform; None: it was never confirmed there."""


def enqueue(
    connection: Connection,
    artifact_ids: Sequence[int],
    execution: str,
    now: datetime,
    sent_before: bool = False,
) -> None:
    """Queue artifacts in this order; one that was sent before replaces its copy on the platform.

    `sent_before` says that a queue which is lost may have sent them: then they are looked for.
    """
    is_queued = table.c.artifact_id.in_(artifact_ids)
    columns = ("artifact_id", "remote_id", "attempts", "not_before", "leased_until")
    # Locked, because a sender may be about to write down that it tries one of them.
    query = select(*(table.c[name] for name in columns)).where(is_queued).with_for_update()
    by_artifact = {row.artifact_id: row for row in connection.execute(query)}
    connection.execute(delete(table).where(is_queued))
    rows = []
    for artifact_id in artifact_ids:
        before = by_artifact.get(artifact_id)
        rows.append(
            {
                "artifact_id": artifact_id,
                "execution": execution,
                "state": WAITING,
                "attempts": before.attempts if before else int(sent_before),
                "remote_id": before.remote_id if before else None,
                "not_before": before.not_before if before else None,
                # A sender that is storing it there may finish: then the next one finds it there.
                "leased_until": before.leased_until if before and before.attempts else None,
                "queued_at": now,
            }
        )
    connection.execute(table.insert(), rows)


class Outbox:
    """Sends what is queued. Every method raises StoreError if the database can't be used."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime] = utc_now,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._clock, self._timer = database, clock, timer

    def status(self) -> dict[str, Any]:
        """Return the number of rows by state, since when and why the oldest waits, and the first
        dead letters with their reasons; JSON-ready.
        """
        by_state = select(table.c.state, func.count()).group_by(table.c.state)
        waiting = select(table.c.queued_at, table.c.reason).where(table.c.state == WAITING)
        oldest = waiting.order_by(table.c.id).limit(1)
        columns = ("artifact_id", "execution", "attempts", "reason", "tried_at")
        dead = select(*(table.c[name] for name in columns)).where(table.c.state == DEAD_LETTER)
        with self._database.connection() as connection:
            counts: dict[str, int] = {state: n for state, n in connection.execute(by_state)}
            first = connection.execute(oldest).one_or_none()
            limited = dead.order_by(table.c.id).limit(MAX_ROWS_SHOWN)
            dead_letters = connection.execute(limited).mappings().all()
        return {
            **{state: counts.get(state, 0) for state in (WAITING, SENT, DEAD_LETTER)},
            "oldest_waiting": first.queued_at.isoformat() if first else None,
            "why": first.reason if first else None,
            "parked_rows": [
                dict(row) | {"tried_at": row["tried_at"].isoformat() if row["tried_at"] else None}
                for row in dead_letters
            ],
        }

    def retry_failed(self) -> int:
        """Queue all dead letters again, and end any pause that the platform asked for.

        Returns how many dead letters there were. To be called once the cause is repaired.
        """
        with self._database.transaction() as connection:
            paused = table.update().where(table.c.not_before.is_not(None))
            connection.execute(paused.values(not_before=None))
            dead = table.update().where(table.c.state == DEAD_LETTER)
            # At least one attempt: it may have arrived, so the sender looks for it first.
            return connection.execute(dead.values(state=WAITING, attempts=1, reason=None)).rowcount

    def send(self, client: PlatformClient, timeout_s: float = float("inf")) -> OutboxReport:
        """Send what waits, until all is sent, the platform is unavailable, or time is over.

        Nothing is sent during a pause that the platform asked for (Retry-After).
        """
        if (why := self._pause_reason()) is not None:
            return OutboxReport(waiting=self._count_waiting(), why=why)
        deadline, sender = self._timer() + timeout_s, uuid.uuid4().hex
        sent, dead = 0, 0
        server_errors: list[OutboxRow] = []

        def is_over() -> bool:
            is_open = len(server_errors) >= MAX_SERVER_ERRORS and not sent  # the circuit breaker
            return self._timer() >= deadline or is_open

        for execution in self._list_executions():
            if is_over():
                break
            rows = self._claim(execution, sender)
            try:
                for row in rows:
                    if is_over():
                        break
                    remaining_s = min(deadline - self._timer(), ROW_TIMEOUT_S)
                    state, reason = self._send_row(client, row, sender, remaining_s)
                    sent, dead = sent + (state == SENT), dead + (state == DEAD_LETTER)
                    if state == WAITING and reason is not None:
                        why = reason
                        server_errors.append(row)
                        if row.attempts + 1 < MAX_ATTEMPTS:
                            break  # the next rows of this execution wait for it
            except PlatformUnavailableError as error:
                why = str(error)
                break
            finally:
                if rows:
                    self._release(sender)
        if sent:
            # The platform takes rows, so those that always fail are themselves the cause.
            exhausted = [row.id for row in server_errors if row.attempts + 1 >= MAX_ATTEMPTS]
            dead += self._mark_dead_letters(exhausted)
        waiting = self._count_waiting()
        return OutboxReport(sent, dead, waiting, why if waiting else None)

    def _send_row(
        self, client: PlatformClient, row: OutboxRow, sender: str, timeout_s: float
    ) -> tuple[str, str | None]:
        """Send one row; return its new state and the reason.

        It waits after a server error (HTTP 500), and, without a reason, if another sender has it
        now. Raises PlatformUnavailableError if every other row would fail as well.
        """
        artifact = self._begin_attempt(row, sender)
        if artifact is None:
            return WAITING, None
        state, reason, remote_id, not_before = SENT, None, row.remote_id, None
        unavailable: PlatformUnavailableError | None = None
        try:
            remote_id = client.put(
                artifact, row.remote_id, sent_before=row.attempts > 0, timeout_s=timeout_s
            )
        except PlatformRefusedError as error:
            state, reason = DEAD_LETTER, str(error)
        except PlatformUnavailableError as error:
            state, reason = WAITING, str(error)
            # HTTP 500 may be about this row alone; any other trouble is the platform's.
            if error.status != 500:
                unavailable = error
                if error.retry_after_s:
                    pause_s = min(error.retry_after_s, MAX_PAUSE_S)
                    not_before = self._clock() + timedelta(seconds=pause_s)
        values = {
            "state": state,
            "reason": reason,
            "remote_id": remote_id,
            "not_before": not_before,
        }
        with self._database.transaction() as connection:
            # Only while it is ours: after the lease another sender may have it.
            mine = table.update().where(table.c.id == row.id, table.c.sender == sender)
            connection.execute(mine.values(**values, sender=None, leased_until=None))
        if unavailable:
            raise unavailable
        return state, reason

    def _mark_dead_letters(self, ids: Sequence[int]) -> int:
        """Make dead letters of these rows; return how many."""
        # Not of those that another sender has claimed or sent since they were released.
        is_free = table.c.id.in_(ids) & (table.c.state == WAITING) & table.c.sender.is_(None)
        with self._database.transaction() as connection:
            statement = table.update().where(is_free).values(state=DEAD_LETTER)
            return connection.execute(statement).rowcount

    def _pause_reason(self) -> str | None:
        """Return the platform's answer that asked for the current pause; None: there is none."""
        until = table.c.not_before
        query = select(table.c.reason, until).where(table.c.state == WAITING, until > self._clock())
        with self._database.connection() as connection:
            row = connection.execute(query.order_by(until.desc()).limit(1)).one_or_none()
        if row is None:
            return None
        return f"{row.reason}; not asked again before {row.not_before:%Y-%m-%d %H:%M} UTC"

    def _list_executions(self) -> list[str]:
        """Return the executions with rows to send, the one that waits longest first."""
        query = (
            select(table.c.execution)
            .where(table.c.state == WAITING)
            .group_by(table.c.execution)
            .order_by(func.min(table.c.id))
        )
        with self._database.connection() as connection:
            return list(connection.execute(query).scalars())

    def _claim(self, execution: str, sender: str) -> list[OutboxRow]:
        """Lease the waiting rows of an execution; return them in order, or none if it is leased."""
        is_waiting = (table.c.execution == execution) & (table.c.state == WAITING)
        columns = (table.c.id, table.c.artifact_id, table.c.attempts, table.c.remote_id)
        query = select(*columns, table.c.leased_until).where(is_waiting).order_by(table.c.id)
        now = self._clock()
        with self._database.transaction() as connection:
            rows = connection.execute(query.with_for_update()).all()
            # One leased row is enough to wait: the order within the execution must hold.
            if any(leased_until and leased_until > now for *_, leased_until in rows):
                return []
            lease = {"sender": sender, "leased_until": now + LEASE}
            connection.execute(table.update().where(is_waiting).values(**lease))
        return [OutboxRow(*row[:-1]) for row in rows]

    def _begin_attempt(self, row: OutboxRow, sender: str) -> Artifact | None:
        """Count an attempt and renew the lease; return the artifact as it is now.

        None: the row was queued anew since it was claimed, or another sender has it.
        """
        is_mine, now = _is_leased_by(sender), self._clock()
        # Counted before the request: if this process dies, the row may have arrived all the same.
        attempt = {"attempts": row.attempts + 1, "tried_at": now}
        with self._database.transaction() as connection:
            connection.execute(table.update().where(is_mine).values(leased_until=now + LEASE))
            statement = table.update().where(is_mine, table.c.id == row.id).values(**attempt)
            if not connection.execute(statement).rowcount:
                return None
            return read_artifact(connection, row.artifact_id)

    def _release(self, sender: str) -> None:
        with self._database.transaction() as connection:
            statement = table.update().where(_is_leased_by(sender))
            connection.execute(statement.values(sender=None, leased_until=None))

    def _count_waiting(self) -> int:
        query = select(func.count()).select_from(table).where(table.c.state == WAITING)
        with self._database.connection() as connection:
            return connection.execute(query).scalar_one()


def _is_leased_by(sender: str) -> ColumnElement[bool]:
    return (table.c.sender == sender) & (table.c.state == WAITING)
