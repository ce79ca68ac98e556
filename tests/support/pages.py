"""The pages of `finagent ui` without a browser, over a database of their own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from finagent_model.decision.decision import NO_EXECUTION, Execution
from finagent_model.decision.signal import Status
from finagent_model.settings import Settings
from finagent_model.store.artifacts import insert_artifact
from finagent_model.store.database import Database
from finagent_model.store.decisions import DecisionStore, artifact_rows
from finagent_model.webui.pages_app import ui_app
from support.decisions import at, decision

HERE = "http://127.0.0.1:5002"
OURS = {"origin": HERE, "sec-fetch-site": "same-origin"}
FAILED: dict[str, Any] = {
    "action": "HOLD",
    "confidence": "LOW",
    "confidence_score": 0,
    "status": Status.MODEL_ERROR,
    "suggested_entry_price": None,
    "suggested_stop_loss": None,
    "suggested_take_profit": None,
}


def settings(tmp_path: Path, **more: str) -> Settings:
    return Settings.load({"FINAGENT_HOME": str(tmp_path), **more})


def client(known: Settings, caller: str = "127.0.0.1", base: str = HERE) -> TestClient:
    return TestClient(ui_app(known), base_url=base, client=(caller, 50000))


def write(known: Settings, number: int = 1, execution: str | None = None, **changes: Any) -> None:
    day = datetime(2012, 1, 2, 21, tzinfo=UTC) + timedelta(days=number)
    asked_by = Execution(execution_id=execution, dag_id=execution and "dag", dag_run_id=execution)
    made = decision(as_of=day, conversation_id=f"c{number}", **changes)
    DecisionStore(Database.from_settings(known)).write(made, f"{number:032x}", asked_by)


def fill(known: Settings, count: int) -> None:
    """Signals without what led to them, in one transaction."""
    with Database.from_settings(known).transaction() as connection:
        for number in range(count):
            whole, _ = artifact_rows(
                decision(conversation_id=f"c{number}"), f"r{number}", None, NO_EXECUTION, False
            )
            assert insert_artifact(connection, whole, at(0))
