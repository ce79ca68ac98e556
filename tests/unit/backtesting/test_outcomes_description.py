"""What became of a call is told with the kernel's own fills."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from finagent_model.backtesting.outcomes import describe_call
from finagent_model.market.bars import BarSeries
from finagent_model.policy.trained_state import HORIZON


def later(*rows: tuple[float, float, float, float]) -> BarSeries:
    frame = pd.DataFrame(rows, columns=["open", "high", "low", "close"])
    frame["closed_at"] = pd.date_range("2012-07-02 20:00", periods=len(rows), tz="UTC")
    frame["volume"] = math.nan
    return BarSeries.from_frame("GOOG", frame)


FLAT = (100.0, 101.0, 99.0, 100.0)


@pytest.mark.parametrize(
    ("action", "rows", "words"),
    [
        ("BUY", [FLAT, (100, 112, 99, 111)], "target hit on 2012-07-03 at 110.00, +10.0%"),
        ("BUY", [FLAT, (100, 101, 94, 96)], "stop hit on 2012-07-03 at 95.00, -5.0%"),
        ("BUY", [FLAT, (90, 91, 89, 90)], "stop hit on 2012-07-03 at 90.00, -10.0%"),
        ("BUY", [FLAT, (100, 120, 90, 100)], "stop hit on 2012-07-03 at 95.00, -5.0%"),
        (
            "BUY",
            [FLAT, (100, 104, 99, 103)],
            "in 2 bars; at the close of 2012-07-03 it stood at +3.0%",
        ),
        ("BUY", [(111, 112, 110.5, 111)], "Not filled: the next open, 111.00, lay beyond"),
        ("SELL", [FLAT, (100, 101, 88, 90)], "target hit on 2012-07-03 at 90.00, +10.0%"),
        ("SELL", [FLAT, (100, 106, 99, 105)], "stop hit on 2012-07-03 at 105.00, -5.0%"),
    ],
)
def test_describe_call_fills_as_the_kernel(
    action: str, rows: list[tuple[float, float, float, float]], words: str
) -> None:
    stop, target = (95.0, 110.0) if action == "BUY" else (105.0, 90.0)
    sentence = describe_call(later(*rows), action, stop, target)  # type: ignore[arg-type]
    assert words in sentence
    assert "nan" not in sentence


def test_describe_call_ends_with_the_horizon_of_labels() -> None:
    after = later(*[FLAT] * (HORIZON - 1), (100, 104, 99, 103), (100, 112, 99, 111))
    sentence = describe_call(after, "BUY", 95.0, 110.0)
    assert f"it ended after {HORIZON} bars" in sentence
    assert "+3.0% before costs" in sentence


def test_describe_call_without_levels_or_bars() -> None:
    assert "neither stop nor target" in describe_call(later(FLAT), "BUY", None, None)
    assert "no later bar" in describe_call(None, "SELL", 1.0, None)
