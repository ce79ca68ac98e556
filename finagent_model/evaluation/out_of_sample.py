"""Run a decider out of sample: decide on bars that no fit has used, trade, and measure.

Training's walk-forward, `finagent backtest` and `evaluate` go through `decide_walk_forward`: a
desk, a rule and a user's own class are judged alike. A decision at a bar's close is filled at the
next open; outcomes are labelled only where they are known by the last bar (no look-ahead).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from finagent_model.backtesting.engine import (
    BacktestResult,
    Costs,
    Orders,
    buy_and_hold,
    orders_from_signals,
    run_orders,
)
from finagent_model.backtesting.kernel import FillRules
from finagent_model.backtesting.metrics import sharpe, simple_returns, summarise
from finagent_model.backtesting.outcomes import label_outcomes
from finagent_model.config.knowledge import Knowledge, read_declared
from finagent_model.data.market import Market
from finagent_model.decision.decision import Decider, Decision
from finagent_model.desk.desk import Desk
from finagent_model.evaluation.evidence import SymbolFacts
from finagent_model.market.bars import BarSeries, show_as_of
from finagent_model.market.timeframe import bars_per_year
from finagent_model.market.view import MarketView
from finagent_model.policy.trained_state import TradeOutcome
from finagent_model.statistics.resampling import (
    COST_CURVE_BP,
    break_even_commission,
    cost_curve,
    random_entry_returns,
)
from finagent_model.training.request import EvaluationRequest

EARLY_DECISIONS = 3
"""Decisions after which a walk may be checked early."""
FirstCheck = Callable[[Decider, Sequence[MarketView], Sequence[Decision]], None]
MAX_VIEWS = 256
"""Views built at a time."""


@dataclass(frozen=True, eq=False)
class OrdersBacktest:
    """One symbol's orders on out-of-sample bars, their result, and buy and hold beside it."""

    bars: BarSeries
    orders: Orders
    rules: FillRules
    result: BacktestResult
    benchmark: BacktestResult
    """Buy and hold over the same bars, at the same costs."""


@dataclass(frozen=True, eq=False)
class OutOfSampleBacktest(OrdersBacktest):
    """A symbol's backtest whose orders come from a decider's decisions."""

    decisions: tuple[Decision, ...]
    positions: tuple[int, ...]
    """Index within `bars` of each decision's bar."""

    def notes(self) -> list[str]:
        """Return, in words, what kept the decider from deciding, or from trading as it decided."""
        failed = [d.signal for d in self.decisions if d.signal.status.is_failure]
        notes = self.result.notes()
        if failed:
            first = failed[0]
            notes.insert(
                0,
                f"{len(failed)} of {len(self.decisions)} decisions failed, first as of "
                f"{show_as_of(first.as_of)} ({first.status}): {first.reasoning}",
            )
        return notes

    def trade_outcomes(self) -> tuple[TradeOutcome, ...]:
        """Return the outcomes of the calls to act that are known by the last bar."""
        return label_decision_outcomes(self.bars, self.positions, self.decisions, self.rules)

    def metrics(self) -> dict[str, float]:
        """Return the decider's metrics by name, and the benchmark's as `benchmark_…`.

        Beside them the shares of HOLD and of failures, and what the conversations cost at list
        price in US dollars; nan where a price is unknown.
        """
        signals = [decision.signal for decision in self.decisions]
        # fsum: equal decisions in another order must give the same figure.
        cost = math.fsum(math.nan if s.cost_usd is None else s.cost_usd for s in signals)
        equity = self.result.equity
        return {
            **summarise(self.result),
            **{f"benchmark_{name}": value for name, value in summarise(self.benchmark).items()},
            "hold_share": float(np.mean([s.action == "HOLD" for s in signals])),
            "model_cost_usd": cost,
            # The models are paid out of the same account, at the end.
            "total_return_after_model_cost": float((equity[-1] - cost) / equity[0] - 1.0),
            "failed_share": float(np.mean([s.status.is_failure for s in signals])),
        }


