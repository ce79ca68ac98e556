"""How long a bar is, from one minute to one month, and how many such bars a year has.

A length is declared, or inferred from when bars closed. Few or irregular bars count as daily ones,
the default everywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from finagent_model._base import show_value
from finagent_model.errors import BadInputError

TRADING_DAYS_PER_YEAR = 252
"""Bars of a year of daily bars without weekends."""
BARS_PER_YEAR = (TRADING_DAYS_PER_YEAR, 365.0, 52.0, 12.0, 4.0, 1.0)
"""Usual numbers of bars a year: trading days, all days, weeks, months, quarters, years."""
MAX_GAP_DAYS = 14.0
"""Longest pause between two bars that belongs to their calendar; a longer one is a gap in the data,
unless the bars are themselves far apart.
"""
MIN_INFERRED = 10
"""Bars from which on their length is inferred."""
MAX_MINUTES = 720
"""Longest bar within a day: two of them make one."""
Times = npt.NDArray[np.datetime64]
_DAY = np.timedelta64(1, "D")
_MINUTE = np.timedelta64(1, "m")
_FORM = re.compile(r"(\d{1,4})?\s*(mo|min|m|h|d|w)")
_WORDS = {
    "hourly": "1h",
    "hour": "1h",
    "daily": "1d",
    "day": "1d",
    "weekly": "1w",
    "week": "1w",
    "monthly": "1mo",
    "month": "1mo",
}


@dataclass(frozen=True)
class Timeframe:
    """The length of a bar, such as `15m`, `1h`, `1d`, `1w` or `1mo`."""

    name: str
    length: timedelta
    """Of a month, 31 days: the longest that one is."""

    def __str__(self) -> str:
        return self.name

    @property
    def is_intraday(self) -> bool:
        """Whether a day has several bars, so that a date doesn't tell which."""
        return self.length < timedelta(days=1)

    @property
    def time_format(self) -> str:
        """Format of a close for readers: a date; with the time where a day has several bars."""
        return "%Y-%m-%d %H:%M" if self.is_intraday else "%Y-%m-%d"

    @property
    def label(self) -> str:
        """Return the length in words, such as `1 day` or `15 minutes`."""
        minutes = int(self.length.total_seconds() // 60)
        if not self.is_intraday:
            return {"1d": "1 day", "1w": "1 week"}.get(self.name, "1 month")
        if minutes % 60:
            return "1 minute" if minutes == 1 else f"{minutes} minutes"
        return "1 hour" if minutes == 60 else f"{minutes // 60} hours"


DAILY = Timeframe("1d", timedelta(days=1))
WEEKLY = Timeframe("1w", timedelta(days=7))
MONTHLY = Timeframe("1mo", timedelta(days=31))


def parse_timeframe(value: object) -> Timeframe:
    """Return the length of a bar that a text such as `15m`, `1h`, `1d`, `1w` or `1mo` names.

    Raises BadInputError for another text, and for a length that bars don't have.
    """
    text = str(value).strip()
    # Many write a month as 1M, and a minute as 1m: the capital alone tells them apart.
    text = "1mo" if text == "1M" else text.lower()
    match = _FORM.fullmatch(_WORDS.get(text, text))
    if isinstance(value, str) and match:
        count, unit = int(match[1] or 1), match[2]
        if unit in ("d", "w", "mo"):
            if count == 1:
                return {"d": DAILY, "w": WEEKLY, "mo": MONTHLY}[unit]
        elif 1 <= (minutes := count * (60 if unit == "h" else 1)) <= MAX_MINUTES:
            return _of_minutes(minutes)
    raise BadInputError(
        f"timeframe {show_value(value)} is not a length of a bar; write 1m to 12h, 1d, 1w or 1mo"
    )


def infer_timeframe(closed_at: Times) -> Timeframe:
    """Return the length that most of these bars have; `DAILY` for few or irregular ones.

    `closed_at` are the bars' closes, UTC, oldest first.
    """
    if len(closed_at) < MIN_INFERRED:
        return DAILY
    steps = np.diff(closed_at)
    lengths, counts = np.unique(steps, return_counts=True)
    usual = lengths[int(np.argmax(counts))]
    minutes = int(usual / _MINUTE)
    if minutes <= MAX_MINUTES:
        # Nights and weekends are longer steps, and a shorter one is the last bar of a session.
        is_whole = usual == minutes * _MINUTE and minutes >= 1
        return _of_minutes(minutes) if is_whole and 2 * counts.max() >= len(steps) else DAILY
    days = steps / _DAY
    middle = float(np.median(days))
    if days.min() < 2.5:
        return DAILY
    return WEEKLY if 5 <= middle <= 9 else MONTHLY if 26 <= middle <= 33 else DAILY


def bars_per_year(closed_at: Times) -> float:
    """Return how many bars of this calendar a year has, gaps aside; 252 for a single day.

    A usual number where the measured one is within a tenth of it: years with more or fewer holidays
    are annualised alike. Bars within a day count by how many of them a day of bars has.
    """
    dates, counts = np.unique(closed_at.astype("datetime64[D]"), return_counts=True)
    # Clocks that are put back bring two daily closes to one date of UTC: not yet several a day.
    if len(closed_at) > 1.5 * len(dates):
        # The first and the last day may be there in part only.
        whole = counts[1:-1] if len(counts) > 2 else counts
        return float(whole.mean()) * bars_per_year(dates)
    if len(dates) < 2:
        return float(TRADING_DAYS_PER_YEAR)
    days = np.diff(closed_at) / _DAY
    # Months without a bar are missing data and no property of the calendar.
    days = days[days <= max(MAX_GAP_DAYS, 3 * float(np.median(days)))]
    measured = 365.25 / float(np.mean(days))
    # Over a few days weekdays are as dense as all days: then the missing weekend tells.
    is_daily = TRADING_DAYS_PER_YEAR <= measured < 366
    if is_daily and np.is_busday(dates).all():
        return float(TRADING_DAYS_PER_YEAR)
    near = [float(usual) for usual in BARS_PER_YEAR if abs(measured / usual - 1) < 0.1]
    return near[0] if near else measured


def _of_minutes(minutes: int) -> Timeframe:
    name = f"{minutes}m" if minutes % 60 else f"{minutes // 60}h"
    return Timeframe(name, timedelta(minutes=minutes))
