"""The indicators equal TA-Lib's, and no number depends on a later bar."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import talib

from finagent_model.data.bundled import BundledBars
from finagent_model.market import indicators
from finagent_model.market.bars import BarSeries, Floats

Indicator = Callable[[BarSeries, int], Floats]

OURS: dict[str, Indicator] = {
    "sma": lambda b, n: indicators.sma(b.close, n),
    "ema": lambda b, n: indicators.ema(b.close, n),
    "rsi": lambda b, n: indicators.rsi(b.close, n),
    "atr": lambda b, n: indicators.atr(b.high, b.low, b.close, n),
    "rate_of_change": lambda b, n: indicators.rate_of_change(b.close, n),
    "rolling_std": lambda b, n: indicators.rolling_std(b.close, n),
    "highest": lambda b, n: indicators.highest(b.high, n),
    "lowest": lambda b, n: indicators.lowest(b.low, n),
}
TALIB: dict[str, Indicator] = {
    "sma": lambda b, n: talib.SMA(b.close, n),
    "ema": lambda b, n: talib.EMA(b.close, n),
    "rsi": lambda b, n: talib.RSI(b.close, n),
    "atr": lambda b, n: talib.ATR(b.high, b.low, b.close, n),
    "rate_of_change": lambda b, n: talib.ROCP(b.close, n),
    "rolling_std": lambda b, n: talib.STDDEV(b.close, n),
    "highest": lambda b, n: talib.MAX(b.high, n),
    "lowest": lambda b, n: talib.MIN(b.low, n),
}
SINGLE = ("sma", "ema", "rsi", "rate_of_change", "rolling_std", "highest", "lowest")

each = pytest.mark.parametrize("name", OURS)


@pytest.fixture(scope="module")
def google() -> BarSeries:
    return BundledBars().bars("GOOG")


def flat(length: int, price: float = 0.1) -> BarSeries:
    closed_at = np.datetime64("2012-01-02T21:00", "us") + np.arange(length) * np.timedelta64(1, "D")
    prices, ones = np.full(length, price), np.ones(length)
    return BarSeries("FLAT", closed_at, prices, prices, prices, prices, ones, ones, 0 * ones)


@each
@pytest.mark.parametrize("window", [2, 3, 14, 50, 200])
def test_indicator_equals_talib(google: BarSeries, name: str, window: int) -> None:
    ours, reference = OURS[name](google, window), TALIB[name](google, window)
    assert ours.dtype == np.float64
    # TA-Lib carries running sums, so where a number is all but zero only its absolute error counts.
    np.testing.assert_allclose(ours, reference, rtol=1e-9, atol=1e-9, equal_nan=True)
    clear = np.abs(reference) > 1.0
    np.testing.assert_allclose(ours[clear], reference[clear], rtol=1e-9)


@each
@pytest.mark.parametrize("window", [1, 2, 7, 20])
def test_indicator_is_bit_equal_at_every_cut(google: BarSeries, name: str, window: int) -> None:
    bars = google[:300]
    whole = OURS[name](bars, window)
    for cut in range(len(bars) + 1):
        assert OURS[name](bars[:cut], window).tobytes() == whole[:cut].tobytes()


@each
def test_indicator_is_bit_equal_at_last_cuts_of_long_history(google: BarSeries, name: str) -> None:
    whole = OURS[name](google, 60)
    for cut in range(len(google) - 40, len(google)):
        assert OURS[name](google[:cut], 60).tobytes() == whole[:cut].tobytes()


@each
def test_indicator_ignores_later_values(google: BarSeries, name: str) -> None:
    cut = 150
    other = google.to_frame().iloc[:300]
    other.loc[cut:, ["open", "high", "low", "close"]] *= 3.7
    before, after = OURS[name](google[:300], 14), OURS[name](BarSeries.from_frame("X", other), 14)
    assert before[:cut].tobytes() == after[:cut].tobytes()
    assert not np.array_equal(before[cut:], after[cut:])


@each
def test_indicator_is_nan_for_short_history(google: BarSeries, name: str) -> None:
    for length in range(5):
        result = OURS[name](google[:length], 5)
        assert result.shape == (length,)
        assert np.isnan(result).all()


@each
def test_indicator_refuses_window_below_one(google: BarSeries, name: str) -> None:
    with pytest.raises(ValueError, match="window 0 is not a number of bars"):
        OURS[name](google, 0)


@each
def test_indicator_leaves_input_unchanged(google: BarSeries, name: str) -> None:
    bars = google[:50]
    columns = [bars.high.copy(), bars.low.copy(), bars.close.copy()]
    OURS[name](bars, 1)[:] = 0.0
    for column, was in zip((bars.high, bars.low, bars.close), columns, strict=True):
        assert np.array_equal(column, was)


@pytest.mark.parametrize("price", [0.1, 1 / 3, 123.45])
def test_indicators_of_constant_series(price: float) -> None:
    bars, window = flat(40, price), 7
    assert np.isnan(OURS["rsi"](bars, window)).all()
    for name in ("atr", "rate_of_change", "rolling_std"):
        result = OURS[name](bars, window)
        assert (result[window:] == 0.0).all(), name
    for name in ("sma", "ema", "highest", "lowest"):
        assert (OURS[name](bars, window)[window - 1 :] == price).all(), name


def test_rsi_reaches_its_extremes_in_one_way_markets() -> None:
    rising = np.arange(1.0, 30.0)
    assert (indicators.rsi(rising, 5)[5:] == 100.0).all()
    assert (indicators.rsi(rising[::-1].copy(), 5)[5:] == 0.0).all()


def test_rolling_std_keeps_small_deviation() -> None:
    values = 1000.0 + np.array([0.0, 1e-9] * 10)
    expected = [np.std(values[i - 3 : i + 1]) for i in range(3, 20)]
    np.testing.assert_allclose(indicators.rolling_std(values, 4)[3:], expected, rtol=1e-9)


def test_rate_of_change_from_zero_is_nan() -> None:
    result = indicators.rate_of_change(np.array([0.0, 1.0, 2.0]), 1)
    assert np.isnan(result[:2]).all()
    assert result[2] == 1.0


@pytest.mark.parametrize("name", SINGLE)
def test_indicator_nan_makes_its_windows_nan(name: str) -> None:
    values = np.arange(1.0, 21.0)
    values[9] = np.nan
    result = getattr(indicators, name)(values, 3)
    assert np.isnan(result[9])
    assert np.isfinite(result[8])