def decide_walk_forward(
    market: Market,
    symbol: str,
    periods: Sequence[slice],
    positions: Sequence[int],
    decider_of: Callable[[int, Sequence[Decision]], Decider],
    done: Callable[[], object],
    transcribe: Callable[[Sequence[Decision]], list[Decision]] | None = None,
    check_first: FirstCheck | None = None,
) -> list[Decision]:
    """Return the decisions at the close of each bar of `positions`, period by period, in order.

    `decider_of` takes a period's number and the decisions before it, and returns the period's
    decider. `done` is called after each decision. `transcribe` may write conversations down; the
    decisions that are returned have neither turns nor events. `check_first` may end the walk after
    the first decisions: it is given their decider, views and decisions, and raises.
    """
    decisions: list[Decision] = []
    for number, period in enumerate(periods):
        in_period = [i for i in positions if period.start <= i < period.stop]
        # A period's decider may learn from the decisions before it only: no look-ahead.
        decider = decider_of(number, tuple(decisions))
        # In parts: each view holds a copy of the history by then.
        for part in _parts(in_period, EARLY_DECISIONS if check_first and not decisions else 0):
            views = market.bar_views(symbol, part)
            new = decide_views(decider, views, done)
            if check_first and not decisions:
                check_first(decider, views, new)
            if transcribe:
                new = transcribe(new)
            # Thousands of conversations would fill the memory; a signal is enough from here on.
            decisions += [replace(decision, turns=(), events=()) for decision in new]
    return decisions


def _parts(positions: list[int], first: int) -> Iterator[list[int]]:
    """Yield the positions in parts of MAX_VIEWS, after a part of `first` where that is not 0."""
    if first and positions:
        yield positions[:first]
    for start in range(first, len(positions), MAX_VIEWS):
        yield positions[start : start + MAX_VIEWS]


def decide_views(
    decider: Decider, views: Iterable[MarketView], done: Callable[[], object]
) -> list[Decision]:
    """Return one decision a view, in their order; a desk decides many at a time.

    Raises TypeError or ValueError for an answer that is no decision about its view.
    """
    # Our own desk alone is handed many views at once: another decider could read later ones.
    if isinstance(decider, Desk):
        return decider.decide_all(list(views), done)
    decisions = []
    # A wrong answer is a bug of the decider, and no status that a gate may count.
    for view in views:
        if not callable(getattr(decider, "decide", None)) or isinstance(decider, type):
            raise TypeError(
                f"{decider!r:.80} is not a decider: give an object with a method decide(view)"
            )
        decision = decider.decide(view)
        if not isinstance(decision, Decision):
            raise TypeError(
                f"{type(decider).__name__}.decide returned a {type(decision).__name__} as of "
                f"{show_as_of(view.as_of)}; return a Decision, such as make_decision gives"
            )
        if (decision.signal.symbol, decision.signal.as_of) != (view.symbol, view.as_of):
            raise ValueError(
                f"{type(decider).__name__}.decide answered about {decision.signal.symbol} as of "
                f"{decision.signal.as_of}, asked about {view.symbol} as of {view.as_of}"
            )
        decisions.append(decision)
        done()
    return decisions


def read_knowledge(decider: object, author: str) -> Knowledge | None:
    """Return what a decider may remember; None for one that uses no chat model, or says nothing.

    Raises TypeError for an attribute that says no day.
    """
    if isinstance(decider, Desk):
        return decider.config.latest_knowledge
    # A class that says nothing counts as a rule, which has read nothing: see docs/memory.md.
    return read_declared(decider, author, absent=None)


def trade(bars: BarSeries, orders: Orders, request: EvaluationRequest) -> OrdersBacktest:
    """Return the backtest of orders, one a bar of `bars`, beside buy and hold at equal costs."""
    return OrdersBacktest(
        bars=bars,
        orders=orders,
        rules=request.rules,
        # Fractional shares: otherwise the result would depend on how much cash it starts with.
        result=run_orders(bars, orders, request.rules, cash=request.cash, whole_shares=False),
        benchmark=buy_and_hold(bars, request.costs, cash=request.cash),
    )


def judge_out_of_sample(
    bars: BarSeries,
    positions: Sequence[int],
    decisions: Sequence[Decision],
    request: EvaluationRequest,
) -> OutOfSampleBacktest:
    """Return the backtest of decisions, each made at the close of the bar at its position."""
    orders = orders_from_signals(bars, [decision.signal for decision in decisions], positions)
    backtest = trade(bars, orders, request)
    return OutOfSampleBacktest(
        **vars(backtest), decisions=tuple(decisions), positions=tuple(positions)
    )


