"""Bars of one symbol in traded prices, with its corporate actions, and the clock they use.

A series is validated once, in `BarSeries.from_frame`, and is read-only afterwards. Actions stand on
the bar whose *open* already reflects them: `split[i] = 2.0` means that one share became two before
bar i opened; `dividend[i]` is cash per share, in the currency of that day, that a holder of bar i-1
received.

`as_of = D` (a date alone) means after D's close: the whole of D, in UTC. A time of day must carry
its zone. Nothing here reads the clock. Bars last from one minute to one month (`timeframe`), a day
where nothing says otherwise.

Whatever symbol a source lists is legal everywhere: in a training, a request, a signal and the DAG.
The one rule, `parse_symbol`, refuses only what no source can mean.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finagent_model._base import show_value
from finagent_model.errors import BadInputError, InvalidBarsError, MixedBarsError
from finagent_model.market.calendar import ALWAYS, WEEKDAYS, Calendar, guess_calendar
from finagent_model.market.timeframe import DAILY, Timeframe, infer_timeframe

MAX_SYMBOL_CHARS = 20
_UNSAFE = re.compile(r"[^A-Za-z0-9._^=-]|^\.")


Floats = npt.NDArray[np.float64]
PRICES = ("open", "high", "low", "close")
ACTIONS = {"split": 1.0, "dividend": 0.0}
"""Columns of corporate actions, each with the value of a bar on which nothing happened."""
_COLUMNS = ("closed_at", *PRICES, "volume", *ACTIONS)
_NUMBERS = (int, float, np.number, Decimal)
CLOSE_TIME = "21:00"
"""UTC; the close of a bar that comes with a date alone, where the market closes at all. Only the
date matters to `as_of = D`.
"""


# eq=False: comparing arrays gives arrays. `digest` tells whether two series are equal.
@dataclass(frozen=True, eq=False)
class BarSeries:
    """Bars oldest first. Every array has one entry a bar and can't be written to."""

    symbol: str
    closed_at: npt.NDArray[np.datetime64]
    """UTC, strictly increasing, microseconds."""
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    """Shares; nan where the vendor gives none."""
    split: Floats
    """New shares for one old share; 1.0 where there was no split."""
    dividend: Floats
    """Cash per share; 0.0 where there was none."""
    notes: tuple[str, ...] = ()
    """What a reader should know about how the source was read; no part of the digest."""
    timeframe: Timeframe = DAILY
    """How long a bar is."""
    calendar: Calendar = WEEKDAYS
    """When the market is open."""

    def __len__(self) -> int:
        return len(self.close)

    def __getitem__(self, part: slice) -> BarSeries:
        # Numpy slices share memory: cutting a history at every bar copies nothing.
        return replace(self, **{c: getattr(self, c)[part] for c in _COLUMNS})

    @classmethod
    def from_frame(
        cls,
        symbol: str,
        frame: pd.DataFrame,
        notes: tuple[str, ...] = (),
        *,
        timeframe: Timeframe | None = None,
        calendar: Calendar | None = None,
    ) -> BarSeries:
        """Validate a frame with `closed_at`, OHLC and optionally `volume`, `split`, `dividend`.

        What `timeframe` and `calendar` don't say is told from the closes. Raises InvalidBarsError
        naming the first offending bar. Naive times are refused, except dates alone.
        """
        name = _validate_symbol(symbol)
        if len(frame) == 0:
            raise InvalidBarsError(
                f"bars of {name}: empty; send at least one bar or leave them out"
            )
        missing = [c for c in ("closed_at", *PRICES) if c not in frame.columns]
        if missing:
            raise InvalidBarsError(f"bars of {name}: column {missing[0]!r} is missing")
        closed_at = _parse_close_times(name, frame["closed_at"])
        length = timeframe or infer_timeframe(closed_at)
        is_dense = length.length <= DAILY.length
        calendar = calendar or (guess_calendar(closed_at) if is_dense else WEEKDAYS)
        closed_at = _close_dates(frame["closed_at"], closed_at, calendar)
        columns: dict[str, Any] = {
            column: _read_column(name, frame[column], column) for column in PRICES
        }
        columns["volume"] = _read_optional_column(name, frame, "volume", np.nan)
        for column, default in ACTIONS.items():
            columns[column] = _read_optional_column(name, frame, column, default)
        series = cls(
            symbol=name,
            closed_at=closed_at,
            **columns,
            notes=notes,
            timeframe=length,
            calendar=calendar,
        )
        series._validate()
        # Many readers share the arrays; a write by one would change what all the others see.
        for column in _COLUMNS:
            getattr(series, column).setflags(write=False)
        return series

    @classmethod
    def from_records(cls, symbol: str, records: Sequence[Mapping[str, Any]]) -> BarSeries:
        """Validate one mapping a bar, as a REST request has them, with the keys of `from_frame`.

        Numbers are numbers: text and booleans are refused, and so is an unknown key; None and nan
        stand for a value that is missing. Raises InvalidBarsError naming the first offending bar.
        """
        name = _validate_symbol(symbol)
        for i, record in enumerate(records):
            _check_record(name, i, record)
        return cls.from_frame(name, pd.DataFrame(list(records)))

    def to_frame(self) -> pd.DataFrame:
        """Return one row a bar, `closed_at` tz-aware (UTC); the inverse of `from_frame`."""
        columns = {c: getattr(self, c) for c in _COLUMNS[1:]}
        return pd.DataFrame({"closed_at": pd.DatetimeIndex(self.closed_at, tz="UTC"), **columns})

    def until(self, moment: datetime) -> BarSeries:
        """Return the bars that closed at or before `moment` (tz-aware); may be empty."""
        # side="right": a bar that closes exactly at `moment` is known by then.
        part = self[: int(np.searchsorted(self.closed_at, to_datetime64(moment), side="right"))]
        # Copied, so that no look-ahead is left: a slice's `.base` is the whole history.
        columns = {name: getattr(part, name).copy() for name in _COLUMNS}
        for column in columns.values():
            column.flags.writeable = False
        return replace(self, **columns)

    def close_time(self, index: int) -> datetime:
        """Return when bar `index` closed, tz-aware in UTC."""
        return from_datetime64(self.closed_at[index])

    def day(self, index: int) -> date:
        """Return the day, in UTC, that bar `index` belongs to.

        Midnight ends the day before, where it is a close and not merely how a day is written.
        """
        early = timedelta(microseconds=1) if self.midnight_ends_day else timedelta()
        return (self.close_time(index) - early).date()

    @property
    def midnight_ends_day(self) -> bool:
        """Whether a bar that closes at midnight is the last of a day: it is where bars last less
        than a day, and where each session ends then.
        """
        return self.timeframe.is_intraday or self.calendar.ends_at_midnight

    def decision_time(self, index: int) -> datetime:
        """Return the `as_of` of a decision at the close of bar `index`.

        For bars of a day or more it is that day, as `parse_as_of` reads a date; for shorter ones,
        and where a day closes at midnight, it is the close itself.
        """
        close = self.close_time(index)
        if self.timeframe.is_intraday or self.day(index) != close.date():
            return close
        return parse_as_of(close.date())

    def show_time(self, index: int) -> str:
        """Return the close of bar `index` for readers: a date, with the time of bars within a
        day.
        """
        form = self.timeframe.time_format
        is_intraday = self.timeframe.is_intraday
        return format(self.close_time(index) if is_intraday else self.day(index), form)

    @cached_property
    def growth_factor(self) -> Floats:
        """Units held per unit bought at the first bar, one entry a bar, 1.0 at the first.

        A split multiplies the units; a dividend is reinvested at the close before. One unit
        invested is worth `price[i] * growth_factor[i]`.
        """
        step = self.split.copy()
        previous_close = self.close[:-1]
        step[1:] *= previous_close / (previous_close - self.dividend[1:] * self.split[1:])
        step[:1] = 1.0
        # A running product uses actions up to bar i alone, so no later action can revise it.
        factor = np.cumprod(step, dtype=np.float64)
        factor.setflags(write=False)
        return factor

    def adjust_to_first_bar(self) -> BarSeries:
        """Return total-return prices in units of the first bar; volume in shares of that day.

        No bar uses a later corporate action, so the result is free of look-ahead. Actions of the
        result are neutral (split 1, dividend 0).
        """
        splits = np.cumprod(np.r_[1.0, self.split[1:]]) if len(self) else np.ones(0)
        return self._adjusted(self.growth_factor, self.volume / splits)

    def adjust_to_last_bar(self) -> BarSeries:
        """Return total-return prices in units of the last bar, which stays as it was traded.

        Volume is in shares of that day; actions of the result are neutral. The series must have a
        bar.
        """
        shares = np.cumprod(self.split[::-1])[::-1] / self.split
        return self._adjusted(self.growth_factor / self.growth_factor[-1], self.volume * shares)

    def digest(self) -> str:
        """Return the SHA-256 of the symbol and of every column, in hexadecimal."""
        sha = hashlib.sha256(self.symbol.encode())
        for column in _COLUMNS:
            sha.update(np.ascontiguousarray(getattr(self, column)).tobytes())
        return sha.hexdigest()

    def _adjusted(self, factor: Floats, volume: Floats) -> BarSeries:
        return replace(
            self,
            **{column: getattr(self, column) * factor for column in PRICES},
            volume=volume,
            split=np.ones(len(self)),
            dividend=np.zeros(len(self)),
            notes=(),
        )

    def _validate(self) -> None:
        """Raise InvalidBarsError for the first bar that breaks a rule of the market."""
        for column in PRICES:
            values = getattr(self, column)
            self._refuse(
                ~(np.isfinite(values) & (values > 0)), f"{column} is not a positive number"
            )
        self._refuse(self.high < np.maximum(self.open, self.close), "high is below open or close")
        self._refuse(self.low > np.minimum(self.open, self.close), "low is above open or close")
        self._refuse(self.volume < 0, "volume is negative")
        self._refuse(~(np.isfinite(self.split) & (self.split > 0)), "split is not a positive ratio")
        invalid_dividend = ~(np.isfinite(self.dividend) & (self.dividend >= 0))
        self._refuse(invalid_dividend, "dividend is not a number >= 0")
        # Reinvesting divides by close - dividend: at or below 0 the growth factor has no meaning.
        too_large = np.r_[False, self.dividend[1:] * self.split[1:] >= self.close[:-1]]
        self._refuse(too_large, "dividend is as large as the price before it")
        gaps = np.diff(self.closed_at).astype(np.int64)
        self._refuse(np.r_[False, gaps == 0], "closed_at is repeated")
        self._refuse(np.r_[False, gaps < 0], "closed_at is earlier than the bar before")

    def _refuse(self, is_invalid: npt.NDArray[np.bool_], problem: str) -> None:
        if is_invalid.any():
            i = int(np.argmax(is_invalid))
            day = np.datetime_as_string(self.closed_at[i], unit="D")
            raise InvalidBarsError(f"bars of {self.symbol}: {problem} at bar {i} ({day})")


