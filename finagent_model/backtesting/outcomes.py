"""Label each BUY or SELL with its outcome, whatever position was held: what calibration and lessons
learn from.

Triple-barrier labels: a call is filled at the next open and ends at its stop, its target, or the
close of the last bar of the horizon. Fills are the kernel's own, so that a label is what a backtest
of that one call earns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from numba import njit

from finagent_model.backtesting.engine import Orders
from finagent_model.backtesting.kernel import (
    OPEN,
    STOP,
    TARGET,
    FillRules,
    fill_entry,
    find_level_exit,
)
from finagent_model.market.bars import BarSeries, Floats
from finagent_model.policy.trained_state import HORIZON, TradeOutcome

Ints = npt.NDArray[np.int64]
TIME = -1
"""Exit reason of a call that reached the end of the horizon; the kernel knows no such exit."""
EXIT_NAMES: dict[int, Literal["stop", "target", "time"]] = {
    STOP: "stop",
    TARGET: "target",
    TIME: "time",
}


def label_outcomes(
    bars: BarSeries,
    orders: Orders,
    rules: FillRules,
    confidence: Floats,
    key_factors: Sequence[tuple[str, ...]] | None = None,
) -> tuple[TradeOutcome, ...]:
    """Return the outcomes of the calls that have ended by the last bar, oldest first.

    Orders (in growth units), `confidence` (0..100) and `key_factors` are one a bar.
    """
    n = len(bars)
    exit_bar, reason, earned = np.zeros(n, np.int64), np.zeros(n, np.int64), np.full(n, np.nan)
    growth = bars.adjust_to_first_bar()
    _follow_calls(
        growth.open,
        growth.high,
        growth.low,
        growth.close,
        orders.action,
        orders.stop,
        orders.target,
        rules,
        HORIZON,
        exit_bar,
        reason,
        earned,
    )
    weight = _average_uniqueness(exit_bar)
    return tuple(
        TradeOutcome(
            symbol=bars.symbol,
            as_of=bars.decision_time(t),
            closed_at=bars.close_time(int(exit_bar[t])),
            action="BUY" if orders.action[t] > 0 else "SELL",
            confidence=float(confidence[t]),
            earned=float(earned[t]),
            ended=EXIT_NAMES[int(reason[t])],
            bars_held=int(exit_bar[t] - t),
            weight=float(weight[t]),
            key_factors=key_factors[t] if key_factors else (),
        )
        # An exit bar of n is a call that is still open: its outcome is not known yet.
        for t in np.flatnonzero((exit_bar > 0) & (exit_bar < n)).tolist()
    )


def describe_call(
    later: BarSeries | None,
    action: Literal["BUY", "SELL"],
    stop: float | None,
    target: float | None,
) -> str:
    """Return in a sentence what became of a call, from the bars after it, before costs.

    `later` None: there is no bar after it yet. Levels are in units of the bars. Fills are the
    kernel's: at the first open, the stop before the target where one bar touches both. As for
    `label_outcomes` a call ends after `HORIZON` bars at the latest.
    """
    if later is None:
        return "Nothing is known of what became of it: there is no later bar."
    side = 1 if action == "BUY" else -1
    levels = [math.nan if level is None else level for level in (stop, target)]
    # The kernel's own functions, not compiled: a single call is no reason to wait for numba.
    enter, leave = cast("Any", fill_entry).py_func, cast("Any", find_level_exit).py_func
    entry, _, low_exit, high_exit, is_cancelled = enter(
        float(later.open[0]), side, 1.0, *levels, 0.0, 1.0, FillRules()
    )
    if is_cancelled:
        return (
            f"Not filled: the next open, {entry:,.2f}, lay beyond the stop or the target already."
        )
    start = f"Filled at the next open, {entry:,.2f}"
    held = later[:HORIZON]
    for i in range(len(held)):
        price, reason = leave(
            held.open[i], held.high[i], held.low[i], side, low_exit, high_exit, 0.0
        )
        if reason != OPEN:
            earned = side * (price / entry - 1.0)
            return (
                f"{start}: {EXIT_NAMES[reason]} hit on {held.close_time(i):%Y-%m-%d} at "
                f"{price:,.2f}, {earned:+.1%} before costs."
            )
    last, earned = f"{held.close_time(-1):%Y-%m-%d}", side * (float(held.close[-1]) / entry - 1.0)
    if len(held) == HORIZON:
        return (
            f"{start}: neither stop nor target was hit, so it ended after {HORIZON} bars, at the "
            f"close of {last}, {earned:+.1%} before costs."
        )
    return (
        f"{start}: neither stop nor target was hit in {len(held)} bars; at the close of "
        f"{last} it stood at {earned:+.1%} before costs."
    )


@njit(cache=True)
def _follow_calls(  # type: ignore[no-untyped-def]  # numba compiles by the arguments' types
    opens, highs, lows, closes, action, stop, target, rules, horizon, exit_bar, reason, earned
):
    """Fill `exit_bar`, `reason` and `earned` (n,) for the call at each close.

    `exit_bar` is 0 where there is no call or its levels cancelled it, n where it is still open.
    """
    n = len(closes)
    for t in range(n - 1):
        side = action[t]
        if side == 0:
            continue
        entry_price, _, low_exit, high_exit, is_cancelled = fill_entry(
            opens[t + 1], side, 1.0, stop[t], target[t], 0.0, 1.0, rules
        )
        if is_cancelled:
            continue
        exit_bar[t] = n
        for k in range(t + 1, min(t + 1 + horizon, n)):
            price, why = find_level_exit(
                opens[k], highs[k], lows[k], side, low_exit, high_exit, rules.slippage
            )
            if why == OPEN and k == t + horizon:
                price, why = closes[k] * (1.0 - side * rules.slippage), TIME
            if why != OPEN:
                exit_bar[t], reason[t] = k, why
                ratio = price / entry_price
                # A short can't lose more than was put in: its account would be closed (kernel).
                earned[t] = max(side * (ratio - 1.0) - rules.commission * (1.0 + ratio), -1.0)
                break


def _average_uniqueness(exit_bar: Ints) -> Floats:
    """Return each call's weight (n,) in (0, 1]: the mean, over the bars that it spans, of one over
    the number of calls that span them; nan without a call.
    """
    # Lopez de Prado, Advances in Financial Machine Learning (2018), chapter 4. No look-ahead: calls
    # made after a call's end span none of its bars, so they do not change its weight.
    n = len(exit_bar)
    calls = np.flatnonzero(exit_bar > 0)
    change = np.zeros(n + 1)
    np.add.at(change, calls + 1, 1.0)
    np.add.at(change, np.minimum(exit_bar[calls] + 1, n), -1.0)
    spanning = np.cumsum(change[:n])
    share = np.append(0.0, np.cumsum(1.0 / np.maximum(spanning, 1.0)))
    weight = np.full(n, np.nan)
    last = np.minimum(exit_bar[calls], n - 1)
    mean = (share[last + 1] - share[calls + 1]) / (last - calls)
    # Differences of long cumulative sums are rounded: a lone call may come out above one.
    weight[calls] = np.minimum(mean, 1.0)
    return weight
