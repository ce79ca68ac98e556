"""Dates of bars in the forms that vendors write, read as days, or as moments of bars within a day.

A day is the calendar day that the file names; a zone beside a midnight is dropped on purpose:
midnight in Tokyo is the evening before in UTC, midnight in New York lies hours before that day's
open. Nothing is guessed: where day and month can't be told apart by any date of the file, it is
asked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from finagent_model.data.vendors import DateOrder
from finagent_model.errors import InvalidBarsError

Where = Callable[[int], str]
"""Words for a row of the file, such as `in line 4`."""
_TAIL = (
    r"(?:[T ,]\s*(?P<clock>\d{1,2}:\d\d(?::\d\d(?:\.\d+)?)?|\d{6})\s*(?P<half>[AaPp][Mm])?"
    r"\s*(?P<zone>Z|[A-Za-z_/]*\s?(?:[+-]\d\d:?\d\d)?))?"
)
_YEAR, _DAY = r"(?P<year>\d{4})", r"(?P<day>\d{1,2})"
_NAME, _WEEKDAY = r"(?P<name>[A-Za-z]{3,9})", r"(?:[A-Za-z]{3,9},? )?"
_FORMS = (
    re.compile(rf"{_YEAR}(?P<mark>[-/.])(?P<month>\d{{1,2}})(?P=mark){_DAY}{_TAIL}"),
    re.compile(rf"{_YEAR}(?P<month>\d\d)(?P<day>\d\d){_TAIL}"),
    re.compile(
        rf"(?P<one>\d{{1,2}})(?P<mark>[-/.])(?P<two>\d{{1,2}})(?P=mark)(?P<year>\d{{4}}|\d\d){_TAIL}"
    ),
    re.compile(rf"{_WEEKDAY}{_NAME}\.? {_DAY},? {_YEAR}{_TAIL}"),
    re.compile(rf"{_WEEKDAY}{_DAY}[- ]{_NAME}\.?[- ](?P<year>\d{{4}}|\d\d){_TAIL}"),
)
_ISO_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_COMPACT, _OPEN_ORDER = _FORMS[1], _FORMS[2]
_EPOCH = re.compile(r"(\d{9,10}|\d{12,13}|\d{15,16}|\d{18,19})(\.\d+)?")
_EPOCH_UNITS = {10: 1, 13: 10**3, 16: 10**6, 19: 10**9}
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec"
NEW_YORK = "America/New_York"
DAY_MARKS = {
    "UTC": (time.min,),
    NEW_YORK: (time.min, time(9, 30), time(16)),
}
"""Local times that stand for a day, where a moment has its zone: midnight, or an exchange's open
and close."""
_MIDNIGHT = re.compile(r"0{1,2}:?00(:?00(\.0+)?)?|0")


def is_date(cell: object) -> bool:
    """Tell whether a cell can be read as a date in some form."""
    if isinstance(cell, date | datetime | np.datetime64):
        return not pd.isna(cell)
    text = _plain(cell)
    return bool(_EPOCH.fullmatch(text)) or any(form.fullmatch(text) for form in _FORMS)


def read_days(
    cells: Sequence[Any], order: DateOrder | None, zone: str | None, where: Where
) -> list[date]:
    """Return the day of each cell.

    `order` is for dates such as 01/02/2020, `zone` for moments that begin a day. Raises
    InvalidBarsError naming the first cell that is no day, and where day and month are left open.
    """
    days = read_stamps(cells, order, zone, where)
    for i, day in enumerate(days):
        if isinstance(day, datetime):
            raise _time_of_day(_plain(cells[i]), where(i))
    return days


def read_stamps(
    cells: Sequence[Any],
    order: DateOrder | None,
    zone: str | None,
    where: Where,
    local: str | None = None,
) -> list[date]:
    """Return the day of each cell, or the moment of each, in UTC, where a day has several.

    As `read_days`; `local` is the zone of times that have none. Raises InvalidBarsError where
    there is none.
    """
    texts = [_plain(cell) for cell in cells]
    if all(_ISO_DAY.fullmatch(text) for text in texts):
        with suppress(ValueError):  # a 31st of June is named below
            return [date.fromisoformat(text) for text in texts]
    if texts and _EPOCH.fullmatch(texts[0]):
        moments = [_epoch(text, where(i)) for i, text in enumerate(texts)]
        return _days_of_moments(moments, texts, zone, where)
    first = next((form for form in _FORMS if texts and form.fullmatch(texts[0])), None)
    if first is None and texts:
        raise _no_date(texts[0], where(0))
    matches: list[re.Match[str]] = []
    for i, text in enumerate(texts):
        match = first.fullmatch(text) if first else None
        if match is None:
            if not is_date(text):
                raise _no_date(text, where(i))
            raise InvalidBarsError(
                f"date {text!r} {where(i)} is not written as {texts[0]!r} {where(0)}; "
                "write all dates one way"
            )
        matches.append(match)
    if first is _OPEN_ORDER:
        order = _find_order(matches, texts, order, where)
    moments = []
    for i, match in enumerate(matches):
        moments.append(_moment(match, order, texts[i], where(i)))
    clocks = [m.time() for m in moments]
    if all(clock == time.min for clock in clocks):
        return [m.date() for m in moments]
    # Midnights have lost their offset, since they may name days. If a day has several times, they
    # are moments like the others.
    exact = [
        _moment(match, order, texts[i], where(i), is_day=False) for i, match in enumerate(matches)
    ]
    if _share_days(exact):
        return [_to_utc(m, local, texts[i], where(i)) for i, m in enumerate(exact)]
    # Not midnight as written: perhaps midnight where the exchange is.
    if all(m.tzinfo is not None for m in moments):
        return _days_of_moments(moments, texts, zone, where)
    late = next(i for i, clock in enumerate(clocks) if clock != time.min)
    raise _time_of_day(texts[late], where(late))


def read_moments(cells: Sequence[Any], where: Where) -> list[Any]:
    """Return when each bar closed: an ISO text with its zone, or a day alone.

    What is no moment is given back as it is, for the series to refuse.
    """
    moments: list[Any] = []
    for i, cell in enumerate(cells):
        if hasattr(cell, "isoformat"):
            moments.append(cell.isoformat())
            continue
        text = _plain(cell)
        if _EPOCH.fullmatch(text):
            moments.append(_epoch(text, where(i)).isoformat())
            continue
        compact = _COMPACT.fullmatch(text)
        if compact and not compact["clock"]:
            text = f"{text[:4]}-{text[4:6]}-{text[6:]}"
        moments.append(text if isinstance(cell, str | int | np.integer) else cell)
    return moments


def is_midnight(cell: object) -> bool:
    """Tell whether a cell of a column of times is empty or the start of the day."""
    text = _plain(cell)
    return text in ("", "nan", "None") or bool(_MIDNIGHT.fullmatch(text))


def _plain(cell: object) -> str:
    """Return a cell as text; midnight of a zone keeps it, whole floats lose their `.0`."""
    if isinstance(cell, str):
        cell = " ".join(cell.replace("\ufeff", "").split())
        return cell[:-2] if cell.endswith(".0") and cell[:-2].isdigit() else cell
    if isinstance(cell, np.datetime64):
        cell = pd.Timestamp(cell)
    if isinstance(cell, float | np.floating) and float(cell).is_integer():
        cell = int(cell)
    text = " ".join((cell.isoformat() if hasattr(cell, "isoformat") else str(cell)).split())
    return text[:-2] if text.endswith(".0") and text[:-2].isdigit() else text


def _epoch(text: str, row: str) -> datetime:
    """Return the moment of seconds, milli-, micro- or nanoseconds since 1970, by their digits."""
    whole = text.partition(".")[0]
    length = next((n for n in _EPOCH_UNITS if 0 <= n - len(whole) <= 1), None)
    if length is None or not whole.isdigit():
        raise _no_date(text, row)
    seconds, rest = divmod(int(whole), _EPOCH_UNITS[length])
    # Whole microseconds: floats would be off by some.
    micros = rest * 10**6 // _EPOCH_UNITS[length]
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=micros)


def _days_of_moments(
    moments: Sequence[datetime], texts: Sequence[str], zone: str | None, where: Where
) -> list[date]:
    """Return the days that the moments stand for, in the first zone where all have one time."""
    for name in (zone,) if zone else DAY_MARKS:
        local = [m.astimezone(ZoneInfo(name)) for m in moments]
        for mark in DAY_MARKS[name]:
            if all(m.time() == mark for m in local) and not _share_days(local):
                return [m.date() for m in local]
    if _share_days(moments):
        return list(moments)
    late = next((i for i, m in enumerate(local) if m.time() != time.min), 0)
    raise _time_of_day(texts[late], where(late))


def _share_days(moments: Sequence[datetime]) -> bool:
    """Tell whether most moments share their day with another: bars within a day."""
    counts = Counter(m.date() for m in set(moments))
    return 2 * sum(count for count in counts.values() if count > 1) > len(moments)


def _to_utc(moment: datetime, local: str | None, text: str, row: str) -> datetime:
    """Return a moment in UTC; one without a zone is one of `local`."""
    if moment.tzinfo is None:
        if local is None:
            raise InvalidBarsError(
                f"date {text!r} {row} has a time without a zone; write `zone: UTC`, "
                "`zone: America/New_York` or another into bars.yaml beside the file"
            )
        moment = moment.replace(tzinfo=ZoneInfo(local))
    return moment.astimezone(UTC)


def _find_order(
    matches: Sequence[re.Match[str]], texts: Sequence[str], order: DateOrder | None, where: Where
) -> DateOrder:
    """Return whether the day or the month comes first, as some date above 12 shows."""
    if order is None and (short := [i for i, m in enumerate(matches) if len(m["year"]) == 2]):
        # It may as well be the year that stands first.
        raise InvalidBarsError(
            f"date {texts[short[0]]!r} {where(short[0])} has a year of two digits; write four, or "
            "`dates: day-first` or `dates: month-first` into bars.yaml beside the file"
        )
    day_first = next((i for i, m in enumerate(matches) if int(m["one"]) > 12), None)
    month_first = next((i for i, m in enumerate(matches) if int(m["two"]) > 12), None)
    if day_first is not None and month_first is not None:
        raise InvalidBarsError(
            f"date {texts[day_first]!r} {where(day_first)} has the day first, "
            f"{texts[month_first]!r} {where(month_first)} the month; write all dates one way"
        )
    shown: DateOrder | None = None
    if day_first is not None or month_first is not None:
        shown = "month-first" if day_first is None else "day-first"
    if shown and order and shown != order:
        i = month_first if day_first is None else day_first
        raise InvalidBarsError(
            f"date {texts[i or 0]!r} {where(i or 0)} can't be {order}; correct `dates:` in "
            "bars.yaml, or the file"
        )
    if (found := order or shown) is None:
        first = matches[0]
        raise InvalidBarsError(
            f"date {texts[0]!r} {where(0)} may be day {int(first['one'])} of month "
            f"{int(first['two'])} or the other way round, and no date of the file shows which; "
            "write `dates: day-first` or `dates: month-first` into bars.yaml beside the file"
        )
    return found


def _moment(
    match: re.Match[str], order: DateOrder | None, text: str, row: str, is_day: bool = True
) -> datetime:
    """Return the local moment of a match, with its zone if it has one; see `_zoned`."""
    parts = match.groupdict()
    if "one" in parts:
        month, day = parts["one"], parts["two"]
        if order == "day-first":
            month, day = day, month
    else:
        day = parts["day"]
        month = parts.get("month") or _month(parts["name"])
    year = int(parts["year"])
    if year < 100:
        year += 2000 if year < 70 else 1900
    try:
        moment = datetime(year, int(month), int(day))  # noqa: DTZ001  the zone, if any, follows
        if parts["clock"]:
            moment = datetime.combine(moment, _clock(parts["clock"], parts["half"]))
    except ValueError:
        raise _no_date(text, row) from None
    return _zoned(moment, parts["zone"] or "", is_day)


def _month(name: str) -> int:
    """Return the number of a month's English name; 0 for another word."""
    position = _MONTHS.find(name[:3].lower())
    return position // 4 + 1 if position % 4 == 0 else 0


