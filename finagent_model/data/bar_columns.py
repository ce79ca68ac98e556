"""What each column of a table of bars is, by its vendor's row or by its name.

A column that is needed and missing is named, and so is one that looks like a price, a split or a
dividend and is not understood.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pandas as pd
from pydantic import ValidationInfo, field_validator

from finagent_model._base import InputModel
from finagent_model.data._bar_clock import Stamps
from finagent_model.data._bar_dates import read_days
from finagent_model.data._numbers import Decimal
from finagent_model.data._raw_table import DATABASE, RawTable, normalize_column
from finagent_model.data.vendors import (
    ADJUSTED,
    ADJUSTED_COPIES,
    CLOSED_AT,
    DATE,
    DATE_NAMES,
    GENERIC,
    TIME,
    DateOrder,
    Vendor,
    duplicates,
    find_vendors,
    looks_like_price,
    vendor_names,
)
from finagent_model.errors import MAX_LISTED, BadInputError, InvalidBarsError
from finagent_model.market.bars import ACTIONS, PRICES
from finagent_model.market.calendar import Calendar, get_calendar
from finagent_model.market.timeframe import Timeframe, parse_timeframe


class Hints(InputModel):
    """What a file can't tell by itself, from `bars.yaml` beside it or from a command's options."""

    vendor: str | None = None
    dates: DateOrder | None = None
    decimal: Decimal | None = None
    ignore: tuple[str, ...] = ()
    """Columns that are no prices, splits or dividends, whatever they are called."""
    timeframe: str | None = None
    """How long a bar is, such as `1h`; None: told by the dates."""
    calendar: str | None = None
    """When the market is open: `weekdays`, `24/7` or an exchange such as `XNYS`."""
    zone: str | None = None
    """Of times that have none, such as `America/New_York`."""
    stamps: Stamps | None = None
    """Whether a bar is dated by its open or its close; None: told by the dates, or the open."""

    on_bad_rows: Literal["refuse", "mend"] | None = None
    """Whether a few bad rows are mended and said; None: they are in files, not in a database."""

    @field_validator("timeframe", "calendar", "zone")
    @classmethod
    def _check_name(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        try:
            if info.field_name == "timeframe":
                return parse_timeframe(value).name
            if info.field_name == "calendar":
                return get_calendar(value).name
            return ZoneInfo(value).key
        except BadInputError as error:
            raise ValueError(str(error)) from None
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is not a time zone; write one such as America/New_York") from None

    @property
    def bar_length(self) -> Timeframe | None:
        """The declared length of a bar."""
        return parse_timeframe(self.timeframe) if self.timeframe else None

    @property
    def market_calendar(self) -> Calendar | None:
        """The declared calendar."""
        return get_calendar(self.calendar) if self.calendar else None


NO_HINTS = Hints()
_NAMELESS = ("", "unnamed:_0")


class Columns(NamedTuple):
    """What the columns of a table are."""

    vendor: Vendor
    position: dict[str, int]
    """By role."""
    table: RawTable

    def name(self, role: str) -> str:
        """Return the file's own name of a column."""
        return self.table.columns[self.position[role]]


