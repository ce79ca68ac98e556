"""Daily bars of one symbol in traded prices, with the corporate actions that fell on them.

A series is validated once, here, and is read-only afterwards. Actions are stamped on the bar whose
*open* already reflects them: `split[i] = 2.0` means one share became two before bar i opened;
`dividend[i]` is cash per share, in the currency traded that day, that a holder of bar i-1 received.
Growth of one unit invested, with dividends reinvested, is `price[i] * growth_factor[i]`: the factor
at bar i uses actions up to bar i alone, so it can't be revised by the future.

Dates as this package understands them.

`as_of = D` (a date alone) means after D's close: the whole of D, in UTC. A time of day must carry
its zone. Nothing here reads the clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finagent_model.errors import BadInputError, InvalidBarsError
from finagent_model.market.symbols import parse_symbol

Floats = npt.NDArray[np.float64]
PRICES = ("open", "high", "low", "close")
ACTIONS = {"split": 1.0, "dividend": 0.0}
TRADING_DAYS_PER_YEAR = 252
"""Bars of a year, for annual metrics and the range of the last year."""
CLOSE_TIME = "21:00"
"""UTC; the close given to a bar that comes with a date alone. Only the date matters to `as_of = D`.
"""


@dataclass(frozen=True, eq=False)
class BarSeries:
    """Bars oldest first. Arrays have one entry a bar and can't be written to."""

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
    dividend: Floats

    def __len__(self) -> int:
        return len(self.close)

    @classmethod
    def from_frame(cls, symbol: str, frame: pd.DataFrame) -> BarSeries:
        """Validate a frame with `closed_at`, OHLC and optionally `volume`, `split`, `dividend`.

        Raises InvalidBarsError naming the first offending bar. Naive times are refused, except
        dates alone.
        """
        name = _symbol(symbol)
        if len(frame) == 0:
            raise InvalidBarsError(
                f"bars of {name}: empty; send at least one bar or leave them out"
            )
        missing = [c for c in ("closed_at", *PRICES) if c not in frame.columns]
        if missing:
            raise InvalidBarsError(f"bars of {name}: column {missing[0]!r} is missing")
        series = cls(
            symbol=name,
            closed_at=_times(name, frame["closed_at"]),
            volume=_optional(name, frame, "volume", np.nan),
            **{column: _numbers(name, frame[column], column) for column in PRICES},
            **{column: _optional(name, frame, column, none) for column, none in ACTIONS.items()},
        )
        series._check()
        for column in (*PRICES, "volume", *ACTIONS, "closed_at"):
            getattr(series, column).setflags(write=False)
        return series

    @classmethod
    def from_records(cls, symbol: str, records: Sequence[Mapping[str, Any]]) -> BarSeries:
        """The same, from one mapping a bar (a REST request)."""
        return cls.from_frame(symbol, pd.DataFrame(list(records)))

    def until(self, moment: datetime) -> BarSeries:
        """The bars closed at or before `moment`; may be empty."""
        return self[: int(np.searchsorted(self.closed_at, to_datetime64(moment), side="right"))]

    def __getitem__(self, part: slice) -> BarSeries:
        columns = ("closed_at", *PRICES, "volume", *ACTIONS)
        return BarSeries(self.symbol, **{c: getattr(self, c)[part] for c in columns})

    def closed(self, index: int) -> datetime:
        """When bar `index` closed (UTC)."""
        return from_datetime64(self.closed_at[index])

    @cached_property
    def growth_factor(self) -> Floats:
        """Units held per unit bought at the first bar: splits multiply, dividends are reinvested at
        the prior close.
        """
        step = self.split.copy()
        before = self.close[:-1]
        step[1:] *= before / (before - self.dividend[1:] * self.split[1:])
        step[:1] = 1.0
        factor = np.cumprod(step, dtype=np.float64)
        factor.setflags(write=False)
        return factor

    def growth(self) -> BarSeries:
        """The series in units of the first bar: prices times `growth_factor`, actions spent."""
        factor = self.growth_factor
        return BarSeries(
            self.symbol,
            self.closed_at,
            **{column: getattr(self, column) * factor for column in PRICES},
            volume=self.volume / np.cumprod(np.r_[1.0, self.split[1:]])
            if len(self)
            else self.volume,
            split=np.ones(len(self)),
            dividend=np.zeros(len(self)),
        )

    def in_last_prices(self) -> BarSeries:
        """The series in units of its last bar, which stays as traded; volume in shares of that
        day, actions spent.
        """
        factor = self.growth_factor / self.growth_factor[-1]
        shares = np.cumprod(self.split[::-1])[::-1] / self.split
        return BarSeries(
            self.symbol,
            self.closed_at,
            **{column: getattr(self, column) * factor for column in PRICES},
            volume=self.volume * shares,
            split=np.ones(len(self)),
            dividend=np.zeros(len(self)),
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a bar, `closed_at` tz-aware; the inverse of `from_frame`."""
        columns = {c: getattr(self, c) for c in (*PRICES, "volume", *ACTIONS)}
        return pd.DataFrame({"closed_at": pd.DatetimeIndex(self.closed_at, tz="UTC"), **columns})

    def digest(self) -> str:
        """SHA-256 of everything in the series."""
        hashed = hashlib.sha256(self.symbol.encode())
        for column in ("closed_at", *PRICES, "volume", *ACTIONS):
            hashed.update(np.ascontiguousarray(getattr(self, column)).tobytes())
        return hashed.hexdigest()

    def _check(self) -> None:
        for column in PRICES:
            values = getattr(self, column)
            self._refuse(
                ~(np.isfinite(values) & (values > 0)), f"{column} is not a positive number"
            )
        self._refuse(self.high < np.maximum(self.open, self.close), "high is below open or close")
        self._refuse(self.low > np.minimum(self.open, self.close), "low is above open or close")
        self._refuse(self.volume < 0, "volume is negative")
        self._refuse(~(np.isfinite(self.split) & (self.split > 0)), "split is not a positive ratio")
        unpaid = ~(np.isfinite(self.dividend) & (self.dividend >= 0))
        self._refuse(unpaid, "dividend is not a number >= 0")
        eaten = np.r_[False, self.dividend[1:] * self.split[1:] >= self.close[:-1]]
        self._refuse(eaten, "dividend is as large as the price before it")
        gaps = np.diff(self.closed_at).astype(np.int64)
        self._refuse(np.r_[False, gaps == 0], "closed_at is repeated")
        self._refuse(np.r_[False, gaps < 0], "closed_at is earlier than the bar before")

    def _refuse(self, wrong: npt.NDArray[np.bool_], what: str) -> None:
        if wrong.any():
            i = int(np.argmax(wrong))
            day = np.datetime_as_string(self.closed_at[i], unit="D")
            raise InvalidBarsError(f"bars of {self.symbol}: {what} at bar {i} ({day})")


def to_datetime64(moment: datetime) -> np.datetime64:
    """UTC microseconds without zone, as the arrays hold them. `moment` must be tz-aware."""
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")


def from_datetime64(moment: np.datetime64) -> datetime:
    value: datetime = moment.astype("datetime64[us]").item()
    return value.replace(tzinfo=UTC)


def _symbol(symbol: str) -> str:
    try:
        return parse_symbol(symbol)
    except BadInputError as error:
        raise InvalidBarsError(str(error)) from None


def _times(symbol: str, column: pd.Series[Any]) -> npt.NDArray[np.datetime64]:
    texts = [v.isoformat() if hasattr(v, "isoformat") else v for v in column]
    stamps = []
    for i, text in enumerate(texts):
        if isinstance(text, str) and len(text) == 10:
            text = f"{text}T{CLOSE_TIME}:00+00:00"
        try:
            stamp = datetime.fromisoformat(text)
        except (TypeError, ValueError):
            raise InvalidBarsError(
                f"bars of {symbol}: closed_at {text!r} at bar {i} is not an ISO date or time"
            ) from None
        if stamp.tzinfo is None:
            raise InvalidBarsError(
                f"bars of {symbol}: closed_at {text!r} at bar {i} has no time zone; "
                "add one (+00:00) or send the date alone"
            )
        stamps.append(to_datetime64(stamp))
    return np.array(stamps, dtype="datetime64[us]")


def _numbers(symbol: str, column: pd.Series[Any], name: str) -> Floats:
    try:
        return np.array(column, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidBarsError(
            f"bars of {symbol}: {name} holds something that is no number"
        ) from None


def _optional(symbol: str, frame: pd.DataFrame, name: str, none: float) -> Floats:
    """A column that may be left out, wholly or in single bars."""
    if name not in frame.columns:
        return np.full(len(frame), none)
    values = _numbers(symbol, frame[name].where(frame[name].notna(), none), name)
    return values


def parse_as_of(value: str | date | datetime) -> datetime:
    """The instant, in UTC, that `value` stands for; raises BadInputError for anything else."""
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, date):
        moment = datetime.combine(value, time.max, tzinfo=UTC)
    else:
        moment = _parse_text(value)
    if moment.tzinfo is None:
        raise BadInputError(
            f"as_of {value!r} has no time zone; "
            "write a date (2012-06-29) or add one (2012-06-29T21:00:00+00:00)"
        )
    return moment.astimezone(UTC)


def _parse_text(value: object) -> datetime:
    wrong = BadInputError(f"as_of {value!r} is not a date; write it as 2012-06-29")
    if not isinstance(value, str):
        raise wrong
    text = value.strip()
    try:
        if len(text) == 10:
            return datetime.combine(date.fromisoformat(text), time.max, tzinfo=UTC)
        return datetime.fromisoformat(text)
    except ValueError:
        raise wrong from None
