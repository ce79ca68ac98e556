"""Sessions of exchanges: holidays, half days, and when the next one opens."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from finagent_model.errors import BadInputError
from finagent_model.market.calendar import ALWAYS, WEEKDAYS, get_calendar, guess_calendar
from finagent_model.market.timeframe import parse_timeframe

NEW_YORK, SYDNEY = get_calendar("XNYS"), get_calendar("XASX")
HOUR = parse_timeframe("1h")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_count_sessions_leaves_out_holidays() -> None:
    # The week of Thanksgiving 2012.
    week = date(2012, 11, 19), date(2012, 11, 26)
    assert NEW_YORK.count_sessions(*week) == 4
    assert WEEKDAYS.count_sessions(*week) == 5
    assert ALWAYS.count_sessions(*week) == 7
    assert NEW_YORK.count_sessions(*reversed(week)) == 0


def test_count_sessions_beyond_what_is_known_counts_weekdays() -> None:
    assert NEW_YORK.count_sessions(date(2100, 1, 4), date(2100, 1, 11)) == 5


def test_close_of_half_day_is_early() -> None:
    assert NEW_YORK.close_of(date(2012, 11, 23)) == at("2012-11-23T18:00")
    assert NEW_YORK.close_of(date(2012, 11, 22)) is None
    assert WEEKDAYS.close_of(date(2012, 11, 23)) is None


def test_end_of_day_is_next_open_where_that_is_before_midnight() -> None:
    day = date(2012, 1, 5)
    midnight = datetime(2012, 1, 5, 23, 59, 59, 999999, tzinfo=UTC)
    assert SYDNEY.end_of(day) == at("2012-01-05T23:00")
    assert [c.end_of(day) for c in (NEW_YORK, WEEKDAYS, ALWAYS)] == [midnight] * 3
    # A Sunday ends with Monday's open.
    assert SYDNEY.end_of(date(2012, 1, 8)) == at("2012-01-08T23:00")


@pytest.mark.parametrize(
    ("calendar", "begun", "hours", "closed"),
    [
        ("XNYS", "2024-06-26T19:30", 1, "2024-06-26T20:00"),
        ("XNYS", "2024-06-26T12:00", 1, "2024-06-26T13:00"),
        ("XNYS", "2024-06-26T20:00", 1, "2024-06-26T21:00"),
        ("24/7", "2024-06-26T19:30", 1, "2024-06-26T20:30"),
        # Lunch in Tokyo is from 02:30 to 03:30, in Hong Kong from 04:00, in Shanghai from 03:30.
        ("XTKS", "2024-06-26T01:00", 1, "2024-06-26T02:00"),
        ("XTKS", "2024-06-26T02:00", 1, "2024-06-26T02:30"),
        ("XTKS", "2024-06-26T03:00", 1, "2024-06-26T04:00"),
        ("XTKS", "2024-06-26T05:30", 1, "2024-06-26T06:00"),
        ("XHKG", "2024-06-26T03:30", 1, "2024-06-26T04:00"),
        ("XSHG", "2024-06-26T02:30", 1, "2024-06-26T03:30"),
        # It goes on in the afternoon, and nobody knows it at noon.
        ("XTKS", "2024-06-26T02:00", 2, "2024-06-26T04:00"),
        ("XTKS", "2024-06-26T00:00", 4, "2024-06-26T04:00"),
        # At 17:00 New York the next day of currencies begins, but for Fridays.
        ("fx", "2024-06-26T20:00", 4, "2024-06-27T00:00"),
        ("fx", "2024-01-10T20:00", 4, "2024-01-11T00:00"),
        ("fx", "2024-06-28T20:00", 4, "2024-06-28T21:00"),
        ("fx", "2024-06-30T20:00", 4, "2024-07-01T00:00"),
        ("24/5", "2024-06-26T22:00", 4, "2024-06-27T02:00"),
        ("24/5", "2024-06-28T22:00", 4, "2024-06-29T00:00"),
    ],
)
def test_bar_close_is_within_its_session(
    calendar: str, begun: str, hours: int, closed: str
) -> None:
    assert get_calendar(calendar).bar_close(at(begun), timedelta(hours=hours)) == at(closed)


@pytest.mark.parametrize(
    ("last", "as_of", "count"),
    [
        ("2024-06-26T20:00", "2024-06-27T13:30", 0),  # the night
        ("2024-06-26T20:00", "2024-06-27T14:29", 0),
        ("2024-06-26T20:00", "2024-06-27T14:30", 1),
        ("2024-06-26T20:00", "2024-06-28T13:00", 7),  # the last one is half as long
        ("2024-06-28T20:00", "2024-07-01T13:30", 0),  # the weekend
        ("2024-06-26T20:00", "2024-06-26T15:00", 0),
    ],
)
def test_count_bars_counts_hours_of_sessions(last: str, as_of: str, count: int) -> None:
    assert NEW_YORK.count_bars(HOUR, at(last), at(as_of)) == count


@pytest.mark.parametrize(
    ("calendar", "last", "as_of", "count"),
    [
        ("XTKS", "2024-06-26T02:30", "2024-06-26T03:30", 0),  # lunch
        ("XTKS", "2024-06-26T02:30", "2024-06-26T04:30", 1),
        ("XTKS", "2024-06-25T06:00", "2024-06-26T06:00", 6),
        ("XHKG", "2024-06-25T08:00", "2024-06-26T08:00", 6),
        ("XSHG", "2024-06-25T07:00", "2024-06-26T07:00", 4),
        ("fx", "2024-06-28T21:00", "2024-06-30T21:00", 0),  # the weekend
        ("fx", "2024-06-28T20:00", "2024-06-30T23:00", 3),
        ("fx", "2024-06-26T00:00", "2024-06-27T00:00", 24),
    ],
)
def test_count_bars_leaves_out_lunch_with_weekends(
    calendar: str, last: str, as_of: str, count: int
) -> None:
    assert get_calendar(calendar).count_bars(HOUR, at(last), at(as_of)) == count


@pytest.mark.parametrize(
    ("as_of", "count"),
    [
        ("2024-01-10T21:00", 5),
        ("2024-01-10T22:00", 5),
        ("2024-01-10T23:00", 5),
        ("2024-01-11T00:00", 6),
        ("2024-01-12T22:00", 18),
        ("2024-01-14T22:00", 18),
        ("2024-01-15T02:00", 19),
    ],
)
def test_count_bars_counts_one_that_spans_days_once(as_of: str, count: int) -> None:
    hours = parse_timeframe("4h")
    assert get_calendar("fx").count_bars(hours, at("2024-01-10T00:00"), at(as_of)) == count


@pytest.mark.parametrize(
    ("calendar", "day", "closed"),
    [
        ("24/7", date(2024, 1, 6), "2024-01-07T00:00"),
        ("24/5", date(2024, 1, 5), "2024-01-06T00:00"),
        ("24/5", date(2024, 1, 7), "2024-01-08T00:00"),
        ("fx", date(2024, 1, 5), "2024-01-05T22:00"),
        ("fx", date(2024, 1, 7), "2024-01-08T00:00"),
        ("XNYS", date(2024, 1, 5), "2024-01-05T21:00"),
    ],
)
def test_day_close_is_end_of_session_or_day(calendar: str, day: date, closed: str) -> None:
    assert get_calendar(calendar).day_close(day) == at(closed)


def test_count_bars_of_market_that_never_closes_is_by_length() -> None:
    assert ALWAYS.count_bars(HOUR, at("2024-06-28T20:00"), at("2024-07-01T13:30")) == 65


@pytest.mark.parametrize(
    ("freq", "name"),
    [("D", "24/7"), ("B", "weekdays"), ("h", "24/7"), ("W-MON", "weekdays")],
)
def test_guess_calendar_goes_by_saturdays(freq: str, name: str) -> None:
    closed_at = pd.date_range("2024-01-01", periods=400, freq=freq).to_numpy()
    assert guess_calendar(closed_at.astype("datetime64[us]")).name == name


def test_guess_calendar_of_one_odd_saturday_is_weekdays() -> None:
    days = pd.bdate_range("2024-01-01", periods=60).union(pd.DatetimeIndex(["2024-01-06"]))
    assert guess_calendar(days.to_numpy().astype("datetime64[us]")) == WEEKDAYS
    assert guess_calendar(np.array([], "datetime64[us]")) == WEEKDAYS


@pytest.mark.parametrize("name", ["", "NASDAQ-100", "nyse?", None, 24, "25/7"])
def test_get_calendar_refuses_unknown_name(name: Any) -> None:
    with pytest.raises(BadInputError, match="is unknown; write weekdays, 24/7, 24/5, fx or"):
        get_calendar(name)


def test_currency_days_end_at_five_in_new_york() -> None:
    fx = get_calendar("FX")
    assert fx.close_of(date(2024, 1, 5)) == at("2024-01-05T22:00")
    assert fx.close_of(date(2024, 7, 5)) == at("2024-07-05T21:00")
    assert fx.close_of(date(2024, 1, 6)) is None
    # Monday begins on Sunday evening.
    assert fx.end_of(date(2024, 1, 7)) == at("2024-01-07T22:00")
    assert fx.count_sessions(date(2024, 1, 1), date(2024, 1, 8)) == 5


def test_session_days_of_bars_before_midnight_are_the_next() -> None:
    closes = np.array(["2024-01-07T23:00", "2024-01-06T12:00", "2024-01-05T22:00"], "M8[us]")
    days = [str(day) for day in get_calendar("fx").session_days(closes)]
    assert days == ["2024-01-08", "NaT", "2024-01-05"]


def test_get_calendar_reads_any_case() -> None:
    assert get_calendar(" xnys ") == NEW_YORK
    assert get_calendar("Weekdays") == WEEKDAYS


@pytest.mark.slow
def test_bars_import_no_library_of_exchanges() -> None:
    code = "import sys, finagent_model.data.market; print('exchange_calendars' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