def label_decision_outcomes(
    bars: BarSeries, positions: Sequence[int], decisions: Sequence[Decision], rules: FillRules
) -> tuple[TradeOutcome, ...]:
    """Return the outcome of each call to act on its own, where it is known by the last bar."""
    signals = [decision.signal for decision in decisions]
    confidence = np.full(len(bars), math.nan)
    # Raw scores: calibration is fitted on these outcomes, and must not see its own result.
    confidence[list(positions)] = [signal.raw_confidence_score for signal in signals]
    factors: list[tuple[str, ...]] = [()] * len(bars)
    for position, signal in zip(positions, signals, strict=True):
        factors[position] = signal.key_factors
    orders = orders_from_signals(bars, signals, positions)
    return label_outcomes(bars, orders, rules, confidence, factors)


def cut_from(backtest: OrdersBacktest, first_ms: int) -> OrdersBacktest | None:
    """Return the backtest of the bars that close at `first_ms` or later, traded anew from cash.

    The bar before them stays, as the base of the first return. `first_ms` is in milliseconds since
    1970. None: no bar closes so late.
    """
    bars = backtest.bars
    closed_at = bars.closed_at.astype("datetime64[ms]").astype(np.int64)
    first = int(np.searchsorted(closed_at, first_ms))
    if first == len(bars):
        return None
    # Not a part of the old curve: it would hold what was bought on days that may be remembered.
    start = max(first - 1, 0)
    if start == 0:
        return backtest
    part, orders, rules = bars[start:], backtest.orders, backtest.rules
    # Levels are in growth units, which count from the first bar.
    scale = part.growth_factor / bars.growth_factor[start:]
    later = Orders(
        action=orders.action[start:],
        size=orders.size[start:],
        stop=orders.stop[start:] * scale,
        target=orders.target[start:] * scale,
    )
    costs = Costs(commission=rules.commission, slippage=rules.slippage)
    return OrdersBacktest(
        bars=part,
        orders=later,
        rules=rules,
        result=run_orders(part, later, rules, cash=1.0, whole_shares=False),
        benchmark=buy_and_hold(part, costs, cash=1.0),
    )


def collect_symbol_facts(
    backtest: OrdersBacktest, seed: int, knowledge: Knowledge | None = None
) -> SymbolFacts:
    """Return what the grade of evidence needs of one symbol; undefined numbers are None.

    With `knowledge` the facts of the days that it can't hold are in `unread`.
    """
    facts = _collect(backtest, seed)
    first = knowledge.first_unread_ms if knowledge else None
    part = None if first is None else cut_from(backtest, first)
    if part is None or len(part.bars) < 2:
        return facts
    unread = facts if part is backtest else _collect(part, seed)
    return facts.model_copy(update={"unread": unread})


def _collect(backtest: OrdersBacktest, seed: int) -> SymbolFacts:
    bars, orders, rules = backtest.bars, backtest.orders, backtest.rules
    drawn = random_entry_returns(bars, backtest.result, rules, seed=seed)
    break_even = break_even_commission(bars, orders, rules)
    delayed = run_orders(bars, orders.delay_one_bar(), rules, cash=1.0, whole_shares=False)
    delayed_returns = simple_returns(delayed.equity)
    lagged = sharpe(delayed_returns, bars_per_year(bars.closed_at))
    returns = simple_returns(backtest.result.equity)
    # An account that a short has ruined has no returns any more: it is left out from then on.
    known = int(np.isfinite(returns).sum())
    late = delayed_returns[:known]
    return SymbolFacts(
        symbol=bars.symbol,
        # datetime64[us] to milliseconds; the first bar has no return.
        closed_at=tuple((bars.closed_at[1 : known + 1].astype(np.int64) // 1000).tolist()),
        returns=tuple(returns[:known].tolist()),
        benchmark_returns=tuple(simple_returns(backtest.benchmark.equity)[:known].tolist()),
        total_return=float(backtest.result.equity[-1] / backtest.result.equity[0] - 1.0),
        random_returns=tuple(drawn.tolist()) if np.isfinite(drawn).all() else None,
        delayed_returns=tuple(late.tolist()) if np.isfinite(late).all() else None,
        cost_curve=tuple(cost_curve(bars, orders, rules, [bp / 1e4 for bp in COST_CURVE_BP])),
        break_even_commission=break_even if np.isfinite(break_even) else None,
        commission=rules.commission,
        slippage=rules.slippage,
        lagged_sharpe=lagged if np.isfinite(lagged) else None,
    )
