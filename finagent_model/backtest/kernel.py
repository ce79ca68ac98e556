"""The event loop of a backtest, compiled: one pass over the bars, one position at a time.

The rules, in the order in which they apply within a bar:

1. A decision at the close of bar t is filled at the open of bar t+1, never earlier; the last one is
   not filled. A market exit at the open comes before any stop of that bar.
2. BUY opens a long, closes a short first, and keeps a long as it is, with its levels. SELL mirrors
   it, and opens a short only where shorts are allowed. HOLD does nothing.
3. An entry whose fill is not strictly between its stop and target is cancelled, and counted.
4. Stop and target are live from the entry bar on. A gap beyond either fills at the open; if one bar
   touches both, the stop is taken.
5. Commission on every fill; slippage on market and stop fills, none on targets.
6. Fractional units unless `lot` says otherwise. A long never makes cash negative. A short can lose
   more than there is: then it is closed at that bar's close and nothing is traded any more.

backtesting.py has the same rules; tests hold the kernel against its numbers.
"""

from __future__ import annotations

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


@njit(cache=True)
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
    commission,
    slippage,
    allow_short,
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
        held = 1 if units > 0 else (-1 if units < 0 else 0)
        price, reason = 0.0, OPEN

        if wanted != 0 and held != 0 and wanted != held:
            price, reason = opens[t] * (1.0 - held * slippage), SIGNAL
            cash, fee = _settled(cash, units, price, commission)
            _write(trades, count, at, t, units, entry, price, paid + fee, reason)
            count, units, held = count + 1, 0.0, 0

        if wanted != 0 and held == 0 and (wanted > 0 or allow_short):
            price = opens[t] * (1.0 + wanted * slippage)
            below, above = stop[t - 1], target[t - 1]
            if wanted < 0:
                below, above = above, below
            if price <= below or price >= above:
                cancelled += 1
            else:
                bought = size[t - 1] * cash / (price * (1.0 + commission))
                if lot[t] > 0:
                    bought = np.floor(bought / lot[t] + 1e-9) * lot[t]
                if bought > 0:
                    units, entry, at = wanted * bought, price, t
                    paid = bought * price * commission
                    cash -= units * price + paid
                    low_exit, high_exit, held = below, above, wanted

        if held != 0:
            price, reason = 0.0, OPEN
            losing = low_exit if held > 0 else high_exit
            winning = high_exit if held > 0 else low_exit
            worst = lows[t] if held > 0 else highs[t]
            best = highs[t] if held > 0 else lows[t]
            if (losing - opens[t]) * held >= 0:
                price, reason = opens[t] * (1.0 - held * slippage), STOP
            elif (opens[t] - winning) * held >= 0:
                price, reason = opens[t], TARGET
            elif (losing - worst) * held >= 0:
                price, reason = losing * (1.0 - held * slippage), STOP
            elif (best - winning) * held >= 0:
                price, reason = winning, TARGET
            elif cash + units * closes[t] <= 0:
                price, reason, ruined = closes[t], RUIN, True
            if reason != OPEN:
                cash, fee = _settled(cash, units, price, commission)
                _write(trades, count, at, t, units, entry, price, paid + fee, reason)
                count, units = count + 1, 0.0
                ruined = ruined or cash <= 0

        equity[t] = cash + units * closes[t]
        position[t] = units

    if units != 0:
        _write(trades, count, at, -1, units, entry, closes[n - 1], paid, OPEN)
        count += 1
    return count, cancelled


@njit(cache=True)
def _settled(cash, units, price, commission):  # type: ignore[no-untyped-def]
    """Cash after selling (or buying back) all units, and the fee."""
    fee = abs(units) * price * commission
    return cash + units * price - fee, fee


@njit(cache=True)
def _write(  # type: ignore[no-untyped-def]
    trades, row, entry_bar, exit_bar, units, entry_price, exit_price, fees, reason
):
    trades[row].entry_bar = entry_bar
    trades[row].exit_bar = exit_bar
    trades[row].side = 1 if units > 0 else -1
    trades[row].units = abs(units)
    trades[row].entry_price = entry_price
    trades[row].exit_price = exit_price
    trades[row].fees = fees
    trades[row].pnl = units * (exit_price - entry_price) - fees
    trades[row].reason = reason
