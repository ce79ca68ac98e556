"""Records that somebody published (news items, company facts) and how agents may read them.

Each record carries the moment at which it became known. A record without `published_at` is dropped
and counted, since nobody can say when it was knowable; one that has a moment but can't be read is
refused by name. What was published later, a restatement too, is a record of its own.

The text of a record is untrusted. `sanitize_text` makes it one plain line of bounded length with
nothing hidden from a human reader; it does not judge what the text says. Agents get ages and
relative periods in place of dates, since a year would let a model remember what came next.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from finagent_model._base import first_error_message, show_value
from finagent_model.errors import BadInputError, InvalidNewsError

HEADLINE_LIMIT = 300
BODY_LIMIT = 1000
SOURCE_LIMIT = 100
TEXT_LIMIT = 60
"""Characters of a fact's name, unit and period."""

_HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn"}
_HIDDEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
"""What Unicode calls default ignorable without calling it a control."""
_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
_PERIOD = re.compile(
    r"(?P<span>(?:year|quarter) to (?=\d{4}-))?(?P<fiscal>FY)?(?P<year>(?:19|20)[0-9]{2})"
    r"(?:(?P<part>Q[1-4]|H[12])|-(?P<month>0[1-9]|1[0-2]))?"
)
_ADJACENT_YEARS = {-1: "last year", 0: "this year", 1: "next year"}


def sanitize_text(text: str, limit: int) -> str:
    """Return at most `limit` characters of `text` as one plain line; may be empty.

    Compatible forms become one (NFKC). Control characters, zero-width and bidirectional controls,
    tag characters, variation selectors, blank fillers and lone surrogates are removed; whitespace
    becomes single spaces. Sanitizing twice changes nothing.
    """
    normalized = unicodedata.normalize("NFKC", _remove_hidden(text))
    # Normalization can bring hidden characters back, so they are removed a second time.
    return " ".join(_remove_hidden(normalized).split())[:limit].rstrip()


def _remove_hidden(text: str) -> str:
    spaced = re.sub(r"\s", " ", text)
    visible = (c for c in spaced if unicodedata.category(c) not in _HIDDEN_CATEGORIES)
    return _HIDDEN.sub("", "".join(visible))


class PublishedRecord(BaseModel):
    """A record with its publication time; unknown fields are ignored."""

    # extra="ignore": vendors send more fields than are used here.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    published_at: datetime
    """UTC; the first moment at which anybody could have read it."""

    @field_validator("published_at", mode="before")
    @classmethod
    def _reject_numbers(cls, value: object) -> object:
        # Pydantic reads 20120629 as a second of 1970: the record would be known decades too early.
        if isinstance(value, int | float) or (isinstance(value, str) and "-" not in value[1:]):
            raise ValueError(
                f"{show_value(value)} is not an ISO time; write one like 2012-06-29T14:00:00+00:00"
            )
        return value

    @field_validator("published_at")
    @classmethod
    def _require_zone(cls, value: datetime) -> datetime:
        # Guessing a zone could date the record hours too early: look-ahead.
        if value.tzinfo is None:
            raise ValueError("published_at has no time zone; add one (+00:00)")
        try:
            return value.astimezone(UTC)
        except OverflowError:
            raise ValueError(f"published_at {value} is outside the calendar in UTC") from None

    def days_before(self, as_of: datetime) -> int:
        """Return the record's age at `as_of` in calendar days, which agents read for a date."""
        return (as_of.date() - self.published_at.date()).days


class NewsItem(PublishedRecord):
    """A news item or event as it was published. Its text is data, never an instruction."""

    headline: str = Field(min_length=1)
    body: str = ""
    source: str = ""
    url: str = ""

    @field_validator("headline")
    @classmethod
    def _cut_headline(cls, value: str) -> str:
        # Cut, not refused: one long headline must not cost a symbol all its news.
        return value[:HEADLINE_LIMIT]

    @field_validator("body")
    @classmethod
    def _cut_body(cls, value: str) -> str:
        return value[:BODY_LIMIT]

    def envelope(self, as_of: datetime, body_limit: int = BODY_LIMIT) -> dict[str, Any]:
        """Return what an agent reads of the item, JSON-ready, marked as untrusted.

        It has an age for the date and sanitized text; an empty body or source is left out, and so
        is the address.
        """
        body = sanitize_text(self.body, body_limit)
        source = sanitize_text(self.source, SOURCE_LIMIT)
        # No address: URLs of articles often hold the date.
        return {
            "days_ago": self.days_before(as_of),
            "untrusted": True,
            "headline": sanitize_text(self.headline, HEADLINE_LIMIT),
            **({"body": body} if body else {}),
            **({"source": source} if source else {}),
        }


