"""Each kind of leak, planted, is found; what is honest passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from finagent_model.backtesting.crossover import Crossover
from finagent_model.backtesting.engine import Orders, run_orders
from finagent_model.backtesting.kernel import FillRules
from finagent_model.data.bundled import BundledBars
from finagent_model.data.files import load_bundled_news
from finagent_model.evaluation import probes as leaks
from finagent_model.evaluation.out_of_sample import Traded, trade
from finagent_model.market import bars as bars_module
from finagent_model.market import indicators
from finagent_model.market import news as news_module
from finagent_model.market.bars import BarSeries, Floats
from finagent_model.market.news import NewsItem
from finagent_model.market.view import MarketView
from finagent_model.policy import context as features
from finagent_model.policy.policy import Policy
from finagent_model.training.request import TrainRequest

POLICY = Policy(fast=10, slow=60, channel=55)


@pytest.fixture(scope="module")
def apple() -> BarSeries:
    """With splits and dividends."""
    return BundledBars().bars("AAPL")


@pytest.fixture(scope="module")
def crossing() -> Traded:
    bars = BundledBars().bars("GOOG")
    return trade(bars, orders_of(Crossover(10, 30).crossings(bars.close)), TrainRequest())


def orders_of(actions: Any) -> Orders:
    none = np.full(len(actions), np.nan)
    return Orders(actions, np.ones(len(actions)), none, none)


def test_the_honest_pass(apple: BarSeries, crossing: Traded) -> None:
    items, _ = load_bundled_news().news("AAPL")
    checks = [
        leaks.features_causal(apple, [POLICY]),
        leaks.questions_causal(apple, items, POLICY),
        leaks.news_dated(),
        leaks.fills_possible(crossing),
        leaks.survives_delay(crossing),
    ]
    assert [check.name for check in checks if not check.passed] == []


def test_a_history_is_cut_at_least_forty_times_and_within_the_warm_up() -> None:
    found = leaks.cuts(2148, 101)
    assert len(found) == 40
    assert sum(cut <= 101 for cut in found) == 8
    assert leaks.cuts(5, 101) == [2, 4]


def centred(values: Floats, window: int, since: int = 0) -> Floats:
    found = ORIGINAL(values, window)
    ahead = min(window // 2, len(values))
    return np.append(found[ahead:], np.full(ahead, np.nan))


def one_ahead(values: Floats, window: int, since: int = 0) -> Floats:
    return np.append(ORIGINAL(values, window)[1:], np.nan)


def full_sample(values: Floats, window: int, since: int = 0) -> Floats:
    found = ORIGINAL(values, window)
    if np.isnan(found).all():
        return found
    scores: Floats = (found - np.nanmean(found)) / np.nanstd(found)
    return scores


def filled_back(values: Floats, window: int, since: int = 0) -> Floats:
    found = ORIGINAL(values, window).copy()
    defined = np.flatnonzero(np.isfinite(found))
    if len(defined):
        found[: defined[0]] = found[defined[0]]
    return found


ORIGINAL = indicators.sma


@pytest.mark.parametrize("leak", [centred, one_ahead, full_sample, filled_back])
def test_an_average_that_looks_ahead_is_found(
    apple: BarSeries, monkeypatch: pytest.MonkeyPatch, leak: Callable[..., Floats]
) -> None:
    monkeypatch.setattr(features.indicators, "sma", leak)
    check = leaks.features_causal(apple, [POLICY])
    assert not check.passed
    assert "trend_atr" in check.found


def test_an_adjustment_that_later_actions_revise_is_found(
    apple: BarSeries, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = bars_module.BarSeries.growth_factor.func  # type: ignore[attr-defined]

    def revised(self: BarSeries) -> Floats:
        factor: Floats = original(self)
        return factor / factor[-1]

    monkeypatch.setattr(bars_module.BarSeries, "growth_factor", property(revised))
    check = leaks.features_causal(apple, [POLICY])
    assert not check.passed
    assert "adjustment" in check.found


def test_a_view_that_lets_tomorrow_in_is_found(
    apple: BarSeries, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = BarSeries.until
    monkeypatch.setattr(
        BarSeries, "until", lambda self, moment: original(self, moment + timedelta(days=4))
    )
    assert not leaks.questions_causal(apple, (), POLICY).passed


def test_news_of_later_are_found(apple: BarSeries, monkeypatch: pytest.MonkeyPatch) -> None:
    original = MarketView.at.__func__  # type: ignore[attr-defined]

    def careless(
        cls: type[MarketView], as_of: Any, bars: Any, news: Any = (), *others: Any
    ) -> MarketView:
        view: MarketView = original(cls, as_of, bars, (), *others)
        return replace(view, news=tuple(news)[-3:])

    monkeypatch.setattr(MarketView, "at", classmethod(careless))
    items, _ = load_bundled_news().news("AAPL")
    assert not leaks.questions_causal(apple, items, POLICY).passed


def test_facts_of_later_are_found(apple: BarSeries, monkeypatch: pytest.MonkeyPatch) -> None:
    original = MarketView.at.__func__  # type: ignore[attr-defined]

    def careless(
        cls: type[MarketView], as_of: Any, bars: Any, news: Any, undated: int, facts: Any
    ) -> MarketView:
        view: MarketView = original(cls, as_of, bars, news, undated)
        return replace(view, fundamentals=tuple(facts))

    monkeypatch.setattr(MarketView, "at", classmethod(careless))
    assert not leaks.questions_causal(apple, (), POLICY).passed


def test_undated_news_taken_for_known_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def lenient(records: list[dict[str, Any]]) -> tuple[tuple[NewsItem, ...], int]:
        long_ago = datetime(1990, 1, 1, tzinfo=UTC)
        return tuple(NewsItem(published_at=long_ago, headline=r["headline"]) for r in records), 0

    assert news_module.read_news is leaks.read_news
    monkeypatch.setattr(leaks, "read_news", lenient)
    assert not leaks.news_dated().passed


def traded(crossing: Traded, rules: FillRules, actions: Any = None) -> Traded:
    bars = crossing.bars
    orders = crossing.orders if actions is None else orders_of(actions)
    result = run_orders(bars, orders, rules, cash=1.0, whole_shares=False)
    return Traded(bars, orders, crossing.rules, result, crossing.benchmark)


def test_fills_at_the_bar_that_was_decided_on_are_found(crossing: Traded) -> None:
    check = leaks.fills_possible(traded(crossing, FillRules(fill_at_close=True)))
    assert not check.passed
    assert "could not have been had" in check.found


def test_what_lives_on_the_next_bar_does_not_survive_a_delay(crossing: Traded) -> None:
    bars = crossing.bars
    tomorrow = np.append(bars.close[1:] / bars.open[1:] - 1, 0.0)
    ahead = np.where(tomorrow > 0, 1, -1).astype(np.int8)
    check = leaks.survives_delay(traded(crossing, FillRules(), ahead))
    assert not check.passed
