"""Executions by what their signals say, alike on every database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from finagent_model.decision.decision import Execution
from finagent_model.decision.signal import Status
from finagent_model.store.artifact_models import ArtifactFilter, NewArtifact
from finagent_model.store.artifacts import ArtifactStore
from finagent_model.store.database import Database
from finagent_model.store.decisions import DecisionStore
from support.decisions import decision

SIGNALS = ArtifactFilter(type="signal")
HELD: dict[str, Any] = {
    "action": "HOLD",
    "confidence": "LOW",
    "confidence_score": 0,
    "suggested_entry_price": None,
    "suggested_stop_loss": None,
    "suggested_take_profit": None,
}


def write(database: Database, day: int, execution: str | None, **changes: Any) -> None:
    as_of = datetime(2012, 1, day, 21, tzinfo=UTC)
    made = decision(as_of=as_of, conversation_id=f"c{day}", **changes)
    asked_by = Execution(execution_id=execution, dag_id="dag" if execution else None)
    DecisionStore(database).write(made, f"r{day}", asked_by)


def test_list_executions_counts_failures_apart(url: str) -> None:
    database = Database(url)
    write(database, 1, "e1")
    write(database, 2, "e2", **HELD, status=Status.MODEL_ERROR)
    write(database, 3, "e1", **HELD, status=Status.MODEL_ERROR)
    write(database, 4, "e1", **HELD, status=Status.ABSTAINED)
    write(database, 5, None)
    found, total = ArtifactStore(database).list_executions(SIGNALS)
    counted = [(e.execution_id, e.signals, e.buys, e.sells, e.holds, e.failed) for e in found]
    assert total == 3
    assert counted == [(None, 1, 1, 0, 0, 0), ("e1", 3, 1, 0, 1, 1), ("e2", 1, 0, 0, 0, 1)]
    assert found[1].dag_id == "dag"
    assert found[1].first_as_of == datetime(2012, 1, 1, 21, tzinfo=UTC)
    assert found[1].last_as_of == datetime(2012, 1, 4, 21, tzinfo=UTC)
    page, total = ArtifactStore(database).list_executions(SIGNALS, limit=1, offset=1)
    assert ([e.execution_id for e in page], total) == (["e1"], 3)
    failed = ArtifactFilter(type="signal", status=Status.MODEL_ERROR)
    assert [e.execution_id for e in ArtifactStore(database).list_executions(failed)[0]] == [
        "e1",
        "e2",
    ]


def test_list_executions_counts_foreign_row_by_action(url: str) -> None:
    database = Database(url)
    row = NewArtifact(name="theirs", type="signal", action="SELL", execution_id="e9")
    ArtifactStore(database).add(row)
    [found], _ = ArtifactStore(database).list_executions(SIGNALS)
    assert (found.sells, found.failed, found.first_as_of) == (1, 0, None)


def test_list_executions_empty_without_signals(url: str) -> None:
    assert ArtifactStore(Database(url)).list_executions(SIGNALS) == ([], 0)
