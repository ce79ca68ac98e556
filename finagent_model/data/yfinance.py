"""Bars from Yahoo by the client `yfinance`, an extra of this package.

Yahoo gives prices, volumes and dividends in units of today's share: every later split is already
in them. Here that is undone, so that what was traded at 88.99 is 88.99 whatever splits come after.
Its status codes are taken at their word, before `yfinance` makes several requests of one refusal.

For exchanges that close by 21:00 UTC. A session that is not over has no bar yet.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from finagent_model.data.protocols import reason_of
from finagent_model.errors import ConfigError, DataSourceError, FinagentError, UnknownSymbolError
from finagent_model.market.bars import PRICES, BarSeries, Floats

if TYPE_CHECKING:
    from curl_cffi.requests import Response, Session


TIMEOUT_S = 15.0
"""For each request; a symbol takes two, and the first of a process two more for a cookie."""
TICKER = re.compile(r"[A-Z0-9^][A-Z0-9.=^&-]{0,19}")
CLEAR_SPLIT = 1.5
"""From this ratio on, either way, a price that ignores a split is told from a bad morning."""
CHART = "/v8/finance/chart/"
DIGITS, PARTS = 6, 4
"""A price is rounded to a quarter of its sixth significant digit, and to cents at least: Yahoo's
are single precision, times the splits that are undone. Cents lie on that grid, and so do the
sixteenths of the years before 2001; of whole digits they would be ties, which a later split turns
over.
"""
DELAY = timedelta(minutes=30)
"""Yahoo's quotes are late by less: so long after its end a session's bar is final."""


class YFinanceBars:
    """A BarSource over Yahoo; it has no list of its tickers."""

    name = "yfinance"

    def __init__(
        self,
        cache: Path,
        clock: Callable[[], datetime],
        timeout_s: float = TIMEOUT_S,
        **transport: Any,
    ) -> None:
        """`cache` is where the client keeps time zones and its cookie, `clock` says whether a
        session is over; `transport` goes to curl_cffi's session, such as a proxy. Connects nowhere.
        Raises ConfigError where the client is not installed.
        """
        if find_spec("yfinance") is None:
            raise ConfigError(
                "FINAGENT_BARS is yfinance, which is not installed; "
                "pip install finagent-model[yfinance]"
            )
        self._cache, self._clock = cache, clock
        self._timeout_s, self._transport = timeout_s, transport
        self._session: Session[Response] | None = None

    def symbols(self) -> tuple[str, ...]:
        raise DataSourceError("yfinance has no list of tickers; name those that you want")

    def bars(self, symbol: str) -> BarSeries:
        if not TICKER.fullmatch(symbol):  # it becomes a part of an address
            raise UnknownSymbolError(symbol, None, self.name)
        asked_at = self._clock()
        try:
            frame, told = self._history(symbol)
        except FinagentError:
            raise
        except Exception as error:  # the client lets through whatever it comes upon
            raise DataSourceError(
                f"yfinance gave no bars of {symbol} ({reason_of(error)}); try again later, or "
                "repeat from what was kept with FINAGENT_BARS=kept"
            ) from None
        return as_traded(symbol, frame, session_going_on(told, asked_at))

    def _history(self, symbol: str) -> tuple[pd.DataFrame, Mapping[str, Any]]:
        import yfinance

        yfinance.config.debug.hide_exceptions = False  # else a failure is an empty table
        if self._session is None:
            self._cache.mkdir(parents=True, exist_ok=True)
            yfinance.set_tz_cache_location(str(self._cache))
            self._session = _session(self._timeout_s, self._transport)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of pandas, at the client's door
            ticker = yfinance.Ticker(symbol, session=self._session)
            frame = ticker.history(
                period="max", auto_adjust=False, actions=True, timeout=self._timeout_s
            )
            return frame, ticker.history_metadata


def as_traded(symbol: str, frame: pd.DataFrame, going_on: date | None = None) -> BarSeries:
    """The series of a table as `yfinance` gives it unadjusted, without bars from the day `going_on`
    on: what is known of that day still shows whether a split is in the prices. An action on a day
    without a bar goes to the next bar. Raises DataSourceError where there is no bar and for a split
    that is not seen to be in the prices before it, and InvalidBarsError.
    """
    priced = frame[["Open", "High", "Low", "Close"]].notna().any(axis=1).to_numpy()
    bars, count = frame[priced], int(priced.sum())
    closed = [going_on is None or moment.date() < going_on for moment in bars.index]
    if not any(closed):
        raise DataSourceError(f"yfinance answered without a bar of {symbol}; try again later")
    bar_of_row = np.r_[0, np.cumsum(priced)[:-1]]  # `count` for rows after the last bar
    split, dividend = np.ones(count + 1), np.zeros(count + 1)
    np.multiply.at(split, bar_of_row, frame["Stock Splits"].replace(0.0, 1.0).to_numpy(float))
    np.add.at(dividend, bar_of_row, frame["Dividends"].to_numpy(float))
    _require_adjusted(symbol, bars, split)
    after = np.cumprod(split[::-1])[::-1][1:]  # today's shares for one share of the bar's day
    columns = {name: _tick(bars[name.title()].to_numpy(float) * after) for name in PRICES}
    table = pd.DataFrame(
        {
            "closed_at": [moment.strftime("%Y-%m-%d") for moment in bars.index],
            **columns,
            "volume": np.round(bars["Volume"].to_numpy(float) / after),
            "split": split[:-1],
            "dividend": _tick(dividend[:-1] * after),
        }
    )
    return BarSeries.from_frame(symbol, table[closed])


def _require_adjusted(symbol: str, bars: pd.DataFrame, split: Floats) -> None:
    """Yahoo knows of a split hours or days before its prices do: to undo it then would be wrong.
    The last of `split` is what comes after the last bar.
    """
    before, opened = bars["Close"].to_numpy(float)[:-1], bars["Open"].to_numpy(float)[1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        gap, ratio = np.abs(np.log(opened / before)), np.log(split[1:-1])
        left = np.abs(np.log(opened / before) + ratio)
    # Without a price on either side nothing is seen, which is no confirmation.
    ignored = np.flatnonzero((np.abs(ratio) >= np.log(CLEAR_SPLIT)) & ~(left >= gap)) + 1
    if len(ignored):
        i = int(ignored[0])
        raise DataSourceError(
            f"yfinance: the split of {symbol} by {split[i]:g} on {bars.index[i]:%Y-%m-%d} is not "
            "in the prices before it; Yahoo mends that within days, try again later"
        )
    if split[-1] != 1.0:
        raise DataSourceError(
            f"yfinance: no bar shows yet whether the split of {symbol} by {split[-1]:g} after "
            f"{bars.index[-1]:%Y-%m-%d} is in the prices; try again once it has traded since"
        )


def session_going_on(told: Mapping[str, Any], asked_at: datetime) -> date | None:
    """The day of a session that was not over when it was asked for; None: it was, by the clock or
    by a trade after its end. What trades seldom may have no such trade.
    """
    ends = told.get("currentTradingPeriod", {}).get("regular", {}).get("end")
    traded = told.get("regularMarketTime")
    if not isinstance(ends, pd.Timestamp) or asked_at >= ends + DELAY:
        return None
    return None if isinstance(traded, pd.Timestamp) and traded >= ends else ends.date()


def _tick(values: Floats) -> Floats:
    """Rounded to what was quoted."""
    with np.errstate(divide="ignore", invalid="ignore"):
        magnitude = np.floor(np.log10(values))
    magnitude[~np.isfinite(magnitude)] = 0.0
    scale = np.maximum(PARTS * 10.0 ** (DIGITS - 1 - magnitude), 100.0)
    rounded: Floats = np.round(values * scale) / scale
    return rounded


def _session(timeout_s: float, transport: Mapping[str, Any]) -> Session[Response]:
    from curl_cffi.requests import Session

    class Plain(Session):  # type: ignore[type-arg]
        """Raises what a chart's status says, and waits no longer than `timeout_s`."""

        def request(  # type: ignore[override]
            self, method: Any, url: str, **options: Any
        ) -> Any:
            answer = super().request(method, url, **{**options, "timeout": timeout_s})
            if CHART in url and answer.status_code >= 400:
                raise _refusal(url.rpartition("/")[2], answer)
            return answer

    return Plain(**{"impersonate": "chrome", **transport})


def _refusal(symbol: str, answer: Response) -> FinagentError:
    if answer.status_code == 404 and '"Not Found"' in answer.text:
        return UnknownSymbolError(symbol, None, YFinanceBars.name)
    why = "it takes no more requests for now" if answer.status_code == 429 else "it failed"
    return DataSourceError(
        f"yfinance: {why}, Yahoo answered {symbol} with HTTP {answer.status_code}; try again "
        "later, or repeat from what was kept with FINAGENT_BARS=kept"
    )
