"""Fields of news and facts as vendors call and write them, brought to ours.

Names are a table: reading another vendor is a word in it. A date without a time counts from the end
of that day, in UTC: earlier nobody can say that it was known. A text that was changed after its
publication counts from the change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator

from finagent_model._base import InputModel, show_value
from finagent_model.data._numbers import NA_WORDS
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
# Seconds and milliseconds since 1970, from 1990 to 2100: between them lie no other readings.
_SECONDS, _MILLISECONDS = (631_152_000, 4_102_444_800), (631_152_000_000, 4_102_444_800_000)


class RecordHints(InputModel):
    """What files of news or facts can't tell by themselves, from `records.yaml` beside them."""

    zone: str | None = None
    """Of times that have none, such as `America/New_York`."""
    columns: dict[str, str] = Field(default_factory=dict)
    """The file's name of a field of ours, such as `{headline: Schlagzeile}`."""

    @field_validator("zone")
    @classmethod
    def _check_zone(cls, value: str | None) -> str | None:
        try:
            return None if value is None else ZoneInfo(value).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is no time zone; write one such as America/New_York") from None

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, value: dict[str, str]) -> dict[str, str]:
        known = [SYMBOL, *NEWS_NAMES, *FACT_NAMES]
        for name in value:
            if name not in known:
                raise ValueError(
                    f"{name!r} is no field; there is: {', '.join(dict.fromkeys(known))}"
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
            values = (by_name[name] for name in names if name in by_name)
            value = next((v for v in values if not is_empty(v)), None)
            if isinstance(value, Mapping) and field == "source":
                value = value.get("name")  # {"id": ..., "name": ...}, as NewsAPI writes it
            if value is not None:
                fields[field] = value
        published = self._moment(fields.pop(PUBLISHED, None), PUBLISHED)
        changed = self._moment(fields.pop(CHANGED, None), CHANGED)
        if published is not None:
            # What is read here is the changed text.
            fields[PUBLISHED] = max(published, changed) if changed else published
        return fields

    def symbols(self, row: Mapping[str, Any], owner: str | None) -> tuple[str, ...]:
        """Return what symbols a row is about; `owner`, whose file it is, where it names none.

        Raises BadInputError for what is no symbol, and for a row that isn't about `owner`.
        """
        by_name = {spell(name): value for name, value in row.items()}
        found: list[Any] = []
        for name in self._symbols:
            value = by_name.get(name)
            if name != "symbol" and isinstance(value, str) and "," in value:
                value = value.split(",")
            if isinstance(value, list | tuple):
                found = [_clean_symbol(each) for each in value]
            elif not _is_blank(value):
                found = [value]
            else:
                continue
            break
        else:
            for name in _SYMBOL_OBJECTS:
                items = by_name.get(name)
                if isinstance(items, list):
                    found = [
                        _clean_symbol(item.get("ticker") or item.get("symbol"))
                        for item in items
                        if isinstance(item, Mapping)
                    ]
        found = [each for each in found if not _is_blank(each)]
        if len(found) > MAX_SYMBOLS:
            raise BadInputError(f"names {len(found)} symbols; at most {MAX_SYMBOLS}")
        if owner is None:
            return tuple(dict.fromkeys(map(parse_symbol, found or [None])))
        if found and owner not in found:
            raise BadInputError(f"symbol {show_value(found[0])} in the file of {owner}")
        return (parse_symbol(owner),)

    def _moment(self, value: Any, field: str) -> datetime | None:
        try:
            return None if is_empty(value) else read_moment(value, self._zone)
        except BadInputError as error:
            raise BadInputError(f"{field}: {error}") from None


def spell(name: object) -> str:
    """Return a vendor's name of a field in our spelling: `Published At` is `published_at`."""
    return str(name).strip().strip("\ufeff").lower().replace(" ", "_")


def is_empty(value: Any) -> bool:
    """Tell whether a cell or field stands for nothing."""
    if isinstance(value, str):
        return not value.strip() or value.strip() in NA_WORDS
    # Parquet has nan and NaT for what is missing.
    return value is None or (not isinstance(value, list | tuple | Mapping) and value != value)


def _is_blank(symbol: Any) -> bool:
    # A ticker may be called NA, so the words for "nothing" don't count.
    return symbol is None or (isinstance(symbol, str) and not symbol) or symbol != symbol


def read_moment(value: Any, zone: str | None) -> datetime:
    """Return when something was published, tz-aware in UTC; the end of the day for a date alone.

    `zone` is that of times without one. Raises BadInputError naming the value.
    """
    try:
        moment = _parse_moment(value)
        if isinstance(moment, datetime) and moment.tzinfo is None:
            # Midnight without a zone is how tables write a date.
            if moment.time() == time.min:
                moment = moment.date()
            elif zone is None:
                raise BadInputError(
                    f"{show_value(value)} has no time zone; add one (+00:00), or write "
                    "`zone: America/New_York` or another into records.yaml beside the file"
                )
            else:
                # Of an hour that clocks repeat, the later one.
                moment = moment.replace(tzinfo=ZoneInfo(zone), fold=1)
        if not isinstance(moment, datetime):
            moment = datetime.combine(moment, _END_OF_DAY, tzinfo=ZoneInfo(zone) if zone else UTC)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadInputError(
            f"{show_value(value)} is no time; write one such as 2012-06-29T14:00:00+00:00, or a "
            "date such as 2012-06-29"
        ) from None


def _parse_moment(value: Any) -> date:
    """Return a date, or a moment with or without a zone. Raises ValueError."""
    if isinstance(value, date):
        return value
    text = str(value).strip().removesuffix(".0")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(text)
    if text.isdigit():
        return _from_digits(int(text), text)
    try:
        return date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(text)
    except ValueError:
        if ":" not in text or not text[-1:].isalnum():
            raise
    # RFC 822, as feeds write it; TypeError is what it raises for some that are none.
    try:
        return parsedate_to_datetime(text)
    except TypeError as error:
        raise ValueError(text) from error


def _from_digits(number: int, text: str) -> date:
    if len(text) == 8:
        return date.fromisoformat(text)
    for (first, last), scale in ((_SECONDS, 1), (_MILLISECONDS, 1000)):
        if first <= number < last:
            return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=number / scale)
    if len(text) == 14:  # 20120629160000
        return datetime.strptime(text, "%Y%m%d%H%M%S")  # noqa: DTZ007  the zone is asked for
    raise ValueError(text)


def _clean_symbol(value: Any) -> Any:
    """Return a symbol of a vendor's list in capitals, without the exchange before it."""
    if not isinstance(value, str):
        return value
    return value.strip().upper().rpartition(":")[2]


def iterate_lists(document: Any) -> Iterator[list[Any]]:
    """Yield the lists that hold a document's items: itself, or those one level below."""
    if isinstance(document, list):
        yield document
    elif isinstance(document, Mapping):
        yield from (v for v in document.values() if isinstance(v, list))
