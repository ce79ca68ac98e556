"""Technical indicators over one price history, causal to the bit: `f(x[:m])` equals `f(x)[:m]`.

All take float64 arrays, one entry a bar, oldest first, and return an array of the same length: nan
until the first full window, and all nan when the history is shorter than that. A nan inside a
window makes that window's number nan. The definitions are TA-Lib's unless a docstring says
otherwise; a window below 1 is a programming error and raises ValueError. With `first_bar` nothing
is computed for earlier bars: they stay nan.

No running sum is carried from window to window, so a number depends on its own window alone. The
averages that are recursive by definition (EMA, Wilder) depend on everything before.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from finagent_model.market.bars import Floats


def sma(values: Floats, window: int, first_bar: int = 0) -> Floats:
    """Compute the mean of the last `window` values, in their unit. TA-Lib's SMA.

    Defined from bar `window - 1`; of equal values exactly that value.
    """
    out = _nan_like(values, window)
    _rolling_means(values, window, max(first_bar, window - 1), out)
    return out


def ema(values: Floats, window: int) -> Floats:
    """Compute the exponential moving average, in the unit of the values. TA-Lib's EMA.

    It moves by 2 / (`window` + 1) of the distance to each new value and starts at bar
    `window - 1` with the mean of the first `window` values.
    """
    return _recursive_mean(values, window, 2.0 / (window + 1))


def rsi(close: Floats, window: int) -> Floats:
    """Compute Wilder's relative strength index, 0 to 100.

    It is the average gain over average gain plus average loss, in percent. Gains and losses are
    bar-to-bar price differences under Wilder's smoothing (see `atr`). Defined from bar `window`;
    nan while there was neither gain nor loss, where TA-Lib's RSI is 0. Wilder, New Concepts in
    Technical Trading Systems (1978).
    """
    out = _nan_like(close, window)
    if len(close) > window:
        change = np.diff(close)
        gain = _recursive_mean(np.maximum(change, 0.0), window, 1.0 / window)
        loss = _recursive_mean(np.maximum(-change, 0.0), window, 1.0 / window)
        total = gain + loss
        # `where` leaves nan in the bars where nothing has moved yet.
        np.divide(100.0 * gain, total, out=out[1:], where=total > 0)
    return out


def atr(high: Floats, low: Floats, close: Floats, window: int) -> Floats:
    """Compute the average true range, in the unit of the prices. TA-Lib's ATR.

    The true range of a bar is the largest of high - low, |high - close before| and |low - close
    before|; the first bar has none. Wilder's smoothing starts with the mean of the first `window`
    ranges, then moves by 1 / `window` of the distance to each new one. Defined from bar `window`;
    0 where nothing moved.
    """
    out = _nan_like(close, window)
    if len(close) > window:
        # This difference equals the largest of the three in the definition.
        top, bottom = np.maximum(high[1:], close[:-1]), np.minimum(low[1:], close[:-1])
        out[1:] = _recursive_mean(top - bottom, window, 1.0 / window)
    return out


def rate_of_change(close: Floats, window: int) -> Floats:
    """Compute the change over `window` bars as a fraction of the earlier value (0.01: one percent).

    TA-Lib's ROCP. Defined from bar `window`; nan where the earlier value is 0, where TA-Lib has 0.
    """
    out = _nan_like(close, window)
    before, now = close[:-window], close[window:]
    np.divide(now - before, before, out=out[window:], where=before != 0)
    return out


def rolling_std(values: Floats, window: int, first_bar: int = 0) -> Floats:
    """Compute the standard deviation of the last `window` values (ddof 0), in their unit.

    Defined from bar `window - 1`; exactly 0 for equal values. TA-Lib's STDDEV, except that small
    deviations keep their value, where TA-Lib has 0 below a variance of 1e-14.
    """
    out = _nan_like(values, window)
    _rolling_stds(values, window, max(first_bar, window - 1), out)
    return out


def highest(values: Floats, window: int) -> Floats:
    """Return the largest of the last `window` values, from bar `window - 1` on. TA-Lib MAX."""
    return _rolling_extreme(values, window, np.maximum)


def lowest(values: Floats, window: int) -> Floats:
    """Return the smallest of the last `window` values, from bar `window - 1` on. TA-Lib MIN."""
    return _rolling_extreme(values, window, np.minimum)


def _nan_like(values: Floats, window: int) -> Floats:
    if window < 1:
        raise ValueError(f"window {window} is not a number of bars; use 1 or more")
    return np.full(len(values), np.nan)


def _recursive_mean(values: Floats, window: int, share: float) -> Floats:
    """Compute a mean that each new value moves by `share` of its distance.

    It starts at bar `window - 1` with the mean of the first `window` values.
    """
    out = _nan_like(values, window)
    _fill_recursive_mean(values, window, share, out)
    return out


def _rolling_extreme(values: Floats, window: int, pick: np.ufunc) -> Floats:
    out = _nan_like(values, window)
    if len(values) >= window:
        # Doubling: best[i] is the extreme of `covered` values from i on, so log2(window) passes do.
        best, covered = values, 1
        while covered < window:
            step = min(covered, window - covered)
            best, covered = pick(best[:-step], best[step:]), covered + step
        out[window - 1 :] = best
    return out


@njit(cache=True)
def _window_mean(values, first, window):  # type: ignore[no-untyped-def]
    """Return the mean of `window` values from `first` on."""
    # Summed as differences from the oldest value: the mean of equal values is exactly that value.
    total = 0.0
    for k in range(first + 1, first + window):
        total += values[k] - values[first]
    return values[first] + total / window


@njit(cache=True)
def _rolling_means(values, window, start, out):  # type: ignore[no-untyped-def]
    """Fill `out` from `start` on with the mean of the window that ends at each bar."""
    # The loops are swapped so that the inner one runs over bars and the compiler vectorises it.
    # Every window still adds in the order of `_window_mean`: results are equal to the bit.
    count = max(len(values) - start, 0)
    oldest, total = values[start - window + 1 :], np.zeros(count)
    for k in range(1, window):
        newer = oldest[k:]
        for i in range(count):
            total[i] += newer[i] - oldest[i]
    for i in range(count):
        out[start + i] = oldest[i] + total[i] / window


@njit(cache=True)
def _rolling_stds(values, window, start, out):  # type: ignore[no-untyped-def]
    """Fill `out` from `start` on with the standard deviation of the window ending at each bar."""
    # Two passes: squaring before the mean is taken off would cancel the digits of small deviations.
    for last in range(start, len(values)):
        first = last - window + 1
        mean, squares = _window_mean(values, first, window), 0.0
        for k in range(first, last + 1):
            squares += (values[k] - mean) ** 2
        out[last] = np.sqrt(squares / window)


@njit(cache=True)
def _fill_recursive_mean(values, window, share, out):  # type: ignore[no-untyped-def]
    if len(values) >= window:
        mean = _window_mean(values, 0, window)
        out[window - 1] = mean
        for t in range(window, len(values)):
            mean += (values[t] - mean) * share
            out[t] = mean
