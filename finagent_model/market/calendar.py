"""When a market is open: `weekdays`, `24/7`, `fx`, or an exchange of `exchange_calendars` such as
`XNYS`.

`weekdays` knows neither holidays nor hours, and is the default; an exchange is declared, since bars
alone don't tell which one it is. The library of exchanges is imported when one is asked about.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from finagent_model._base import show_value
from finagent_model.errors import BadInputError
from finagent_model.market.timeframe import Timeframe, Times

if TYPE_CHECKING:
    import pandas as pd

FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(2060, 12, 31)
"""Days for which an exchange's sessions are asked; outside of its own bounds weekdays count."""
MIN_GUESSED = 7
"""Days with bars from which on weekends tell the calendar."""
_SATURDAY, _FRIDAY = 5, 4


@dataclass(frozen=True)
class _SessionTable:
    """An exchange's sessions, oldest first; moments are UTC."""

    days: npt.NDArray[np.datetime64]
    opens: npt.NDArray[np.datetime64]
    closes: npt.NDArray[np.datetime64]
    break_starts: npt.NDArray[np.datetime64]
    """Of the lunch break; the close where there is none."""
    break_ends: npt.NDArray[np.datetime64]
    """The close where there is no break."""

    def goes_on(self, i: int) -> bool:
        """Tell whether the next session opens as this one closes."""
        return i + 1 < len(self.days) and bool(self.opens[i + 1] <= self.closes[i])

    def stretches(
        self, i: int, stop: np.datetime64
    ) -> Iterator[tuple[np.datetime64, np.datetime64]]:
        """Yield begin and end of each time without a pause that begins before `stop`."""
        while i < len(self.days) and self.opens[i] < stop:
            begun = self.opens[i]
            if self.break_starts[i] < self.closes[i]:
                yield begun, self.break_starts[i]
                begun = self.break_ends[i]
            while self.goes_on(i) and self.opens[i + 1] <= stop:
                i += 1
            yield begun, self.closes[i]
            i += 1

    def covers(self, start: date, stop: date) -> bool:
        return bool(self.days[0] <= np.datetime64(start) and np.datetime64(stop) <= self.days[-1])


