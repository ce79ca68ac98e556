"""What senders do to each other's rows, and when they let a platform be; without a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert, select

from finagent_model.decision.decision import Execution
from finagent_model.errors import PlatformRefusedError, PlatformUnavailableError
from finagent_model.store._schema import outbox as table
from finagent_model.store.artifact_models import Artifact
from finagent_model.store.artifacts import utc_now
from finagent_model.store.database import Database
from finagent_model.store.decisions import DecisionStore
from finagent_model.store.outbox import (
    MAX_ATTEMPTS,
    MAX_PAUSE_S,
    MAX_ROWS_SHOWN,
    MAX_SERVER_ERRORS,
    Outbox,
    OutboxReport,
)
from finagent_model.store.platform import PlatformClient
from support.decisions import at, decision

FAILED = {
    "status": "model_error",
    "action": "HOLD",
    "confidence": "LOW",
    "confidence_score": 0,
}


class Scripted(PlatformClient):
    """A platform that has what it is sent, unless `said` raises."""

    def __init__(self, said: Callable[[Artifact], object] = lambda artifact: None) -> None:
        super().__init__("http://platform.example")
        self.said = said
        self.stored: list[str] = []
        self.looked: list[str] = []
        """Of those that may have been there already."""

    def put(
        self,
        artifact: Artifact,
        remote_id: str | None = None,
        *,
        sent_before: bool = False,
        timeout_s: float = 30.0,
    ) -> str:
        named = f"{artifact.execution_id}/{artifact.step_name}"
        if sent_before:
            self.looked.append(named)
        self.said(artifact)
        self.stored.append(named)
        return "1"


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(f"sqlite:///{tmp_path}/finagent.db")


def decide(database: Database, execution: str, turns: bool = True, **changes: Any) -> None:
    made = decision(**{"model_uri": "models:/finagent/1"} | changes)
    made = made if turns else type(made)(made.signal)
    by = Execution(execution_id=execution)
    DecisionStore(database, queue=True).write(made, f"run-{execution}", by, "7", turns)


def waiting(database: Database, names: Iterable[str]) -> None:
    """A decision without replies in each of these executions."""
    for n, name in enumerate(names):
        as_of = datetime(2012, 6, 1, 20, tzinfo=UTC) + timedelta(days=n)
        decide(database, name, turns=False, as_of=as_of)


def states(database: Database) -> list[str]:
    with database.connection() as connection:
        query = select(table.c.state).order_by(table.c.id)
        return list(connection.execute(query).scalars())


def down(status: int | None, retry_after_s: float | None = None) -> PlatformUnavailableError:
    return PlatformUnavailableError(f"answered HTTP {status}", status, retry_after_s)


def stumbling(over: Callable[[Artifact], bool]) -> Callable[[Artifact], None]:
    def said(artifact: Artifact) -> None:
        if over(artifact):
            raise down(500)

    return said


@pytest.mark.parametrize("replies", [True, False])
def test_outbox_leaves_row_that_was_requeued(url: str, replies: bool) -> None:
    """SQLite gives the new rows the number that the old one had."""
    database = Database(url)
    decide(database, "old", **FAILED)

    def replaced(artifact: Artifact) -> None:
        if artifact.step_name == "04_Executor":
            decide(database, "new", turns=replies, generated_at=at(60))

    platform = Scripted(replaced)
    first = Outbox(database).send(platform)
    assert "old/99_signal" not in platform.stored and "new/99_signal" not in platform.stored
    assert (first.sent, first.waiting) == (5, 6 if replies else 1)
    again = Scripted()
    assert Outbox(database).send(again) == OutboxReport(sent=first.waiting)
    assert (again.stored[-1], again.looked) == ("new/99_signal", [])


def test_outbox_requeued_row_waits_for_running_attempt(
    url: str,
) -> None:
    database = Database(url)
    decide(database, "old", turns=False, **FAILED)
    meanwhile = Scripted()

    def replaced(artifact: Artifact) -> None:
        decide(database, "new", generated_at=at(60))
        assert Outbox(database).send(meanwhile).waiting == 6

    Outbox(database).send(Scripted(replaced))
    assert meanwhile.stored == []
    later, platform = utc_now() + timedelta(minutes=3), Scripted()
    assert Outbox(database, lambda: later).send(platform) == OutboxReport(sent=6)
    assert platform.looked == ["new/99_signal"]


def test_outbox_does_not_dead_letter_row_sent_elsewhere(database: Database) -> None:
    waiting(database, ["odd", "fine"])
    for _ in range(MAX_ATTEMPTS - 1):
        Outbox(database).send(Scripted(stumbling(lambda a: True)))

    def said(artifact: Artifact) -> None:
        if artifact.execution_id == "odd":
            raise down(500)
        assert Outbox(database).send(Scripted()).sent == 1  # the odd one, which was let go

    done = Outbox(database).send(Scripted(said))
    assert (done.sent, done.parked) == (1, 0)
    assert states(database) == ["sent", "sent"]


def test_outbox_claims_nothing_after_timeout(database: Database) -> None:
    waiting(database, [f"e{n}" for n in range(20)])
    claimed: list[str] = []
    Outbox(database).status()

    def counted(_: Any, __: Any, statement: str, *___: object) -> None:
        claimed.extend([statement] if statement.startswith("UPDATE") else [])

    event.listen(database._engine, "before_cursor_execute", counted)
    now = [0.0]

    def five_seconds(artifact: Artifact) -> None:
        now[0] += 5.0

    platform, box = Scripted(five_seconds), Outbox(database, timer=lambda: now[0])
    assert box.send(platform, timeout_s=0) == OutboxReport(waiting=20)
    assert (claimed, platform.stored) == ([], [])
    assert box.send(platform, timeout_s=1).sent == 1
    assert box.send(platform, timeout_s=11).sent == 3


def test_outbox_circuit_breaker_ends_round(database: Database) -> None:
    waiting(database, [f"e{n}" for n in range(MAX_SERVER_ERRORS + 5)])
    platform = Scripted(stumbling(lambda a: True))
    done = Outbox(database).send(platform)
    assert done.why == "answered HTTP 500"
    with database.connection() as connection:
        tried = select(table.c.execution).where(table.c.attempts > 0)
        assert len(connection.execute(tried).all()) == MAX_SERVER_ERRORS


def test_outbox_report_keeps_reason_of_waiting_row(database: Database) -> None:
    waiting(database, ["odd", "fine"])
    platform = Scripted(stumbling(lambda a: a.execution_id == "odd"))
    assert Outbox(database).send(platform) == OutboxReport(
        sent=1, waiting=1, why="answered HTTP 500"
    )


def test_outbox_pauses_until_retry_after(
    database: Database,
) -> None:
    now = [utc_now()]
    box = Outbox(database, lambda: now[0])
    waiting(database, ["e1", "e2"])
    asked: list[Artifact] = []

    def busy(artifact: Artifact) -> None:
        asked.append(artifact)
        raise down(503, 3600)

    for _ in range(3):
        done = box.send(Scripted(busy))
        assert done.waiting == 2 and done.why is not None and "HTTP 503" in done.why
    assert len(asked) == 1
    decide(database, "e3", turns=False, as_of="2012-01-02T20:00:00Z")
    platform = Scripted()
    assert (box.send(platform).waiting, platform.stored) == (3, [])
    now[0] += timedelta(hours=1, seconds=1)
    assert box.send(platform) == OutboxReport(sent=3)


def test_outbox_retry_failed_ends_pause(database: Database) -> None:
    waiting(database, ["e1"])

    def busy(artifact: Artifact) -> None:
        raise down(503, float("inf"))

    Outbox(database).send(Scripted(busy))
    assert Outbox(database).send(Scripted()).sent == 0
    assert Outbox(database).retry_failed() == 0
    assert Outbox(database).send(Scripted()) == OutboxReport(sent=1)


def test_outbox_pause_is_at_most_a_day(database: Database) -> None:
    waiting(database, ["e1"])

    def busy(artifact: Artifact) -> None:
        raise down(429, 1e12)

    Outbox(database).send(Scripted(busy))
    later = utc_now() + timedelta(seconds=MAX_PAUSE_S + 1)
    assert Outbox(database, lambda: later).send(Scripted()) == OutboxReport(sent=1)


def test_outbox_status_lists_first_dead_letters(database: Database) -> None:
    database.prepare()
    row = {"execution": "e", "state": "parked", "attempts": 1, "queued_at": utc_now()}
    with database.transaction() as connection:
        rows = [row | {"artifact_id": n, "reason": f"{n}"} for n in range(MAX_ROWS_SHOWN + 30)]
        connection.execute(insert(table), rows)
    found = Outbox(database).status()
    assert found["parked"] == MAX_ROWS_SHOWN + 30
    assert [each["reason"] for each in found["parked_rows"]] == [
        f"{n}" for n in range(MAX_ROWS_SHOWN)
    ]


def test_outbox_report_counts_refused_row(database: Database) -> None:
    waiting(database, ["e1"])

    def refuse(artifact: Artifact) -> None:
        raise PlatformRefusedError("answered HTTP 400")

    assert Outbox(database).send(Scripted(refuse)) == OutboxReport(parked=1)