class Fact(PublishedRecord):
    """A published number about a company, such as its revenue or earnings per share."""

    name: str = Field(min_length=1, max_length=TEXT_LIMIT)
    """Such as `revenue`; the same word for the same thing."""
    value: float = Field(strict=True)
    unit: str = Field("", max_length=TEXT_LIMIT)
    """Such as `USD million` or `USD per share`."""
    period: str = Field("", max_length=TEXT_LIMIT)
    """What it is about: a year (2012, FY2012), a part of one (2012Q2, FY2012H1, 2012-06), what ends
    in a month (`quarter to 2012-06`, `year to 2012-06`), or words without digits (`quarter`,
    `trailing year`).
    """

    @field_validator("name", "unit")
    @classmethod
    def _reject_years(cls, value: str) -> str:
        sanitized = sanitize_text(value, TEXT_LIMIT)
        if _YEAR.search(sanitized):
            raise ValueError(f"{value!r} holds a year; put it into period")
        return sanitized

    @field_validator("name")
    @classmethod
    def _require_name(cls, value: str) -> str:
        if not value:
            raise ValueError("holds nothing that can be read")
        return value

    @field_validator("period")
    @classmethod
    def _check_period(cls, value: str) -> str:
        sanitized = sanitize_text(value, TEXT_LIMIT)
        if re.search(r"\d", sanitized) and not _PERIOD.fullmatch(sanitized):
            raise ValueError(
                f"{value!r} is not a period; write 2012, FY2012, 2012Q2, 2012H1, 2012-06, 'quarter "
                "to 2012-06', 'year to 2012-06' or words without digits"
            )
        return sanitized

    def relative_period(self, as_of: datetime) -> str:
        """Return the period as seen from `as_of`: `Q2 last year` for 2012Q2 seen from 2013, and
        `quarter to month 6 last year` for `quarter to 2012-06`.

        A period in words is returned unchanged.
        """
        parts = _PERIOD.fullmatch(self.period)
        if parts is None:
            return self.period
        offset = int(parts["year"]) - as_of.year
        year = _ADJACENT_YEARS.get(offset) or (
            f"{-offset} years ago" if offset < 0 else f"in {offset} years"
        )
        part = parts["part"] or (f"month {int(parts['month'])}" if parts["month"] else "")
        fiscal = "(fiscal)" if parts["fiscal"] else ""
        return (parts["span"] or "") + " ".join(filter(None, (part, year, fiscal)))


R = TypeVar("R", bound=PublishedRecord)


def read_published(
    records: Sequence[Mapping[str, Any]],
    record_type: type[R],
    label: str,
    error_type: type[BadInputError],
) -> tuple[tuple[R, ...], int]:
    """Return the parsed records oldest first, and how many were dropped without `published_at`.

    Raises `error_type` for a record that can't be read, calling it by `label` and its number.
    """
    parsed, undated = [], 0
    for i, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise error_type(f"{label} {i} is {show_value(record)}, not an object")
        # Dropped and counted, not refused: vendors have such records, and warnings report them.
        if record.get("published_at") in (None, ""):
            undated += 1
            continue
        try:
            parsed.append(record_type.model_validate(record))
        except ValidationError as error:
            raise error_type(f"{label} {i}: {first_error_message(error)}") from None
    return tuple(sorted(parsed, key=lambda item: item.published_at)), undated


def read_news(records: list[dict[str, Any]]) -> tuple[tuple[NewsItem, ...], int]:
    """Return news items oldest first, and how many were dropped without `published_at`.

    Raises InvalidNewsError for a record that has a time but can't be read.
    """
    return read_published(records, NewsItem, "news item", InvalidNewsError)


def select_latest_facts(facts: tuple[Fact, ...], limit: int) -> tuple[Fact, ...]:
    """Return the last published fact of each name and period, oldest first.

    Only the `limit` most recently published are returned.
    """
    # Sorting is stable: of two published at once the later record wins.
    latest = {(fact.name, fact.period): fact for fact in _sort_by_time(facts)}
    return _sort_by_time(tuple(latest.values()))[-limit:]


def _sort_by_time(facts: tuple[Fact, ...]) -> tuple[Fact, ...]:
    return tuple(sorted(facts, key=lambda fact: fact.published_at))
