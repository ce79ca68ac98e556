"""The first page tells what it knows, and says of the rest that it can't be read."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from starlette.testclient import TestClient

from finagent_model.agents.budget import read_daily_spending
from finagent_model.desk.desk import SPENDING_FILE
from finagent_model.errors import LocalStateError
from finagent_model.settings import Settings
from finagent_model.store.artifacts import ArtifactStore
from finagent_model.store.database import DATABASE_FILE, Database
from support.pages import FAILED, write

pytestmark = pytest.mark.usefixtures("no_mlflow")


def test_overview_counts_decisions_of_today(known: Settings, pages: TestClient) -> None:
    assert "No decision since midnight UTC" in pages.get("/").text
    now = datetime.now(UTC)
    write(known, 1, generated_at=now)
    write(known, 2, generated_at=now, **FAILED)
    write(known, 3, generated_at=now - timedelta(days=2))
    page = pages.get("/").text
    assert "2 decisions" in page
    assert "1 failed" in page


def test_overview_without_mlflow_says_so_and_shows_the_rest(pages: TestClient) -> None:
    answer = pages.get("/")
    assert answer.status_code == 200
    assert (
        answer.text.count("MLflow can&#39;t be read") + answer.text.count("MLflow can't be read")
        == 2
    )
    assert "No decision waits for a human" in answer.text


def test_overview_leads_old_links_to_the_list(pages: TestClient) -> None:
    answer = pages.get("/?symbol=GOOG&page=2", follow_redirects=False)
    assert answer.status_code == 307
    assert answer.headers["location"] == "/signals?symbol=GOOG&page=2"


def test_overview_shows_spending_by_day(known: Settings, pages: TestClient) -> None:
    assert "no day's spending was counted" in unescape(pages.get("/").text)
    file = known.home / SPENDING_FILE
    with sqlite3.connect(file) as connection:
        connection.execute("create table spent (day text primary key, tokens int, usd real)")
        connection.executemany(
            "insert into spent values (?, ?, ?)",
            [("2026-01-02", 1200, 0.25), ("2026-01-01", 5, 0.0)],
        )
    connection.close()
    assert [day.day for day in read_daily_spending(file, 9)] == ["2026-01-01", "2026-01-02"]
    assert len(read_daily_spending(file, 1)) == 1
    page = pages.get("/").text
    assert "1,200" in page
    assert "0.2500" in page


def test_overview_names_damaged_spending_file(known: Settings, pages: TestClient) -> None:
    file = known.home / SPENDING_FILE
    file.write_bytes(b"no database")
    with pytest.raises(LocalStateError, match="spending can't be read"):
        read_daily_spending(file, 9)
    assert str(file) in pages.get("/").text


def test_find_last_signals_is_what_was_written_last(known: Settings) -> None:
    write(known, 9)
    write(known, 3)
    write(known, 5, symbol="AAPL")
    store = ArtifactStore(Database.from_settings(known))
    last = store.find_last_signals(["GOOG", "AAPL", "NOBODY"])
    assert sorted(last) == ["AAPL", "GOOG"]
    assert last["GOOG"].as_of is not None
    assert last["GOOG"].as_of.date().isoformat() == "2012-01-05"


def test_overview_sums_cost_of_stored_decisions(known: Settings, pages: TestClient) -> None:
    assert "No decision was stored in the last 7 days" in pages.get("/").text
    for number, usd in enumerate((0.25, 0.5, None)):
        write(known, number + 1, cost_usd=usd, generated_at=datetime.now(UTC))
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    store = ArtifactStore(Database.from_settings(known))
    days = [midnight - timedelta(days=1), midnight, midnight + timedelta(days=1)]
    costs = store.sum_costs(days)
    # Midnight may pass between the writes.
    assert sum(day.signals for day in costs) == 3
    assert sum(day.usd for day in costs) == 0.75
    assert sum(day.unknown for day in costs) == 1
    page = pages.get("/").text
    assert "0.7500" in page
    assert "1 unknown" in page


@pytest.mark.parametrize("cost", ["0.1 USD", "nan", -1, {"usd": 1}, "9" * 400])
def test_overview_counts_cost_that_is_no_amount_as_unknown(known: Settings, cost: Any) -> None:
    write(known, 1, cost_usd=0.25, generated_at=datetime.now(UTC))
    change = "update artifacts set signal_data = json_set(signal_data, '$.cost_usd', json(?))"
    with closing(sqlite3.connect(known.home / DATABASE_FILE)) as file, file:
        file.execute(change, [json.dumps(cost)])
    database = Database.from_settings(known)
    [day] = ArtifactStore(database).sum_costs([datetime.now(UTC) - timedelta(hours=12)])
    assert (day.signals, day.unknown, day.usd) == (1, 1, 0.0)


def test_count_signals_counts_ours_since(known: Settings, pages: TestClient) -> None:
    write(known, 1, generated_at=datetime.now(UTC))
    theirs = {"name": "theirs", "type": "signal", "symbol": "GOOG", "metadata": {}}
    assert pages.post("/api/artifacts", json=theirs).status_code == 201
    store, now = ArtifactStore(Database.from_settings(known)), datetime.now(UTC)
    assert store.count_signals(now - timedelta(minutes=5)).total == 1
    assert store.count_signals(now + timedelta(minutes=5)).total == 0
