"""Measure REST pages of the artifact store with 10,000 signals, charts and replies in SQLite.

Server and client share one process. `python benchmarks/store.py` prints a line a page; each should
take less than 200 ms.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from finagent_model.settings import Settings
from finagent_model.store.api import api_app
from finagent_model.store.artifact_models import NewArtifact
from finagent_model.store.artifacts import insert_artifact
from finagent_model.store.database import Database

SIGNALS, SYMBOLS, REPLIES, REPEATS = 10_000, 500, 4, 20
FIRST = datetime(2012, 1, 2, 21, tzinfo=UTC)
PAGES = {
    "newest signals": {"type": "signal"},
    "the last page of them": {"type": "signal", "offset": SIGNALS - 50},
    "a symbol's signals": {"type": "signal", "symbol": "S7"},
    "an execution in its steps": {"execution_id": "day-7", "order": "step", "limit": 1000},
    "a status that is rare": {"status": "parse_failed"},
    "a day": {"type": "signal", "as_of_from": "2012-01-05", "as_of_to": "2012-01-05"},
    "HOLDs of one status": {"action": "HOLD", "status": "ok"},
}


def fill(database: Database) -> float:
    """Write all rows, in a transaction a signal, and return the seconds that it took."""
    started = time.perf_counter()
    for n in range(SIGNALS):
        with database.transaction() as connection:
            for row in make_rows(n):
                insert_artifact(connection, row, FIRST + timedelta(minutes=n))
    return time.perf_counter() - started


def make_rows(n: int) -> list[NewArtifact]:
    """Return a signal of about 2 KB, its chart, and replies of about 1 KB."""
    day, symbol = n // SYMBOLS, f"S{n % SYMBOLS}"
    metadata: dict[str, Any] = {"as_of": (FIRST + timedelta(days=day)).isoformat()}
    shared: dict[str, Any] = {
        "symbol": symbol,
        "run_id": f"run-{n}",
        "experiment_id": "1",
        "execution_id": f"day-{day}",
        "dag_id": "finagent_autogen_pipeline",
    }

    def row(step: str, kind: str, more: dict[str, Any], **fields: Any) -> NewArtifact:
        row_metadata = metadata | {"key": f"{n}/{step}"} | more
        return NewArtifact(
            name=f"{symbol} {step}",
            type=kind,
            step_name=step,
            metadata=row_metadata,
            **shared,
            **fields,
        )

    replies = [
        row(f"{i:02}_Agent", "llm", {}, prompt="p" * 500, response="r" * 500)
        for i in range(1, 1 + REPLIES)
    ]
    chart = row("00_chart", "chart", {}, image_path="chart.png", chart_type="daily")
    # Rare, so that its filter has few hits among many rows.
    status = "ok" if n % 500 else "parse_failed"
    data = {"reasoning": "because " * 250}
    signal = row(
        "99_signal", "signal", {"status": status}, action="HOLD", confidence=0.5, signal_data=data
    )
    return [chart, *replies, signal]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.load({"FINAGENT_HOME": folder})
        fill_s = fill(Database.from_settings(settings))
        size = (Path(folder) / "finagent.db").stat().st_size / 2**20
        print(f"written: {SIGNALS / fill_s:.0f} signals/s of {2 + REPLIES} rows; {size:.0f} MB")
        with TestClient(
            api_app(settings), base_url="http://127.0.0.1", client=("127.0.0.1", 50000)
        ) as client:
            for name, params in PAGES.items():
                times_ms = []
                for _ in range(REPEATS):
                    started = time.perf_counter()
                    answer = client.get("/api/artifacts", params=params)
                    times_ms.append(1000 * (time.perf_counter() - started))
                    answer.raise_for_status()
                total = answer.json()["total"]
                median, worst = statistics.median(times_ms), max(times_ms)
                print(f"{name:26} {median:6.1f} ms, at most {worst:6.1f} ms  ({total} rows)")


if __name__ == "__main__":
    main()