def parse_as_of(value: str | date | datetime) -> datetime:
    """Return the instant, tz-aware in UTC, that `value` stands for; a date means its last moment.

    Raises BadInputError for anything else, also for a time of day without a zone.
    """
    # A datetime is a date too, so it is tested first.
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, date):
        moment = datetime.combine(value, time.max, tzinfo=UTC)
    else:
        moment = _parse_as_of_text(value)
    if moment.tzinfo is None:
        raise BadInputError(
            f"as_of {show_value(value)} has no time zone; "
            "write a date (2012-06-29) or add one (2012-06-29T21:00:00+00:00)"
        )
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise BadInputError(f"as_of {show_value(value)} is outside the calendar in UTC") from None


def common_timeframe(histories: Sequence[BarSeries]) -> Timeframe:
    """Return the length that all bars have. Raises MixedBarsError where they differ."""
    first = histories[0]
    for bars in histories:
        if bars.timeframe != first.timeframe:
            raise MixedBarsError(
                f"bars of {first.symbol} last {first.timeframe.label}, those of {bars.symbol} "
                f"{bars.timeframe.label}; take symbols with bars of one length"
            )
    return first.timeframe


def names_day(as_of: datetime) -> bool:
    """Tell whether `as_of` is what `parse_as_of` makes of a date: the last moment of a day."""
    return as_of.astimezone(UTC).time() == time.max


