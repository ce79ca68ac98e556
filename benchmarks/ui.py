"""Measure what the pages of `finagent ui` cost with many signals: time, the server's CPU, and SQL.

python benchmarks/ui.py [SIGNALS [REPLIES]]   # 10,000 in SQLite by default, each with three replies
python benchmarks/ui.py 200000 0              # some minutes: the size that filters are tuned for

FINAGENT_DATABASE names an empty PostgreSQL database to be measured instead of SQLite; its CPU is
that of another process, so that SQL is the number to look at.

CPU is that of this process, which is the server; SQL is the time that statements took within it.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event, insert
from starlette.testclient import TestClient

from finagent_model.decision.decision import Decision, Execution, Turn
from finagent_model.decision.signal import TradingSignal, compute_signal_id
from finagent_model.settings import Settings
from finagent_model.store._schema import FILTER_COLUMNS, METADATA, signal_texts
from finagent_model.store._schema import artifacts as table
from finagent_model.store.artifact_models import searched_text
from finagent_model.store.artifacts import column_values
from finagent_model.store.database import Database
from finagent_model.store.decisions import artifact_rows
from finagent_model.webui.pages_app import ui_app

SYMBOLS = 500
BATCH = 1000
REQUESTS_PER_PAGE = 10
"""Timed requests for each page, after one that is not timed: it compiles the template."""
FIRST_DAY = datetime(2010, 1, 4, 21, tzinfo=UTC)
TRAININGS = 40
DATABASE = {name: os.environ[name] for name in ("FINAGENT_DATABASE",) if name in os.environ}
WORDS = ("trend", "momentum", "news", "earnings", "volume", "breakout", "support", "reversal")


def make_templates(replies: int) -> list[list[dict[str, Any]]]:
    """Return the rows of ten decisions, of which one failed; the others differ by number."""
    text = "Both reports point the same way. " * 20
    templates = []
    for number in range(10):
        failed = number == 0
        levels = (None, None, None) if failed else (100.0, 95.0, 115.0)
        signal = TradingSignal(
            symbol="SYM",
            action="HOLD" if failed else "BUY",
            confidence="LOW" if failed else "MEDIUM",
            confidence_score=0 if failed else 60,
            raw_confidence_score=0 if failed else 70,
            calibrated=not failed,
            status="model_error" if failed else "ok",
            reasoning=text,
            key_factors=("trend vote +1.00", "momentum vote +0.20"),
            suggested_entry_price=levels[0],
            suggested_stop_loss=levels[1],
            suggested_take_profit=levels[2],
            model_used="rules",
            generated_at=FIRST_DAY,
            as_of=FIRST_DAY,
            conversation_id="c",
            evidence=("none", "weak", "strong")[number % 3],
            tokens=1000,
            cost_usd=0.001,
        )
        turns = [Turn("desk", "request", text * 4, FIRST_DAY)]
        turns += [Turn(f"Agent{i}", "response", text, FIRST_DAY, 900, 100) for i in range(replies)]
        whole, parts = artifact_rows(Decision(signal, tuple(turns)), "r", "1", Execution(), False)
        templates.append([column_values(row) for row in (whole, *parts)])
    return templates


def make_rows(count: int, replies: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of `count` decisions: every symbol once a day; a day is an execution."""
    templates = make_templates(replies)
    for number in range(count):
        day, symbol = divmod(number, SYMBOLS)
        as_of, name = FIRST_DAY + timedelta(days=day), f"SYM{symbol}"
        version = number % TRAININGS + 1
        trained_by = f"{version:032x}"
        for row in templates[number % len(templates)]:
            is_signal = row["type"] == "signal"
            metadata = {
                **row[METADATA],
                "as_of": as_of.isoformat(),
                "conversation_id": f"c{number}",
                "model_uri": f"models:/finagent/{version}",
                "model_version": str(version),
            }
            changed = {"symbol": name, "run_id": f"{number:032x}", "execution_id": f"day-{day}"}
            data = row["signal_data"]
            if is_signal:
                key = compute_signal_id(name, as_of, f"c{number}")
                metadata |= {"key": key, "signal_id": key, "trained_by": trained_by}
                word = WORDS[number % len(WORDS)]
                data = {
                    **data,
                    "symbol": name,
                    "as_of": as_of.isoformat(),
                    "conversation_id": f"c{number}",
                    "reasoning": f"{data['reasoning']} It is about {word} number {number}.",
                }
            else:
                metadata["key"] = f"{number:032x}/{row['step_name']}"
            yield {
                **row,
                **changed,
                METADATA: metadata,
                "signal_data": data,
                "finagent_key": metadata["key"],
                "finagent_as_of": as_of,
                "finagent_origin": "finagent",
                "created_at": FIRST_DAY + timedelta(days=day),
                **{
                    n: metadata.get(key) if is_signal else None for n, key in FILTER_COLUMNS.items()
                },
            }


