"""A view holds what was knowable at `as_of`; dates mean the whole UTC day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from finagent_model.errors import BadInputError, NoBarsError
from finagent_model.market.bars import BarSeries, parse_as_of
from finagent_model.market.news import NewsItem
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
