"""Fields of news and facts as vendors call and write them, brought to ours.

Names are a table: reading another vendor is a word in it. A date without a time counts from the
moment at which that day has ended everywhere on Earth: earlier nobody can say that it was known. A
text that was changed after its publication counts from the change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator

from finagent_model._base import InputModel, show_value
from finagent_model.data._numbers import NA_WORDS, Decimal
from finagent_model.errors import BadInputError
from finagent_model.market.bars import parse_symbol
from finagent_model.market.news import Fact, PublishedRecord

PUBLISHED, CHANGED = "published_at", "changed_at"
SYMBOL = "symbol"
MAX_SYMBOLS = 50
"""Symbols that one item may be about; more say nothing about any."""
NEWS_NAMES = {
    PUBLISHED: "published_at publishedat published_utc published publisheddate date_published "
    "time_published pubdate publication_date published_date created_at datetime timestamp date "
    "time",
    CHANGED: "updated_at updatedat updated modified date_modified",
    "headline": "headline title",
    "body": "body summary description content content_text snippet text teaser",
    "source": "source publisher site source_name provider",
    "url": "url link article_url",
}
"""Names of each field of a news item in our spelling; the first that has a value is read."""
# Never `date`, `report_date` or `period_end`: there they are the end of the period, weeks before
# anybody could know the number.
FACT_NAMES = {
    PUBLISHED: "published_at publishedat accepted_at accepteddate acceptancedatetime filed_at "
    "filed filing_date filingdate fillingdate publication_date published_date announced_at",
    CHANGED: "",
    "name": "name concept metric",
    "value": "value val",
    "unit": "unit uom",
    "period": "period fiscal_period",
}
"""The same of a fact."""
_SYMBOL_ORDER = ("symbol", "ticker", "symbols", "tickers", "related", "stock")
_SYMBOL_OBJECTS = ("ticker_sentiment", "entities")
"""Lists of objects, each with a symbol or ticker of its own."""
_END_OF_DAY = time.max
_LAST_ZONE = timezone(timedelta(hours=-12))
"""Where a day ends last."""
_EPOCHS = tuple(
    (631_152_000 * scale, 4_102_444_800 * scale, scale) for scale in (1, 10**3, 10**6, 10**9)
)
"""First, last and scale of s, ms, us and ns since 1970, from 1990 to 2100; none overlap."""
_ZONES: dict[str, tzinfo] = {
    **dict.fromkeys(("Z", "UT", "UTC", "GMT"), UTC),
    **{
        f"{letter}{kind}T": timezone(timedelta(hours=hours + (kind == "D")))
        for letter, hours in (("E", -5), ("C", -6), ("M", -7), ("P", -8))
        for kind in "SD"
    },
    "ET": ZoneInfo("America/New_York"),
    "PT": ZoneInfo("America/Los_Angeles"),
}
"""Words for a zone that mean one: those of RFC 822, and two of the United States."""
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})[a-z]*\.?"
_TIME = (
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d{1,6})\d*)?)?)?"
    r"(?:\s*(?P<half>[ap])\.?m\.?(?![a-z]))?"
    r"(?:\s*(?:(?P<offset>[+-]\d\d:?\d\d)(?:\s*\([a-z ]+\))?|(?P<zone>[a-z]+)))?"
)
_WORDED = re.compile(
    r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+)?"
    rf"(?:(?P<day>\d{{1,2}})[\s-]+{_MONTH}[\s-]+(?P<year>\d{{4}}|\d\d)"
    rf"|{_MONTH.replace('month', 'month2')}\s+(?P<day2>\d{{1,2}}),?\s+(?P<year2>\d{{4}})"
    r"|(?P<iso>\d{4}-\d\d-\d\d))"
    rf"(?:,?\s+(?:at\s+)?{_TIME})?",
    re.IGNORECASE | re.ASCII,
)
"""Dates and times with words, as feeds and pages write them; read only where nothing is left."""


class RecordHints(InputModel):
    """What files of news or facts can't tell by themselves, from `records.yaml` beside them."""

    zone: str | None = None
    """Of times that have none, such as `America/New_York`."""
    decimal: Decimal | None = None
    """The decimal mark of numbers in text, where they leave it open."""
    columns: dict[str, str] = Field(default_factory=dict)
    """The file's name of a field of ours, such as `{headline: Schlagzeile}`."""

    @field_validator("zone")
    @classmethod
    def _check_zone(cls, value: str | None) -> str | None:
        try:
            return None if value is None else ZoneInfo(value).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is not a time zone; write one such as America/New_York") from None

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, value: dict[str, str]) -> dict[str, str]:
        known = [SYMBOL, *NEWS_NAMES, *FACT_NAMES]
        for name in value:
            if name not in known:
                raise ValueError(
                    f"{name!r} is not a field; there is: {', '.join(dict.fromkeys(known))}"
                )
        return value


