"""A view holds what was knowable at `as_of`; dates mean the whole UTC day."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pytest

from finagent_model.errors import BadInputError, MixedBarsError, NoBarsError
from finagent_model.market.bars import BarSeries, common_timeframe, parse_as_of, show_as_of
from finagent_model.market.calendar import get_calendar
from finagent_model.market.news import Fact, NewsItem
from finagent_model.market.view import NEWS_LIMIT, MarketView

END = datetime(2012, 6, 29, 23, 59, 59, 999999, tzinfo=UTC)


def series(*days: str) -> BarSeries:
    return BarSeries.from_records(
        "GOOG",
        [
            {"closed_at": day, "open": 10, "high": 12, "low": 9, "close": 10 + i / 10}
            for i, day in enumerate(days)
        ],
    )


def item(moment: str) -> NewsItem:
    return NewsItem(published_at=datetime.fromisoformat(moment), headline=f"of {moment}")


WEEK = series("2012-06-25", "2012-06-26", "2012-06-27", "2012-06-28", "2012-06-29")


def test_view_drops_later_bars() -> None:
    view = MarketView.at(parse_as_of("2012-06-27"), WEEK)
    assert len(view.bars) == 3
    assert view.last_close == 10.2
    assert view.symbol == "GOOG"


def test_view_excludes_bar_before_its_close() -> None:
    before, after = (parse_as_of(f"2012-06-27T{hour}:00+00:00") for hour in ("20:59", "21:00"))
    assert len(MarketView.at(before, WEEK).bars) == 2
    assert len(MarketView.at(after, WEEK).bars) == 3


def test_view_drops_later_news() -> None:
    news = (
        item("2012-06-26T09:00:00+00:00"),
        item("2012-06-27T23:59:59+00:00"),
        item("2012-06-28T00:00:00+00:00"),
    )
    view = MarketView.at(parse_as_of("2012-06-27"), WEEK, news, undated_news=4)
    assert view.news == news[:2]
    assert view.undated_news == 4


def test_view_compares_news_time_across_zones() -> None:
    evening = item("2012-06-27T20:30:00-04:00")
    assert MarketView.at(parse_as_of("2012-06-27"), WEEK, (evening,)).news == ()
    assert MarketView.at(parse_as_of("2012-06-28"), WEEK, (evening,)).news == (evening,)


def test_view_limits_news_to_most_recent() -> None:
    news = tuple(item(f"2012-06-{day:02}T12:00:00+00:00") for day in range(1, 30))
    assert MarketView.at(END, WEEK, news).news == news[-NEWS_LIMIT:]


def test_view_before_first_bar_raises_with_its_close() -> None:
    with pytest.raises(NoBarsError, match="no bars for 'GOOG' at or before 2012-06-24; its first"):
        MarketView.at(parse_as_of("2012-06-24"), WEEK)


@pytest.mark.parametrize(
    ("as_of", "sessions", "without_bar", "stale"),
    [
        ("2012-06-29", 0, 0, False),
        ("2012-06-30", 1, 0, False),  # Friday's own weekday has ended by Saturday
        ("2012-07-01", 1, 0, False),
        ("2012-07-02", 1, 1, False),
        ("2012-07-06", 5, 5, False),
        ("2012-07-09", 6, 6, True),
    ],
)
def test_view_is_stale_after_a_week_of_missing_sessions(
    as_of: str, sessions: int, without_bar: int, stale: bool
) -> None:
    view = MarketView.at(parse_as_of(as_of), WEEK)
    assert view.stale_sessions == sessions
    assert view.sessions_without_bar == without_bar
    assert view.is_stale is stale


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2012-06-29", END),
        (" 2012-06-29 ", END),
        (date(2012, 6, 29), END),
        ("2012-06-29T17:00:00-04:00", datetime(2012, 6, 29, 21, tzinfo=UTC)),
        ("2012-06-29T21:00:00Z", datetime(2012, 6, 29, 21, tzinfo=UTC)),
        (
            datetime(2012, 6, 29, 17, tzinfo=timezone(timedelta(hours=-4))),
            datetime(2012, 6, 29, 21, tzinfo=UTC),
        ),
    ],
)
def test_parse_as_of_returns_utc_instant(value: Any, moment: datetime) -> None:
    parsed = parse_as_of(value)
    assert parsed == moment
    assert parsed.tzinfo is UTC


@pytest.mark.parametrize("value", ["2012-06-29T21:00:00", datetime(2012, 6, 29)])  # noqa: DTZ001
def test_parse_as_of_refuses_naive_time(value: Any) -> None:
    with pytest.raises(BadInputError, match="has no time zone; write a date"):
        parse_as_of(value)


@pytest.mark.parametrize("value", ["", "29.06.2012", "2012-02-30", "yesterday", 20120629, None])
def test_parse_as_of_refuses_other_values(value: Any) -> None:
    with pytest.raises(BadInputError, match="is not a date; write it as 2012-06-29"):
        parse_as_of(value)


def hourly(count: int, start: str = "2024-06-24T01:00", calendar: str = "24/7") -> BarSeries:
    closed_at = pd.date_range(start, periods=count, freq="h", tz="UTC")
    frame = pd.DataFrame({"closed_at": closed_at, "open": 10.0, "high": 99.0, "low": 9.0})
    return BarSeries.from_frame(
        "X", frame.assign(close=10.0 + np.arange(count)), calendar=get_calendar(calendar)
    )


def exchange(days: tuple[str, ...], calendar: str) -> BarSeries:
    return replace(series(*days), calendar=get_calendar(calendar))


def test_view_of_exchange_has_no_holiday_among_its_sessions() -> None:
    days = ("2012-11-19", "2012-11-20", "2012-11-21")
    thanksgiving = parse_as_of("2012-11-22")
    assert MarketView.at(thanksgiving, series(*days)).sessions_without_bar == 1
    assert MarketView.at(thanksgiving, exchange(days, "XNYS")).sessions_without_bar == 0
    # Before the early close of the half day its bar is not missing.
    noon, evening = (parse_as_of(f"2012-11-23T{hour}:00+00:00") for hour in (17, 18))
    assert MarketView.at(noon, exchange(days, "XNYS")).sessions_without_bar == 0
    assert MarketView.at(evening, exchange(days, "XNYS")).sessions_without_bar == 1


def test_view_of_market_that_never_closes_counts_weekends() -> None:
    bars = replace(WEEK, calendar=get_calendar("24/7"))
    monday = MarketView.at(parse_as_of("2012-07-02"), bars)
    assert (monday.stale_sessions, monday.sessions_without_bar) == (3, 3)


def test_view_drops_news_after_open_before_midnight() -> None:
    # Sydney's session of the 6th opens at 23:00 UTC on the 5th.
    days = ("2012-01-03", "2012-01-04", "2012-01-05")
    news = item("2012-01-05T22:59:00+00:00"), item("2012-01-05T23:01:00+00:00")
    facts = tuple(Fact(published_at=n.published_at, name=n.headline[-8:-6], value=1) for n in news)
    as_of = parse_as_of("2012-01-05")
    view = MarketView.at(as_of, exchange(days, "XASX"), news, 0, facts)
    assert (view.news, view.fundamentals, view.as_of) == (news[:1], facts[:1], as_of)
    assert MarketView.at(as_of, series(*days), news, 0, facts).news == news
    # Who asks about a moment has it all: such a decision is filled later.
    moment = parse_as_of("2012-01-05T23:30:00+00:00")
    assert MarketView.at(moment, exchange(days, "XASX"), news).news == news


def test_view_of_day_holds_bar_that_closes_at_midnight() -> None:
    bars = hourly(48)
    news = item("2024-06-24T23:59:59+00:00"), item("2024-06-25T00:00:00+00:00")
    view = MarketView.at(parse_as_of("2024-06-24"), bars, news)
    assert (len(view.bars), view.news) == (24, news[:1])
    assert (view.sessions_without_bar, view.is_stale) == (0, False)


def test_bars_within_day_are_decided_on_at_their_close() -> None:
    bars = hourly(48)
    assert bars.decision_time(22) == datetime(2024, 6, 24, 23, tzinfo=UTC)
    assert len(MarketView.at(bars.decision_time(22), bars).bars) == 23
    assert (bars.show_time(22), bars.timeframe.name) == ("2024-06-24 23:00", "1h")


def test_bar_of_day_that_closes_at_midnight_is_of_the_day_before() -> None:
    records = [
        {"closed_at": f"2024-06-{d}T00:00:00Z", "open": 1, "high": 1, "low": 1, "close": 1}
        for d in range(10, 30)
    ]
    bars = BarSeries.from_records("X", records)
    assert (bars.calendar.name, bars.timeframe.name) == ("24/7", "1d")
    assert (bars.day(3), bars.decision_time(3)) == (date(2024, 6, 12), bars.close_time(3))
    assert len(MarketView.at(bars.decision_time(3), bars).bars) == 4


@pytest.mark.parametrize(
    ("bars", "as_of", "missing", "stale"),
    [
        (hourly(24), "2024-06-25T05:59:00+00:00", 5, False),
        (hourly(24), "2024-06-25T06:00:00+00:00", 6, True),
        # Friday's last hour and Monday's first: no bar is missing in between.
        (hourly(25, "2024-06-27T20:00", "XNYS"), "2024-07-01T13:30:00+00:00", 0, False),
        (hourly(25, "2024-06-27T20:00", "XNYS"), "2024-07-02T13:30:00+00:00", 7, True),
        # Without hours two weekdays may be holidays.
        (hourly(25, "2024-06-27T20:00", "weekdays"), "2024-07-01T13:30:00+00:00", 1, False),
        (hourly(25, "2024-06-27T20:00", "weekdays"), "2024-07-03T13:30:00+00:00", 3, True),
    ],
)
def test_view_of_bars_within_day_is_stale_by_its_calendar(
    bars: BarSeries, as_of: str, missing: int, stale: bool
) -> None:
    view = MarketView.at(parse_as_of(as_of), bars)
    assert (view.sessions_without_bar, view.is_stale) == (missing, stale)


@pytest.mark.parametrize(("freq", "late"), [("W-FRI", 14), ("ME", 62)])
def test_view_of_long_bars_is_stale_when_two_are_missing(freq: str, late: int) -> None:
    days = pd.date_range("2023-01-01", periods=12, freq=freq)
    bars = series(*(f"{day:%Y-%m-%d}" for day in days))
    last = bars.close_time(-1)
    assert not MarketView.at(last + timedelta(days=late - 1), bars).is_stale
    assert MarketView.at(last + timedelta(days=late), bars).is_stale


def test_last_day_of_calendar_has_view() -> None:
    assert len(MarketView.at(parse_as_of("9999-12-31"), WEEK).bars) == 5
    assert MarketView.at(parse_as_of("9999-12-31"), exchange(("2012-06-29",), "XNYS")).is_stale


@pytest.mark.parametrize(
    ("as_of", "shown"),
    [("2012-06-29", "2012-06-29"), ("2012-06-29T17:00:00-04:00", "2012-06-29 21:00 UTC")],
)
def test_show_as_of_has_time_where_one_was_asked_for(as_of: str, shown: str) -> None:
    assert show_as_of(parse_as_of(as_of)) == shown


def test_common_timeframe_refuses_mixed_bars() -> None:
    with pytest.raises(MixedBarsError, match="bars of X last 1 hour, those of GOOG 1 day; take"):
        common_timeframe([hourly(24), WEEK])
