"""Indicators over one price history, causal to the bit: `f(x[:m])` equals `f(x)[:m]` at every cut.

All take float64 arrays, one entry a bar, oldest first, and return an array of the same length: nan
until the first full window, and all nan when the history is shorter than that. No running sum is
carried from window to window, so a number depends on its own window alone (the averages that recur
by definition depend on everything before). A nan inside a window makes that window's number nan.
The definitions are TA-Lib's unless a docstring says otherwise; a window below 1 is a programming
error and raises ValueError. With `since` nothing is computed for earlier bars: they stay nan.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float64]


def sma(values: Floats, window: int, since: int = 0) -> Floats:
    """Mean of the last `window` values, in their unit; defined from bar `window - 1`. TA-Lib's SMA.

    Summed as differences from the window's oldest value, so that the average of equal values is
    exactly that value.
    """
    out = _blank(values, window)
    _means(values, window, max(since, window - 1), out)
    return out


def ema(values: Floats, window: int) -> Floats:
    """Average that moves by 2 / (`window` + 1) of the distance to each new value, in their unit.

    Starts at bar `window - 1` with the mean of the first `window` values. TA-Lib's EMA.
    """
    return _recurring(values, window, 2.0 / (window + 1))


def rsi(close: Floats, window: int) -> Floats:
    """Wilder's relative strength index, 0 to 100: average gain over average gain plus average loss.

    Gains and losses are bar-to-bar price differences under Wilder's smoothing (see `atr`). Defined
    from bar `window`; nan while there was neither gain nor loss, where TA-Lib's RSI says 0. Wilder,
    New Concepts in Technical Trading Systems (1978).
    """
    out = _blank(close, window)
    if len(close) > window:
        change = np.diff(close)
        gain = _recurring(np.maximum(change, 0.0), window, 1.0 / window)
        loss = _recurring(np.maximum(-change, 0.0), window, 1.0 / window)
        total = gain + loss
        np.divide(100.0 * gain, total, out=out[1:], where=total > 0)
    return out


def atr(high: Floats, low: Floats, close: Floats, window: int) -> Floats:
    """Average true range, in the unit of the prices; defined from bar `window`. TA-Lib's ATR.

    The true range of a bar is the largest of high - low, |high - close before| and |low - close
    before|; the first bar has none. Wilder's smoothing starts with the mean of the first `window`
    ranges, then moves by 1 / `window` of the distance to each new one. 0 where nothing moved.
    """
    out = _blank(close, window)
    if len(close) > window:
        top, bottom = np.maximum(high[1:], close[:-1]), np.minimum(low[1:], close[:-1])
        out[1:] = _recurring(top - bottom, window, 1.0 / window)
    return out


def rate_of_change(close: Floats, window: int) -> Floats:
    """Change against the value `window` bars before, as a fraction of it: 0.01 is one percent.

    TA-Lib's ROCP. Defined from bar `window`; nan where the earlier value is 0, where TA-Lib says 0.
    """
    out = _blank(close, window)
    before, now = close[:-window], close[window:]
    np.divide(now - before, before, out=out[window:], where=before != 0)
    return out


def rolling_std(values: Floats, window: int, since: int = 0) -> Floats:
    """Root of the mean squared deviation of the last `window` values (ddof 0), in their unit.

    Defined from bar `window - 1`; exactly 0 for equal values. TA-Lib's STDDEV, which also says 0
    where the variance is below 1e-14; here small spreads keep their value, and deviations are
    squared after the mean is taken off.
    """
    out = _blank(values, window)
    _spreads(values, window, max(since, window - 1), out)
    return out


def highest(values: Floats, window: int) -> Floats:
    """Largest of the last `window` values, from bar `window - 1` on. TA-Lib MAX."""
    return _extreme(values, window, np.maximum)


def lowest(values: Floats, window: int) -> Floats:
    """Smallest of the last `window` values, from bar `window - 1` on. TA-Lib MIN."""
    return _extreme(values, window, np.minimum)


def _blank(values: Floats, window: int) -> Floats:
    if window < 1:
        raise ValueError(f"window {window} is not a number of bars; use 1 or more")
    return np.full(len(values), np.nan)


def _recurring(values: Floats, window: int, share: float) -> Floats:
    """Start with the mean of the first `window` values; each later one moves it by `share` of the
    distance.
    """
    out = _blank(values, window)
    _moving(values, window, share, out)
    return out


def _extreme(values: Floats, window: int, pick: np.ufunc) -> Floats:
    out = _blank(values, window)
    if len(values) >= window:
        best, covered = values, 1
        while covered < window:  # best[i] is the extreme of `covered` values from i on
            step = min(covered, window - covered)
            best, covered = pick(best[:-step], best[step:]), covered + step
        out[window - 1 :] = best
    return out


@njit(cache=True)
def _mean_of(values, first, window):  # type: ignore[no-untyped-def]
    """Oldest value plus the mean distance from it, added up in the same order in every window."""
    total = 0.0
    for k in range(first + 1, first + window):
        total += values[k] - values[first]
    return values[first] + total / window


@njit(cache=True)
def _means(values, window, start, out):  # type: ignore[no-untyped-def]
    """As `_mean_of`, bar beside bar: the same sums in the same order."""
    count = max(len(values) - start, 0)
    oldest, total = values[start - window + 1 :], np.zeros(count)
    for k in range(1, window):
        newer = oldest[k:]
        for i in range(count):
            total[i] += newer[i] - oldest[i]
    for i in range(count):
        out[start + i] = oldest[i] + total[i] / window


@njit(cache=True)
def _spreads(values, window, start, out):  # type: ignore[no-untyped-def]
    for last in range(start, len(values)):
        first = last - window + 1
        mean, squares = _mean_of(values, first, window), 0.0
        for k in range(first, last + 1):
            squares += (values[k] - mean) ** 2
        out[last] = np.sqrt(squares / window)


@njit(cache=True)
def _moving(values, window, share, out):  # type: ignore[no-untyped-def]
    if len(values) >= window:
        mean = _mean_of(values, 0, window)
        out[window - 1] = mean
        for t in range(window, len(values)):
            mean += (values[t] - mean) * share
            out[t] = mean
