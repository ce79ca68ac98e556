"""Does anything known at a bar depend on what came after it?

A history is cut at many bars, also within the first windows, and continued with nonsense; whatever
was computed before the cut must stay the same to the bit. Fills are held against the opens that
decisions could have had, and delayed by a bar.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np

from finagent_model.backtest.engine import run_orders
from finagent_model.backtest.metrics import returns_of, sharpe
from finagent_model.context import build_context
from finagent_model.domain.bars import PRICES, BarSeries, Floats
from finagent_model.domain.check import Check
from finagent_model.domain.clock import parse_as_of
from finagent_model.domain.fundamentals import Fact
from finagent_model.domain.market_view import MarketView
from finagent_model.domain.news import NewsItem, read_news
from finagent_model.domain.policy import Policy
from finagent_model.errors import DataError
from finagent_model.features import FeatureBook
from finagent_model.statistics.bootstrap import superior_predictive_ability
from finagent_model.training.out_of_sample import Traded
from finagent_model.upstream.window import window_of

CUTS = 40
CHANCE = 0.001
"""Below this p-value a loss by one bar's delay is no accident."""
COLLAPSE = 0.5
"""Share of its Sharpe ratio that an honest strategy keeps when it acts a bar later."""


def cuts(count: int, warm_up: int) -> list[int]:
    """Lengths to cut a history of `count` bars to: eight within the warm-up, the rest spread over
    the whole, `CUTS` in all where there are as many bars.
    """
    early = np.linspace(2, max(warm_up, 2), 8)
    late = np.linspace(warm_up + 1, count - 1, CUTS - 8)
    return sorted({int(c) for c in (*early, *late) if 1 < c < count})


def corrupted_after(bars: BarSeries, cut: int) -> BarSeries:
    """The same until `cut`, nonsense from there on: other prices, volumes and actions."""
    rng, count = np.random.default_rng(cut), max(len(bars) - cut, 0)
    scale = np.append(np.ones(len(bars) - count), rng.uniform(0.2, 5.0, count))
    split, dividend = bars.split.copy(), bars.dividend.copy()
    split[cut:] = np.where(rng.random(count) < 0.02, 2.0, 1.0)
    dividend[cut:] = 0.0
    prices = {name: getattr(bars, name) * scale for name in (*PRICES, "volume")}
    return replace(bars, **prices, split=split, dividend=dividend)


def features_causal(bars: BarSeries, policies: Sequence[Policy]) -> Check:
    """Adjustment factors and features before a cut, without and with other bars after it."""
    wrong: set[str] = set()
    asked = 0
    for policy in policies:
        whole = _computed(bars, policy)
        for cut in cuts(len(bars), policy.warm_up):
            for other in (bars[:cut], corrupted_after(bars, cut)):
                found = _computed(other, policy)
                asked += 1
                wrong |= {
                    name
                    for name, values in whole.items()
                    if not np.array_equal(values[:cut], found[name][:cut], equal_nan=True)
                }
    said = f"{asked} cuts and corruptions of {bars.symbol}"
    if wrong:
        said += f"; later bars change earlier {', '.join(sorted(wrong))}"
    return Check(name="features_causal", passed=not wrong, found=said)


def questions_causal(
    bars: BarSeries,
    news: tuple[NewsItem, ...],
    policy: Policy,
    facts: tuple[Fact, ...] = (),
    upstream: bool = False,
) -> Check:
    """What the agents are asked at a cut, and what `upstream` is shown where the desk hears it,
    with other bars, news and fundamentals after it.
    """
    different: list[str] = []
    asked = 0
    for cut in cuts(len(bars), policy.warm_up):
        as_of = parse_as_of(bars.closed(cut - 1).date())
        later = as_of + timedelta(microseconds=1)
        fake = NewsItem(published_at=later, headline="All is known now")
        told = Fact(published_at=later, name="all_is_known", value=1.0)
        known = tuple(item for item in news if item.published_at <= as_of)
        stated = tuple(fact for fact in facts if fact.published_at <= as_of)
        whole = MarketView.at(as_of, bars, news, 0, facts)
        others = (
            MarketView.at(as_of, bars[:cut], known, 0, stated),
            MarketView.at(as_of, corrupted_after(bars, cut), (*known, fake), 0, (*stated, told)),
        )
        asked += 1
        if len({_asked(view, policy, upstream) for view in (whole, *others)}) > 1:
            different.append(f"{as_of:%Y-%m-%d}")
    said = f"{asked} questions about {bars.symbol}"
    if different:
        said += f"; {len(different)} change with their future, first as of {different[0]}"
    return Check(name="questions_causal", passed=not different, found=said)


def news_dated() -> Check:
    """An item without a publication time must be left out and counted."""
    items, dropped = read_news([{"headline": "Nobody says when this was published"}])
    said = "an undated item is left out" if not items else "an undated item is read as known"
    return Check(name="news_dated", passed=not items and dropped == 1, found=said)


def fills_possible(traded: Traded) -> Check:
    """Every entry at the open after the bar that was decided on, every market exit at an open."""
    bars, orders, rules = traded.bars, traded.orders, traded.rules
    wrong: list[str] = []
    for trade in traded.result.trades.to_dict("records"):
        side = 1 if trade["side"] == "long" else -1
        entry, left = int(trade["entry_bar"]), int(trade["exit_bar"])
        price = bars.open[entry] * (1 + side * rules.slippage)
        decided = entry > 0 and orders.action[entry - 1] == side
        if not decided or not np.isclose(trade["entry_price"], price, rtol=1e-9):
            wrong.append(f"entry of {bars.closed(entry):%Y-%m-%d}")
        if trade["reason"] == "signal":
            price = bars.open[left] * (1 - side * rules.slippage)
            if not np.isclose(trade["exit_price"], price, rtol=1e-9):
                wrong.append(f"exit of {bars.closed(left):%Y-%m-%d}")
    said = f"{len(traded.result.trades)} trades of {bars.symbol}"
    if wrong:
        said += f"; {len(wrong)} fills could not have been had, first the {wrong[0]}"
    return Check(name="fills_possible", passed=not wrong, found=said)


def survives_delay(traded: Traded) -> Check:
    """Acting one bar later may cost something; what collapses knew more than a bar's close."""
    later = run_orders(
        traded.bars,
        traded.orders.a_bar_later(),
        traded.rules,
        cash=float(traded.result.equity[0]),
        whole_shares=False,
    )
    mine, delayed = returns_of(traded.result.equity), returns_of(later.equity)
    one, other = sharpe(mine), sharpe(delayed)
    lost = superior_predictive_ability((mine - delayed)[:, None], seed=1, draws=2000)
    collapsed = bool(one > 0 and other < COLLAPSE * one and lost < CHANCE)
    said = f"Sharpe {one:.3f} of {traded.bars.symbol}, {other:.3f} when each decision waits a bar"
    return Check(name="survives_delay", passed=not collapsed, found=said)


def _computed(bars: BarSeries, policy: Policy) -> Mapping[str, Floats]:
    return {"adjustment": bars.growth_factor, **FeatureBook(bars).under(policy).all()}


def _asked(view: MarketView, policy: Policy, upstream: bool) -> str:
    """The question and upstream's window, or why there is none."""
    try:
        shown = window_of(view.bars).digest if upstream else ""
        return build_context(view, policy).text + shown
    except DataError as error:
        return str(error)