def show_as_of(as_of: datetime) -> str:
    """Return `as_of` for readers: the date that it names, or date and time in UTC."""
    moment = as_of.astimezone(UTC)
    return f"{moment:%Y-%m-%d}" if names_day(moment) else f"{moment:%Y-%m-%d %H:%M} UTC"


def parse_symbol(value: object) -> str:
    """Return `value` if it can be a symbol. Raises BadInputError that says what is wrong."""
    if not isinstance(value, str) or not value.strip():
        raise BadInputError(f"symbol {show_value(value)} is not a ticker such as 'GOOG'")
    if value != value.strip() or not value.isprintable():
        raise BadInputError(
            f"symbol {show_value(value)} has blanks at its ends or control characters; write it "
            "as its source lists it, such as 'GOOG'"
        )
    if len(value) > MAX_SYMBOL_CHARS:
        raise BadInputError(
            f"symbol {show_value(value)} has {len(value)} characters; at most {MAX_SYMBOL_CHARS}"
        )
    return value


def parse_symbols(value: str | Iterable[object]) -> tuple[str, ...]:
    """Return the symbols of a list or of a text, in order; no symbols for an empty text.

    A text is split at its commas; one without a comma at its blanks. So a symbol that holds a blank
    needs a comma: `RDS A,GOOG`. Raises BadInputError for what is no symbol, or is named twice.
    """
    if isinstance(value, str):
        parts = value.split(",") if "," in value else value.split()
        value = [part.strip() for part in parts if part.strip()]
    symbols = tuple(parse_symbol(each) for each in value)
    for symbol in symbols:
        if symbols.count(symbol) > 1:
            raise BadInputError(f"symbol {symbol!r} is named twice")
    return symbols