def _clock(text: str, half: str | None) -> time:
    if ":" not in text:
        text = f"{text[:2]}:{text[2:4]}:{text[4:]}"
    if text.find(":") == 1:
        text = f"0{text}"
    clock = time.fromisoformat(text[:15])
    if half:
        clock = clock.replace(hour=clock.hour % 12 + (12 if half.lower() == "pm" else 0))
    return clock


def _zoned(moment: datetime, zone: str, is_day: bool) -> datetime:
    """Return `moment` with its zone: Z, an offset, UTC; a name such as America/New_York is dropped.

    With `is_day` a midnight keeps its own day, whatever its offset.
    """
    found = re.fullmatch(r"([A-Za-z_/]*)\s?(?:([+-])(\d\d):?(\d\d))?", zone)
    name, sign, hours, minutes = found.groups() if found else ("", None, "0", "0")
    if sign is None:
        return moment.replace(tzinfo=UTC) if name.upper() in ("Z", "UTC", "GMT") else moment
    if is_day and moment.time() == time.min:
        return moment.replace(tzinfo=UTC)
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    return (moment + (offset if sign == "-" else -offset)).replace(tzinfo=UTC)


def _no_date(text: str, row: str) -> InvalidBarsError:
    return InvalidBarsError(f"date {text!r} {row} is not a date; write it as 2012-06-29")


def _time_of_day(text: str, row: str) -> InvalidBarsError:
    return InvalidBarsError(
        f"date {text!r} {row} has a time of day; write the day alone, or call the column "
        "'closed_at' if it says, with a zone, when a bar closed"
    )
