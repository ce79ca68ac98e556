"""What came of each call to act, judged on its own: the labels of calibration and of lessons.

The fills are the kernel's: in at the next open, out at stop or target by its rules, or at the close
of the last bar of the horizon.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from numba import njit

from finagent_model.backtesting.engine import Orders
from finagent_model.backtesting.kernel import OPEN, STOP, TARGET, Rules, entered, touched
from finagent_model.market.bars import BarSeries, Floats, parse_as_of
from finagent_model.policy.trained_state import HORIZON, TradeOutcome

Ints = npt.NDArray[np.int64]
TIME = -1
ENDED: dict[int, Literal["stop", "target", "time"]] = {STOP: "stop", TARGET: "target", TIME: "time"}


@njit(cache=True)
def follow(  # type: ignore[no-untyped-def]  # numba compiles by the arguments' types
    opens, highs, lows, closes, action, stop, target, rules, horizon, exit_bar, ended, earned
):
    """Fill `exit_bar` (n,), `ended` (n,) and `earned` (n,) for the call at each close; `exit_bar`
    is 0 where there is no call or its levels cancelled it, n where it has not ended yet.
    """
    n = len(closes)
    for t in range(n - 1):
        side = action[t]
        if side == 0:
            continue
        price, _, low_exit, high_exit, cancelled = entered(
            opens[t + 1], side, 1.0, stop[t], target[t], 0.0, 1.0, rules
        )
        if cancelled:
            continue
        exit_bar[t] = n
        for k in range(t + 1, min(t + 1 + horizon, n)):
            out, why = touched(
                opens[k], highs[k], lows[k], side, low_exit, high_exit, rules.slippage
            )
            if why == OPEN and k == t + horizon:
                out, why = closes[k] * (1.0 - side * rules.slippage), TIME
            if why != OPEN:
                exit_bar[t], ended[t] = k, why
                earned[t] = side * (out / price - 1.0) - rules.commission * (1.0 + out / price)
                break


def closed_calls(
    bars: BarSeries,
    orders: Orders,
    rules: Rules,
    confidence: Floats,
    key_factors: Sequence[tuple[str, ...]] | None = None,
) -> tuple[TradeOutcome, ...]:
    """The calls whose outcome is known by the last bar, oldest first. Orders (in growth units),
    `confidence` (0..100) and `key_factors` are one a bar.
    """
    n = len(bars)
    exit_bar, ended, earned = np.zeros(n, np.int64), np.zeros(n, np.int64), np.full(n, np.nan)
    growth = bars.adjust_to_first_bar()
    follow(
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
        ended,
        earned,
    )
    weight = _uniqueness(exit_bar)
    return tuple(
        TradeOutcome(
            symbol=bars.symbol,
            as_of=parse_as_of(bars.close_time(t).date()),
            closed_at=bars.close_time(int(exit_bar[t])),
            action="BUY" if orders.action[t] > 0 else "SELL",
            confidence=float(confidence[t]),
            earned=float(earned[t]),
            ended=ENDED[int(ended[t])],
            bars_held=int(exit_bar[t] - t),
            weight=float(weight[t]),
            key_factors=key_factors[t] if key_factors else (),
        )
        for t in np.flatnonzero((exit_bar > 0) & (exit_bar < n)).tolist()
    )


def _uniqueness(exit_bar: Ints) -> Floats:
    """Mean, over the bars that a call spans, of one over the number of calls that span them; of
    what was called later than a call's end nothing enters.
    """
    n = len(exit_bar)
    called = np.flatnonzero(exit_bar > 0)
    change = np.zeros(n + 1)
    np.add.at(change, called + 1, 1.0)
    np.add.at(change, np.minimum(exit_bar[called] + 1, n), -1.0)
    spanning = np.cumsum(change[:n])
    share = np.append(0.0, np.cumsum(1.0 / np.maximum(spanning, 1.0)))
    weight = np.full(n, np.nan)
    last = np.minimum(exit_bar[called], n - 1)
    mean = (share[last + 1] - share[called + 1]) / (last - called)
    weight[called] = np.minimum(mean, 1.0)  # of sums that are long, rounding may leave more
    return weight
