"""Claim a question, so that of many who ask it at the same moment one decides and the others wait.

A claim is a lease: a row of `finagent_claims`, by the id of the signal that answers the question.
Its holder counts up `heartbeats` while it works. A waiting caller takes it over once neither holder
nor heartbeats have changed for `LEASE_S`, by its own monotonic clock: no two clocks are compared,
so that a clock that jumps, or is wrong, neither ends a claim nor keeps a dead one.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from finagent_model.errors import StoreError
from finagent_model.store._schema import claims as table
from finagent_model.store.database import Database

log = logging.getLogger(__name__)
HEARTBEAT_S = 5.0
"""Seconds between two heartbeats of a holder."""
LEASE_S = 30.0
"""Seconds without a heartbeat after which a holder counts as killed."""
POLL_S = 0.25
"""Seconds between two looks of one who waits."""


@dataclass
class Claim:
    """A claim that this caller holds, or the result of the one that it waited for."""

    signal_id: str
    holder: str
    """Random: names this caller among all processes and threads."""
    result: str | None = None
    """The run that another caller's decision was recorded in while this one waited; the claim is
    then not held.
    """
    run_id: str | None = None
    """The run of the holder's own decision, to be set before it lets go; None: it has none."""
    is_lost: bool = False
    """Whether another caller took it for dead and has taken over."""


@dataclass(frozen=True)
class _ClaimRow:
    holder: str | None
    """None: nobody holds it."""
    heartbeats: int
    last_holder: str | None
    """Who let go of it last, with a decision in the run `run_id`, or without one (None)."""
    run_id: str | None

    @property
    def activity(self) -> tuple[str | None, int]:
        return self.holder, self.heartbeats


class ClaimStore:
    """The claims in one database."""

    def __init__(
        self,
        database: Database,
        sleep: Callable[[float], object] = time.sleep,
        timer: Callable[[], float] = time.monotonic,
        heartbeat_s: float = HEARTBEAT_S,
        lease_s: float = LEASE_S,
    ) -> None:
        self._database, self._sleep, self._timer = database, sleep, timer
        self._beat_s, self._silence_s = heartbeat_s, lease_s

    @contextmanager
    def enter(self, signal_id: str) -> Iterator[Claim]:
        """Yield the claim once this caller holds it, or the result of another who held it.

        It is let go at the end of the block, with the `run_id` that the block gave it. Raises
        StoreError if the database can't be used before the block; later it only logs that.
        """
        claim = Claim(signal_id, uuid.uuid4().hex)
        claim.result = self._wait(claim)
        if claim.result is not None:
            yield claim
            return
        stop = threading.Event()
        beating = threading.Thread(target=self._heartbeat_until, args=(claim, stop), daemon=True)
        beating.start()
        try:
            yield claim
        finally:
            stop.set()
            beating.join()
            self._release(claim)

    def _wait(self, claim: Claim) -> str | None:
        """Return None once the claim is held, else the run of the one that was waited for."""
        waited_for: set[str] = set()
        activity, since = None, self._timer()
        while True:
            row = self._read(claim.signal_id)
            if row is not None and row.last_holder in waited_for and row.run_id is not None:
                return row.run_id
            if row is None or row.holder is None:
                is_free = True
            else:
                waited_for.add(row.holder)
                if row.activity != activity:
                    activity, since = row.activity, self._timer()
                is_free = self._timer() - since >= self._silence_s
            if is_free and self._take(claim, row):
                return None
            if not is_free:
                self._sleep(POLL_S)

    def _read(self, signal_id: str) -> _ClaimRow | None:
        columns = (table.c.holder, table.c.heartbeats, table.c.last_holder, table.c.run_id)
        query = select(*columns).where(table.c.signal_id == signal_id)
        with self._database.connection() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _ClaimRow(*row)

    def _take(self, claim: Claim, before: _ClaimRow | None) -> bool:
        """Take a claim that is still as `before`; return whether this caller holds it now."""
        with self._database.transaction() as connection:
            if before is None:
                dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
                values = {"signal_id": claim.signal_id, "holder": claim.holder, "heartbeats": 0}
                insert = dialect.insert(table).values(**values).on_conflict_do_nothing()
                return connection.execute(insert).rowcount == 1
            statement = table.update().where(
                table.c.signal_id == claim.signal_id,
                table.c.holder.is_not_distinct_from(before.holder),
                table.c.heartbeats == before.heartbeats,
            )
            values = {"holder": claim.holder, "heartbeats": 0}
            return connection.execute(statement.values(**values)).rowcount == 1

    def _heartbeat_until(self, claim: Claim, stop: threading.Event) -> None:
        """Count up the heartbeats until `stop` is set, or another caller has the claim."""
        mine = (table.c.signal_id == claim.signal_id) & (table.c.holder == claim.holder)
        heartbeat = table.update().where(mine).values(heartbeats=table.c.heartbeats + 1)
        while not stop.wait(self._beat_s):
            try:
                with self._database.transaction() as connection:
                    if not connection.execute(heartbeat).rowcount:
                        claim.is_lost = True
                        return
            except StoreError as error:
                # The next beat may get through before anybody takes the claim over.
                log.debug("claim of %s: %s", claim.signal_id, error)

    def _release(self, claim: Claim) -> None:
        mine = (table.c.signal_id == claim.signal_id) & (table.c.holder == claim.holder)
        values = {"holder": None, "last_holder": claim.holder, "run_id": claim.run_id}
        try:
            with self._database.transaction() as connection:
                released = connection.execute(table.update().where(mine).values(**values))
                claim.is_lost = not released.rowcount
        except StoreError as error:
            log.warning("%s. The claim of %s ends by itself", error, claim.signal_id)
