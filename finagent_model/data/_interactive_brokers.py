"""Bars from Interactive Brokers through the client `ib_async`, an extra of this package.

TWS or IB Gateway must run and allow API connections. Only history is asked for, read-only; no order
can be given. Stocks come from SMART routing in US dollars (`TSLA`), currencies as pairs
(`EUR.USD`), at the middle of bid and ask.

Prices of stocks have their splits in them already, so levels of the past are those of today's
share; dividends are inferred from the adjusted prices beside them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd

from finagent_model._base import show_value
from finagent_model._event_loop import LoopThread
from finagent_model.data._bar_clock import close_days, close_intraday
from finagent_model.data.bar_columns import Hints
from finagent_model.data.bundled import NOISE, infer_actions, rounding_noise
from finagent_model.data.protocols import describe_error
from finagent_model.errors import (
    BadInputError,
    ConfigError,
    DataSourceError,
    DeadlineError,
    FinagentError,
    UnknownSymbolError,
)
from finagent_model.market.bars import PRICES, BarSeries
from finagent_model.market.calendar import FX, Calendar
from finagent_model.market.timeframe import DAILY, Timeframe

WORD = "ib"
HOST, PORT, CLIENT = "127.0.0.1", 4001, 17
"""Where IB Gateway listens for a live account; 4002 is paper, TWS 7496 and 7497."""
CONNECT_TIMEOUT_S, TIMEOUT_S = 10.0, 120.0
"""Seconds to connect, and for all of a symbol."""
REQUESTS = {
    "1d": ("1 day", "20 Y"),
    "4h": ("4 hours", "1 Y"),
    "2h": ("2 hours", "1 Y"),
    "1h": ("1 hour", "1 Y"),
    "30m": ("30 mins", "1 M"),
    "15m": ("15 mins", "1 M"),
    "5m": ("5 mins", "1 W"),
    "1m": ("1 min", "1 D"),
}
"""Lengths of bars, as the API names them, and how far back one request may reach."""
TICKER = re.compile(r"[A-Z0-9][A-Z0-9 ]{0,11}")
PAIR = re.compile(r"([A-Z]{3})\.([A-Z]{3})")
UNKNOWN_CONTRACT = 200
"""The API's error for a symbol that nothing is listed under."""
ADJUSTED_NOTE = (
    "Interactive Brokers' prices have splits in them already: returns are right, levels of the "
    "past are those of today's share"
)


class InteractiveBrokersBars:
    """A BarSource over a running TWS or IB Gateway; it has no list of its symbols."""

    def __init__(self, name: str, clock: Callable[[], datetime]) -> None:
        """Use the address of `name`: `ib`, or `ib://HOST:PORT?client=17&timeframe=1h`.

        Connects nowhere. `clock` tells whether a session is over. Raises ConfigError for a name
        that can't be used, and where the client is not installed.
        """
        self._host, self._port, self._client, hints = _parse_name(name)
        self._timeframe = hints.bar_length or DAILY
        self._calendar = hints.market_calendar
        if self._timeframe.name not in REQUESTS:
            raise ConfigError(
                f"FINAGENT_BARS: Interactive Brokers is not asked for bars of "
                f"{self._timeframe.label}; write timeframe={', '.join(REQUESTS)}"
            )
        if find_spec("ib_async") is None:
            raise ConfigError(
                "FINAGENT_BARS is ib, and ib_async is not installed; in a checkout: "
                "uv pip install -e '.[ib]'"
            )
        options = [f"timeframe={self._timeframe}"] if self._timeframe != DAILY else []
        options += [f"calendar={self._calendar}"] if self._calendar else []
        # Not the address: the history is the same through any gateway.
        self.name = WORD + (f"?{'&'.join(options)}" if options else "")
        self._clock, self._loop = clock, LoopThread()

    def symbols(self) -> tuple[str, ...]:
        """Raise DataSourceError: there is no list."""
        raise DataSourceError(
            "Interactive Brokers has no list of symbols; name those that you want"
        )

    def bars(self, symbol: str) -> BarSeries:
        """Return the closed bars of `symbol`. Raises UnknownSymbolError and DataSourceError."""
        if not TICKER.fullmatch(symbol) and not PAIR.fullmatch(symbol):
            raise UnknownSymbolError(symbol, None, self.name)
        requested_at = self._clock()
        try:
            details, rows, adjusted = self._loop.run(self._fetch(symbol), TIMEOUT_S)
        except DeadlineError:
            raise DataSourceError(
                f"Interactive Brokers gave no bars of {symbol} within {TIMEOUT_S:.0f} seconds; see "
                "that its data farms are connected, and try again"
            ) from None
        except FinagentError:
            raise
        except Exception as error:  # the client lets any error through
            if getattr(error, "code", None) == UNKNOWN_CONTRACT:
                raise UnknownSymbolError(symbol, None, self.name) from None
            raise DataSourceError(
                f"Interactive Brokers gave no bars of {symbol} ({describe_error(error)}); see the "
                "account's market data subscriptions, or repeat from what was kept with "
                "FINAGENT_BARS=kept"
            ) from None
        calendar = self._calendar or (FX if PAIR.fullmatch(symbol) else None)
        table = _read_rows(symbol, rows, adjusted)
        return _build_bars(symbol, table, self._timeframe, calendar, details, requested_at)

    async def _fetch(self, symbol: str) -> tuple[Any, list[Any], list[Any] | None]:
        """Return the contract's details, its bars, and those that are adjusted for dividends."""
        client = import_module("ib_async")
        # It would say on the terminal, too, what is raised here.
        logging.getLogger("ib_async").setLevel(logging.CRITICAL)
        gateway = client.IB()
        gateway.RaiseRequestErrors = True  # else a refusal is an empty list
        try:
            try:
                await gateway.connectAsync(
                    self._host,
                    self._port,
                    clientId=self._client,
                    timeout=CONNECT_TIMEOUT_S,
                    readonly=True,
                    fetchFields=client.StartupFetchNONE,  # nothing of the account
                )
            except (OSError, TimeoutError) as error:
                raise DataSourceError(
                    f"Interactive Brokers' gateway does not answer at {self._host}:{self._port} "
                    f"({describe_error(error)}); start TWS or IB Gateway, enable API connections "
                    "in its settings, and name its port: FINAGENT_BARS=ib://127.0.0.1:7497. Where "
                    "another program has this client's number, add ?client=18"
                ) from None
            pair = PAIR.fullmatch(symbol)
            contract = (
                client.Forex(f"{pair[1]}{pair[2]}")
                if pair
                else client.Stock(symbol, "SMART", "USD")
            )
            details = await gateway.reqContractDetailsAsync(contract)
            if not details:
                raise UnknownSymbolError(symbol, None, self.name)
            # The longest histories are asked for by the contract as it is listed.
            contract = details[0].contract
            rows = await self._history(gateway, contract, "MIDPOINT" if pair else "TRADES")
            adjusted = None if pair else await self._history(gateway, contract, "ADJUSTED_LAST")
            return details[0], rows, adjusted
        finally:
            gateway.disconnect()

    async def _history(self, gateway: Any, contract: Any, what: str) -> list[Any]:
        size, duration = REQUESTS[self._timeframe.name]
        rows = await gateway.reqHistoricalDataAsync(
            contract,
            endDateTime="",
            durationStr=duration,
            barSizeSetting=size,
            whatToShow=what,
            useRTH=True,
            formatDate=2,  # times in UTC
            timeout=TIMEOUT_S,
        )
        return list(rows)


