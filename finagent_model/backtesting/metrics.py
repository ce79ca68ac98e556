"""Performance metrics of an equity curve. Undefined is nan, never 0.

Returns are simple, per bar; a year is 252 bars; no risk-free rate is taken off. Tests hold each
against empyrical-reloaded where it has one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from finagent_model.backtesting.engine import BacktestResult
from finagent_model.market.bars import TRADING_DAYS_PER_YEAR, Floats

UNDEFINED = float("nan")
MIN_DEVIATION = 1e-12
"""Standard deviation that rounding leaves in returns that are all the same."""


def simple_returns(equity: Floats) -> Floats:
    """Return each change over the value before: one entry fewer than `equity`."""
    return np.diff(equity) / equity[:-1]


def total_return(equity: Floats) -> float:
    """Last over first, minus 1; nan below two points."""
    return float(equity[-1] / equity[0] - 1.0) if len(equity) > 1 else UNDEFINED


def cagr(equity: Floats) -> float:
    """Constant annual growth that gives the same end; nan below two points or once all is lost."""
    if len(equity) < 2 or equity[-1] <= 0:
        return UNDEFINED
    exponent = TRADING_DAYS_PER_YEAR / (len(equity) - 1)
    return float((equity[-1] / equity[0]) ** exponent - 1.0)


def volatility(returns: Floats) -> float:
    """Annual standard deviation (ddof 1); nan below two returns."""
    if len(returns) < 2:
        return UNDEFINED
    return float(np.std(returns, ddof=1) * np.sqrt(TRADING_DAYS_PER_YEAR))


def sharpe(returns: Floats) -> float:
    """Annual mean over annual standard deviation (ddof 1); nan where nothing varied.

    Sharpe, The Sharpe Ratio (1994); equals `empyrical.sharpe_ratio`.
    """
    # Equal returns have a deviation of rounding only; a ratio over it would be astronomical.
    spread = volatility(returns)
    if not spread > MIN_DEVIATION:
        return UNDEFINED
    return float(np.mean(returns) * TRADING_DAYS_PER_YEAR / spread)


def sortino(returns: Floats) -> float:
    """Annual mean over annual downside deviation (root mean square of min(r, 0)); nan without a
    loss. Equals `empyrical.sortino_ratio`.
    """
    if len(returns) < 2:
        return UNDEFINED
    downside = float(np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2) * TRADING_DAYS_PER_YEAR))
    if not downside > 0:
        return UNDEFINED
    return float(np.mean(returns) * TRADING_DAYS_PER_YEAR / downside)


def max_drawdown(equity: Floats) -> float:
    """Deepest peak-to-trough loss as a fraction of the peak, >= 0; nan below two points.

    Equals minus `empyrical.max_drawdown` of the curve's simple returns.
    """
    if len(equity) < 2:
        return UNDEFINED
    return float(np.max(1.0 - equity / np.maximum.accumulate(equity)))


def calmar(equity: Floats) -> float:
    """CAGR over max drawdown; nan without a drawdown. Equals `empyrical.calmar_ratio`."""
    drawdown = max_drawdown(equity)
    return cagr(equity) / drawdown if drawdown > 0 else UNDEFINED


def max_drawdown_bars(equity: Floats) -> float:
    """Longest time below a former peak, in bars; nan below two points.

    The last drawdown counts up to the last bar, even if it has not ended.
    """
    if len(equity) < 2:
        return UNDEFINED
    # A bar that only equals the peak ends the drawdown, too.
    at_peak = np.flatnonzero(equity >= np.maximum.accumulate(equity))
    return float(np.diff(np.append(at_peak, len(equity) - 1)).max(initial=0))


def value_at_risk(returns: Floats, share: float = 0.05) -> float:
    """Loss per bar at which the worst `share` of returns begins, positive for a loss; nan without
    returns.

    A historical quantile. Equals minus `empyrical.value_at_risk`.
    """
    return -float(np.percentile(returns, 100 * share)) if len(returns) else UNDEFINED


def expected_shortfall(returns: Floats, share: float = 0.05) -> float:
    """Mean loss over the worst `share` of returns (CVaR, historical), positive for a loss; nan
    without returns. Equals minus `empyrical.conditional_value_at_risk`.
    """
    if not len(returns):
        return UNDEFINED
    # The same cut as empyrical's: the bar at the quantile is included.
    worst = int((len(returns) - 1) * share)
    return -float(np.mean(np.partition(returns, worst)[: worst + 1]))


def expectancy(pnl: Floats) -> float:
    """Mean gain of a closed trade after fees, in money; nan without a trade."""
    return float(np.mean(pnl)) if len(pnl) else UNDEFINED


def hit_rate(pnl: Floats) -> float:
    """Fraction of closed trades that earned more than their fees; nan without a trade."""
    return float(np.mean(pnl > 0)) if len(pnl) else UNDEFINED


def profit_factor(pnl: Floats) -> float:
    """Money won over money lost in closed trades; nan where no trade lost."""
    losses = -float(pnl[pnl < 0].sum())
    return float(pnl[pnl > 0].sum()) / losses if losses > 0 else UNDEFINED


def summarise(result: BacktestResult) -> dict[str, float]:
    """Return every metric of a backtest by name; fractions, annual where the name implies it."""
    equity, returns = result.equity, simple_returns(result.equity)
    # An open trade has no exit yet: it counts in equity, not among the trades.
    closed_pnl = result.trades[result.trades["exit_bar"] >= 0]["pnl"].to_numpy(dtype=np.float64)
    years = len(returns) / TRADING_DAYS_PER_YEAR
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
        "hit_rate": hit_rate(closed_pnl),
        "profit_factor": profit_factor(closed_pnl),
        "expectancy": expectancy(closed_pnl),
        "closed_trades": float(len(closed_pnl)),
        "cancelled_entries": float(result.cancelled),
    }


_TOO_SHORT = "fewer than two bars"
_REASONS = {
    "total_return": _TOO_SHORT,
    "cagr": f"{_TOO_SHORT}, or all is lost",
    "volatility": "fewer than two returns",
    "sharpe": "the returns don't vary",
    "sortino": "no return is a loss",
    "max_drawdown": _TOO_SHORT,
    "max_drawdown_bars": _TOO_SHORT,
    "calmar": "the equity never fell, or all is lost",
    "value_at_risk_95": _TOO_SHORT,
    "expected_shortfall_95": _TOO_SHORT,
    "turnover": _TOO_SHORT,
    "hit_rate": "no closed trade",
    "profit_factor": "no closed trade lost",
    "expectancy": "no closed trade",
    "hold_share": "no decision",
    "failed_share": "no decision",
    "model_cost_usd": "the price of a model is unknown",
    "total_return_after_model_cost": "the price of a model is unknown",
}


def explain_undefined(metrics: Mapping[str, float]) -> dict[str, str]:
    """Return the reason of each metric that is not finite, by name; `benchmark_` is ignored."""
    return {
        name: _REASONS[name.removeprefix("benchmark_")]
        for name, value in metrics.items()
        if not math.isfinite(value)
    }


def nan_to_none(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Return the metrics with None where one is not finite, since JSON has no nan."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}
