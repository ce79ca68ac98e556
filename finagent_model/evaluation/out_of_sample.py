"""What the desk did on bars that no fit had seen: traded, measured, and held against chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
from finagent_model.decision.decision import Decision
from finagent_model.evaluation.evidence import SymbolFacts
from finagent_model.market.bars import BarSeries
from finagent_model.policy.trained_state import TradeOutcome
from finagent_model.statistics.resampling import (
    COST_CURVE_BP,
    break_even_commission,
    cost_curve,
    random_entry_returns,
)
from finagent_model.training.request import TrainRequest


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


def trade(bars: BarSeries, orders: Orders, request: TrainRequest) -> Traded:
    """Trade orders, one a bar of `bars`, and hold them against buying and holding."""
    return Traded(
        bars=bars,
        orders=orders,
        rules=request.rules,
        result=run_orders(bars, orders, request.rules, cash=request.cash, whole_shares=False),
        benchmark=buy_and_hold(bars, request.costs, cash=request.cash),
    )


def judge_out_of_sample(
    bars: BarSeries, positions: Sequence[int], decisions: Sequence[Decision], request: TrainRequest
) -> OutOfSample:
    """The same for a desk's decisions, each at the close of the bar at its position."""
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
