"""Of several who ask the same question one decides; a killed one keeps nobody waiting."""

from __future__ import annotations

import signal as signals
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select

from finagent_model.errors import StoreError
from finagent_model.store._schema import claims as table
from finagent_model.store.claims import ClaimStore
from finagent_model.store.database import Database
from support.places import ROOT

ID = "5e77"


class Clock:
    """Time that passes by waiting alone."""

    def __init__(self, fast: float = 1.0) -> None:
        self.now, self.fast = 0.0, fast

    def sleep(self, seconds: float) -> None:
        self.now += seconds * self.fast

    def __call__(self) -> float:
        return self.now


def waiting(url: str, clock: Clock) -> ClaimStore:
    return ClaimStore(Database(url), clock.sleep, clock)


def test_claim_second_caller_gets_result_of_first(url: str) -> None:
    decided: list[int] = []
    waiters: set[int] = set()
    all_wait = threading.Event()

    def sleep(_: float) -> None:
        waiters.add(threading.get_ident())
        if len(waiters) == 7:
            all_wait.set()
        all_wait.wait(0.01)

    def ask(number: int) -> str | None:
        with ClaimStore(Database(url), sleep).enter(ID) as claim:
            if claim.result is None:
                decided.append(number)
                assert all_wait.wait(30)
                claim.run_id = f"r{number}"
            return claim.result or claim.run_id

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(ask, range(8)))
    assert answers == {f"r{number}" for number in decided} and len(decided) == 1


def test_claim_without_result_goes_to_next(url: str) -> None:
    store = ClaimStore(Database(url))
    with pytest.raises(ZeroDivisionError), store.enter(ID):
        raise ZeroDivisionError
    with store.enter(ID) as claim:
        assert (claim.result, claim.is_lost) == (None, False)


def test_claim_let_go_before_gives_no_result(url: str) -> None:
    """Who did not wait may ask again: a failure of yesterday is no answer."""
    store = ClaimStore(Database(url))
    with store.enter(ID) as claim:
        claim.run_id = "r1"
    with store.enter(ID) as claim:
        assert claim.result is None


def test_claim_of_silent_holder_is_taken_over(url: str) -> None:
    clock = Clock()
    with Database(url).transaction() as connection:
        connection.execute(table.insert().values(signal_id=ID, holder="killed", heartbeats=3))
    with waiting(url, clock).enter(ID) as claim:
        assert (claim.result, 30 <= clock.now < 31) == (None, True)


def test_claim_of_beating_holder_is_kept(url: str) -> None:
    """However far the clock of the one that waits jumps between two heartbeats of it."""
    database, clock = Database(url), Clock(fast=100)

    class Beating(Clock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            self.heartbeats = getattr(self, "heartbeats", 0) + 1
            with database.transaction() as connection:
                values = {"heartbeats": self.heartbeats}
                if self.heartbeats == 20:
                    values |= {"holder": None, "last_holder": "first", "run_id": "r1"}
                connection.execute(table.update().values(**values))

    with database.transaction() as connection:
        connection.execute(table.insert().values(signal_id=ID, holder="first", heartbeats=0))
    beating = Beating(fast=100)
    with ClaimStore(database, beating.sleep, beating).enter(ID) as claim:
        assert (claim.result, clock.now) == ("r1", 0)


def test_claim_holder_beats_while_it_works(url: str) -> None:
    database = Database(url)
    with ClaimStore(database, heartbeat_s=0.01).enter(ID) as claim:
        for _ in range(1000):
            with database.connection() as connection:
                if connection.execute(select(table.c.heartbeats)).scalar_one() > 1:
                    break
        assert not claim.is_lost
    with database.connection() as connection:
        assert connection.execute(select(table.c.holder)).scalar_one() is None


def test_claim_taken_over_is_lost_and_not_let_go(url: str) -> None:
    database = Database(url)
    with ClaimStore(database).enter(ID) as claim:
        with database.transaction() as connection:
            connection.execute(table.update().values(holder="other"))
        claim.run_id = "r1"
    assert claim.is_lost
    with database.connection() as connection:
        assert connection.execute(select(table.c.holder, table.c.run_id)).one() == ("other", None)


def test_claim_of_other_question_waits_for_nobody(url: str) -> None:
    store = ClaimStore(Database(url))
    with store.enter(ID) as one, store.enter("other") as other:
        assert (one.result, other.result) == (None, None)


def test_claim_without_database_is_store_error() -> None:
    store = ClaimStore(Database("sqlite:////proc/no/finagent.db"))
    with pytest.raises(StoreError, match="can't be used"), store.enter(ID):
        pass


KILLED = """
import os, signal, sys
from finagent_model.store.claims import ClaimStore
from finagent_model.store.database import Database
with ClaimStore(Database(sys.argv[1])).enter("5e77"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_claim_of_killed_process_is_taken_over(tmp_path: Path) -> None:
    url, clock = f"sqlite:///{tmp_path}/finagent.db", Clock()
    environ = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", KILLED, url], env=environ, check=False)
    assert done.returncode == -signals.SIGKILL
    with waiting(url, clock).enter(ID) as claim:
        assert (claim.result, clock.now >= 30) == (None, True)
