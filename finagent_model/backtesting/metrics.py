"""Performance metrics of an equity curve. Undefined is nan, never 0.

Returns are simple, per bar; no risk-free rate is taken off. A rate a year goes by the bars' own
dates: growth by the days between the first and the last bar, deviations by how many such bars a
year has. What only rounding left is no risk: a ratio over it is undefined. So are returns after all
is lost. Tests hold each metric against empyrical-reloaded where it has one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from finagent_model.backtesting.engine import BacktestResult
from finagent_model.market.bars import Floats
from finagent_model.market.timeframe import TRADING_DAYS_PER_YEAR, bars_per_year

UNDEFINED = float("nan")
MIN_DEVIATION = 1e-10
"""Deviation or loss, as a fraction, that is rounding and no risk; 12,000 bars of prices that pay
their fall as dividends leave 3e-13.
"""
MIN_YEARS = 360 / 365.25
"""Shortest span that has a growth a year: one year, whose first and last days may be holidays. The
Global Investment Performance Standards (GIPS) forbid to annualise less.
"""
MIN_DEVIATION_YEARS = 28 / 365.25
"""Shortest span that has a deviation a year, and ratios over it: some twenty daily returns."""
_DAY = np.timedelta64(1, "D")


def years_spanned(closed_at: npt.NDArray[np.datetime64]) -> float:
    """Return the calendar years from the first to the last of `closed_at`; nan below two."""
    if len(closed_at) < 2:
        return UNDEFINED
    return float((closed_at[-1] - closed_at[0]) / _DAY) / 365.25


def simple_returns(equity: Floats) -> Floats:
    """Return each change over the value before: one entry fewer than `equity`; nan after all was
    lost.
    """
    # nan, not 0: there is nothing that could have earned something.
    before = np.where(equity[:-1] > 0, equity[:-1], np.nan)
    return np.diff(equity) / before


def total_return(equity: Floats) -> float:
    """Last over first, minus 1; nan below two points."""
    return float(equity[-1] / equity[0] - 1.0) if len(equity) > 1 else UNDEFINED


def cagr(equity: Floats, years: float) -> float:
    """Constant annual growth that gives the same end after `years`; nan below two points, below
    `MIN_YEARS`, or once all is lost.
    """
    if len(equity) < 2 or equity[-1] <= 0 or not years >= MIN_YEARS:
        return UNDEFINED
    return float((equity[-1] / equity[0]) ** (1.0 / years) - 1.0)


def volatility(returns: Floats, periods: float = TRADING_DAYS_PER_YEAR) -> float:
    """Annual standard deviation (ddof 1) of returns of which a year has `periods`; nan below two
    returns, and where one is undefined.
    """
    if len(returns) < 2:
        return UNDEFINED
    return float(np.std(returns, ddof=1) * np.sqrt(periods))


def sharpe(returns: Floats, periods: float = TRADING_DAYS_PER_YEAR) -> float:
    """Annual mean over annual standard deviation (ddof 1) of returns of which a year has `periods`;
    nan where nothing varied, and where one is undefined.

    Sharpe, The Sharpe Ratio (1994); equals `empyrical.sharpe_ratio`.
    """
    # Equal returns have a deviation of rounding only; a ratio over it would be astronomical.
    spread = volatility(returns, periods)
    if not spread > MIN_DEVIATION:
        return UNDEFINED
    return float(np.mean(returns) * periods / spread)


def sortino(returns: Floats, periods: float = TRADING_DAYS_PER_YEAR) -> float:
    """Annual mean over annual downside deviation (root mean square of min(r, 0)) of returns of
    which a year has `periods`; nan without a loss, and where one is undefined.

    Equals `empyrical.sortino_ratio`.
    """
    if len(returns) < 2:
        return UNDEFINED
    downside = float(np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2) * periods))
    if not downside > MIN_DEVIATION:
        return UNDEFINED
    return float(np.mean(returns) * periods / downside)


def max_drawdown(equity: Floats) -> float:
    """Deepest peak-to-trough loss as a fraction of the peak, >= 0; nan below two points.

    Equals minus `empyrical.max_drawdown` of the curve's simple returns; 0 where only rounding fell.
    """
    return float(_drawdowns(equity).max()) if len(equity) > 1 else UNDEFINED


def calmar(equity: Floats, years: float) -> float:
    """CAGR over max drawdown; nan without either. Equals `empyrical.calmar_ratio`."""
    drawdown = max_drawdown(equity)
    return cagr(equity, years) / drawdown if drawdown > 0 else UNDEFINED


def max_drawdown_bars(equity: Floats) -> float:
    """Longest time from a peak until it is reached again, in bars; 0 where the equity never fell,
    nan below two points.

    The last drawdown counts up to the last bar, even if it has not ended.
    """
    if len(equity) < 2:
        return UNDEFINED
    drawdowns = _drawdowns(equity)
    # A bar that only equals the peak ends the drawdown, too.
    at_peak = np.flatnonzero(drawdowns == 0)
    lengths = np.diff(at_peak)
    # Between peaks on two bars in a row nothing fell.
    longest_ended = lengths[lengths > 1].max(initial=0)
    return float(max(longest_ended, len(equity) - 1 - at_peak[-1]))


def _drawdowns(equity: Floats) -> Floats:
    """Return the loss from the running peak (n,), a fraction >= 0; exactly 0 for rounding."""
    drawdowns = 1.0 - equity / np.maximum.accumulate(equity)
    return np.where(drawdowns > MIN_DEVIATION, drawdowns, 0.0)


def value_at_risk(returns: Floats, share: float = 0.05) -> float:
    """Loss per bar at which the worst `share` of returns begins, positive for a loss; nan without
    returns, and where one is undefined.

    A historical quantile. Equals minus `empyrical.value_at_risk`.
    """
    # Not the minus sign, which would make -0.0 of 0.0.
    return 0.0 - float(np.percentile(returns, 100 * share)) if len(returns) else UNDEFINED


def expected_shortfall(returns: Floats, share: float = 0.05) -> float:
    """Mean loss over the worst `share` of returns (CVaR, historical), positive for a loss; nan
    without returns, and where one is undefined. Equals minus
    `empyrical.conditional_value_at_risk`.
    """
    if not len(returns) or np.isnan(returns).any():
        return UNDEFINED
    # The same cut as empyrical's: the bar at the quantile is included.
    worst = int((len(returns) - 1) * share)
    return 0.0 - float(np.mean(np.partition(returns, worst)[: worst + 1]))


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


def measure_curve(equity: Floats, closed_at: npt.NDArray[np.datetime64]) -> dict[str, float]:
    """Return the metrics that follow from an equity curve alone, by name; both are (n,)."""
    returns, years = simple_returns(equity), years_spanned(closed_at)
    periods = bars_per_year(closed_at)
    # A handful of returns would be blown up to hundreds of percent a year.
    varied = returns if years >= MIN_DEVIATION_YEARS else returns[:0]
    return {
        "total_return": total_return(equity),
        "cagr": cagr(equity, years),
        "volatility": volatility(varied, periods),
        "sharpe": sharpe(varied, periods),
        "sortino": sortino(varied, periods),
        "max_drawdown": max_drawdown(equity),
        "max_drawdown_bars": max_drawdown_bars(equity),
        "calmar": calmar(equity, years),
        "value_at_risk_95": value_at_risk(returns),
        "expected_shortfall_95": expected_shortfall(returns),
    }


def measure_trades(pnl: Floats) -> dict[str, float]:
    """Return the metrics of closed trades, by name, from what each earned in money."""
    return {
        "hit_rate": hit_rate(pnl),
        "profit_factor": profit_factor(pnl),
        "expectancy": expectancy(pnl),
        "closed_trades": float(len(pnl)),
    }


def closed_pnl(trades: pd.DataFrame, cash: float) -> Floats:
    """Return what each closed trade earned, in money; what rounding left of `cash` is 0."""
    # An open trade has no exit yet: it counts in equity, not among the trades.
    pnl = trades[trades["exit_bar"] >= 0]["pnl"].to_numpy(dtype=np.float64)
    return np.where(np.abs(pnl) > MIN_DEVIATION * cash, pnl, 0.0)


def summarise(result: BacktestResult) -> dict[str, float]:
    """Return every metric of a backtest by name; fractions, annual where the name implies it."""
    equity, years = result.equity, years_spanned(result.closed_at)
    traded = result.notional / float(np.mean(equity))
    return {
        **measure_curve(equity, result.closed_at),
        "exposure": float(np.mean(result.invested != 0)),
        "turnover": traded / years if years >= MIN_YEARS else UNDEFINED,
        **measure_trades(closed_pnl(result.trades, float(equity[0]))),
        "cancelled_entries": float(result.cancelled),
    }


_TOO_SHORT, _LOST = "fewer than two bars", "all was lost"
_RATIO_OF = {"sharpe": "volatility", "sortino": "volatility", "calmar": "cagr"}
_TAILS = ("value_at_risk_95", "expected_shortfall_95")
_UNDEFINED_AFTER_RUIN = ("cagr", "volatility", *_RATIO_OF, *_TAILS)
_REASONS = {
    "total_return": _TOO_SHORT,
    "cagr": "less than a year of bars",
    "volatility": "less than a month of bars",
    "sharpe": "the returns don't vary",
    "sortino": "no return is a loss",
    "max_drawdown": _TOO_SHORT,
    "max_drawdown_bars": _TOO_SHORT,
    "calmar": "the equity never fell",
    "value_at_risk_95": _TOO_SHORT,
    "expected_shortfall_95": _TOO_SHORT,
    "turnover": "less than a year of bars",
    "hit_rate": "no closed trade",
    "profit_factor": "no closed trade lost",
    "expectancy": "no closed trade",
    "hold_share": "no decision",
    "failed_share": "no decision",
    "model_cost_usd": "the price of a model is unknown",
    "total_return_after_model_cost": "the price of a model is unknown",
}


def explain_undefined(metrics: Mapping[str, float]) -> dict[str, str]:
    """Return the reason of each metric that is not finite, by name, `benchmark_` included."""
    reasons = {}
    for name, value in metrics.items():
        if not math.isfinite(value):
            plain = name.removeprefix("benchmark_")
            prefix = name.removesuffix(plain)
            part = metrics.get(f"{prefix}{_RATIO_OF.get(plain)}", 0.0)
            if plain in _UNDEFINED_AFTER_RUIN and metrics.get(f"{prefix}total_return") == -1.0:
                reasons[name] = _LOST
            else:
                # A ratio of something that is undefined itself has the same reason.
                reasons[name] = _REASONS[plain if math.isfinite(part) else _RATIO_OF[plain]]
    return reasons


def nan_to_none(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Return the metrics with None where one is not finite, since JSON has no nan."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}