def symbol_file_name(symbol: str) -> str:
    """Return a name for `symbol` that is safe in a file name, an artifact's path and a metric's
    key.

    A symbol without unsafe characters is its own name. In others each unsafe character becomes `-`,
    and six digits of a hash keep `BTC/USD` apart from `BTC-USD`.
    """
    name = _UNSAFE.sub("-", symbol)
    if name == symbol:
        return symbol
    return f"{name}-{hashlib.sha256(symbol.encode()).hexdigest()[:6]}"


def to_datetime64(moment: datetime) -> np.datetime64:
    """Return UTC microseconds without zone, as the arrays hold them; `moment` must be tz-aware."""
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")


def from_datetime64(moment: np.datetime64) -> datetime:
    """Return the tz-aware UTC datetime of an array's entry; the inverse of `to_datetime64`."""
    value: datetime = moment.astype("datetime64[us]").item()
    return value.replace(tzinfo=UTC)


def _parse_as_of_text(value: object) -> datetime:
    try:
        if not isinstance(value, str):
            raise ValueError
        text = value.strip()
        if len(text) == 10:
            return datetime.combine(date.fromisoformat(text), time.max, tzinfo=UTC)
        return datetime.fromisoformat(text)
    except ValueError:
        raise BadInputError(
            f"as_of {show_value(value)} is not a date; write it as 2012-06-29"
        ) from None


