"""Published facts about a company, such as revenue or earnings a share, each with the moment at
which it became known. What was published later, a restatement too, is a fact of its own.

An agent reads of no year: a period is told relative to the day that is asked about, and a name or
unit that holds a year is refused.
"""

from __future__ import annotations

import re
from datetime import datetime

from pydantic import Field, field_validator

from finagent_model.domain.dated import Published
from finagent_model.domain.untrusted import plain

TEXT_LIMIT = 60
_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
_PERIOD = re.compile(
    r"(?P<fiscal>FY)?(?P<year>(?:19|20)[0-9]{2})"
    r"(?:(?P<part>Q[1-4]|H[12])|-(?P<month>0[1-9]|1[0-2]))?"
)
_NEAR = {-1: "last year", 0: "this year", 1: "next year"}


class Fact(Published):
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
        cleaned = plain(value, TEXT_LIMIT)
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
        cleaned = plain(value, TEXT_LIMIT)
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