def find_columns(raw: RawTable, hints: Hints) -> Columns:
    """Return what each column is.

    Raises InvalidBarsError for one that is missing, or whose meaning is unclear.
    """
    names = raw.names
    vendor = raw.vendor or _choose_vendor(names, hints.vendor)
    ignored = {normalize_column(name) for name in hints.ignore}
    roles = {i: role for i, role in vendor.roles(names).items() if names[i] not in ignored}
    if vendor is GENERIC:
        dates = [name for name in DATE_NAMES if name in names]
        if dates:
            roles[names.index(dates[0])] = CLOSED_AT if dates[0] == CLOSED_AT else DATE
        if "time" in dates[1:]:
            roles[names.index("time")] = TIME
    position: dict[str, int] = {}
    # Of two columns of dates the one with a name: the other is an index that pandas wrote.
    for i in sorted(roles, key=lambda i: names[i] in _NAMELESS):
        position.setdefault(roles[i], i)
    for first, second in duplicates(names):
        if first in roles or looks_like_price(raw.columns[first]):
            _refuse_different(raw, first, second)
    taken = set(position.values()) | {second for _, second in duplicates(names)}
    unread = [i for i, n in enumerate(names) if i not in taken and n not in ignored]
    if not set(PRICES) & set(position):
        _refuse_wide(raw, unread, position)
    for role in (DATE, *PRICES):
        if role not in position and not (role == DATE and CLOSED_AT in position):
            cure = f"the file has {_listed(raw.columns)} ({raw.form})"
            if role == DATE:
                cure = f"name the column of dates 'date' or 'closed_at'; {cure}"
            raise InvalidBarsError(f"column {role!r} is missing; {cure}")
    explained = bool({"split", "dividend", ADJUSTED} & set(position))
    for i in unread:
        if vendor.ignores(names[i]) or (explained and names[i] in ADJUSTED_COPIES):
            continue
        if looks_like_price(raw.columns[i]):
            way_out = "leave it out by a view"
            if raw.form != DATABASE:
                way_out = "list it under `ignore:` in bars.yaml beside the file"
            raise InvalidBarsError(
                f"column {raw.columns[i]!r} is not read, and looks like a price, split or "
                f"dividend; call it split, dividend or adj_close if it is one, or {way_out}"
            )
    _refuse_half_of_actions(raw, position)
    return Columns(vendor, position, raw)


def _choose_vendor(names: Sequence[str], hint: str | None) -> Vendor:
    if hint is not None and hint.lower() not in {name.lower() for name in vendor_names()}:
        raise BadInputError(f"vendor {hint!r} is unknown; there is: {', '.join(vendor_names())}")
    found = find_vendors(names, hint)
    if hint is not None and not found:
        raise InvalidBarsError(
            f"the columns are not those of {hint}; correct `vendor:` in bars.yaml, or leave it out"
        )
    return found[0] if found else GENERIC


def _refuse_different(raw: RawTable, first: int, second: int) -> None:
    """Refuse two columns of one name, unless they say the same."""
    one, two = raw.frame[first], raw.frame[second]
    if one.equals(two):
        return
    if raw.names[first] in DATE_NAMES:
        try:
            days = [read_days(list(part), None, None, raw.where) for part in (one, two)]
        except InvalidBarsError:
            days = [[], [date.min]]
        if days[0] == days[1]:
            return
    raise InvalidBarsError(f"column {raw.columns[second]!r} is there twice; keep one")


def _refuse_wide(raw: RawTable, unread: Sequence[int], position: dict[str, int]) -> None:
    """Refuse a table with a date and a column of closes for each symbol."""
    if DATE not in position or len(unread) < 2:
        return
    if any(looks_like_price(raw.columns[i]) for i in unread):
        return
    if all(pd.api.types.is_numeric_dtype(raw.frame[i]) for i in unread):
        names = _listed([raw.columns[i] for i in unread])
        raise InvalidBarsError(
            f"it is a table of one price for each of {names}; bars need open, high, low and close, "
            "so give one file per symbol, or a file with a column 'symbol'"
        )


def _refuse_half_of_actions(raw: RawTable, position: dict[str, int]) -> None:
    """Refuse an adjusted close beside one action only: the other would be lost."""
    actions = [name for name in ACTIONS if name in position]
    if ADJUSTED in position and len(actions) == 1:
        missing = next(name for name in ACTIONS if name not in position)
        given, adjusted = raw.columns[position[actions[0]]], raw.columns[position[ADJUSTED]]
        raise InvalidBarsError(
            f"column {missing!r} is missing beside {given!r}; add it, or leave out {given!r} so "
            f"that both are worked out from {adjusted!r}, or leave out {adjusted!r} if there are "
            "none"
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(str(name) for name in names[:MAX_LISTED])
    return f"{shown} and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else shown