@dataclass(frozen=True)
class Calendar:
    """A market's sessions. Make one by `get_calendar`."""

    name: str

    def __str__(self) -> str:
        return self.name

    @property
    def is_exchange(self) -> bool:
        """Whether holidays and hours are known."""
        return self.name not in (WEEKDAYS.name, ALWAYS.name)

    @property
    def ends_at_midnight(self) -> bool:
        """Whether a close at midnight UTC is of the day before.

        So end days of a market that never closes, and of currencies those without a session.
        """
        return self.name in (ALWAYS.name, FIVE_DAYS, FX.name)

    def day_close(self, day: date) -> datetime | None:
        """Return when the bar of `day` closes, in UTC; None where the calendar doesn't tell.

        A day without a session, such as a Sunday of currencies, ends at midnight UTC: its trading
        belongs to the session that follows, which the bar doesn't hold.
        """
        if (close := self.close_of(day)) is not None:
            return close
        if not self.ends_at_midnight:
            return None
        return datetime.combine(day, time.min, tzinfo=UTC) + timedelta(days=1)

    @property
    def session_word(self) -> str:
        """What a day with a session is called in messages."""
        return {WEEKDAYS.name: "weekdays", ALWAYS.name: "days"}.get(self.name, "sessions")

    def count_sessions(self, start: date, stop: date) -> int:
        """Return the number of sessions on the days from `start` up to, without, `stop`."""
        if stop <= start:
            return 0
        if self == ALWAYS:
            return (stop - start).days
        if self.is_exchange and (sessions := _load_sessions(self.name)).covers(start, stop):
            first, last = np.searchsorted(
                sessions.days, [np.datetime64(start), np.datetime64(stop)]
            )
            return int(last - first)
        return int(np.busday_count(start, stop))

    def close_of(self, day: date) -> datetime | None:
        """Return when the session of `day` closes, in UTC; None where hours are not known, or
        where the exchange has no session on that day.
        """
        if not self.is_exchange:
            return None
        sessions = _load_sessions(self.name)
        i = int(np.searchsorted(sessions.days, np.datetime64(day)))
        if i == len(sessions.days) or sessions.days[i] != np.datetime64(day):
            return None
        return _to_datetime(sessions.closes[i])

    def bar_close(self, begun: datetime, length: timedelta) -> datetime:
        """Return when the bar closes, in UTC, that begins at `begun` and lasts `length`.

        The last bar of a session may be shorter than the others, and so may the last before a lunch
        break. A bar that goes on after the break is not over before, and neither is one that goes
        on in the next session, where that opens as this one closes.
        """
        end = begun.astimezone(UTC) + length
        if not self.is_exchange:
            return end
        sessions = _load_sessions(self.name)
        start = _to_datetime64(begun)
        i = int(np.searchsorted(sessions.closes, start, side="right"))
        if i == len(sessions.closes) or sessions.opens[i] > start:
            return end
        if start < sessions.break_starts[i] and _to_datetime64(end) <= sessions.break_ends[i]:
            return min(end, _to_datetime(sessions.break_starts[i]))
        while _to_datetime64(end) > sessions.closes[i] and sessions.goes_on(i):
            i += 1
        return min(end, _to_datetime(sessions.closes[i]))

    def session_days(self, closed_at: Times) -> Times:
        """Return the day of the session, of an exchange, in which each bar closed; NaT for none.

        A session may open on the day before in UTC.
        """
        sessions = _load_sessions(self.name)
        i = np.searchsorted(sessions.closes, closed_at, side="left")
        known = i < len(sessions.days)
        i = np.where(known, i, 0)
        inside = known & (sessions.opens[i] < closed_at)
        return np.where(inside, sessions.days[i], np.datetime64("NaT", "D"))

    def last_session(self, day: date) -> date | None:
        """Return the last day with a session up to `day`; None where sessions are not known."""
        if not self.is_exchange:
            return None
        sessions = _load_sessions(self.name)
        i = int(np.searchsorted(sessions.days, np.datetime64(day), side="right"))
        found: date | None = sessions.days[i - 1].item() if i else None
        return found

    def sessions(self, first: date, last: date) -> Times:
        """Return the days with a session of an exchange, as far as its sessions are known."""
        days = _load_sessions(self.name).days
        start, stop = np.datetime64(first), np.datetime64(last)
        return days[(days >= start) & (days <= stop)]

    def end_of(self, day: date) -> datetime:
        """Return the last moment, in UTC, of which a decision about `day` may know.

        It is the end of that day, or the open of the next session where that comes before: whoever
        decides on Sydney's close has traded before the day ends in UTC.
        """
        midnight = datetime.combine(day, time.max, tzinfo=UTC)
        if not self.is_exchange:
            return midnight
        sessions = _load_sessions(self.name)
        # The next session is the first that has a later day, whenever it opens.
        i = int(np.searchsorted(sessions.days, np.datetime64(day), side="right"))
        if i == len(sessions.days):
            return midnight
        return min(midnight, _to_datetime(sessions.opens[i]))

    def count_bars(self, timeframe: Timeframe, last: datetime, as_of: datetime) -> int:
        """Return how many bars have closed, or should have, after `last` and until `as_of`.

        For bars within a day, on a calendar whose hours are known; else by their length alone.
        """
        if not self.is_exchange or not timeframe.is_intraday:
            return max(0, int((as_of - last) / timeframe.length))
        sessions = _load_sessions(self.name)
        start, stop = _to_datetime64(last), _to_datetime64(as_of)
        first = int(np.searchsorted(sessions.closes, start, side="right"))
        count = 0
        for opened, closed in sessions.stretches(first, stop):
            began, until = max(start, opened), min(stop, closed)
            if began >= until:
                continue
            whole, rest = divmod(until - began, np.timedelta64(timeframe.length, "us"))
            # The last bar may be shorter than the others.
            ended = stop >= closed and rest > np.timedelta64(0)
            count += int(whole) + int(ended)
        return count