NO_RECORD_HINTS = RecordHints()


class FieldReader:
    """Turns rows as a file has them into rows with our names and values."""

    def __init__(self, kind: type[PublishedRecord], hints: RecordHints = NO_RECORD_HINTS) -> None:
        """Read rows of `kind`."""
        table = FACT_NAMES if issubclass(kind, Fact) else NEWS_NAMES
        self._names = {field: tuple(names.split()) for field, names in table.items()}
        self._symbols: tuple[str, ...] = _SYMBOL_ORDER
        for field, name in hints.columns.items():
            if field == SYMBOL:
                self._symbols = (spell(name),)
            elif field in self._names:
                self._names[field] = (spell(name),)
        self._zone = hints.zone
        self._dates: frozenset[str] = frozenset()

    @property
    def dates(self) -> frozenset[str]:
        """The names, as `spell` writes them, of columns that hold dates."""
        return frozenset((*self._names[PUBLISHED], *self._names[CHANGED]))

    def learn(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Find out whether a field is a date in all rows of a file, each written as a midnight."""
        self._dates = frozenset(
            field
            for field in (PUBLISHED, CHANGED)
            if all(_is_midnight(each, self._zone) for each in self.values(rows, field))
        )

    def values(self, rows: Iterable[Mapping[str, Any]], field: str) -> Iterator[Any]:
        """Yield what rows have as `field`, without those that have none."""
        names = self._names.get(field, ())
        for row in rows if names else ():
            by_name = {spell(name): value for name, value in row.items()}
            value = _first_value(by_name, names)
            yield from value if isinstance(value, tuple) else () if is_empty(value) else (value,)

    def missing(self, columns: Sequence[str]) -> str | None:
        """Return the field, when something was published aside, that no column of a table has."""
        names = {spell(column) for column in columns}
        required = [PUBLISHED, *(f for f in self._names if f in ("headline", "name", "value"))]
        return next((f for f in required if not names & set(self._names[f])), None)

    def names_symbol(self, columns: Sequence[str]) -> bool:
        """Tell whether a table has a column of symbols."""
        return bool({spell(column) for column in columns} & {*self._symbols, *_SYMBOL_OBJECTS})

    def expected(self, field: str) -> str:
        """Return the names that a field may have, for a message."""
        return ", ".join(self._names[field])

    def read(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a row under our names. Raises BadInputError naming a value."""
        by_name = {spell(name): value for name, value in row.items()}
        fields: dict[str, Any] = {}
        for field, names in self._names.items():
            value = _first_value(by_name, names)
            if isinstance(value, Mapping) and field == "source":
                value = value.get("name")  # {"id": ..., "name": ...}, as NewsAPI writes it
            if value is not None:
                fields[field] = value
        published = self._moment(fields.pop(PUBLISHED, None), PUBLISHED)
        changed = self._moment(fields.pop(CHANGED, None), CHANGED)
        # What is read here is the changed text.
        if known := [moment for moment in (published, changed) if moment is not None]:
            fields[PUBLISHED] = max(known)
        return fields

    def symbols(self, row: Mapping[str, Any], owner: str | None) -> tuple[str, ...]:
        """Return what symbols a row is about; `owner`, whose file it is, where it names none.

        Raises BadInputError for what is no symbol, and for a row that isn't about `owner`.
        """
        by_name = {spell(name): value for name, value in row.items()}
        names = (name for name in (*self._symbols, *_SYMBOL_OBJECTS) if name in by_name)
        lists = (_split_symbols(by_name[name]) for name in names)
        found = next((symbols for symbols in lists if symbols), [])
        if len(found) > MAX_SYMBOLS:
            raise BadInputError(f"names {len(found)} symbols; at most {MAX_SYMBOLS}")
        if owner is None:
            return tuple(dict.fromkeys(map(parse_symbol, found or [None])))
        if found and clean_symbol(owner) not in found:
            raise BadInputError(f"symbol {show_value(found[0])} in the file of {owner}")
        return (parse_symbol(owner),)

    def _moment(self, value: Any, field: str) -> datetime | None:
        try:
            if is_empty(value):
                return None
            return read_moment(value, self._zone, midnight_is_date=field in self._dates)
        except BadInputError as error:
            raise BadInputError(f"{field}: {error}") from None


@lru_cache(maxsize=1024)
def spell(name: object) -> str:
    """Return a vendor's name of a field in our spelling: `Published At` is `published_at`."""
    return str(name).strip().strip("\ufeff").lower().replace(" ", "_")


def _first_value(by_name: Mapping[str, Any], names: Sequence[str]) -> Any:
    values = (by_name[name] for name in names if name in by_name)
    return next((v for v in values if not is_empty(v)), None)


def is_empty(value: Any) -> bool:
    """Tell whether a cell or field stands for nothing."""
    if isinstance(value, str):
        return not value.strip() or value.strip() in NA_WORDS
    # Parquet has nan and NaT for what is missing.
    return value is None or (not isinstance(value, list | tuple | Mapping) and value != value)


def _is_blank(symbol: Any) -> bool:
    # A ticker may be called NA, so the words for "nothing" don't count.
    return symbol is None or (isinstance(symbol, str) and not symbol) or symbol != symbol


def read_moment(value: Any, zone: str | None, *, midnight_is_date: bool = False) -> datetime:
    """Return when something was published, tz-aware in UTC; the end of the day for a date alone.

    `zone` is that of times and dates without one; without it a date ends where it does last. Of a
    tuple the latest counts. Raises BadInputError naming the value.
    """
    if isinstance(value, tuple):
        moments = [read_moment(v, zone, midnight_is_date=midnight_is_date) for v in value]
        return max(moments)
    try:
        moment = _parse_moment(value)
        if isinstance(moment, datetime) and moment.tzinfo is None and moment.time() != time.min:
            if zone is None:
                raise BadInputError(
                    f"{show_value(value)} has no time zone; add one (+00:00), or write "
                    "`zone: America/New_York` or another into records.yaml beside the file"
                )
            # Of an hour that clocks repeat, the later one.
            moment = moment.replace(tzinfo=ZoneInfo(zone), fold=1)
        # Midnight without a zone is how tables write a date.
        day = _midnight_day(moment, zone if midnight_is_date else None)
        if day is not None and (midnight_is_date or _is_plain(moment)):
            moment = datetime.combine(
                day, _END_OF_DAY, tzinfo=ZoneInfo(zone) if zone else _LAST_ZONE
            )
        return _as_datetime(moment).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadInputError(
            f"{show_value(value)} is not a time; write one such as 2012-06-29T14:00:00+00:00, or a "
            "date such as 2012-06-29"
        ) from None


def is_zoned_midnight(value: Any) -> bool:
    """Tell whether a value is a midnight with its zone, which is how exports write a date too."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return False
    return isinstance(moment, datetime) and moment.tzinfo is not None and moment.time() == time.min


def is_moment(value: Any) -> bool:
    """Tell whether a cell is a date or a time."""
    try:
        return not is_empty(value) and read_moment(value, UTC.tzname(None)) is not None
    except BadInputError:
        return False


def _is_midnight(value: Any, zone: str | None) -> bool:
    """Tell whether a value is a date or midnight; also for what can't be read."""
    try:
        return _midnight_day(_parse_moment(value), zone) is not None
    except (BadInputError, ValueError, OverflowError):
        return True


def _midnight_day(moment: date, zone: str | None) -> date | None:
    """Return the day of a date or of midnight, in its own zone or in `zone`; None for a time."""
    if not isinstance(moment, datetime):
        return moment
    if moment.time() == time.min:
        return moment.date()
    local = moment.astimezone(ZoneInfo(zone)) if zone and moment.tzinfo else moment
    return local.date() if local.time() == time.min else None


def _is_plain(moment: date) -> bool:
    return not isinstance(moment, datetime) or moment.tzinfo is None


def _as_datetime(moment: date) -> datetime:
    if not isinstance(moment, datetime):
        raise ValueError(moment)
    return moment


def _parse_moment(value: Any) -> date:
    """Return a date, or a moment with or without a zone. Raises ValueError, BadInputError."""
    if isinstance(value, date):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(value)
    text = str(value).strip()
    if isinstance(value, float) or re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        return _from_digits(text.removesuffix(".0"), value)
    try:
        return date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(text)
    except ValueError:
        pass
    return _from_words(text)


def _from_digits(text: str, value: float | str) -> date:
    if len(text) == 8 and text.isdigit():
        return date.fromisoformat(text)
    number = float(value) if isinstance(value, float) or "." in text else int(text)
    for first, last, scale in _EPOCHS:
        if first <= number < last:
            # Up, so that nothing counts before its moment.
            micros = -(-number * 10**6 // scale)
            return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(micros))
    if len(text) == 14:  # 20120629160000
        return datetime.strptime(text, "%Y%m%d%H%M%S")  # noqa: DTZ007  the zone is asked for
    raise ValueError(text)


def _from_words(text: str) -> date:
    """Return what a text such as `Fri, 29 Jun 2012 04:00 PM EDT` says, all of it."""
    found = _WORDED.fullmatch(text)
    if found is None:
        raise ValueError(text)
    part = {name: value for name, value in found.groupdict().items() if value is not None}
    if "iso" in part:
        day = date.fromisoformat(part["iso"])
    else:
        year = int(part.get("year") or part["year2"])
        if year < 100:  # as RFC 822 has it
            year += 2000 if year < 69 else 1900
        month = _MONTHS.index((part.get("month") or part["month2"]).lower()) + 1
        day = date(year, month, int(part.get("day") or part["day2"]))
    if "hour" not in part:
        return day
    hour = int(part["hour"])
    if half := part.get("half", "").lower():
        if not 1 <= hour <= 12:
            raise ValueError(text)
        hour = hour % 12 + (12 if half == "p" else 0)
    elif "minute" not in part:
        raise ValueError(text)
    micros = int(part.get("fraction", "0").ljust(6, "0"))
    clock = time(hour, int(part.get("minute", "0")), int(part.get("second", "0")), micros)
    return datetime.combine(day, clock, tzinfo=_find_zone(part, text))


def _find_zone(part: Mapping[str, str], text: str) -> tzinfo | None:
    """Return the zone of a time in words; None where it has none, or says that it doesn't know."""
    if offset := part.get("offset"):
        if offset.replace(":", "") == "-0000":
            return None
        return datetime.strptime(offset, "%z").tzinfo
    if "zone" not in part:
        return None
    if (zone := _ZONES.get(part["zone"].upper())) is None:
        raise BadInputError(
            f"{show_value(text)} has the zone {part['zone']!r}, which may mean several or none; "
            "write it as an offset such as +02:00"
        )
    return zone


def clean_symbol(value: str) -> str:
    """Return a symbol in capitals, without what vendors write around it.

    That is the exchange before it (`NASDAQ:GOOG`), a cashtag's `$`, and Bloomberg's market behind.
    """
    text = _BLOOMBERG.sub("", value.strip().upper())
    return text.rpartition(":")[2].removeprefix("$")


_BLOOMBERG = re.compile(r"\s+[A-Z]{2}\s+EQUITY$", re.ASCII)
_LISTED = re.compile(r"[,;|]")


def _split_symbols(value: Any) -> list[Any]:
    """Return the symbols of a field that holds one or several, all by one rule."""
    if isinstance(value, Mapping):
        value = value.get("ticker") or value.get("symbol")
    if isinstance(value, list | tuple):
        return [symbol for each in value for symbol in _split_symbols(each)]
    if not isinstance(value, str):
        return [] if _is_blank(value) else [value]
    symbols = (clean_symbol(part) for part in _LISTED.split(value))
    return [symbol for symbol in symbols if symbol]
