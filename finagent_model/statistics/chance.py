"""What the same number of trades would have earned at other times, and at other costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from finagent_model.backtest.engine import BacktestResult, Orders, run_orders
from finagent_model.backtest.kernel import Rules
from finagent_model.domain.bars import BarSeries, Floats

COSTS_BP = (0, 1, 5, 10, 20, 50, 100)
"""Commissions of the cost curve, in basis points of every fill."""
HIGHEST = 0.1
"""Where the search for the break-even commission ends: nobody charges a tenth."""


def random_entries(
    bars: BarSeries, result: BacktestResult, rules: Rules, *, seed: int, draws: int = 1000
) -> Floats:
    """Total returns (draws,) of the result's own trades, with their sides, sizes and holding times,
    put at random places, one at a time; nan where there is no trade.

    A trade goes in at an open and out at an open, after costs. Sizes are the fractions of equity
    that were invested at the first close.
    """
    trades = result.trades
    if trades.empty:
        return np.full(draws, math.nan)
    n, growth = len(bars), bars.growth()
    entry = trades["entry_bar"].to_numpy()
    left = trades["exit_bar"].to_numpy()
    held = np.maximum(np.where(left < 0, n, left) - entry, 1)
    side = np.where(trades["side"] == "long", 1, -1)
    size = _sizes(bars, result)
    price = np.append(growth.open, growth.close[-1])
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(len(held)), (draws, 1)), axis=1)
    held, side, size = held[order], side[order], size[order]
    idle = max(n - int(held[0].sum()), 0)
    gaps = np.sort(rng.integers(0, idle + 1, size=held.shape), axis=1)
    stop = np.minimum(gaps + np.cumsum(held, axis=1), n)
    start = np.minimum(stop - held, n - 1)
    bought = price[start] * (1 + side * rules.slippage)
    sold = price[stop] * (1 - side * rules.slippage)
    gain = size * (side * (sold / bought - 1) - rules.commission * (1 + sold / bought))
    total: Floats = np.prod(np.maximum(1 + gain, 0.0), axis=1) - 1
    return total


def p_value(observed: float, drawn: Floats) -> float:
    """Share of draws at least as good, the observation counted as one of them; nan without draws.
    Davison and Hinkley, Bootstrap Methods (1997), eq. 4.11.
    """
    if not math.isfinite(observed) or np.isnan(drawn).any():
        return math.nan
    return float((1 + np.sum(drawn >= observed)) / (1 + len(drawn)))


def cost_curve(
    bars: BarSeries, orders: Orders, rules: Rules, commissions: Sequence[float]
) -> list[float]:
    """Total return of the same orders at each commission."""
    return [_earned(bars, orders, rules, commission) for commission in commissions]


def break_even_commission(bars: BarSeries, orders: Orders, rules: Rules) -> float:
    """The commission, as a fraction of every fill, at which the orders earn nothing; `HIGHEST`
    where they gain even then, nan where they lose without any.
    """
    low, high = 0.0, HIGHEST
    if _earned(bars, orders, rules, low) <= 0:
        return math.nan
    if _earned(bars, orders, rules, high) > 0:
        return HIGHEST
    while high - low > 1e-6:
        middle = (low + high) / 2
        if _earned(bars, orders, rules, middle) > 0:
            low = middle
        else:
            high = middle
    return low


def _earned(bars: BarSeries, orders: Orders, rules: Rules, commission: float) -> float:
    changed = rules._replace(commission=commission)
    return float(run_orders(bars, orders, changed, cash=1.0, whole_shares=False).equity[-1] - 1.0)


def _sizes(bars: BarSeries, result: BacktestResult) -> Floats:
    """Fraction of the equity before it that each trade put in."""
    factor = bars.growth_factor
    entry = result.trades["entry_bar"].to_numpy()
    price = result.trades["entry_price"].to_numpy() * factor[entry]
    units = result.trades["shares"].to_numpy() / factor[entry]
    before = result.equity[np.maximum(entry - 1, 0)]
    sizes: Floats = units * price / before
    return sizes
