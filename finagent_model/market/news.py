"""Text that anybody may have written, as it may be shown to a model: one plain line of bounded
length, in which nothing is hidden from a human reader.

Compatible forms become one (NFKC). Control characters, zero-width and bidirectional controls, tag
characters, variation selectors, blank fillers and lone surrogates are removed; whitespace becomes
single spaces. Cleaning twice changes nothing. It does not judge what the text says.

Records that somebody published: read with the moment at which anybody could have known them.

A record without `published_at` is dropped and counted, since nobody can say when it was knowable;
one that has a moment but can't be read is refused by name.

Dated news and events: kept as they were published, shown to agents in an envelope that says that
nobody vouches for them.

Published facts about a company, such as revenue or earnings a share, each with the moment at
which it became known. What was published later, a restatement too, is a fact of its own.

An agent reads of no year: a period is told relative to the day that is asked about, and a name or
unit that holds a year is refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from finagent_model.errors import BadInputError, InvalidNewsError

_HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn"}
_HIDDEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
"""What Unicode calls default ignorable without calling it a control."""


def sanitize_text(text: str, limit: int) -> str:
    """At most `limit` characters of `text`; may be empty."""
    seen = unicodedata.normalize("NFKC", _visible(text))
    return " ".join(_visible(seen).split())[:limit].rstrip()


def _visible(text: str) -> str:
    spaced = re.sub(r"\s", " ", text)
    kept = (c for c in spaced if unicodedata.category(c) not in _HIDDEN_CATEGORIES)
    return _HIDDEN.sub("", "".join(kept))


class PublishedRecord(BaseModel):
    """Anything with a publication time; fields that nobody asked for are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    published_at: datetime
    """UTC; the first moment at which anybody could have read it."""

    @field_validator("published_at", mode="before")
    @classmethod
    def _no_number(cls, value: object) -> object:
        """20120629 would pass for a second of 1970, and be known too early."""
        if isinstance(value, int | float) or (isinstance(value, str) and "-" not in value[1:]):
            raise ValueError(f"{value!r} is no ISO time; write one like 2012-06-29T14:00:00+00:00")
        return value

    @field_validator("published_at")
    @classmethod
    def _aware(cls, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise ValueError("published_at has no time zone; add one (+00:00)")
        try:
            return value.astimezone(UTC)
        except OverflowError:
            raise ValueError(f"published_at {value} is outside the calendar in UTC") from None

    def days_before(self, as_of: datetime) -> int:
        """Its age in calendar days: what an agent is told instead of a date."""
        return (as_of.date() - self.published_at.date()).days


P = TypeVar("P", bound=PublishedRecord)


def read_published(
    records: Sequence[Mapping[str, Any]], kind: type[P], what: str, error: type[BadInputError]
) -> tuple[tuple[P, ...], int]:
    """Records oldest first, and how many were dropped for want of `published_at`.

    Raises `error`, calling the offending record `what` and its number.
    """
    found, undated = [], 0
    for i, record in enumerate(records):
        if not record.get("published_at"):
            undated += 1
            continue
        try:
            found.append(kind.model_validate(record))
        except ValidationError as wrong:
            first = wrong.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            message = first["msg"].removeprefix("Value error, ")
            raise error(f"{what} {i}: {where}: {message}") from None
    return tuple(sorted(found, key=lambda item: item.published_at)), undated


HEADLINE_LIMIT = 300
BODY_LIMIT = 1000
SOURCE_LIMIT = 100


class NewsItem(PublishedRecord):
    """One item as it was published. Text is data for the model, never an instruction to it."""

    headline: str = Field(min_length=1)
    body: str = ""
    source: str = ""
    url: str = ""

    @field_validator("headline")
    @classmethod
    def _cut_headline(cls, value: str) -> str:
        return value[:HEADLINE_LIMIT]

    @field_validator("body")
    @classmethod
    def _cut_body(cls, value: str) -> str:
        return value[:BODY_LIMIT]

    def envelope(self, as_of: datetime, body_limit: int = BODY_LIMIT) -> dict[str, Any]:
        """What an agent reads of it: an age for the date, plain text, tagged as untrusted. The
        address is left out.
        """
        body, source = (
            sanitize_text(self.body, body_limit),
            sanitize_text(self.source, SOURCE_LIMIT),
        )
        return {
            "days_ago": self.days_before(as_of),
            "untrusted": True,
            "headline": sanitize_text(self.headline, HEADLINE_LIMIT),
            **({"body": body} if body else {}),
            **({"source": source} if source else {}),
        }


def read_news(records: list[dict[str, Any]]) -> tuple[tuple[NewsItem, ...], int]:
    """Items oldest first, and how many were dropped for want of `published_at`.

    Raises InvalidNewsError for a record that has a time but can't be read.
    """
    return read_published(records, NewsItem, "news item", InvalidNewsError)


TEXT_LIMIT = 60
_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
_PERIOD = re.compile(
    r"(?P<fiscal>FY)?(?P<year>(?:19|20)[0-9]{2})"
    r"(?:(?P<part>Q[1-4]|H[12])|-(?P<month>0[1-9]|1[0-2]))?"
)
_NEAR = {-1: "last year", 0: "this year", 1: "next year"}


class Fact(PublishedRecord):
    """One number as it was published."""

    name: str = Field(min_length=1, max_length=TEXT_LIMIT)
    """Such as `revenue`; the same word for the same thing."""
    value: float = Field(strict=True)
    unit: str = Field("", max_length=TEXT_LIMIT)
    """Such as `USD million` or `USD per share`."""
    period: str = Field("", max_length=TEXT_LIMIT)
    """What it is about: a year (2012, FY2012), a part of one (2012Q2, FY2012H1, 2012-06), or words
    without digits (`quarter`, `trailing year`).
    """

    @field_validator("name", "unit")
    @classmethod
    def _timeless(cls, value: str) -> str:
        cleaned = sanitize_text(value, TEXT_LIMIT)
        if _YEAR.search(cleaned):
            raise ValueError(f"{value!r} holds a year; put it into period")
        return cleaned

    @field_validator("name")
    @classmethod
    def _named(cls, value: str) -> str:
        if not value:
            raise ValueError("holds nothing that can be read")
        return value

    @field_validator("period")
    @classmethod
    def _known_period(cls, value: str) -> str:
        cleaned = sanitize_text(value, TEXT_LIMIT)
        if re.search(r"\d", cleaned) and not _PERIOD.fullmatch(cleaned):
            raise ValueError(
                f"{value!r} is not a period; write 2012, FY2012, 2012Q2, 2012H1, 2012-06 or words "
                "without digits"
            )
        return cleaned

    def period_from(self, as_of: datetime) -> str:
        """What it is about, seen from `as_of`: `Q2 last year` for 2012Q2 seen from 2013."""
        parts = _PERIOD.fullmatch(self.period)
        if parts is None:
            return self.period
        away = int(parts["year"]) - as_of.year
        year = _NEAR.get(away) or (f"{-away} years ago" if away < 0 else f"in {away} years")
        part = parts["part"] or (f"month {int(parts['month'])}" if parts["month"] else "")
        return " ".join(filter(None, (part, year, "(fiscal)" if parts["fiscal"] else "")))


def newest(facts: tuple[Fact, ...], limit: int) -> tuple[Fact, ...]:
    """Of each name and period the last published, oldest first; at most the `limit` most recent."""
    latest = {(fact.name, fact.period): fact for fact in _by_age(facts)}
    return _by_age(tuple(latest.values()))[-limit:]


def _by_age(facts: tuple[Fact, ...]) -> tuple[Fact, ...]:
    return tuple(sorted(facts, key=lambda fact: fact.published_at))
