"""Each kind of finding: what it says, and that a clean history has none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from finagent_model.data.bundled import BundledBars
from finagent_model.market.bars import BarSeries
from finagent_model.market.calendar import get_calendar
from finagent_model.market.quality import RECENT_BARS, inspect_bars, inspect_recent_bars

DAYS = pd.bdate_range("2024-01-01", periods=30)


def bars(days: Any = DAYS, **columns: Any) -> BarSeries:
    """Bars that move by one per cent to and fro, with some columns replaced."""
    close = np.asarray(columns.pop("close", 100 + np.arange(len(days)) % 2), dtype=float)
    frame = pd.DataFrame({"closed_at": [f"{day:%Y-%m-%dT%H:%M:%S}+00:00" for day in days]})
    frame["open"] = frame["close"] = close
    frame["high"], frame["low"] = close * 1.01, close * 0.99
    frame["volume"] = 1000.0
    return BarSeries.from_frame("X", frame.assign(**columns))


def changed(position: int, values: list[float]) -> np.ndarray[Any, Any]:
    close = 100.0 + np.arange(30) % 2
    close[position : position + len(values)] = values
    return close


def test_inspect_bars_of_clean_history_finds_nothing() -> None:
    assert inspect_bars(bars()) == ()
    assert inspect_bars(bars()[:1]) == ()


def test_inspect_bars_names_a_jump_without_an_action() -> None:
    close = np.r_[np.full(15, 100.0) + np.arange(15) % 2, 25.0 + np.arange(15) % 2]
    [found] = inspect_bars(bars(close=close))
    assert found.startswith("the close moves by -75% on 2024-01-22 without a split")


def test_inspect_bars_takes_a_split_for_no_jump() -> None:
    close = np.r_[np.full(15, 100.0) + np.arange(15) % 2, 25.0 + np.arange(15) % 2]
    split = np.where(np.arange(30) == 15, 4.0, 1.0)
    assert inspect_bars(bars(close=close, split=split)) == ()


def test_inspect_bars_names_a_split_that_prices_have_already() -> None:
    split = np.where(np.arange(30) == 15, 4.0, 1.0)
    [found] = inspect_bars(bars(split=split))
    assert found.startswith("the split of 4 on 2024-01-22 leaves a move of +304%")
    assert found.endswith("the prices may have it already")


def test_inspect_bars_names_a_gap() -> None:
    [found] = inspect_bars(bars(DAYS[:10].append(DAYS[21:])))
    assert found == "a gap of 11 weekdays between 2024-01-12 and 2024-01-30"
    assert inspect_bars(bars(DAYS[:10].append(DAYS[20:]))) == ()


def test_inspect_bars_names_a_spike_that_reverts() -> None:
    [found] = inspect_bars(bars(close=changed(12, [130.0])))
    assert found == "the close jumps by +29% on 2024-01-17 and the next bar takes it back"


def test_inspect_bars_names_a_far_low() -> None:
    low = np.where(np.arange(30) == 3, 1.0, 99.0)
    [found] = inspect_bars(bars(low=low))
    assert found == "high or low over 40% away from open and close: 1 of 30, the first 2024-01-04"


@pytest.mark.parametrize(("count", "found"), [(4, False), (5, True)])
def test_inspect_bars_names_repeated_closes(count: int, found: bool) -> None:
    findings = inspect_bars(bars(close=changed(5, [100.5] * count)))
    assert findings == (("5 closes in a row are equal from 2024-01-08",) if found else ())


def test_inspect_bars_names_days_without_volume() -> None:
    volume = np.where((np.arange(30) >= 4) & (np.arange(30) < 10), 0.0, 5.0)
    [found] = inspect_bars(bars(volume=volume))
    assert found == "6 bars in a row without volume from 2024-01-05"
    assert inspect_bars(bars(volume=0.0)) == ("volume is 0 on every bar",)


def test_inspect_bars_names_weekends() -> None:
    days = DAYS.insert(5, pd.Timestamp("2024-01-06"))
    [found] = inspect_bars(bars(days))
    assert found == "bars on Saturdays or Sundays: 1 of 31, the first 2024-01-06"
    # Where every weekend has its bars the market never closes.
    assert inspect_bars(bars(pd.date_range("2024-01-01", periods=30))) == ()


def test_inspect_bars_names_two_bars_of_a_day() -> None:
    days = DAYS.insert(4, DAYS[3] + pd.Timedelta(hours=5))
    [found] = inspect_bars(bars(days))
    assert found == "several bars a day: 1 of 31, the first 2024-01-04; bars are taken for days"


@pytest.mark.parametrize("rule", ["W-FRI", "ME", "h", "5min"])
def test_inspect_bars_of_any_length_finds_nothing(rule: str) -> None:
    assert inspect_bars(bars(pd.date_range("2020-01-01", periods=240, freq=rule))) == ()


def test_inspect_bars_names_bars_of_no_known_length() -> None:
    [found] = inspect_bars(bars(pd.date_range("2020-01-01", periods=24, freq="QE")))
    assert found.startswith("bars lie about 92 days apart, which is not a day, week or month; each")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("h", "a gap of 20 bars between 2020-01-04 05:00 and 2020-01-05 02:00"),
        ("W-FRI", "a gap of 20 bars between 2021-12-31 and 2022-05-27"),
    ],
)
def test_inspect_bars_counts_missing_bars(rule: str, message: str) -> None:
    days = pd.date_range("2020-01-01 00:00", periods=300, freq=rule)
    assert inspect_bars(bars(days[:78].append(days[98:]))) == (message,) if rule == "h" else True
    if rule != "h":
        assert inspect_bars(bars(days[:105].append(days[125:]))) == (message,)


def test_inspect_bars_of_exchange_names_days_and_holidays() -> None:
    series = replace(bars(DAYS), calendar=get_calendar("XNYS"))
    assert inspect_bars(series) == (
        # New Year's Day and Martin Luther King's.
        "bars on days without a session of XNYS: 2 of 30, the first 2024-01-01",
    )
    kept = [i for i, day in enumerate(DAYS) if f"{day:%m-%d}" not in ("01-01", "01-15", "01-17")]
    series = replace(bars(DAYS[kept]), calendar=get_calendar("XNYS"))
    assert inspect_bars(series) == ("1 sessions of XNYS have no bar, the first 2024-01-17",)


def test_inspect_bars_of_apple_names_its_crash() -> None:
    found = inspect_bars(BundledBars().bars("AAPL"))
    assert found[0].startswith("the close moves by -52% on 2000-09-29 without a split")
    assert all(inspect_bars(BundledBars().bars(name)) == () for name in ("GOOG", "IBM", "MSFT"))


def test_inspect_recent_bars_forgets_what_is_a_year_old() -> None:
    days = pd.bdate_range("2020-01-01", periods=400)
    close = 100.0 + np.arange(400) % 2
    close[40] = 140.0
    series = bars(days, close=close)
    assert len(inspect_recent_bars(series[: 40 + RECENT_BARS - 1])) == 1
    assert inspect_recent_bars(series) == ()
