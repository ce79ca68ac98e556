"""What an equity curve amounts to. Undefined is nan, never 0.

Returns are simple, per bar; a year is 252 bars. Tests hold each against empyrical-reloaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from finagent_model.backtesting.engine import BacktestResult
from finagent_model.market.bars import Floats

YEAR = 252
UNDEFINED = float("nan")
DUST = 1e-12
"""Spread that rounding leaves in returns that are all the same."""


def returns_of(equity: Floats) -> Floats:
    """Change over the value before, one entry fewer than `equity`."""
    return np.diff(equity) / equity[:-1]


def total_return(equity: Floats) -> float:
    """Last over first, minus 1; nan below two points."""
    return float(equity[-1] / equity[0] - 1.0) if len(equity) > 1 else UNDEFINED


def cagr(equity: Floats) -> float:
    """Constant annual growth that gives the same end; nan below two points or once all is lost."""
    if len(equity) < 2 or equity[-1] <= 0:
        return UNDEFINED
    return float((equity[-1] / equity[0]) ** (YEAR / (len(equity) - 1)) - 1.0)


def volatility(returns: Floats) -> float:
    """Standard deviation (ddof 1) times root of a year; nan below two returns."""
    return float(np.std(returns, ddof=1) * np.sqrt(YEAR)) if len(returns) > 1 else UNDEFINED


def sharpe(returns: Floats) -> float:
    """Mean over standard deviation (ddof 1), times root of a year; nan where nothing varied.

    No risk-free rate is taken off. Sharpe, The Sharpe Ratio (1994); empyrical.sharpe_ratio.
    """
    spread = volatility(returns)
    return float(np.mean(returns) * YEAR / spread) if spread > DUST else UNDEFINED


def sortino(returns: Floats) -> float:
    """Annual mean over annual downside deviation (root mean square of min(r, 0)); nan without a
    loss. empyrical.sortino_ratio.
    """
    if len(returns) < 2:
        return UNDEFINED
    downside = float(np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2) * YEAR))
    return float(np.mean(returns) * YEAR / downside) if downside > 0 else UNDEFINED


def max_drawdown(equity: Floats) -> float:
    """Deepest peak-to-trough loss as a fraction of the peak, >= 0; nan below two points.

    Equals minus `empyrical.max_drawdown` of the curve's simple returns.
    """
    if len(equity) < 2:
        return UNDEFINED
    return float(np.max(1.0 - equity / np.maximum.accumulate(equity)))


def calmar(equity: Floats) -> float:
    """CAGR over max drawdown; nan without a drawdown. empyrical.calmar_ratio."""
    deepest = max_drawdown(equity)
    return cagr(equity) / deepest if deepest > 0 else UNDEFINED


def max_drawdown_bars(equity: Floats) -> float:
    """Longest time below a former peak, in bars, the last one even if it has not ended; nan below
    two points.
    """
    if len(equity) < 2:
        return UNDEFINED
    at_peak = np.flatnonzero(equity >= np.maximum.accumulate(equity))
    return float(np.diff(np.append(at_peak, len(equity) - 1)).max(initial=0))


def value_at_risk(returns: Floats, share: float = 0.05) -> float:
    """Loss per bar that the worst `share` of returns begins at, as historical quantile: a positive
    number is a loss; nan without returns. Minus empyrical.value_at_risk.
    """
    return -float(np.percentile(returns, 100 * share)) if len(returns) else UNDEFINED


def expected_shortfall(returns: Floats, share: float = 0.05) -> float:
    """Mean loss over the worst `share` of returns (CVaR, historical), positive for a loss. Minus
    empyrical.conditional_value_at_risk.
    """
    if not len(returns):
        return UNDEFINED
    worst = int((len(returns) - 1) * share)
    return -float(np.mean(np.partition(returns, worst)[: worst + 1]))


def expectancy(pnl: Floats) -> float:
    """Mean gain of a closed trade after fees, in money; nan without one."""
    return float(np.mean(pnl)) if len(pnl) else UNDEFINED


def hit_rate(pnl: Floats) -> float:
    """Fraction of closed trades that earned more than their fees; nan without one."""
    return float(np.mean(pnl > 0)) if len(pnl) else UNDEFINED


def profit_factor(pnl: Floats) -> float:
    """Money won over money lost in closed trades; nan where none lost."""
    lost = -float(pnl[pnl < 0].sum())
    return float(pnl[pnl > 0].sum()) / lost if lost > 0 else UNDEFINED


def summarise(result: BacktestResult) -> dict[str, float]:
    """Every number of a backtest by name; fractions, annual where the name implies it."""
    equity, returns = result.equity, returns_of(result.equity)
    closed = result.trades[result.trades["exit_bar"] >= 0]["pnl"].to_numpy(dtype=np.float64)
    years = len(returns) / YEAR
    return {
        "total_return": total_return(equity),
        "cagr": cagr(equity),
        "volatility": volatility(returns),
        "sharpe": sharpe(returns),
        "sortino": sortino(returns),
        "max_drawdown": max_drawdown(equity),
        "max_drawdown_bars": max_drawdown_bars(equity),
        "calmar": calmar(equity),
        "value_at_risk_95": value_at_risk(returns),
        "expected_shortfall_95": expected_shortfall(returns),
        "exposure": float(np.mean(result.invested != 0)),
        "turnover": result.notional / float(np.mean(equity)) / years if years else UNDEFINED,
        "hit_rate": hit_rate(closed),
        "profit_factor": profit_factor(closed),
        "expectancy": expectancy(closed),
        "closed_trades": float(len(closed)),
        "cancelled_entries": float(result.cancelled),
    }


_SHORT = "fewer than two bars"
WHY_UNDEFINED = {
    "total_return": _SHORT,
    "cagr": f"{_SHORT}, or all is lost",
    "volatility": "fewer than two returns",
    "sharpe": "the returns don't vary",
    "sortino": "no return is a loss",
    "max_drawdown": _SHORT,
    "max_drawdown_bars": _SHORT,
    "calmar": "the equity never fell, or all is lost",
    "value_at_risk_95": _SHORT,
    "expected_shortfall_95": _SHORT,
    "turnover": _SHORT,
    "hit_rate": "no closed trade",
    "profit_factor": "no closed trade lost",
    "expectancy": "no closed trade",
    "hold_share": "no decision",
    "failed_share": "no decision",
    "model_cost_usd": "the price of a model is unknown",
    "total_return_after_model_cost": "the price of a model is unknown",
}
"""By metric; one of the benchmark has the same reason."""


def undefined(metrics: Mapping[str, float]) -> dict[str, str]:
    """Why, for each metric that is not defined."""
    return {
        name: WHY_UNDEFINED[name.removeprefix("benchmark_")]
        for name, value in metrics.items()
        if not math.isfinite(value)
    }


def storable(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no nan; undefined is null."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}
