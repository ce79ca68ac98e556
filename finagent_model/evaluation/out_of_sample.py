"""Let a decider decide on bars that no fit has seen; trade, measure and hold it against chance.

A training's walk-forward, `finagent backtest` and `evaluate` go through `decide_walk_forward`: a
desk, a rule and a user's own class are judged alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from finagent_model.backtesting.engine import (
    BacktestResult,
    Orders,
    buy_and_hold,
    orders_from_signals,
    run_orders,
)
from finagent_model.backtesting.kernel import FillRules
from finagent_model.backtesting.metrics import sharpe, simple_returns, summarise
from finagent_model.backtesting.outcomes import label_outcomes
from finagent_model.data.market import Market
from finagent_model.decision.decision import BatchDecider, Decider, Decision
from finagent_model.evaluation.evidence import SymbolFacts
from finagent_model.market.bars import BarSeries
from finagent_model.market.view import MarketView
from finagent_model.policy.trained_state import TradeOutcome
from finagent_model.statistics.resampling import (
    COST_CURVE_BP,
    break_even_commission,
    cost_curve,
    random_entry_returns,
)
from finagent_model.training.request import EvaluationRequest


@dataclass(frozen=True, eq=False)
class Traded:
    """Orders on bars that no fit had seen, and what came of them, for one symbol."""

    bars: BarSeries
    orders: Orders
    rules: FillRules
    result: BacktestResult
    benchmark: BacktestResult
    """Buy and hold over the same bars, at the same costs."""


@dataclass(frozen=True, eq=False)
class OutOfSample(Traded):
    """The desk's own decisions behind the orders."""

    decisions: tuple[Decision, ...]
    positions: tuple[int, ...]
    """Of each decision's bar within `bars`."""

    def closed_calls(self) -> tuple[TradeOutcome, ...]:
        """The calls to act whose outcome is known by the last bar."""
        return calls_of(self.bars, self.positions, self.decisions, self.rules)

    def metrics(self) -> dict[str, float]:
        """The desk's, the benchmark's (`benchmark_…`), the shares of HOLD and of failures, and what
        the conversations cost at list price (nan where a price is unknown).
        """
        signals = [decision.signal for decision in self.decisions]
        cost = math.fsum(math.nan if s.cost_usd is None else s.cost_usd for s in signals)
        equity = self.result.equity
        return {
            **summarise(self.result),
            **{f"benchmark_{name}": value for name, value in summarise(self.benchmark).items()},
            "hold_share": float(np.mean([s.action == "HOLD" for s in signals])),
            "model_cost_usd": cost,
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
) -> list[Decision]:
    """Decide at the close of each bar of `positions`, period by period, in order.

    `decider_of` is given a period's number and what was decided before it, and returns who decides
    in it. `done` is called after each decision. `transcribe` may write down what was said on the
    way; it is dropped here, so that memory does not grow by it.
    """
    decisions: list[Decision] = []
    for number, period in enumerate(periods):
        here = [i for i in positions if period.start <= i < period.stop]
        views = market.daily_views(symbol, here)
        fresh = decide_views(decider_of(number, decisions), views, done)
        kept = transcribe(fresh) if transcribe else fresh
        decisions += [replace(decision, turns=(), events=()) for decision in kept]
    return decisions


def decide_views(
    decider: Decider, views: Sequence[MarketView], done: Callable[[], object]
) -> list[Decision]:
    """Return one decision a view, in their order; many at once where the decider can.

    Raises TypeError or ValueError for an answer that is no decision about its view: that is a bug
    of the decider, not a status.
    """
    if isinstance(decider, BatchDecider):
        return decider.decide_all(views, done)
    decisions = []
    for view in views:
        decision = decider.decide(view)
        if not isinstance(decision, Decision):
            raise TypeError(
                f"{type(decider).__name__}.decide returned a {type(decision).__name__} as of "
                f"{view.as_of:%Y-%m-%d}; return a Decision, such as make_decision gives"
            )
        if (decision.signal.symbol, decision.signal.as_of) != (view.symbol, view.as_of):
            raise ValueError(
                f"{type(decider).__name__}.decide answered about {decision.signal.symbol} as of "
                f"{decision.signal.as_of}, asked about {view.symbol} as of {view.as_of}"
            )
        decisions.append(decision)
        done()
    return decisions


def trade(bars: BarSeries, orders: Orders, request: EvaluationRequest) -> Traded:
    """Trade orders, one a bar of `bars`, and hold them against buying and holding."""
    return Traded(
        bars=bars,
        orders=orders,
        rules=request.rules,
        result=run_orders(bars, orders, request.rules, cash=request.cash, whole_shares=False),
        benchmark=buy_and_hold(bars, request.costs, cash=request.cash),
    )


def judge_out_of_sample(
    bars: BarSeries,
    positions: Sequence[int],
    decisions: Sequence[Decision],
    request: EvaluationRequest,
) -> OutOfSample:
    """Trade decisions, each made at the close of the bar at its position, and measure them."""
    orders = orders_from_signals(bars, [decision.signal for decision in decisions], positions)
    traded = trade(bars, orders, request)
    return OutOfSample(**vars(traded), decisions=tuple(decisions), positions=tuple(positions))


def calls_of(
    bars: BarSeries, positions: Sequence[int], decisions: Sequence[Decision], rules: FillRules
) -> tuple[TradeOutcome, ...]:
    """Each call to act judged on its own, where its outcome is known by the last bar."""
    signals = [decision.signal for decision in decisions]
    confidence = np.full(len(bars), math.nan)
    confidence[list(positions)] = [signal.raw_confidence_score for signal in signals]
    factors: list[tuple[str, ...]] = [()] * len(bars)
    for at, signal in zip(positions, signals, strict=True):
        factors[at] = signal.key_factors
    orders = orders_from_signals(bars, signals, positions)
    return label_outcomes(bars, orders, rules, confidence, factors)


def facts_of(unseen: Traded, seed: int) -> SymbolFacts:
    """What the judgement of chance needs to know of one symbol."""
    bars, orders, rules = unseen.bars, unseen.orders, unseen.rules
    drawn = random_entry_returns(bars, unseen.result, rules, seed=seed)
    spare = break_even_commission(bars, orders, rules)
    later = run_orders(bars, orders.delay_one_bar(), rules, cash=1.0, whole_shares=False)
    lagged = sharpe(simple_returns(later.equity))
    return SymbolFacts(
        symbol=bars.symbol,
        closed_at=tuple((bars.closed_at[1:].astype(np.int64) // 1000).tolist()),
        returns=tuple(simple_returns(unseen.result.equity).tolist()),
        benchmark_returns=tuple(simple_returns(unseen.benchmark.equity).tolist()),
        total_return=float(unseen.result.equity[-1] / unseen.result.equity[0] - 1.0),
        random_returns=tuple(drawn.tolist()) if np.isfinite(drawn).all() else None,
        cost_curve=tuple(cost_curve(bars, orders, rules, [bp / 1e4 for bp in COST_CURVE_BP])),
        break_even_commission=spare if np.isfinite(spare) else None,
        commission=rules.commission,
        slippage=rules.slippage,
        lagged_sharpe=lagged if np.isfinite(lagged) else None,
    )
