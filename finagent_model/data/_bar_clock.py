"""When bars closed, from what a vendor dates them with: the open of a bar, its day, or its close.

Vendors date bars within a day by their open, and weeks and months by their first or last day. What
is dated by its open closes a bar later, so that no bar is known before it is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import Literal, NamedTuple

import numpy as np

from finagent_model.errors import InvalidBarsError
from finagent_model.market.calendar import WEEKDAYS, Calendar, guess_calendar
from finagent_model.market.timeframe import (
    DAILY,
    MONTHLY,
    WEEKLY,
    Timeframe,
    infer_timeframe,
)

Stamps = Literal["open", "close"]
MOSTLY = 0.75
"""Share of the bars whose day tells what the dates of weeks or months stand for."""


class Clock(NamedTuple):
    """When each bar closed, how long it lasted, and what was assumed of it."""

    closed_at: list[str]
    """Days, or moments in UTC, as a bar series reads them."""
    timeframe: Timeframe | None
    """None: the series tells."""
    notes: tuple[str, ...]


def close_intraday(
    moments: Sequence[datetime],
    timeframe: Timeframe | None,
    calendar: Calendar | None,
    stamps: Stamps | None,
) -> Clock:
    """Return when bars closed that began, or ended, at these moments (UTC).

    Raises InvalidBarsError where their length can't be told.
    """
    inferred = infer_timeframe(np.array([m.replace(tzinfo=None) for m in moments], "M8[us]"))
    length = timeframe or inferred
    if not length.is_intraday:
        said = f"bars of {timeframe.label}" if timeframe else f"{len(moments)} bars"
        raise InvalidBarsError(
            f"{said} have several a day, and no one length; write `timeframe: 1h` or another into "
            "bars.yaml beside the file"
        )
    if stamps == "close":
        return Clock([m.isoformat() for m in moments], length, ())
    closes = [(calendar or WEEKDAYS).bar_close(moment, length.length) for moment in moments]
    note = f"times are taken for the open of each bar of {length.label}"
    return Clock([c.isoformat() for c in closes], length, () if stamps else (note,))


def close_days(
    days: Sequence[date],
    timeframe: Timeframe | None,
    calendar: Calendar | None,
    stamps: Stamps | None,
) -> Clock:
    """Return when bars of a day, a week or a month closed that are dated by these days.

    Raises InvalidBarsError where it can't be told whether weeks or months are dated by their first
    or their last day.
    """
    length = timeframe or infer_timeframe(np.sort(np.array(days, "M8[D]")).astype("M8[us]"))
    notes: tuple[str, ...] = ()
    if length.is_intraday:
        raise InvalidBarsError(
            f"bars of {length.label} are dated by days alone; give the time of each"
        )
    if length in (WEEKLY, MONTHLY):
        dated = stamps or _find_stamps(days, length)
        word = "first" if dated == "open" else "last"
        if stamps is None:
            notes = (f"bars of {length.label}, taken to be dated by their {word} day",)
        if dated == "open":
            days = [_last_day(day, length) for day in days]
    if calendar is None and length == DAILY:
        # As the series finds it out; noon, since midnight would be the day before's.
        noons = [datetime.combine(day, time(12)) for day in days]
        calendar = guess_calendar(np.array(noons, "M8[us]"))
    closes = []
    for day in days:
        # A week ends with its last session, whatever day that is.
        ended = calendar.last_session(day) if calendar and length != DAILY else day
        close = calendar.day_close(ended or day) if calendar else None
        closes.append(day.isoformat() if close is None else close.isoformat())
    known = calendar is not None and calendar.is_exchange
    return Clock(closes, length if known else timeframe or _unless_daily(length), notes)


def _unless_daily(length: Timeframe) -> Timeframe | None:
    return None if length == DAILY else length


def _find_stamps(days: Sequence[date], length: Timeframe) -> Stamps:
    """Return whether weeks or months are dated by their first or their last day."""
    if length == WEEKLY:
        first = [day.weekday() == 0 for day in days]
        last = [day.weekday() == 4 for day in days]
    else:
        first = [day.day <= 4 for day in days]
        last = [(day + timedelta(days=4)).month != day.month for day in days]
    if sum(first) >= MOSTLY * len(days):
        return "open"
    if sum(last) >= MOSTLY * len(days):
        return "close"
    raise InvalidBarsError(
        f"bars of {length.label} are dated {days[0]} and so on, which may be their first day or "
        "their last; write `stamps: open` or `stamps: close` into bars.yaml beside the file"
    )


def _last_day(day: date, length: Timeframe) -> date:
    """Return the last day of the week or month that begins on `day`."""
    if length == WEEKLY:
        return day + timedelta(days=6)
    following = (day.replace(day=1) + timedelta(days=31)).replace(day=1)
    return following - timedelta(days=1)
