"""Bars from Yahoo Finance through the client `yfinance`, an extra of this package.

Yahoo gives prices, volumes and dividends in units of today's share, with every later split applied.
That is undone here, so that a price is what was traded on its day, whatever splits come after.
HTTP status codes are checked before `yfinance` sees them: it would turn one refusal into several
requests.

Days are those of exchanges that close by 21:00 UTC, unless a calendar is declared; shorter bars are
dated by their open, as Yahoo dates them. A session, or a bar, that is not over is left out.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from finagent_model._local_files import make_private_folder
from finagent_model.data._bar_clock import Clock, close_days, close_intraday
from finagent_model.data._bar_mending import drop_repeated, mend_prices
from finagent_model.data.protocols import describe_error
from finagent_model.errors import ConfigError, DataSourceError, FinagentError, UnknownSymbolError
from finagent_model.market.bars import PRICES, BarSeries, Floats
from finagent_model.market.calendar import Calendar
from finagent_model.market.timeframe import DAILY, Timeframe

if TYPE_CHECKING:
    from curl_cffi.requests import Response, Session


TIMEOUT_S = 15.0
"""Per request. A symbol takes two; the first of a process takes two more for a cookie."""
TICKER = re.compile(r"[A-Z0-9^][A-Z0-9.=^&-]{0,19}")
CLEAR_SPLIT = 1.5
"""From this ratio on, either way, a missing split can be told from an ordinary overnight gap."""
CHART_PATH = "/v8/finance/chart/"
# Yahoo's prices are single precision, multiplied here by the splits that are undone. Cents lie on
# this grid, and so do the sixteenths of the years before 2001. Rounding to whole digits would make
# ties of those, and a later split would tip them over.
SIGNIFICANT_DIGITS, TICKS_PER_DIGIT = 6, 4
"""A price is rounded to a quarter of its sixth significant digit, and to cents at least."""
QUOTE_DELAY = timedelta(minutes=30)
"""More than Yahoo's quotes lag: that long after its end, a session's bar is final."""
INTERVALS = ("1m", "2m", "5m", "15m", "30m", "1h", "90m", "1d")
"""Lengths of bars that Yahoo has: days of any age, hours of two years, minutes of 60 days, single
ones of a week.
"""


class YFinanceBars:
    """A BarSource over Yahoo; it has no list of its tickers."""

    def __init__(
        self,
        cache: Path,
        clock: Callable[[], datetime],
        timeout_s: float = TIMEOUT_S,
        timeframe: Timeframe = DAILY,
        calendar: Calendar | None = None,
        **transport: Any,
    ) -> None:
        """Keep the client's time zones and cookie in `cache`; connects nowhere.

        `clock` tells whether a session is over, `calendar` when it closes. `transport` goes to
        curl_cffi's session, such as a proxy. Raises ConfigError where the client is not installed,
        and for a length of bars that Yahoo hasn't got.
        """
        if timeframe.name not in INTERVALS:
            raise ConfigError(
                f"FINAGENT_BARS: Yahoo has no bars of {timeframe.label}; write timeframe="
                f"{', '.join(INTERVALS)}"
            )
        self._timeframe, self._calendar = timeframe, calendar
        options = [f"timeframe={timeframe}"] if timeframe != DAILY else []
        options += [f"calendar={calendar}"] if calendar else []
        self.name = "yfinance" + (f"?{'&'.join(options)}" if options else "")
        if find_spec("yfinance") is None:
            raise ConfigError(
                "FINAGENT_BARS is yfinance, which is not installed; in a checkout: "
                "uv pip install -e '.[yfinance]'"
            )
        self._cache, self._clock = cache, clock
        self._timeout_s, self._transport = timeout_s, transport
        self._session: Session[Response] | None = None

    def symbols(self) -> tuple[str, ...]:
        """Raise DataSourceError: Yahoo has no list."""
        raise DataSourceError("yfinance has no list of tickers; name those that you want")

    def bars(self, symbol: str) -> BarSeries:
        """Return every closed bar of `symbol`, as traded.

        Raises UnknownSymbolError, DataSourceError and InvalidBarsError.
        """
        if not TICKER.fullmatch(symbol):  # it becomes a part of an address
            raise UnknownSymbolError(symbol, None, self.name)
        requested_at = self._clock()
        try:
            frame, metadata = self._fetch(symbol)
        except FinagentError:
            raise
        except Exception as error:  # the client lets any error through
            raise DataSourceError(
                f"yfinance gave no bars of {symbol} ({describe_error(error)}); try again later, or "
                "repeat from what was kept with FINAGENT_BARS=kept"
            ) from None
        frame, notes = _mend_frame(frame)
        return replace(self._build(symbol, frame, metadata, requested_at), notes=notes)

    def _build(
        self,
        symbol: str,
        frame: pd.DataFrame,
        metadata: Mapping[str, Any],
        requested_at: datetime,
    ) -> BarSeries:
        """Return the series of what was over at `requested_at`."""
        if self._timeframe == DAILY:
            open_day = find_open_session(metadata, requested_at)
            if self._calendar is None:
                return undo_splits(symbol, frame, open_day)
            clock = close_days([m.date() for m in frame.index], DAILY, self._calendar, None)
            is_open = [open_day is not None and m.date() >= open_day for m in frame.index]
        else:
            moments = [moment.to_pydatetime().astimezone(UTC) for moment in frame.index]
            clock = close_intraday(moments, self._timeframe, self._calendar, "open")
            is_open = find_open_bars(moments, clock, metadata, requested_at)
        series = undo_splits(symbol, frame, closed_at=clock.closed_at, is_open=is_open)
        return replace(
            series, timeframe=self._timeframe, calendar=self._calendar or series.calendar
        )

    def _fetch(self, symbol: str) -> tuple[pd.DataFrame, Mapping[str, Any]]:
        """Return the unadjusted history and the chart's metadata."""
        import yfinance

        yfinance.config.debug.hide_exceptions = False  # else a failure is an empty table
        if self._session is None:
            make_private_folder(self._cache)
            yfinance.set_tz_cache_location(str(self._cache))
            self._session = _make_session(self._timeout_s, self._transport)
        with warnings.catch_warnings():
            # The client uses deprecated parts of pandas.
            warnings.simplefilter("ignore", DeprecationWarning)
            ticker = yfinance.Ticker(symbol, session=self._session)
            frame = ticker.history(
                period="max",
                interval=self._timeframe.name,
                auto_adjust=False,
                actions=True,
                timeout=self._timeout_s,
            )
            return frame, ticker.history_metadata


