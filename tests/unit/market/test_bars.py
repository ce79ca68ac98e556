"""A bar series is refused whole, by name and bar, or can be trusted; later actions stay unseen."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from finagent_model.errors import BadInputError, InvalidBarsError
from finagent_model.market.bars import BarSeries, parse_as_of

DAYS = ("2012-06-25", "2012-06-26", "2012-06-27", "2012-06-28")


def records(**changes: Any) -> list[dict[str, Any]]:
    """Four good bars; `close=5` changes the third bar."""
    rows: list[dict[str, Any]] = [
        {"closed_at": day, "open": 10.0, "high": 11.0, "low": 9.0, "close": 10.5, "volume": 100}
        for day in DAYS
    ]
    rows[2].update(changes)
    return rows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"close": float("nan")},
            r"bars of GOOG: close is not a positive number at bar 2 \(2012-06-27\)",
        ),
        ({"close": None}, "close is not a positive number at bar 2"),
        ({"open": -1.0}, "open is not a positive number at bar 2"),
        ({"low": 0.0}, "low is not a positive number at bar 2"),
        ({"high": float("inf")}, "high is not a positive number at bar 2"),
        ({"high": 10.2}, "high is below open or close at bar 2"),
        ({"low": 10.2}, "low is above open or close at bar 2"),
        ({"volume": -5}, "volume is negative at bar 2"),
        ({"split": 0.0}, "split is not a positive ratio at bar 2"),
        ({"split": -2.0}, "split is not a positive ratio at bar 2"),
        ({"dividend": -0.1}, "dividend is not a number >= 0 at bar 2"),
        ({"dividend": 10.5}, "dividend is as large as the price before it at bar 2"),
        ({"close": "10.5"}, "close '10.5' at bar 2 is not a number"),
        ({"close": True}, "close True at bar 2 is not a number"),
        ({"close": [[10.5]]}, r"close \[\.\.\.\] at bar 2 is not a number"),
        ({"volume": 10**400}, "volume holds something that is not a number"),
        ({"clsoe": 10.5}, "unknown key 'clsoe' at bar 2; known: closed_at, open, high"),
        ({"k" * 10**6: 1}, r"unknown key 'k{40}'\.\.\. at bar 2"),
        ({"closed_at": "x" * 10**6}, r"closed_at 'x{40}'\.\.\. at bar 2 is not an ISO date"),
        ({"closed_at": "0001-01-01T00:00:00+23:59"}, "at bar 2 is outside the calendar in UTC"),
        ({"closed_at": "9999-12-31T23:59:59-23:59"}, "at bar 2 is outside the calendar in UTC"),
        ({"closed_at": DAYS[1]}, "closed_at is repeated at bar 2"),
        ({"closed_at": "2012-06-20"}, "closed_at is earlier than the bar before at bar 2"),
        ({"closed_at": "2012-06-27T21:00:00"}, "at bar 2 has no time zone; add one"),
        ({"closed_at": datetime(2012, 6, 27, 21)}, "at bar 2 has no time zone"),  # noqa: DTZ001
        ({"closed_at": "27 June"}, "closed_at '27 June' at bar 2 is not an ISO date or time"),
        ({"closed_at": None}, "closed_at nan at bar 2 is not an ISO date or time"),
        ({"closed_at": 20120627}, "at bar 2 is not an ISO date or time"),
    ],
)
def test_bars_refuse_invalid_row_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidBarsError, match=message):
        BarSeries.from_records("GOOG", records(**changes))


@pytest.mark.parametrize("bar", [None, 3, "2012-06-27", [], True])
def test_bars_refuse_what_is_no_object(bar: Any) -> None:
    with pytest.raises(InvalidBarsError, match=r"bars of GOOG: bar 1 is .*, not an object with"):
        BarSeries.from_records("GOOG", [records()[0], bar])


@pytest.mark.parametrize("column", ["closed_at", "open", "high", "low", "close"])
def test_bars_name_missing_column(column: str) -> None:
    rows = [{k: v for k, v in row.items() if k != column} for row in records()]
    with pytest.raises(InvalidBarsError, match=f"bars of GOOG: column '{column}' is missing"):
        BarSeries.from_records("GOOG", rows)


@pytest.mark.parametrize("frame", [pd.DataFrame(), pd.DataFrame(records()).iloc[:0]])
def test_bars_refuse_empty_frame(frame: pd.DataFrame) -> None:
    with pytest.raises(InvalidBarsError, match="bars of GOOG: empty; send at least one bar"):
        BarSeries.from_frame("GOOG", frame)


@pytest.mark.parametrize(
    ("symbol", "message"),
    [
        ("", "symbol '' is not a ticker"),
        ("  ", "is not a ticker"),
        (None, "symbol None is not a ticker"),
        (" GOOG", "blanks at its ends"),
        ("GO\nOG", "control characters"),
        ("A" * 21, "has 21 characters; at most 20"),
    ],
)
def test_bars_refuse_malformed_symbol(symbol: Any, message: str) -> None:
    with pytest.raises(InvalidBarsError, match=message):
        BarSeries.from_records(symbol, records())


@pytest.mark.parametrize("symbol", ["BTC/USD", "RDS A", "BRK.b", "^GSPC", "A" * 20])
def test_bar_series_takes_any_symbol_that_a_source_may_list(symbol: str) -> None:
    assert BarSeries.from_records(symbol, records()).symbol == symbol


@pytest.mark.parametrize(
    "day", ["2012-06-27", date(2012, 6, 27), "2012-06-27T17:00:00-04:00", "2012-06-27T21:00:00Z"]
)
def test_bars_date_alone_closes_at_close_time_utc(day: Any) -> None:
    series = BarSeries.from_records("GOOG", records(closed_at=day))
    assert series.close_time(2) == datetime(2012, 6, 27, 21, tzinfo=UTC)


def test_bars_missing_columns_get_neutral_values() -> None:
    rows = records(split=2.0)
    for row in rows:
        del row["volume"]
    series = BarSeries.from_records("GOOG", rows)
    assert series.split.tolist() == [1.0, 1.0, 2.0, 1.0]
    assert series.dividend.tolist() == [0.0] * 4
    assert np.isnan(series.volume).all()


def test_bars_arrays_are_read_only_copies() -> None:
    frame = pd.DataFrame(records())
    series = BarSeries.from_frame("GOOG", frame)
    frame["close"] = 1.0
    assert series.close.tolist() == [10.5] * 4
    for part in (series, series[1:3]):
        with pytest.raises(ValueError, match="read-only"):
            part.close[0] = 1.0


def test_bars_to_frame_inverts_from_frame() -> None:
    series = BarSeries.from_records("GOOG", records(split=2.0, dividend=0.1))
    again = BarSeries.from_frame("GOOG", series.to_frame())
    pd.testing.assert_frame_equal(series.to_frame(), again.to_frame())


def test_bars_until_includes_bar_closing_at_moment() -> None:
    series = BarSeries.from_records("GOOG", records())
    assert len(series.until(series.close_time(1))) == 2
    assert len(series.until(datetime(2012, 6, 26, 20, 59, tzinfo=UTC))) == 1
    assert len(series.until(datetime(2012, 6, 24, tzinfo=UTC))) == 0


def test_adjust_to_first_bar_ignores_split() -> None:
    halved = {"open": 5.0, "high": 5.5, "low": 4.5, "close": 5.25}
    rows = records(split=2.0, **halved)
    rows[3].update(halved)
    growth = BarSeries.from_records("GOOG", rows).adjust_to_first_bar()
    assert growth.close.tolist() == [10.5] * 4
    assert growth.volume.tolist() == [100.0, 100.0, 50.0, 50.0]


def test_growth_factor_reinvests_dividend_at_previous_close() -> None:
    series = BarSeries.from_records("GOOG", records(dividend=0.5))
    assert series.growth_factor.tolist() == [1.0, 1.0, 10.5 / 10.0, 10.5 / 10.0]


def test_growth_factor_has_no_look_ahead() -> None:
    plain = BarSeries.from_records("GOOG", records(split=2.0)).growth_factor
    rows = records(split=2.0)
    rows[3].update(split=3.0, dividend=1.0)
    later = BarSeries.from_records("GOOG", rows).growth_factor
    assert plain[:3].tobytes() == later[:3].tobytes()
    assert plain[3] != later[3]


def test_growth_factor_of_cut_equals_cut_factor() -> None:
    series = BarSeries.from_records("GOOG", records(split=2.0, dividend=0.5))
    for cut in range(5):
        assert series[:cut].growth_factor.tobytes() == series.growth_factor[:cut].tobytes()
        assert (
            series[:cut].adjust_to_first_bar().close.tobytes()
            == series.adjust_to_first_bar().close[:cut].tobytes()
        )


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00"])
def test_parse_as_of_refuses_what_is_outside_the_calendar(moment: str) -> None:
    with pytest.raises(BadInputError, match="outside the calendar"):
        parse_as_of(moment)
