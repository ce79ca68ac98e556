"""The event loop of a backtest, compiled: one pass over the bars, one position at a time.

The rules, in the order in which they apply within a bar (docs/backtest.md names the test of each):

1. A decision at the close of bar t is filled at the open of bar t+1, never earlier; the last one is
   not filled. A market exit at the open comes before any stop of that bar.
2. BUY opens a long, closes a short first, and keeps a long as it is, with its levels. SELL mirrors
   it, and opens a short only where shorts are allowed. HOLD does nothing.
3. Stop and target are prices given with the decision, or distances from the fill. An entry whose
   fill is not strictly between them is cancelled, and counted.
4. Both are live from the entry bar on. A gap beyond either fills at the open; if one bar touches
   both, the stop is taken.
5. Commission on every fill; slippage on market and stop fills, none on targets.
6. Fractional units unless `lot` says otherwise. A long never makes cash negative. A short can lose
   more than there is: then it is closed at that bar's close and nothing is traded any more.

backtesting.py has the same rules; the switches of `Rules` that depart from them exist so that tests
can hold the kernel against other engines.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

TRADE = np.dtype(
    [
        ("entry_bar", np.int64),
        ("exit_bar", np.int64),
        ("side", np.int64),
        ("units", np.float64),
        ("entry_price", np.float64),
        ("exit_price", np.float64),
        ("fees", np.float64),
        ("pnl", np.float64),
        ("reason", np.int64),
    ]
)
"""One round trip; `exit_bar` is -1 and `exit_price` the last close while it is open. `pnl` is after
fees, `side` 1 or -1.
"""
OPEN, SIGNAL, STOP, TARGET, RUIN = range(5)
"""Why a trade ended."""
NAN = np.nan


class Rules(NamedTuple):
    """Costs as fractions of the notional, distances as fractions of the fill; nan for none."""

    commission: float = 0.0
    slippage: float = 0.0
    allow_short: bool = False
    stop_distance: float = NAN
    """Where a decision gives no stop of its own."""
    target_distance: float = NAN
    fill_at_close: bool = False
    """Fill at the very close that was decided on. Nobody can: for the cross-check alone."""
    entry_bar_stops: bool = True
    """False: levels are live from the bar after the entry, as in vectorbt."""
    open_exit_first: bool = True
    """False: a level touched in the bar goes before a market exit at its open, as in vectorbt."""


@njit(inline="always")
def settled(cash, units, price, commission):  # type: ignore[no-untyped-def]
    """Cash after selling (or buying back) all units."""
    return cash + units * price - abs(units) * price * commission


@njit(inline="always")
def touched(opened, high, low, side, low_exit, high_exit, slippage):  # type: ignore[no-untyped-def]
    """Price and reason of a level's fill in this bar; OPEN when none is touched."""
    if side > 0:
        if opened <= low_exit:
            return opened * (1.0 - slippage), STOP
        if opened >= high_exit:
            return opened, TARGET
        if low <= low_exit:
            return low_exit * (1.0 - slippage), STOP
        if high >= high_exit:
            return high_exit, TARGET
    else:
        if opened >= high_exit:
            return opened * (1.0 + slippage), STOP
        if opened <= low_exit:
            return opened, TARGET
        if high >= high_exit:
            return high_exit * (1.0 + slippage), STOP
        if low <= low_exit:
            return low_exit, TARGET
    return 0.0, OPEN


@njit(inline="always")
def entered(  # type: ignore[no-untyped-def]
    market, side, size, stop, target, lot, cash, rules
):
    """Price, units (0 where there is no fill), both levels, and whether levels cancelled it."""
    price = market * (1.0 + side * rules.slippage)
    if np.isnan(stop):
        stop = price * (1.0 - side * rules.stop_distance)
    if np.isnan(target):
        target = price * (1.0 + side * rules.target_distance)
    low_exit, high_exit = (stop, target) if side > 0 else (target, stop)
    if price <= low_exit or price >= high_exit:
        return price, 0.0, low_exit, high_exit, True
    units = size * cash / (price * (1.0 + rules.commission))
    if lot > 0:
        units = np.floor(units / lot + 1e-9) * lot
    return price, units, low_exit, high_exit, False


