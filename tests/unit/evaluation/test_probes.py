"""The look-ahead probes: each kind of leak, planted, is detected; honest code passes."""

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
from finagent_model.evaluation import probes
from finagent_model.evaluation.out_of_sample import OrdersBacktest, trade
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
def crossing() -> OrdersBacktest:
    bars = BundledBars().bars("GOOG")
    return trade(bars, orders_of(Crossover(10, 30).crossings(bars.close)), TrainRequest())


def orders_of(actions: Any) -> Orders:
    none = np.full(len(actions), np.nan)
    return Orders(actions, np.ones(len(actions)), none, none)


def test_probes_pass_honest_code(apple: BarSeries, crossing: OrdersBacktest) -> None:
    items, _ = load_bundled_news().news("AAPL")
    checks = [
        probes.check_features_causal(apple, [POLICY]),
        probes.check_questions_causal(apple, items, POLICY),
        probes.check_news_dated(),
        probes.check_fills_possible(crossing),
        probes.check_survives_delay(crossing),
    ]
    assert [check.name for check in checks if not check.passed] == []


def test_choose_cuts_covers_warm_up_with_eight_of_forty() -> None:
    cuts = probes.choose_cuts(2148, 101)
    assert len(cuts) == 40
    assert sum(cut <= 101 for cut in cuts) == 8
    assert probes.choose_cuts(5, 101) == [2, 4]


def centred(values: Floats, window: int, since: int = 0) -> Floats:
    average = ORIGINAL(values, window)
    ahead = min(window // 2, len(values))
    return np.append(average[ahead:], np.full(ahead, np.nan))


def one_ahead(values: Floats, window: int, since: int = 0) -> Floats:
    return np.append(ORIGINAL(values, window)[1:], np.nan)


def full_sample(values: Floats, window: int, since: int = 0) -> Floats:
    average = ORIGINAL(values, window)
    if np.isnan(average).all():
        return average
    scores: Floats = (average - np.nanmean(average)) / np.nanstd(average)
    return scores


def filled_back(values: Floats, window: int, since: int = 0) -> Floats:
    average = ORIGINAL(values, window).copy()
    defined = np.flatnonzero(np.isfinite(average))
    if len(defined):
        average[: defined[0]] = average[defined[0]]
    return average


ORIGINAL = indicators.sma


@pytest.mark.parametrize("leak", [centred, one_ahead, full_sample, filled_back])
def test_features_probe_detects_look_ahead_average(
    apple: BarSeries, monkeypatch: pytest.MonkeyPatch, leak: Callable[..., Floats]
) -> None:
    monkeypatch.setattr(features.indicators, "sma", leak)
    check = probes.check_features_causal(apple, [POLICY])
    assert not check.passed
    assert "trend_atr" in check.found


def test_features_probe_detects_adjustment_by_later_actions(
    apple: BarSeries, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = bars_module.BarSeries.growth_factor.func  # type: ignore[attr-defined]

    def revised(self: BarSeries) -> Floats:
        factor: Floats = original(self)
        return factor / factor[-1]

    monkeypatch.setattr(bars_module.BarSeries, "growth_factor", property(revised))
    check = probes.check_features_causal(apple, [POLICY])
    assert not check.passed
    assert "adjustment" in check.found


def test_questions_probe_detects_view_with_later_bars(
    apple: BarSeries, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = BarSeries.until
    monkeypatch.setattr(
        BarSeries, "until", lambda self, moment: original(self, moment + timedelta(days=4))
    )
    assert not probes.check_questions_causal(apple, (), POLICY).passed


def test_questions_probe_detects_later_news(
    apple: BarSeries, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = MarketView.at.__func__  # type: ignore[attr-defined]

    def careless(
        cls: type[MarketView], as_of: Any, bars: Any, news: Any = (), *others: Any
    ) -> MarketView:
        view: MarketView = original(cls, as_of, bars, (), *others)
        return replace(view, news=tuple(news)[-3:])

    monkeypatch.setattr(MarketView, "at", classmethod(careless))
    items, _ = load_bundled_news().news("AAPL")
    assert not probes.check_questions_causal(apple, items, POLICY).passed


def test_questions_probe_detects_later_fundamentals(
    apple: BarSeries, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = MarketView.at.__func__  # type: ignore[attr-defined]

    def careless(
        cls: type[MarketView], as_of: Any, bars: Any, news: Any, undated: int, facts: Any
    ) -> MarketView:
        view: MarketView = original(cls, as_of, bars, news, undated)
        return replace(view, fundamentals=tuple(facts))

    monkeypatch.setattr(MarketView, "at", classmethod(careless))
    assert not probes.check_questions_causal(apple, (), POLICY).passed


def test_news_probe_detects_undated_items_read_as_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def lenient(records: list[dict[str, Any]]) -> tuple[tuple[NewsItem, ...], int]:
        long_ago = datetime(1990, 1, 1, tzinfo=UTC)
        return tuple(NewsItem(published_at=long_ago, headline=r["headline"]) for r in records), 0

    assert news_module.read_news is probes.read_news
    monkeypatch.setattr(probes, "read_news", lenient)
    assert not probes.check_news_dated().passed


def traded(crossing: OrdersBacktest, rules: FillRules, actions: Any = None) -> OrdersBacktest:
    bars = crossing.bars
    orders = crossing.orders if actions is None else orders_of(actions)
    result = run_orders(bars, orders, rules, cash=1.0, whole_shares=False)
    return OrdersBacktest(bars, orders, crossing.rules, result, crossing.benchmark)


def test_fills_probe_detects_fills_at_decision_bar(crossing: OrdersBacktest) -> None:
    check = probes.check_fills_possible(traded(crossing, FillRules(fill_at_close=True)))
    assert not check.passed
    assert "could not have been had" in check.found


def test_delay_probe_detects_next_bar_look_ahead(crossing: OrdersBacktest) -> None:
    bars = crossing.bars
    tomorrow = np.append(bars.close[1:] / bars.open[1:] - 1, 0.0)
    ahead = np.where(tomorrow > 0, 1, -1).astype(np.int8)
    check = probes.check_survives_delay(traded(crossing, FillRules(), ahead))
    assert not check.passed


@pytest.mark.parametrize(
    ("p_value", "passed", "warned"),
    [(0.2, True, False), (0.01, True, True), (0.0001, False, True), (float("nan"), True, False)],
)
def test_delay_probe_warns_before_it_fails(
    crossing: OrdersBacktest,
    monkeypatch: pytest.MonkeyPatch,
    p_value: float,
    passed: bool,
    warned: bool,
) -> None:
    monkeypatch.setattr(probes, "delay_p_value", lambda *_, seed: p_value)
    check = probes.check_survives_delay(crossing)
    assert (check.passed, "warning" in check.found) == (passed, warned)
