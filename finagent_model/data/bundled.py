"""The daily bars that come with the `bokeh-sampledata` package: five US stocks, 2000-03-01 to
2013-03-01, offline.

Prices are as traded; splits and dividends are read back from its adjusted closes.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pandas as pd

from finagent_model.data.actions import actions_from_adjusted
from finagent_model.domain.bars import BarSeries
from finagent_model.errors import DataSourceError, UnknownSymbolError

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