@njit(cache=True, nogil=True)
def simulate(  # type: ignore[no-untyped-def]  # numba compiles by the arguments' types
    opens,
    highs,
    lows,
    closes,
    action,
    size,
    stop,
    target,
    lot,
    cash,
    rules,
    equity,
    position,
    trades,
):
    """Fill `equity`, `position` (n,) and `trades` (n + 1,); return (trades, cancelled entries).

    `action` (n,) is 1, 0 or -1 as decided at each close; `size` the fraction of equity to put in;
    `stop` and `target` prices, nan for none; `lot` (n,) the smallest number of units, 0 for any.
    `position` is signed units held at each close, `equity` cash plus their value there.
    """
    n = len(closes)
    count, cancelled = 0, 0
    units, entry, paid, at = 0.0, 0.0, 0.0, -1
    low_exit, high_exit = np.nan, np.nan
    ruined = False
    for t in range(n):
        wanted = action[t - 1] if t > 0 and not ruined else 0
        market = closes[t - 1] if rules.fill_at_close and t > 0 else opens[t]
        bar = t - 1 if rules.fill_at_close else t
        fresh = False

        if units != 0 and not rules.open_exit_first:
            price, reason = touched(
                opens[t], highs[t], lows[t], units, low_exit, high_exit, rules.slippage
            )
            if reason != OPEN:
                wanted = 0
                cash = settled(cash, units, price, rules.commission)
                _write(trades, count, at, t, units, entry, price, paid, reason, rules.commission)
                count, units = count + 1, 0.0

        if wanted * units < 0:
            price = market * (1.0 - np.sign(units) * rules.slippage)
            cash = settled(cash, units, price, rules.commission)
            _write(trades, count, at, bar, units, entry, price, paid, SIGNAL, rules.commission)
            count, units = count + 1, 0.0

        if wanted != 0 and units == 0 and (wanted > 0 or rules.allow_short):
            price, bought, low_exit, high_exit, bad = entered(
                market, wanted, size[t - 1], stop[t - 1], target[t - 1], lot[t], cash, rules
            )
            cancelled += bad
            if bought > 0:
                units, entry, at, fresh = wanted * bought, price, bar, True
                paid = bought * price * rules.commission
                cash -= units * price + paid

        live = rules.entry_bar_stops if fresh else rules.open_exit_first
        if units != 0:
            price, reason = 0.0, OPEN
            if live:
                price, reason = touched(
                    opens[t], highs[t], lows[t], units, low_exit, high_exit, rules.slippage
                )
            if reason == OPEN and cash + units * closes[t] <= 0:
                price, reason, ruined = closes[t], RUIN, True
            if reason != OPEN:
                cash = settled(cash, units, price, rules.commission)
                _write(trades, count, at, t, units, entry, price, paid, reason, rules.commission)
                count, units = count + 1, 0.0
                ruined = ruined or cash <= 0

        equity[t] = cash + units * closes[t]
        position[t] = units

    if units != 0:
        _write(trades, count, at, -1, units, entry, closes[n - 1], paid, OPEN, 0.0)
        count += 1
    return count, cancelled


@njit(inline="always")
def _write(  # type: ignore[no-untyped-def]
    trades, row, entry_bar, exit_bar, units, entry_price, exit_price, paid, reason, commission
):
    fees = paid + abs(units) * exit_price * commission
    trades[row].entry_bar = entry_bar
    trades[row].exit_bar = exit_bar
    trades[row].side = 1 if units > 0 else -1
    trades[row].units = abs(units)
    trades[row].entry_price = entry_price
    trades[row].exit_price = exit_price
    trades[row].fees = fees
    trades[row].pnl = units * (exit_price - entry_price) - fees
    trades[row].reason = reason
