"""Splits and dividends, read back from a vendor's adjusted closes.

Vendors revise adjusted prices with every later action, so these are never traded on. The *ratio*
adjusted / raw steps on each action's own bar, and that step isn't revised: it is all that is used
here.

The daily bars that come with the `bokeh-sampledata` package: five US stocks, 2000-03-01 to
2013-03-01, offline.

Prices are as traded; splits and dividends are read back from its adjusted closes.
"""

from __future__ import annotations

from functools import cached_property
from math import gcd

import numpy as np
import pandas as pd

from finagent_model.errors import DataSourceError, InvalidBarsError, UnknownSymbolError
from finagent_model.market.bars import BarSeries, Floats

NOISE = 1e-4
"""A step closer to 1 than this is the vendor's rounding."""
SPLIT_TOLERANCE = 0.005
"""How far, as a fraction, a step may lie from the ratio it is taken for."""
LARGEST_TERM = 20
SMALLEST_SPLIT = 1.25
"""A split multiplies the shares by this at least; a reverse split divides by it. Between lie
dividends.
"""
RATIOS: tuple[float, ...] = tuple(
    n / m
    for n, m in sorted(
        ((n, m) for n in range(1, LARGEST_TERM + 1) for m in range(1, LARGEST_TERM + 1)),
        key=lambda terms: (max(terms), min(terms)),
    )
    if gcd(n, m) == 1 and not 1 / SMALLEST_SPLIT < n / m < SMALLEST_SPLIT
)
"""New shares per old share, simplest first: 2:1 is tried before 19:10."""


def actions_from_adjusted(symbol: str, close: Floats, adjusted: Floats) -> tuple[Floats, Floats]:
    """`split` and `dividend` as `BarSeries` stamps them, from traded and adjusted closes of the
    same bars.

    step = (adjusted / close) over the same of the bar before. A step near a simple ratio is a
    split; any other above 1 is the dividend that explains it, close before x (1 - 1 / step). Raises
    InvalidBarsError, naming the bar, for prices that are not positive numbers and for a step below
    1 that is no reverse split.
    """
    for name, values in (("close", close), ("adjusted close", adjusted)):
        wrong = ~(np.isfinite(values) & (values > 0))
        if wrong.any():
            at = int(np.argmax(wrong))
            raise InvalidBarsError(f"bars of {symbol}: {name} is not a positive number at bar {at}")
    split, dividend = np.ones(len(close)), np.zeros(len(close))
    ratio = adjusted / close
    steps = ratio[1:] / ratio[:-1]
    for i in (np.flatnonzero(np.abs(steps - 1.0) > NOISE) + 1).tolist():
        step = float(steps[i - 1])
        if (shares := _split_ratio(step)) is not None:
            split[i] = shares
        elif step > 1.0:
            dividend[i] = close[i - 1] * (1.0 - 1.0 / step)
        else:
            raise InvalidBarsError(
                f"bars of {symbol}: the adjusted close steps by {step:.6f} at bar {i}, which is "
                "neither a dividend nor a reverse split; correct it, or give split and dividend "
                "columns instead"
            )
    return split, dividend


def _split_ratio(step: float) -> float | None:
    return next((r for r in RATIOS if abs(step / r - 1.0) <= SPLIT_TOLERANCE), None)


FILE = "stocks.csv.gz"
_COLUMNS = {
    "Date": "closed_at",
    "Open": "open",
    "High": "high",
    "Low": "low",
    "Close": "close",
    "Volume": "volume",
}


class BundledBars:
    """A BarSource over the packaged file, which is read on first use and once."""

    name = "bundled"

    def symbols(self) -> tuple[str, ...]:
        return tuple(sorted(self._frames))

    def bars(self, symbol: str) -> BarSeries:
        if symbol not in self._frames:
            raise UnknownSymbolError(symbol, self.symbols(), self.name)
        if symbol not in self._series:
            self._series[symbol] = _series(symbol, self._frames[symbol])
        return self._series[symbol]

    @cached_property
    def _series(self) -> dict[str, BarSeries]:
        return {}

    @cached_property
    def _frames(self) -> dict[str, pd.DataFrame]:
        try:
            from bokeh_sampledata import package_path

            table = pd.read_csv(package_path(FILE), dtype={"Ticker": str, "Date": str})
        except (ImportError, OSError) as error:
            raise DataSourceError(
                f"the bundled bars can't be read ({error}); "
                "install bokeh-sampledata, or point to a folder of CSV files"
            ) from error
        return {str(ticker): rows for ticker, rows in table.groupby("Ticker")}


def _series(symbol: str, rows: pd.DataFrame) -> BarSeries:
    close = rows["Close"].to_numpy(dtype=np.float64)
    split, dividend = actions_from_adjusted(
        symbol, close, rows["Adj Close"].to_numpy(dtype=np.float64)
    )
    frame = rows[list(_COLUMNS)].rename(columns=_COLUMNS)
    return BarSeries.from_frame(symbol, frame.assign(split=split, dividend=dividend))
