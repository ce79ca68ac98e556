"""10,011 crossovers over GOOG with stops, here and in vectorbt, in one run: seconds and memory.

Each engine has a process of its own, so that peaks of memory are its own; a first call, which
compiles, is not counted. `python benchmarks/scan.py` prints a line a measurement.
"""

from __future__ import annotations

import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from finagent_model.data.bundled import BundledBars
from finagent_model.domain.bars import BarSeries

PAIRS = np.array(list(itertools.combinations(range(2, 144), 2)))
COMMISSION, STOP, TARGET, CASH = 0.002, 0.05, 0.10, 10_000.0
BEST_OF = 5


def best(work: Callable[[], object], times: int = BEST_OF) -> float:
    work()
    spent = []
    for _ in range(times):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent)


def long_history(count: int = 50_000) -> BarSeries:
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, count)))
    opens = close * np.exp(rng.normal(0, 0.003, count))
    columns = {"open": opens, "close": close}
    columns["high"] = np.maximum(opens, close) * 1.004
    columns["low"] = np.minimum(opens, close) * 0.996
    days = pd.date_range("1850-01-01", periods=count, tz="UTC")
    return BarSeries.from_frame("LONG", pd.DataFrame({"closed_at": days, **columns}))


def ours(lean: bool, long: bool) -> float:
    from finagent_model.backtest.kernel import Rules
    from finagent_model.backtest.scan import scan

    bars = long_history() if long else BundledBars().bars("GOOG")
    rules = Rules(COMMISSION, 0.0, False, STOP, TARGET)
    return best(
        lambda: scan(bars, PAIRS, rules, cash=CASH, whole_shares=not long, lean=lean),
        times=2 if long else BEST_OF,
    )


def vectorbt() -> float:
    import warnings

    warnings.simplefilter("ignore")
    import vectorbt as vbt

    bars = BundledBars().bars("GOOG")
    index = pd.DatetimeIndex(bars.closed_at)
    opens, highs, lows, closes = (
        pd.Series(getattr(bars, name), index=index) for name in ("open", "high", "low", "close")
    )

    def work() -> None:
        fast, slow = vbt.MA.run_combs(closes, window=list(range(2, 144)), r=2)
        entries = fast.ma_crossed_above(slow).vbt.fshift(1)
        exits = fast.ma_crossed_below(slow).vbt.fshift(1)
        found = vbt.Portfolio.from_signals(
            closes, entries, exits, price=opens, open=opens, high=highs, low=lows,
            size=np.inf, size_granularity=1.0, fees=COMMISSION, init_cash=CASH,
            direction="longonly", stop_entry_price="fillprice", sl_stop=STOP, tp_stop=TARGET,
            freq="1D",
        )  # fmt: skip
        found.total_return()
        found.sharpe_ratio()

    return best(work, times=1)


def measured(name: str) -> dict[str, float]:
    """Seconds and peak megabytes of one engine in a process of its own."""
    done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    works = {
        "full": lambda: ours(lean=False, long=False),
        "lean": lambda: ours(lean=True, long=False),
        "full, 50,000 bars": lambda: ours(lean=False, long=True),
        "vectorbt": vectorbt,
    }
    if len(sys.argv) > 1:
        seconds = works[sys.argv[1]]()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"s": seconds, "MB": peak}))
        return
    results = {name: measured(name) for name in works}
    for name, found in results.items():
        bars = 50_000 if "50,000" in name else 2148
        rate = len(PAIRS) * bars / found["s"]
        print(f"{name:20} {found['s']:8.3f} s  {found['MB']:6.0f} MB  {rate:.2g} bars x pairs / s")
    print(f"vectorbt / full: {results['vectorbt']['s'] / results['full']['s']:.0f} times")


if __name__ == "__main__":
    main()
