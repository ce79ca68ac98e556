"""The real project at its pin, where a clone is at hand: `make test-upstream` with
FINAGENT_UPSTREAM_SOURCE. The values were first computed by other code, in an environment of their
own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finagent_model.contrib.upstream._operations import build_wheel
from finagent_model.contrib.upstream.source import PinnedSource, SourcePin, fetch_source
from finagent_model.contrib.upstream.upstream_report import build_window, read_reply
from finagent_model.contrib.upstream.worker_process import WorkerProcess
from finagent_model.data.bundled import BundledBars
from finagent_model.evaluation.probes import corrupt_after
from finagent_model.market.bars import BarSeries, parse_as_of
from support.places import ROOT, Place

pytestmark = pytest.mark.upstream
SOURCE = "FINAGENT_UPSTREAM_SOURCE"
SMALLER = ("--train-bars", "120", "--test-bars", "30", "--candidates", "24")
GOLDEN = {
    "ticker_symbol": "GOOG",
    "candlestick_patterns": {},
    "fundamentals": {},
    "news_sentiment": 0.0,
    "final_decision": {"score": -1, "max_score_possible": 5, "probability": 0.4, "rating": "hold"},
    "indicators": {
        "close_price": 580.07,
        "atr": 11.779572692361144,
        "ema": {
            "short_ema": 570.7033577968942,
            "long_ema": 576.9951637777855,
            "signal": "neutral",
        },
        "rsi": {"value": 51.3198619469845, "signal": "neutral"},
        "macd": {
            "value": -6.29180598089124,
            "signal_line": -8.19148425994021,
            "hist": 1.8996782790489704,
            "trend": "bullish",
        },
        "bollinger": {
            "upper": 585.2712396325306,
            "lower": 555.9427603674693,
            "mid": 570.607,
            "signal": "within_band",
        },
        "stochastics": {
            "%K": 84.83423931642434,
            "%D": 52.087868155814924,
            "signal": "overbought",
        },
        "adx": {
            "adx_value": 18.890375153210048,
            "+DI": 24.969623659431843,
            "-DI": 25.752904473659594,
            "trend_strength": "weak_or_sideways",
            "trend_direction": "bearish_trend",
        },
    },
}
"""Of 2012-06-29: 252 bars, upstream's clock at 2012-06-30."""
RATINGS = {
    "GOOG": (32, 29, 189),
    "IBM": (25, 31, 194),
    "AAPL": (19, 56, 175),
    "MSFT": (48, 51, 151),
}
"""Buy, sell and hold over the last 250 bars as traded, dividends left in the prices."""


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> PinnedSource:
    given = os.environ.get(SOURCE)
    assert given, f"set {SOURCE} to a clone or an address that has the commit"
    return fetch_source(tmp_path_factory.mktemp("home"), SourcePin.load(), given)[0]


@pytest.fixture(scope="session")
def worker(source: PinnedSource) -> Iterator[WorkerProcess]:
    held = WorkerProcess(lambda: source.verify().code)
    yield held
    held.close()


def ask(worker: WorkerProcess, bars: BarSeries) -> Any:
    window = build_window(bars)
    return worker.ask(window.symbol, window.clock_day, window.rows).reply


@pytest.fixture(scope="session")
def goog() -> BarSeries:
    return BundledBars().bars("GOOG")


def test_upstream_reply_is_the_golden_one(worker: WorkerProcess, goog: BarSeries) -> None:
    assert ask(worker, goog.until(parse_as_of("2012-06-29"))) == GOLDEN
    assert ask(worker, goog.until(parse_as_of("2012-06-30"))) == GOLDEN


@pytest.mark.parametrize("symbol", RATINGS)
def test_upstream_ratings_of_a_year_are_the_golden_ones(symbol: str, worker: WorkerProcess) -> None:
    bars = BundledBars().bars(symbol)
    bars = replace(bars, dividend=np.zeros(len(bars)))
    found = Counter(
        read_reply(ask(worker, bars[: i + 1]), symbol).rating
        for i in range(len(bars) - 250, len(bars))
    )
    assert (found["buy"], found["sell"], found["hold"]) == RATINGS[symbol]


def test_upstream_reply_ignores_later_bars(worker: WorkerProcess, goog: BarSeries) -> None:
    for cut in range(400, 2148, 250):
        replies = [ask(worker, b[:cut]) for b in (goog, corrupt_after(goog, cut))]
        assert replies[0] == replies[1]


def test_upstream_replies_are_equal_across_processes(
    source: PinnedSource, worker: WorkerProcess, goog: BarSeries
) -> None:
    other = WorkerProcess(lambda: source.verify().code)
    days = [goog[:cut] for cut in range(300, 2148, 200)]
    digests = [
        hashlib.sha256(json.dumps([ask(worker, bars) for bars in days]).encode()).hexdigest()
        for worker in (worker, other)
    ]
    other.close()
    assert digests[0] == digests[1]


def test_upstream_wheel_installed_by_pip_is_verified(source: PinnedSource, tmp_path: Path) -> None:
    place, site = Place(tmp_path), str(tmp_path / "site")
    wheel = build_wheel(source, tmp_path)
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps")
    done = place.run(*pip, "--target", site, str(wheel))
    assert done.returncode == 0, done.stderr
    found = place.finagent("upstream", "status", "--json", PYTHONPATH=f"{site}:{ROOT}")
    assert json.loads(found.stdout)["verified"], found.stdout


def test_upstream_version_answers_without_the_fetched_source(
    source: PinnedSource, tmp_path: Path
) -> None:
    place = Place(tmp_path)
    fetched = place.finagent("upstream", "fetch", "--from", str(os.environ[SOURCE]), "--json")
    assert json.loads(fetched.stdout)["verified"], fetched.stderr
    done = place.finagent("train", "--config", "upstream", "--symbols", "FB", *SMALLER)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(place.folder / "home")
    for mode in ("replay", "live"):
        assert place.signal("FB", "--as-of", "2013-01-31", "--mode", mode)["status"] == "ok"
