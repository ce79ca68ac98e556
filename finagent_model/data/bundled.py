"""The bundled bars: five US stocks, daily, 2000-03-01 to 2013-03-01, read offline.

They come with the `bokeh-sampledata` package. Prices are as traded. Splits and dividends are
inferred from the adjusted closes, of which only the steps are used: vendors revise adjusted prices
with every later action, but the step of adjusted / raw on an action's own bar stays what it was.
"""

from __future__ import annotations

from functools import cached_property
from math import gcd

import numpy as np
import pandas as pd

from finagent_model.errors import DataSourceError, InvalidBarsError, UnknownSymbolError
from finagent_model.market.bars import BarSeries, Floats

BUNDLED = "bundled"
"""The source's name."""
SURVIVORS = (
    "the five symbols are survivors, chosen by people who knew how they had fared, and their bars "
    "end on 2013-03-01; they say nothing of today's market"
)
FILE = "stocks.csv.gz"
_COLUMNS = {
    "Date": "closed_at",
    "Open": "open",
    "High": "high",
    "Low": "low",
    "Close": "close",
    "Volume": "volume",
}
NOISE = 1e-4
"""A step closer to 1 than this is the vendor's rounding."""
SPLIT_TOLERANCE = 0.005
"""How far, as a fraction, a step may lie from the split ratio that it is taken for."""
MAX_SPLIT_TERM = 20
"""Up to it a ratio may have two terms, such as 3:2; beyond it one is 1, such as 50:1 and 1:30."""
ROUNDED_TO = (0.01, 0.001)
"""Steps in which adjusted closes may be written; finer ones are not taken for rounded."""
# Between this and its inverse lie dividends.
MIN_SPLIT = 1.25
"""A split multiplies the shares by this at least; a reverse split divides by it."""
SPLIT_RATIOS: tuple[float, ...] = tuple(
    n / m
    for n, m in sorted(
        ((n, m) for n in range(1, MAX_SPLIT_TERM + 1) for m in range(1, MAX_SPLIT_TERM + 1)),
        key=lambda terms: (max(terms), min(terms)),
    )
    if gcd(n, m) == 1 and not 1 / MIN_SPLIT < n / m < MIN_SPLIT
)
"""New shares per old share, simplest first: 2:1 is tried before 19:10."""


class BundledBars:
    """A BarSource over the bundled file, which is read once, on first use."""

    name = BUNDLED

    def symbols(self) -> tuple[str, ...]:
        """Return the five tickers. Raises DataSourceError where the file is missing."""
        return tuple(sorted(self._frames))

    def bars(self, symbol: str) -> BarSeries:
        """Return all bars of `symbol`. Raises UnknownSymbolError and DataSourceError."""
        if symbol not in self._frames:
            raise UnknownSymbolError(symbol, self.symbols(), self.name)
        if symbol not in self._series:
            self._series[symbol] = _build_series(symbol, self._frames[symbol])
        return self._series[symbol]

    @cached_property
    def _series(self) -> dict[str, BarSeries]:
        return {}

    @cached_property
    def _frames(self) -> dict[str, pd.DataFrame]:
        try:
            # Imported on use: users with their own bars need not have it.
            from bokeh_sampledata import package_path

            table = pd.read_csv(package_path(FILE), dtype={"Ticker": str, "Date": str})
        except (ImportError, OSError) as error:
            raise DataSourceError(
                f"the bundled bars can't be read ({error}); "
                "install bokeh-sampledata, or point to a folder of CSV files"
            ) from error
        return {str(ticker): rows for ticker, rows in table.groupby("Ticker")}


def _build_series(symbol: str, rows: pd.DataFrame) -> BarSeries:
    close = rows["Close"].to_numpy(dtype=np.float64)
    adjusted = rows["Adj Close"].to_numpy(dtype=np.float64)
    split, dividend = infer_actions(symbol, close, adjusted)
    frame = rows[list(_COLUMNS)].rename(columns=_COLUMNS)
    return BarSeries.from_frame(symbol, frame.assign(split=split, dividend=dividend))


def infer_actions(symbol: str, close: Floats, adjusted: Floats) -> tuple[Floats, Floats]:
    """Infer `split` and `dividend` of each bar from its traded and its adjusted close.

    All arrays have one value per bar. A split is new shares per old share, 1 where there is none; a
    dividend is in the price's currency per share, 0 where there is none.

    Raises InvalidBarsError, naming the bar, for prices that are not positive numbers and for a step
    below 1 that is no reverse split.
    """
    for name, values in (("close", close), ("adjusted close", adjusted)):
        invalid = ~(np.isfinite(values) & (values > 0))
        if invalid.any():
            bar = int(np.argmax(invalid))
            raise InvalidBarsError(
                f"bars of {symbol}: {name} is not a positive number at bar {bar}"
            )
    split, dividend = np.ones(len(close)), np.zeros(len(close))
    # The ratio is constant between actions and steps on the first bar that trades without one.
    ratio = adjusted / close
    steps = ratio[1:] / ratio[:-1]
    noise = np.maximum(NOISE, rounding_noise(close, adjusted))
    for i in (np.flatnonzero(np.abs(steps - 1.0) > noise) + 1).tolist():
        step = float(steps[i - 1])
        # A step near a simple ratio is a split; any other above 1 is a dividend.
        if (shares := _split_ratio(step, max(SPLIT_TOLERANCE, float(noise[i - 1])))) is not None:
            split[i] = shares
        elif step > 1.0:
            # The adjustment of a dividend d is step = before / (before - d), solved for d.
            dividend[i] = close[i - 1] * (1.0 - 1.0 / step)
        else:
            raise InvalidBarsError(
                f"bars of {symbol}: the adjusted close steps by {step:.6f} at bar {i}, which is "
                "neither a dividend nor a reverse split; correct it, or give split and dividend "
                "columns instead"
            )
    return split, dividend


def rounding_noise(close: Floats, adjusted: Floats) -> Floats:
    """Return how far the rounding of adjusted closes may move each step, as a fraction.

    One value for each bar but the first; 0 where the closes are not written in cents or mills.
    """
    for grain in ROUNDED_TO:
        scaled = adjusted / grain
        if (np.abs(scaled - np.round(scaled)) < 1e-6).all():
            # A close that is not adjusted is not rounded either.
            error = np.where(adjusted == close, 0.0, 0.5 * grain / adjusted)
            return np.asarray(error[1:] + error[:-1], dtype=np.float64)
    return np.zeros(max(0, len(adjusted) - 1))


def _split_ratio(step: float, tolerance: float) -> float | None:
    """Return the simplest split ratio within `tolerance` of `step`, or None."""
    shares = step if step > 1.0 else 1.0 / step
    if shares > MAX_SPLIT_TERM:
        # Nothing else moves so far; such splits are by whole numbers.
        whole = float(round(shares))
        if abs(shares / whole - 1.0) <= tolerance:
            return whole if step > 1.0 else 1.0 / whole
    return next((r for r in SPLIT_RATIOS if abs(step / r - 1.0) <= tolerance), None)
