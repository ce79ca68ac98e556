"""No future: later bars change no earlier question, and no date reaches an agent."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import load_preset
from finagent_model.data.bundled import BundledBars
from finagent_model.data.files import load_bundled_news
from finagent_model.desk.desk import Desk
from finagent_model.evaluation.probes import corrupt_after
from finagent_model.market.bars import BarSeries, parse_as_of
from finagent_model.market.news import NewsItem
from finagent_model.market.view import MarketView
from finagent_model.policy.context import build_context
from finagent_model.policy.policy import Policy
from finagent_model.settings import Settings

CUTS = (102, 103, 150, 260, 1000, 1381, 2000, 2500, 3269)


@pytest.fixture(scope="module")
def aapl() -> BarSeries:
    """It has splits and dividends on both sides of the cuts."""
    return BundledBars().bars("AAPL")


@pytest.mark.parametrize("cut", CUTS)
def test_question_is_equal_on_cut_history(aapl: BarSeries, cut: int) -> None:
    as_of = parse_as_of(aapl.close_time(cut - 1).date())
    whole = build_context(MarketView.at(as_of, aapl), Policy())
    short = build_context(MarketView.at(as_of, aapl[:cut]), Policy())
    assert whole == short


@pytest.mark.parametrize("cut", CUTS)
def test_requests_ignore_corrupted_future(aapl: BarSeries, cut: int) -> None:
    as_of = parse_as_of(aapl.close_time(cut - 1).date())
    items, _ = load_bundled_news().news("AAPL")
    fake = NewsItem(published_at=as_of + timedelta(seconds=1), headline="Everything is known")
    altered = (*(i for i in items if i.published_at <= as_of), fake)

    def requests(bars: BarSeries, news: tuple[NewsItem, ...]) -> set[str]:
        cassette = Cassette()
        desk = Desk(load_preset(), None, Settings.load({}), cassette)
        decision = desk.decide(MarketView.at(as_of, bars, news))
        assert decision.signal.status == "ok"
        return set(cassette.used_replies)

    assert requests(aapl, items) == requests(corrupt_after(aapl, cut), altered)


def test_requests_change_with_corrupted_past(aapl: BarSeries) -> None:
    as_of = parse_as_of(aapl.close_time(1010).date())
    other = corrupt_after(aapl, 1000)
    views = [MarketView.at(as_of, bars) for bars in (aapl, other)]
    assert build_context(views[0], Policy()) != build_context(views[1], Policy())


def test_question_has_no_date_or_year(aapl: BarSeries) -> None:
    as_of = parse_as_of(aapl.close_time(2000).date())
    text = build_context(
        MarketView.at(as_of, aapl, *load_bundled_news().news("AAPL")), Policy()
    ).text
    assert not re.search(r"\b(19|20)\d\d-\d\d", text)
    assert str(as_of.year) not in re.sub(r'"headline": "[^"]*"', "", text)
