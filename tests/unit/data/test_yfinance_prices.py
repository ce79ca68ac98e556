"""What is made of a table of Yahoo's: prices as they were quoted, and no bar of an open session."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from finagent_model.data._yfinance import find_open_session, undo_splits
from finagent_model.data.snapshots import compare_bars
from finagent_model.market.bars import BarSeries, Floats

DAYS = 3000
CENTS = np.round(np.geomspace(1.0, 9_000.0, DAYS), 2)
SIXTEENTHS = np.round(np.geomspace(1.0, 999.0, DAYS) * 16) / 16
THIRTY_SECONDS = np.round(np.geomspace(1.0, 999.0, DAYS) * 32) / 32


def told(quoted: Floats, later_split: float) -> BarSeries:
    """As Yahoo has these prices, in single precision, once a split has come after them."""
    days = pd.bdate_range("1990-01-01", periods=DAYS + 1, tz="America/New_York")
    now = np.r_[quoted / later_split, quoted[-1] / later_split].astype(np.float32)
    frame = pd.DataFrame({name: now for name in ("Open", "High", "Low", "Close")}, index=days)
    split = np.r_[np.zeros(DAYS), later_split]
    frame = frame.assign(Volume=0, Dividends=0.0, **{"Stock Splits": split})
    return undo_splits("X", frame)[:DAYS]


@pytest.mark.parametrize(
    "quoted", [CENTS, SIXTEENTHS, THIRTY_SECONDS], ids=["cents", "sixteenths", "thirty-seconds"]
)
@pytest.mark.parametrize("ratio", [1.5, 2.0, 3.0, 7.0, 20.0, 28.0, 50.0, 0.1])
def test_yfinance_price_is_quote_despite_later_split(quoted: Floats, ratio: float) -> None:
    assert told(quoted, ratio).close.tolist() == quoted.tolist()


@pytest.mark.parametrize("ratio", [3.0, 7.0, 20.0, 28.0])
def test_yfinance_price_between_ticks_is_no_revision(ratio: float) -> None:
    quoted = np.round(np.geomspace(1.0, 999.0, DAYS) * 64) / 64
    assert compare_bars(told(quoted, 1.0), told(quoted, ratio)) == ()


ENDS = pd.Timestamp("2024-03-06 16:00", tz="America/New_York")


@pytest.mark.parametrize(
    ("asked_after", "traded_after", "going_on"),
    [
        (timedelta(minutes=-30), timedelta(minutes=-46), True),
        (timedelta(minutes=1), timedelta(minutes=-14), True),  # quotes are late
        (timedelta(minutes=1), timedelta(seconds=1), False),
        (timedelta(hours=4), timedelta(minutes=-2), False),
        (timedelta(hours=4), None, False),
        (timedelta(hours=-4), None, True),
    ],
)
def test_yfinance_session_is_over_by_clock(
    asked_after: timedelta, traded_after: timedelta | None, going_on: bool
) -> None:
    meta: dict[str, Any] = {"currentTradingPeriod": {"regular": {"end": ENDS}}}
    if traded_after is not None:
        meta["regularMarketTime"] = ENDS + traded_after
    asked_at: datetime = ENDS.to_pydatetime() + asked_after
    assert find_open_session(meta, asked_at) == (date(2024, 3, 6) if going_on else None)
