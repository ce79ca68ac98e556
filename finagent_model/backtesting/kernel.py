"""Compiled event loop of a backtest: one pass over the bars, one position at a time.

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
6. Fractional units unless `lot` says otherwise. A long never makes cash negative. A short is bought
   back at the price at which nothing would be left after costs, even where a gap goes beyond it:
   equity ends at 0, never below, and nothing is traded any more.

backtesting.py has the same rules. The switches of `FillRules` that depart from them exist so that
tests can hold the kernel against other engines.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

TRADE_DTYPE = np.dtype(
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


# A named tuple and no pydantic model: numba compiles it as plain fields.
class FillRules(NamedTuple):
    """Costs as fractions of the notional, distances as fractions of the fill; nan for none."""

    commission: float = 0.0
    slippage: float = 0.0
    allow_short: bool = False
    stop_distance: float = NAN
    """Used where a decision gives no stop of its own."""
    target_distance: float = NAN
    """Used where a decision gives no target of its own."""
    fill_at_close: bool = False
    """Fill at the very close that was decided on. Nobody can: for the cross-check only."""
    entry_bar_stops: bool = True
    """False: levels are live from the bar after the entry, as in vectorbt."""
    open_exit_first: bool = True
    """False: a level touched in the bar goes before a market exit at its open, as in vectorbt."""


@njit(inline="always")
def _close_position(cash, units, price, reason, commission):  # type: ignore[no-untyped-def]
    """Return cash, price and reason of selling (or buying back) all units at `price`."""
    # Only a short can cost more than there is. Nobody is left to pay for what lies beyond: it is
    # the lender's loss, and the trade is booked at the price that took the last of the cash.
    ruin_price = _ruin_price(cash, units, commission)
    if price >= ruin_price:
        return 0.0, ruin_price, RUIN
    return cash + units * price - abs(units) * price * commission, price, reason


@njit(inline="always")
def _ruin_price(cash, units, commission):  # type: ignore[no-untyped-def]
    """Return the price at which buying back a short takes all the cash; nan for a long."""
    return cash / (-units * (1.0 + commission)) if units < 0 else np.nan


@njit(inline="always")
def _first_of(high_exit, ruin_price):  # type: ignore[no-untyped-def]
    """Return the level that a rising price meets first; nan is no level."""
    return ruin_price if ruin_price < high_exit or np.isnan(high_exit) else high_exit


@njit(inline="always")
def find_level_exit(open_, high, low, side, low_exit, high_exit, slippage):  # type: ignore[no-untyped-def]
    """Return price and reason of a stop's or target's fill in this bar; (0, OPEN) for none."""
    # Which of two levels a bar touched first is unknown, so the stop is asked before the target:
    # the worse outcome. A stop turns into a market order and slips; a target is a limit order.
    if side > 0:
        if open_ <= low_exit:
            return open_ * (1.0 - slippage), STOP
        if open_ >= high_exit:
            return open_, TARGET
        if low <= low_exit:
            return low_exit * (1.0 - slippage), STOP
        if high >= high_exit:
            return high_exit, TARGET
    else:
        if open_ >= high_exit:
            return open_ * (1.0 + slippage), STOP
        if open_ <= low_exit:
            return open_, TARGET
        if high >= high_exit:
            return high_exit * (1.0 + slippage), STOP
        if low <= low_exit:
            return low_exit, TARGET
    return 0.0, OPEN


@njit(inline="always")
def fill_entry(  # type: ignore[no-untyped-def]
    market_price, side, size, stop, target, lot, cash, rules
):
    """Return price, units (0 for no fill), low and high exit, and whether levels cancelled it."""
    price = market_price * (1.0 + side * rules.slippage)
    if np.isnan(stop):
        stop = price * (1.0 - side * rules.stop_distance)
    if np.isnan(target):
        target = price * (1.0 + side * rules.target_distance)
    low_exit, high_exit = (stop, target) if side > 0 else (target, stop)
    # A level that is still nan compares false: no level, no cancellation.
    if price <= low_exit or price >= high_exit:
        return price, 0.0, low_exit, high_exit, True
    # The commission is paid out of the same cash, so that a full-size long can't overdraw it.
    units = size * cash / (price * (1.0 + rules.commission))
    if lot > 0:
        # The small addend keeps a whole number of lots from being floored to one less.
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
    """Fill `equity`, `position` (n,) and `trades` (n + 1,); return the numbers of trades, of
    cancelled entries, and of entries whose cash buys no lot.

    `action` (n,) is 1, 0 or -1 as decided at each close; `size` the fraction of equity to put in;
    `stop` and `target` prices, nan for none; `lot` (n,) the smallest number of units, 0 for any.
    `position` is signed units held at each close, `equity` cash plus their value there.
    """
    n = len(closes)
    count, cancelled, unaffordable = 0, 0, 0
    units, entry_price, entry_fee, entry_bar = 0.0, 0.0, 0.0, -1
    low_exit, high_exit = np.nan, np.nan
    ruined = False
    for t in range(n):
        # No look-ahead: bar t acts on the decision of bar t-1.
        order = action[t - 1] if t > 0 and not ruined else 0
        market_price = closes[t - 1] if rules.fill_at_close and t > 0 else opens[t]
        bar = t - 1 if rules.fill_at_close else t  # of a market fill
        is_entry_bar = False

        if units != 0 and not rules.open_exit_first:
            price, reason = find_level_exit(
                opens[t],
                highs[t],
                lows[t],
                units,
                low_exit,
                _first_of(high_exit, _ruin_price(cash, units, rules.commission)),
                rules.slippage,
            )
            if reason != OPEN:
                order = 0
                cash, price, reason = _close_position(cash, units, price, reason, rules.commission)
                _record_trade(
                    trades, count, entry_bar, t, units, entry_price, price, entry_fee, reason, rules
                )
                count, units, ruined = count + 1, 0.0, cash <= 0

        # An order against the position closes it first; the same bar may then open the other side.
        if order * units < 0:
            price = market_price * (1.0 - np.sign(units) * rules.slippage)
            cash, price, reason = _close_position(cash, units, price, SIGNAL, rules.commission)
            _record_trade(
                trades, count, entry_bar, bar, units, entry_price, price, entry_fee, reason, rules
            )
            count, units, ruined = count + 1, 0.0, cash <= 0

        if order != 0 and units == 0 and not ruined and (order > 0 or rules.allow_short):
            price, quantity, low_exit, high_exit, is_cancelled = fill_entry(
                market_price, order, size[t - 1], stop[t - 1], target[t - 1], lot[t], cash, rules
            )
            cancelled += is_cancelled
            unaffordable += not is_cancelled and quantity == 0 and size[t - 1] > 0
            if quantity > 0:
                units, entry_price = order * quantity, price
                entry_bar, is_entry_bar = bar, True
                entry_fee = quantity * price * rules.commission
                cash -= units * price + entry_fee

        if units != 0:
            low_level, high_level = np.nan, np.nan
            if rules.entry_bar_stops if is_entry_bar else rules.open_exit_first:
                low_level, high_level = low_exit, high_exit
            # Ruin needs no order: it is watched on every bar, whatever is said about levels.
            price, reason = find_level_exit(
                opens[t],
                highs[t],
                lows[t],
                units,
                low_level,
                _first_of(high_level, _ruin_price(cash, units, rules.commission)),
                rules.slippage,
            )
            if reason != OPEN:
                cash, price, reason = _close_position(cash, units, price, reason, rules.commission)
                _record_trade(
                    trades, count, entry_bar, t, units, entry_price, price, entry_fee, reason, rules
                )
                count, units, ruined = count + 1, 0.0, cash <= 0

        equity[t] = cash + units * closes[t]
        position[t] = units

    if units != 0:
        _record_trade(
            trades, count, entry_bar, -1, units, entry_price, closes[n - 1], entry_fee, OPEN, rules
        )
        count += 1
    return count, cancelled, unaffordable


@njit(inline="always")
def _record_trade(  # type: ignore[no-untyped-def]
    trades, row, entry_bar, exit_bar, units, entry_price, exit_price, entry_fee, reason, rules
):
    # An open trade is marked at the last close without an exit fee: nothing was sold.
    exit_fee = abs(units) * exit_price * rules.commission if exit_bar >= 0 else 0.0
    fees = entry_fee + exit_fee
    trades[row].entry_bar = entry_bar
    trades[row].exit_bar = exit_bar
    trades[row].side = 1 if units > 0 else -1
    trades[row].units = abs(units)
    trades[row].entry_price = entry_price
    trades[row].exit_price = exit_price
    trades[row].fees = fees
    trades[row].pnl = units * (exit_price - entry_price) - fees
    trades[row].reason = reason