def _parse_name(name: str) -> tuple[str, int, int, Hints]:
    """Return host, port, client number and hints. Raises ConfigError."""
    parts = urlsplit(name if "://" in name else f"ib://{name.removeprefix(WORD)}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    try:
        port = parts.port or PORT
        client = int(options.pop("client", CLIENT))
        for option in options:
            if option not in ("timeframe", "calendar"):
                raise BadInputError(
                    f"option {show_value(option)} is unknown; there is: client, timeframe, calendar"
                )
        return parts.hostname or HOST, port, client, Hints.parse(**options)
    except (ValueError, BadInputError) as error:
        raise ConfigError(
            f"FINAGENT_BARS: {error}; write ib, or ib://127.0.0.1:4001?client=17&timeframe=1h"
        ) from None


def _open_days(details: Any, now: datetime) -> Callable[[date], bool]:
    """Return a test whether the session of a day is not over at `now`."""
    try:
        zone = ZoneInfo(details.timeZoneId)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        zone = ZoneInfo("America/New_York")
    today = now.astimezone(zone).date()
    ends: dict[date, datetime] = {}
    for text in str(details.liquidHours).split(";"):
        # 20260105:0930-20260105:1600; a day without a session is 20260106:CLOSED.
        if found := re.fullmatch(r"\d{8}:\d{4}-(\d{8}:\d{4})", text.strip()):
            end = datetime.strptime(found[1], "%Y%m%d:%H%M").replace(tzinfo=zone)
            ends[end.date()] = max(end, ends.get(end.date(), end))
    # Without hours today's session may go on until the day ends.
    return lambda day: day > today or (day == today and (day not in ends or ends[day] > now))


def _read_rows(symbol: str, rows: Sequence[Any], adjusted: Sequence[Any] | None) -> pd.DataFrame:
    """Return the API's bars as a table, with the adjusted closes where there are any."""
    table = pd.DataFrame({name: [float(getattr(row, name)) for row in rows] for name in PRICES})
    table["date"] = pd.Series([row.date for row in rows], dtype=object)
    # Where nothing is traded, as between bid and ask, the API writes -1.
    table["volume"] = [float(row.volume) if row.volume >= 0 else np.nan for row in rows]
    if adjusted is not None:
        if [row.date for row in adjusted] != list(table["date"]):
            raise DataSourceError(
                f"Interactive Brokers' adjusted and traded bars of {symbol} are not of the same "
                "days; try again"
            )
        table["adjusted"] = [float(row.close) for row in adjusted]
    return table


def _build_bars(
    symbol: str,
    table: pd.DataFrame,
    timeframe: Timeframe,
    calendar: Calendar | None,
    details: Any,
    now: datetime,
) -> BarSeries:
    """Return the series of the bars that are over at `now`.

    Raises DataSourceError where none is, and InvalidBarsError.
    """
    dates = list(table.pop("date"))
    if timeframe == DAILY:
        clock = close_days(dates, DAILY, calendar, None)
        is_open = _open_days(details, now)
        over = [not is_open(day) for day in dates]
    else:
        clock = close_intraday(dates, timeframe, calendar, "open")
        over = [datetime.fromisoformat(closed) <= now for closed in clock.closed_at]
    if not any(over):
        raise DataSourceError(
            f"Interactive Brokers answered without a closed bar of {symbol}; try again later"
        )
    table["closed_at"] = clock.closed_at
    notes: tuple[str, ...] = ()
    if "adjusted" in table:
        close, whole = table["close"].to_numpy(), table.pop("adjusted").to_numpy()
        table["split"], table["dividend"] = infer_actions(symbol, close, whole)
        notes = (ADJUSTED_NOTE,)
        if (noise := rounding_noise(close, whole).max(initial=0.0)) > NOISE:
            notes += (f"a dividend below {noise:.2%} of the price is lost in rounding",)
    series = BarSeries.from_frame(symbol, table[over], timeframe=timeframe, calendar=calendar)
    return replace(series, notes=notes)
