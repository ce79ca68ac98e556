"""What became of a call, from bars that are there; what MLflow says, if it says it in time."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from finagent_model.data.bundled import BundledBars
from finagent_model.errors import TrackingError
from finagent_model.evaluation.accounting import adjust_plainly
from finagent_model.market.bars import parse_as_of
from finagent_model.policy.trained_state import HORIZON
from finagent_model.webui._stored_facts import (
    RETRY_S,
    OutcomeReader,
    VersionFacts,
    VersionFactsReader,
    find_outcome,
)
from support.pages import settings

GOOG = BundledBars().bars("GOOG")
DAY = parse_as_of("2012-05-01")
AT = len(GOOG.until(DAY)) - 1
NEXT = GOOG[AT + 1 : AT + 1 + HORIZON]


def test_find_outcome_without_levels_ends_with_horizon() -> None:
    found = find_outcome(GOOG, DAY, "BUY", None, None)
    assert found is not None
    assert (found.ended, found.bars) == ("time", HORIZON)
    assert found.earned == pytest.approx(NEXT.close[-1] / NEXT.open[0] - 1)
    short = find_outcome(GOOG, DAY, "SELL", None, None)
    assert short is not None
    assert short.earned == pytest.approx(-found.earned)


def test_find_outcome_at_level_is_that_of_the_level() -> None:
    fill = float(NEXT.open[0])
    stop, target = float(NEXT.low.min()) + 0.01, float(NEXT.high.max()) - 0.01
    stopped = find_outcome(GOOG, DAY, "BUY", stop, 10 * fill)
    won = find_outcome(GOOG, DAY, "SELL", 10 * fill, stop)
    assert stopped is not None
    assert won is not None
    assert (stopped.ended, won.ended) == ("stop", "target")
    assert stopped.earned == pytest.approx(stop / fill - 1, abs=0.02)
    assert find_outcome(GOOG, DAY, "BUY", target + 1, 10 * fill).ended == "not filled"  # type: ignore[union-attr]


def test_find_outcome_open_where_bars_end() -> None:
    few = GOOG[: AT + 4]
    found = find_outcome(few, DAY, "BUY", None, None)
    assert found is not None
    assert (found.ended, found.bars) == ("open", 3)
    assert found.earned == pytest.approx(few.close[-1] / few.open[AT + 1] - 1)
    none_yet = find_outcome(GOOG[: AT + 1], DAY, "BUY", None, None)
    assert none_yet is not None
    assert (none_yet.ended, none_yet.earned) == ("open", None)


def test_find_outcome_unknown_before_bars_or_without_call() -> None:
    assert find_outcome(GOOG, GOOG.close_time(0) - timedelta(days=9), "BUY", None, None) is None
    assert find_outcome(GOOG, DAY, "HOLD", None, None) is None
    assert find_outcome(GOOG[:0], DAY, "BUY", None, None) is None


def test_find_outcome_unknown_where_bars_end_long_before() -> None:
    assert find_outcome(GOOG[: AT + 1], DAY + timedelta(days=9), "BUY", None, None) is None


def test_find_outcome_crosses_a_split_in_prices_of_the_decision() -> None:
    bars, day = BundledBars().bars("AAPL"), parse_as_of("2005-02-25")  # split 2:1 on the 28th
    close = float(bars.until(day).close[-1])
    found = find_outcome(bars, day, "BUY", close * 0.6, close * 3)
    assert found is not None
    assert found.ended == "time", "the split was taken for a fall to the stop"
    at = len(bars.until(day)) - 1
    plain = adjust_plainly(bars[at : at + HORIZON + 1])
    assert found.earned == pytest.approx(plain.close[HORIZON] / plain.open[1] - 1)


def test_outcome_reader_asks_no_vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finagent_model.data import _yfinance

    def fetch(self: object, symbol: str) -> None:
        raise AssertionError("a page asked a vendor")

    monkeypatch.setattr(_yfinance.YFinanceBars, "bars", fetch)
    reader = OutcomeReader(settings(tmp_path, FINAGENT_BARS="yfinance"))
    assert reader.find("GOOG", DAY, "BUY", None, None) is None
    here = OutcomeReader(settings(tmp_path))
    assert here.find("GOOG", DAY, "BUY", None, None) == find_outcome(GOOG, DAY, "BUY", None, None)
    assert here.find("NOBODY", DAY, "BUY", None, None) is None
    broken = OutcomeReader(settings(tmp_path, FINAGENT_BARS="/nowhere"))
    assert broken.find("GOOG", DAY, "BUY", None, None) is None


def test_version_facts_are_read_once_and_waited_for_briefly() -> None:
    asked, answer, now = [], threading.Event(), [0.0]

    def read(run_id: str) -> VersionFacts:
        asked.append(run_id)
        answer.wait(5)
        return VersionFacts(0.46)

    reader = VersionFactsReader(read, wait_s=0.01, clock=lambda: now[0])
    assert reader.find("r") is None
    assert reader.find("r") is None
    answer.set()
    facts = VersionFactsReader(read, wait_s=5)
    assert facts.find("s") == VersionFacts(0.46)
    assert facts.find("s") == VersionFacts(0.46)
    assert asked == ["r", "s"]
    assert facts.find(None) is None


def test_version_facts_failed_read_is_tried_again_later() -> None:
    asked, now = [], [100.0]

    def read(run_id: str) -> VersionFacts:
        asked.append(run_id)
        raise TrackingError("MLflow is away")

    reader = VersionFactsReader(read, wait_s=5, clock=lambda: now[0])
    assert reader.find("r") is None
    assert reader.find("r") is None
    assert len(asked) == 1
    now[0] += RETRY_S + 1
    assert reader.find("r") is None
    assert len(asked) == 2
