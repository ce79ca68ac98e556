"""Thousands of crossovers over one history: the kernel's rules, without a look at idle bars.

A pair of averages is a short list of crossings. Between a crossing and the bar that ends its trade
nothing is decided, so that bar is searched for in blocks that the processor compares at once, and a
mark is taken only where a position was held. `simulate` gives the same final equity to the
bit; tests hold every number against it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from numba import njit

from finagent_model.backtest.kernel import OPEN, Rules, entered, settled, touched
from finagent_model.backtest.metrics import DUST, YEAR
from finagent_model.domain.bars import BarSeries
from finagent_model.indicators import sma

COLUMNS = (
    "final_equity",
    "total_return",
    "volatility",
    "sharpe",
    "sortino",
    "max_drawdown",
    "exposure",
    "closed_trades",
)
BLOCK = 32
"""Bars whose levels are compared at once."""
WORD = 8
"""Bars whose crossings are looked at once: the bytes of an int64."""


def scan(
    bars: BarSeries,
    pairs: npt.NDArray[np.int64],
    rules: Rules,
    *,
    cash: float,
    whole_shares: bool = False,
    lean: bool = False,
) -> pd.DataFrame:
    """One row a pair of windows (m, 2), in their order: `fast`, `slow`, then `COLUMNS`.

    `lean` leaves out what needs every bar (volatility to drawdown): nan. Raises ValueError for
    rules of the cross-check, which this does not know.
    """
    if rules.fill_at_close or not (rules.entry_bar_stops and rules.open_exit_first):
        raise ValueError("a scan knows the kernel's own rules alone; use run_rule for others")
    growth = bars.growth()
    windows, places = np.unique(pairs, return_inverse=True)
    averages = np.array([sma(growth.close, int(window)) for window in windows])
    lot = 1.0 / bars.growth_factor if whole_shares else np.zeros(len(bars))
    found = np.full((len(pairs), len(COLUMNS)), np.nan)
    _scan(
        growth.open,
        growth.high,
        growth.low,
        growth.close,
        averages,
        places.reshape(-1, 2),
        lot,
        float(cash),
        rules,
        lean,
        found,
    )
    table = pd.DataFrame(found, columns=list(COLUMNS))
    table.insert(0, "fast", pairs[:, 0])
    table.insert(1, "slow", pairs[:, 1])
    return table


@njit(cache=True)
def _scan(  # type: ignore[no-untyped-def]
    opens, highs, lows, closes, averages, places, lot, cash, rules, lean, found
):
    n = len(closes)
    above, turned = np.zeros(n, dtype=np.int8), np.zeros(n // WORD * WORD + WORD, dtype=np.int8)
    at, side = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int8)
    for m in range(len(places)):
        count = _crossings(averages[places[m, 0]], averages[places[m, 1]], above, turned, at, side)
        row = found[m]
        _trade(opens, highs, lows, closes, at[:count], side[:count], lot, cash, rules, lean, row)


@njit(cache=True)
def _crossings(fast, slow, above, turned, at, side):  # type: ignore[no-untyped-def]
    """Bars where `fast` comes above (1) or below (-1) `slow`, and how many; a tie is no side."""
    n = len(fast)
    for t in range(n):
        above[t] = np.int8(fast[t] > slow[t]) - np.int8(fast[t] < slow[t])
    before, after = above[: n - 1], above[1:]
    for t in range(n - 1):
        turned[t] = (before[t] != after[t]) & (before[t] != 0) & (after[t] != 0)
    count, words = 0, turned.view(np.int64)
    for w in range(len(words)):
        if words[w] != 0:
            for t in range(w * WORD, (w + 1) * WORD):
                if turned[t]:
                    at[count], side[count] = t + 1, after[t]
                    count += 1
    return count


@njit(cache=True)
def _touching(highs, lows, closes, start, stop, low_exit, high_exit, ruin):  # type: ignore[no-untyped-def]
    """The first bar in [start, stop) that may touch a level or ruin; `stop` for none."""
    t = start
    while t < stop:
        width = min(BLOCK, stop - t)
        low, high, close = lows[t : t + width], highs[t : t + width], closes[t : t + width]
        some = False
        for k in range(width):
            some |= (low[k] <= low_exit) | (high[k] >= high_exit) | (close[k] >= ruin)
        if some:
            for k in range(width):
                if low[k] <= low_exit or high[k] >= high_exit or close[k] >= ruin:
                    return t + k
        t += width
    return stop


@njit(inline="always")
def _marked(equity, account):  # type: ignore[no-untyped-def]
    """The account after one more mark: last equity, peak, worst share of a peak, and three sums."""
    previous, peak, worst, total, squares, downs = account
    change = equity / previous - 1.0
    peak = max(peak, equity)
    if equity < peak * worst:
        worst = equity / peak
    below = min(change, 0.0)
    return equity, peak, worst, total + change, squares + change * change, downs + below * below


@njit(cache=True, fastmath={"reassoc"})  # sums of four lanes at once: the last digits may differ
def _held(closes, cash, units, account):  # type: ignore[no-untyped-def]
    """The account after marks at `closes` with a position."""
    if len(closes) == 0:
        return account
    equity, peak, worst, total, squares, downs = _marked(cash + units * closes[0], account)
    now, before = closes[1:], closes[: len(closes) - 1]
    for t in range(len(now)):
        change = (cash + units * now[t]) / (cash + units * before[t]) - 1.0
        below = min(change, 0.0)
        total += change
        squares += change * change
        downs += below * below
    for t in range(len(now)):
        equity = cash + units * now[t]
        peak = max(peak, equity)
        if equity < peak * worst:
            worst = equity / peak
    return equity, peak, worst, total, squares, downs


@njit(cache=True)
def _trade(  # type: ignore[no-untyped-def]
    opens, highs, lows, closes, at, sides, lot, cash, rules, lean, row
):
    n, start = len(closes), cash
    account = (cash, cash, 1.0, 0.0, 0.0, 0.0)
    held, count, k, i = 0, 0, -1, 0
    while i < len(at) and at[i] < n - 1:
        side, e = sides[i], at[i] + 1
        i += 1
        if side < 0 and not rules.allow_short:
            continue
        price, units, low_exit, high_exit, _ = entered(
            opens[e], side, 1.0, np.nan, np.nan, lot[e], cash, rules
        )
        if not units > 0:
            continue
        if not lean and e > k:
            account = _marked(cash, account)  # where the last trade left it, idle since
        units *= side
        cash -= units * price + abs(units) * price * rules.commission
        ruin = -cash / units * (1.0 - 1e-12) if side < 0 else np.inf
        j = i
        while j < len(at) and sides[j] == side:
            j += 1
        turn = at[j] + 1 if j < len(at) else n  # a market exit at this open
        k, reason, ended, ruined = e - 1, OPEN, False, False
        while not ended and k < turn:
            k = _touching(highs, lows, closes, k + 1, turn, low_exit, high_exit, ruin)
            if k < turn:
                price, reason = touched(
                    opens[k], highs[k], lows[k], units, low_exit, high_exit, rules.slippage
                )
                ended = reason != OPEN
                if not ended and cash + units * closes[k] <= 0:
                    price, ended, ruined = closes[k], True, True
        k = min(k, n)
        held += k - e
        if not lean:
            account = _held(closes[e:k], cash, units, account)
        if not ended:
            if k == n:
                cash += units * closes[n - 1]
                break
            price = opens[k] * (1.0 - side * rules.slippage)
        cash = settled(cash, units, price, rules.commission)
        count += 1
        if ruined or (ended and cash <= 0):
            break
        if ended:
            while i < len(at) and at[i] < k:
                i += 1
        else:
            i = j
    row[0] = cash
    row[1] = cash / start - 1.0
    row[6] = held / n
    row[7] = count
    if lean or n < 3:
        return
    _, _, worst, total, squares, downs = _marked(cash, account)
    m = n - 1
    mean = total / m
    variance = (squares - total * mean) / (m - 1)
    row[2] = np.sqrt(max(variance, 0.0) * YEAR)
    if row[2] > DUST:
        row[3] = mean * YEAR / row[2]
    downside = np.sqrt(downs / m * YEAR)
    if downside > 0:
        row[4] = mean * YEAR / downside
    row[5] = 1.0 - worst