WEEKDAYS = Calendar("weekdays")
ALWAYS = Calendar("24/7")
FX = Calendar("fx")
"""Currencies: each weekday ends at 17:00 New York, and begins at 17:00 of the day before."""
FIVE_DAYS = "24/5"
"""The library's name for weekdays from midnight to midnight, UTC."""


def get_calendar(name: object) -> Calendar:
    """Return the calendar of a name: `weekdays`, `24/7`, `fx`, or an exchange's such as `XNYS`.

    Raises BadInputError for a name that means none.
    """
    if isinstance(name, str):
        text = name.strip()
        for calendar in (WEEKDAYS, ALWAYS, FX):
            if text.lower() == calendar.name:
                return calendar
        from exchange_calendars import get_calendar_names

        if text.upper() in (names := get_calendar_names()):
            return Calendar(text.upper())
        if text in names:
            return Calendar(text)
    raise BadInputError(
        f"calendar {show_value(name)} is unknown; write weekdays, 24/7, 24/5, fx or the code of "
        "an exchange such as XNYS, XLON, XTKS or XASX (https://www.iso20022.org/market-identifier-codes)"
    )


def guess_calendar(closed_at: Times) -> Calendar:
    """Return `ALWAYS` for bars that are there on Saturdays as on Fridays, else `WEEKDAYS`.

    `closed_at` are the closes of bars of a day or less.
    """
    # A bar that closes at midnight is of the day before.
    days = np.unique((closed_at - np.timedelta64(1, "us")).astype("datetime64[D]"))
    if len(days) < MIN_GUESSED:
        return WEEKDAYS
    # The first day of numpy's calendar was a Thursday.
    weekday = (days.astype(np.int64) + 3) % 7
    saturdays, fridays = int((weekday == _SATURDAY).sum()), int((weekday == _FRIDAY).sum())
    return ALWAYS if saturdays >= 1 and 2 * saturdays >= fridays else WEEKDAYS


@cache
def _load_sessions(name: str) -> _SessionTable:
    if name == FX.name:
        return _currency_sessions()
    import exchange_calendars

    # Without a span the library takes one that hangs on today's date.
    bounds = exchange_calendars.get_calendar(name)
    first, last = bounds.bound_min(), bounds.bound_max()
    schedule: pd.DataFrame = exchange_calendars.get_calendar(
        name,
        start=FIRST_DAY.isoformat() if first is None else max(first.date(), FIRST_DAY).isoformat(),
        end=LAST_DAY.isoformat() if last is None else min(last.date(), LAST_DAY).isoformat(),
    ).schedule

    def utc(column: str) -> npt.NDArray[np.datetime64]:
        moments = schedule[column].dt.tz_convert(None).to_numpy()
        return np.asarray(moments, dtype="datetime64[us]")

    closes = utc("close")
    breaks = (utc("break_start"), utc("break_end"))
    pauses = [np.where(np.isnat(moments), closes, moments) for moments in breaks]
    days = schedule.index.to_numpy().astype("datetime64[D]")
    return _SessionTable(days, utc("open"), closes, *pauses)


def _currency_sessions() -> _SessionTable:
    import pandas as pd

    days = pd.bdate_range(FIRST_DAY, LAST_DAY)

    def at_five(dates: pd.DatetimeIndex) -> npt.NDArray[np.datetime64]:
        local = (dates + pd.Timedelta(hours=17)).tz_localize("America/New_York")
        return np.asarray(local.tz_convert(None).to_numpy(), dtype="datetime64[us]")

    closes = at_five(days)
    opens = at_five(days - pd.Timedelta(days=1))
    return _SessionTable(days.to_numpy().astype("datetime64[D]"), opens, closes, closes, closes)


def _to_datetime64(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")


def _to_datetime(moment: np.datetime64) -> datetime:
    value: datetime = moment.astype("datetime64[us]").item()
    return value.replace(tzinfo=UTC)