def _validate_symbol(symbol: str) -> str:
    try:
        return parse_symbol(symbol)
    except BadInputError as error:
        raise InvalidBarsError(str(error)) from None


def _check_record(symbol: str, index: int, record: object) -> None:
    """Raise InvalidBarsError unless `record` has the keys of a bar, and numbers for all but one."""
    if not isinstance(record, Mapping):
        raise InvalidBarsError(
            f"bars of {symbol}: bar {index} is {show_value(record)}, not an object with "
            f"closed_at, {', '.join(PRICES)}"
        )
    for key, value in record.items():
        # Before a frame is made: it has a column for every key that any bar has.
        if key not in _COLUMNS:
            raise InvalidBarsError(
                f"bars of {symbol}: unknown key {show_value(key)} at bar {index}; "
                f"known: {', '.join(_COLUMNS)}"
            )
        # numpy would read "10" and True as numbers.
        is_number = isinstance(value, _NUMBERS) and not isinstance(value, bool)
        if key != "closed_at" and value is not None and not is_number:
            raise InvalidBarsError(
                f"bars of {symbol}: {key} {show_value(value)} at bar {index} is not a number"
            )


def _close_dates(
    column: pd.Series[Any], closed_at: npt.NDArray[np.datetime64], calendar: Calendar
) -> npt.NDArray[np.datetime64]:
    """Return the closes, of dates alone the end of the day where the market never closes."""
    if calendar != ALWAYS:
        return closed_at
    alone = np.array([_is_date_alone(value) for value in column])
    ends = closed_at.astype("datetime64[D]") + np.timedelta64(1, "D")
    return np.where(alone, ends.astype(closed_at.dtype), closed_at)


def _is_date_alone(value: Any) -> bool:
    text = value.isoformat() if hasattr(value, "isoformat") else value
    return isinstance(text, str) and len(text) == 10


def _parse_close_times(symbol: str, column: pd.Series[Any]) -> npt.NDArray[np.datetime64]:
    texts = [v.isoformat() if hasattr(v, "isoformat") else v for v in column]
    moments = []
    for i, text in enumerate(texts):
        if _is_date_alone(text):
            text = f"{text}T{CLOSE_TIME}:00+00:00"
        try:
            moment = datetime.fromisoformat(text)
        except (TypeError, ValueError):
            raise InvalidBarsError(
                f"bars of {symbol}: closed_at {show_value(text)} at bar {i} is not an ISO date or "
                "time"
            ) from None
        if moment.tzinfo is None:
            # A naive time may be off by a day: guessing its zone could leak the next bar.
            raise InvalidBarsError(
                f"bars of {symbol}: closed_at {show_value(text)} at bar {i} has no time zone; "
                "add one (+00:00) or send the date alone"
            )
        try:
            moments.append(to_datetime64(moment))
        except OverflowError:
            raise InvalidBarsError(
                f"bars of {symbol}: closed_at {show_value(text)} at bar {i} is outside the "
                "calendar in UTC"
            ) from None
    return np.array(moments, dtype="datetime64[us]")


def _read_column(symbol: str, column: pd.Series[Any], name: str) -> Floats:
    try:
        return np.array(column, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):  # the last for an integer too large
        raise InvalidBarsError(
            f"bars of {symbol}: {name} holds something that is not a number"
        ) from None


def _read_optional_column(symbol: str, frame: pd.DataFrame, name: str, default: float) -> Floats:
    """Return a column in which single bars, or all, may be missing; `default` stands for those."""
    if name not in frame.columns:
        return np.full(len(frame), default)
    # Vendors leave single cells empty, such as the volume of a holiday.
    return _read_column(symbol, frame[name].where(frame[name].notna(), default), name)
