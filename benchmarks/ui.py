"""Measure how long the server takes for the pages of `finagent ui` with many signals.

python benchmarks/ui.py [SIGNALS]     # default: 10,000 in SQLite, each with three replies of agents
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from starlette.testclient import TestClient

from finagent_model.decision.decision import Decision, Execution, Turn
from finagent_model.decision.signal import TradingSignal
from finagent_model.settings import Settings
from finagent_model.store.artifacts import insert_artifact
from finagent_model.store.database import Database
from finagent_model.store.decisions import artifact_rows
from finagent_model.webui.pages_app import ui_app

SYMBOLS = 500
REQUESTS_PER_PAGE = 20
"""Timed requests for each page, after one that is not timed: it compiles the template."""
FIRST_DAY = datetime(2010, 1, 4, 21, tzinfo=UTC)


def make_decisions(count: int) -> Iterator[tuple[Decision, Execution]]:
    """Yield every symbol once a day; a day is an execution. A tenth of the decisions failed."""
    text = "Both reports point the same way. " * 20
    for number in range(count):
        day, symbol = divmod(number, SYMBOLS)
        failed = number % 10 == 0
        levels = (None, None, None) if failed else (100.0, 95.0, 115.0)
        signal = TradingSignal(
            symbol=f"SYM{symbol}",
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
            as_of=FIRST_DAY + timedelta(days=day),
            conversation_id=f"c{number}",
            tokens=1000,
            cost_usd=0.001,
        )
        turns = [Turn("desk", "request", text * 4, FIRST_DAY)]
        turns += [Turn(f"Agent{i}", "response", text, FIRST_DAY, 900, 100) for i in range(3)]
        yield Decision(signal, tuple(turns)), Execution(execution_id=f"day-{day}")


def fill(database: Database, count: int) -> None:
    # One transaction: this measures reading.
    with database.transaction() as connection:
        for number, (decision, execution) in enumerate(make_decisions(count)):
            signal_row, rows = artifact_rows(decision, f"{number:032x}", "1", execution, False)
            for row in (signal_row, *rows):
                insert_artifact(connection, row, FIRST_DAY)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.load({"FINAGENT_HOME": folder})
        database = Database.from_settings(settings)
        fill(database, count)
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
        print(f"{count} signals, {4 * count} artifacts, {size:.0f} MB")
        client = TestClient(
            ui_app(settings), base_url="http://127.0.0.1", client=("127.0.0.1", 50000)
        )
        for path in (
            "/",
            f"/signals?page={count // 50}",
            "/signals?group=execution",
            "/signals",
            "/signals?symbol=SYM7",
            "/signals?execution_id=day-3",
            "/signals?status=model_error",
            "/signals?action=BUY&as_of_from=2010-01-10&as_of_to=2010-01-12",
            "/signals?symbol=NOBODY",
            "/signals/1",
            "/api/artifacts?type=signal",
        ):
            times_ms = []
            for _ in range(REQUESTS_PER_PAGE + 1):
                started = time.perf_counter()
                assert client.get(path).status_code == 200, path
                times_ms.append(1000 * (time.perf_counter() - started))
            median, worst = statistics.median(times_ms[1:]), max(times_ms[1:])
            print(f"{path}: median {median:.0f} ms, worst {worst:.0f}")


if __name__ == "__main__":
    main()