def _mend_frame(frame: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return a `yfinance` table with a few bad rows mended, and a note for each kind of them.

    A row that is passed over stays, without prices: its actions go to the next bar.
    """
    moments = pd.DatetimeIndex(frame.index).tz_localize(None).to_numpy().astype("datetime64[us]")
    frame, kept, notes = drop_repeated(frame, moments, ("Stock Splits", "Dividends"))
    moments = moments[kept]
    prices = frame[[name.title() for name in PRICES]].set_axis(list(PRICES), axis=1)
    # Single precision has seven digits.
    mended, more = mend_prices(prices.reset_index(drop=True), moments, noise=1e-6)
    titled = {name.title(): mended[name].to_numpy() for name in PRICES}
    return frame.assign(**titled), notes + more


def undo_splits(
    symbol: str,
    frame: pd.DataFrame,
    open_day: date | None = None,
    *,
    closed_at: Sequence[str] | None = None,
    is_open: Sequence[bool] | None = None,
) -> BarSeries:
    """Return the as-traded series of an unadjusted `yfinance` table, without bars from `open_day`.

    `closed_at` says of each row when it closed, by default on the day of its date, and `is_open`
    which rows aren't over. An action on a day without a bar goes to the next bar. Raises
    DataSourceError where there is no bar, and for a split that can't be seen in the prices before
    it; also InvalidBarsError.
    """
    has_price = frame[["Open", "High", "Low", "Close"]].notna().any(axis=1).to_numpy()
    bars, count = frame[has_price], int(has_price.sum())
    # Bars of the open session are left out only at the end: they still show whether a split is in
    # the prices.
    if is_open is None:
        is_open = [open_day is not None and moment.date() >= open_day for moment in frame.index]
    if closed_at is None:
        closed_at = [moment.strftime("%Y-%m-%d") for moment in frame.index]
    closed = ~np.array(is_open, dtype=bool)[has_price]
    if not closed.any():
        raise DataSourceError(f"yfinance answered without a bar of {symbol}; try again later")
    bar_of_row = np.r_[0, np.cumsum(has_price)[:-1]]  # `count` for rows after the last bar
    split, dividend = np.ones(count + 1), np.zeros(count + 1)
    np.multiply.at(split, bar_of_row, frame["Stock Splits"].replace(0.0, 1.0).to_numpy(float))
    np.add.at(dividend, bar_of_row, frame["Dividends"].to_numpy(float))
    _check_splits_applied(symbol, bars, split)
    factor = np.cumprod(split[::-1])[::-1][1:]  # today's shares for one share of the bar's day
    prices = {name: _round_to_tick(bars[name.title()].to_numpy(float) * factor) for name in PRICES}
    table = pd.DataFrame(
        {
            "closed_at": np.array(closed_at, dtype=object)[has_price],
            **prices,
            "volume": np.round(bars["Volume"].to_numpy(float) / factor),
            "split": split[:-1],
            "dividend": _round_to_tick(dividend[:-1] * factor),
        }
    )
    return BarSeries.from_frame(symbol, table[closed])


def _check_splits_applied(symbol: str, bars: pd.DataFrame, split: Floats) -> None:
    """Raise DataSourceError for a split that the prices before it don't show.

    `split` has one value per bar, and one for what comes after the last bar.
    """
    # Yahoo reports a split hours or days before it adjusts the prices; undone then, it would
    # multiply prices that were right.
    before, opened = bars["Close"].to_numpy(float)[:-1], bars["Open"].to_numpy(float)[1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        gap, ratio = np.abs(np.log(opened / before)), np.log(split[1:-1])
        gap_with_split = np.abs(np.log(opened / before) + ratio)
    # `~ >=` and not `<`: without a price on either side the gap is nan, which confirms nothing.
    clear = np.abs(ratio) >= np.log(CLEAR_SPLIT)
    missing = np.flatnonzero(clear & ~(gap_with_split >= gap)) + 1
    if len(missing):
        i = int(missing[0])
        raise DataSourceError(
            f"yfinance: the split of {symbol} by {split[i]:g} on {bars.index[i]:%Y-%m-%d} is not "
            "in the prices before it; Yahoo repairs that within days, try again later"
        )
    if split[-1] != 1.0:
        raise DataSourceError(
            f"yfinance: no bar shows yet whether the split of {symbol} by {split[-1]:g} after "
            f"{bars.index[-1]:%Y-%m-%d} is in the prices; try again once it has traded since"
        )


def find_open_session(metadata: Mapping[str, Any], requested_at: datetime) -> date | None:
    """Return the day of the session that was not over at `requested_at`; None if it was over.

    It was over by the clock, or because a trade came after its end.
    """
    end = metadata.get("currentTradingPeriod", {}).get("regular", {}).get("end")
    last_trade = metadata.get("regularMarketTime")
    if not isinstance(end, pd.Timestamp) or requested_at >= end + QUOTE_DELAY:
        return None
    # The clock alone would do, later: a symbol that trades seldom may have no trade after the end.
    return None if isinstance(last_trade, pd.Timestamp) and last_trade >= end else end.date()


def find_open_bars(
    moments: Sequence[datetime],
    clock: Clock,
    metadata: Mapping[str, Any],
    requested_at: datetime,
) -> list[bool]:
    """Return which bars within a day, by their opens, were not over at `requested_at`.

    A bar is over with a trade after its end, or half an hour later. A row that begins as the
    session ends is no bar: Yahoo says the last price again.
    """
    last_trade = metadata.get("regularMarketTime")
    end = metadata.get("currentTradingPeriod", {}).get("regular", {}).get("end")
    known_until = requested_at - QUOTE_DELAY
    if isinstance(last_trade, pd.Timestamp):
        known_until = max(known_until, min(requested_at, last_trade.to_pydatetime()))
    over = end.to_pydatetime() if isinstance(end, pd.Timestamp) else None
    return [
        datetime.fromisoformat(closed) > known_until or begun == over
        for begun, closed in zip(moments, clock.closed_at, strict=True)
    ]


def _round_to_tick(values: Floats) -> Floats:
    """Return the prices that were quoted, for prices with the noise of single precision."""
    with np.errstate(divide="ignore", invalid="ignore"):
        magnitude = np.floor(np.log10(values))
    magnitude[~np.isfinite(magnitude)] = 0.0
    exponent = SIGNIFICANT_DIGITS - 1 - magnitude
    ticks_per_unit = np.maximum(TICKS_PER_DIGIT * 10.0**exponent, 100.0)
    rounded: Floats = np.round(values * ticks_per_unit) / ticks_per_unit
    return rounded


def _make_session(timeout_s: float, transport: Mapping[str, Any]) -> Session[Response]:
    from curl_cffi.requests import Session

    class StrictSession(Session):  # type: ignore[type-arg]
        """A session that raises a chart's error status and bounds every request's time."""

        def request(  # type: ignore[override]
            self, method: Any, url: str, **options: Any
        ) -> Any:
            response = super().request(method, url, **{**options, "timeout": timeout_s})
            if CHART_PATH in url and response.status_code >= 400:
                raise _http_error(url.rpartition("/")[2], response)
            return response

    return StrictSession(**{"impersonate": "chrome", **transport})


def _http_error(symbol: str, response: Response) -> FinagentError:
    if response.status_code == 404 and '"Not Found"' in response.text:
        return UnknownSymbolError(symbol, None, "yfinance")
    # Yahoo's rate limiter answers with 429.
    reason = "it takes no more requests for now" if response.status_code == 429 else "it failed"
    return DataSourceError(
        f"yfinance: {reason}, Yahoo answered {symbol} with HTTP {response.status_code}; try again "
        "later, or repeat from what was kept with FINAGENT_BARS=kept"
    )
