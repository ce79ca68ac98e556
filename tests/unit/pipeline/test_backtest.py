"""The pool of a training's symbols: its table shows the numbers of its chart."""

from __future__ import annotations

import numpy as np
import pytest

from finagent_model import make_decision, market_view
from finagent_model.backtesting.crossover import Crossover
from finagent_model.backtesting.engine import Orders
from finagent_model.backtesting.metrics import nan_to_none, summarise
from finagent_model.data.bundled import BundledBars
from finagent_model.evaluation.evidence import pool_returns
from finagent_model.evaluation.out_of_sample import collect_symbol_facts, trade
from finagent_model.pipeline.backtest import BacktestRecord, pool_backtests
from finagent_model.training.request import EvaluationRequest

REQUEST = EvaluationRequest(symbols=("GOOG", "IBM"))


def record(symbol: str, first_bar: int) -> BacktestRecord:
    """A crossover's trades on the bars from one on, as a training records them."""
    bars = BundledBars().bars(symbol)[first_bar:]
    none = np.full(len(bars), np.nan)
    actions = Crossover(10, 30).crossings(bars.close)
    backtest = trade(bars, Orders(actions, np.ones(len(bars)), none, none), REQUEST)
    benchmark = summarise(backtest.benchmark)
    view = market_view(symbol, "2012-06-29")
    hold = make_decision(view, "HOLD", reasoning="nothing to do", author="me")
    shares = dict.fromkeys(("hold_share", "failed_share"), 0.0)
    return BacktestRecord(
        symbol=symbol,
        metrics=nan_to_none(
            {
                **summarise(backtest.result),
                **{f"benchmark_{name}": value for name, value in benchmark.items()},
                **shares,
                "model_cost_usd": 0.0,
                "total_return_after_model_cost": 0.0,
            }
        ),
        signals=(hold.signal,),
        replies={},
        facts=collect_symbol_facts(backtest, seed=1),
        calls=(),
        trades=backtest.result.trades,
        first_closed_at=int(bars.close_time(0).timestamp() * 1000),
    )


@pytest.fixture(scope="module")
def records() -> list[BacktestRecord]:
    return [record("GOOG", 143), record("IBM", 509)]


def test_pool_backtests_ends_where_the_curve_ends(records: list[BacktestRecord]) -> None:
    _, desk, held = pool_returns([each.facts for each in records])
    pooled = pool_backtests(records, REQUEST.cash)
    assert pooled["total_return"] == pytest.approx(np.prod(1 + desk) - 1)
    assert pooled["benchmark_total_return"] == pytest.approx(np.prod(1 + held) - 1)
    own = [each.metrics["total_return"] for each in records]
    assert abs(pooled["total_return"] - np.mean(own)) > 0.01  # type: ignore[arg-type]


def test_pool_backtests_counts_all_trades(records: list[BacktestRecord]) -> None:
    pooled = pool_backtests(records, REQUEST.cash)
    assert pooled["closed_trades"] == sum(each.metrics["closed_trades"] or 0 for each in records)
    pnl = np.concatenate([each.trades["pnl"][each.trades["exit_bar"] >= 0] for each in records])
    assert pooled["hit_rate"] == pytest.approx(np.mean(pnl > 0))


def test_pool_backtests_of_one_symbol_is_that_symbol(records: list[BacktestRecord]) -> None:
    assert nan_to_none(pool_backtests(records[:1], REQUEST.cash)) == records[0].metrics
