"""Dated news and events: kept as they were published, shown to agents in an envelope that says that
nobody vouches for them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field, field_validator

from finagent_model.domain.dated import Published, read_published
from finagent_model.domain.untrusted import plain
from finagent_model.errors import InvalidNewsError

HEADLINE_LIMIT = 300
BODY_LIMIT = 1000
SOURCE_LIMIT = 100


class NewsItem(Published):
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
        body, source = plain(self.body, body_limit), plain(self.source, SOURCE_LIMIT)
        return {
            "days_ago": self.days_before(as_of),
            "untrusted": True,
            "headline": plain(self.headline, HEADLINE_LIMIT),
            **({"body": body} if body else {}),
            **({"source": source} if source else {}),
        }


def read_news(records: list[dict[str, Any]]) -> tuple[tuple[NewsItem, ...], int]:
    """Items oldest first, and how many were dropped for want of `published_at`.

    Raises InvalidNewsError for a record that has a time but can't be read.
    """
    return read_published(records, NewsItem, "news item", InvalidNewsError)
