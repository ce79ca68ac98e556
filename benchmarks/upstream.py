"""Measure the upstream analyst's worker process: its start, one date, 250 dates.

Beside it stands a process for each date, which is what the worker saves. Needs the source:
`finagent upstream fetch`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from finagent_model.contrib.upstream.source import find_source
from finagent_model.contrib.upstream.upstream_report import build_window
from finagent_model.contrib.upstream.worker_process import WorkerProcess
from finagent_model.data.bundled import BundledBars
from finagent_model.settings import Settings

DATES, SEPARATE_DATES = 250, 5


def wall_seconds(work: Callable[[], object]) -> float:
    """Return the wall time of `work`, in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    home = Settings.load().home
    bars = BundledBars().bars("GOOG")
    windows = [build_window(bars[: i + 1]) for i in range(len(bars) - DATES, len(bars))]
    worker = WorkerProcess(lambda: find_source(home).code)

    def ask(i: int) -> None:
        worker.ask(windows[i].symbol, windows[i].clock_day, windows[i].rows)

    start = wall_seconds(lambda: ask(0))
    dates = [wall_seconds(lambda i=i: ask(i)) for i in range(DATES)]  # type: ignore[misc]
    worker.close()
    # Closed after every date, so that each pays for a start.
    separate = []
    for i in range(SEPARATE_DATES):
        separate.append(wall_seconds(lambda i=i: ask(i)))  # type: ignore[misc]
        worker.close()
    print(f"start and first date  {start:8.3f} s   (aim 2 s)")
    print(f"a date, median        {statistics.median(dates) * 1e3:8.2f} ms  (aim 15 ms)")
    print(f"{DATES} dates             {sum(dates):8.2f} s   (aim 4 s)")
    each = statistics.median(separate)
    print(f"a process for a date  {each:8.3f} s   x {each / statistics.median(dates):.0f}")


if __name__ == "__main__":
    main()