def fill(database: Database, count: int, replies: int) -> None:
    # One transaction: this measures reading.
    with database.transaction() as connection:
        batch: list[dict[str, Any]] = []
        for number, row in enumerate(make_rows(count, replies), 1):
            batch.append({"id": number, **row})
            if len(batch) == BATCH:
                insert_rows(connection, batch)
                batch.clear()
        if batch:
            insert_rows(connection, batch)
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("analyze")


def insert_rows(connection: Connection, rows: list[dict[str, Any]]) -> None:
    connection.execute(insert(table), rows)
    texts = [
        {"artifact_id": row["id"], "texts": searched_text(row["signal_data"])}
        for row in rows
        if row["type"] == "signal"
    ]
    if texts:
        connection.execute(insert(signal_texts), texts)


class SqlClock:
    """Adds up the seconds that statements take, fetching included where the driver does it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0
        event.listen(Engine, "before_cursor_execute", self._begin)
        event.listen(Engine, "after_cursor_execute", self._end)

    def _begin(self, *_: object) -> None:
        self._began = time.perf_counter()

    def _end(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began


def measure(client: TestClient, path: str, sql: SqlClock) -> None:
    rows = []
    for _ in range(REQUESTS_PER_PAGE + 1):
        started, cpu, sql.seconds = time.perf_counter(), time.process_time(), 0.0
        assert client.get(path).status_code == 200, path
        rows.append((time.perf_counter() - started, time.process_time() - cpu, sql.seconds))
    median, cpu_ms, sql_ms = (1000 * statistics.median(c) for c in zip(*rows[1:], strict=True))
    worst = 1000 * max(row[0] for row in rows[1:])
    print(f"{median:7.0f} {worst:7.0f} {cpu_ms:7.0f} {sql_ms:7.0f}  {path}", flush=True)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    replies = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.load({"FINAGENT_HOME": folder, **DATABASE})
        database = Database.from_settings(settings)
        fill(database, count, replies)
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
        print(f"{count} signals, {(replies + 1) * count} artifacts, {size:.0f} MB")
        client = TestClient(
            ui_app(settings), base_url="http://127.0.0.1", client=("127.0.0.1", 50000)
        )
        sql = SqlClock()
        print("median   worst     CPU     SQL  in ms")
        for path in (
            "/",
            "/signals",
            f"/signals?page={count // 50}",
            "/signals?group=execution",
            "/signals?symbol=SYM7",
            "/signals?execution_id=day-3",
            "/signals?status=model_error",
            "/signals?show=failed",
            "/signals?action=BUY&as_of_from=2010-01-10&as_of_to=2010-01-12",
            "/signals?symbol=NOBODY",
            "/signals?version=7",
            "/signals?version=models:/finagent/7",
            f"/signals?trained_by={7:032x}",
            "/signals?evidence=strong",
            "/signals?evidence=unknown",
            "/signals?text=breakout",
            f"/signals?text=number+{count // 2}",
            "/signals?text=reports",
            "/signals?text=nothing+has+this",
            "/signals/1?text=breakout",
            f"/signals/1?text=number+{count // 2}",
            "/signals?sort=confidence&version=7",
            "/signals/1",
            "/signals/1?version=7",
            "/api/artifacts?type=signal",
        ):
            measure(client, path, sql)


if __name__ == "__main__":
    main()
