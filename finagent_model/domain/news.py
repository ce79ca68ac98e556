"""Dated news and events. An item without a publication time is dropped: nobody can say when it was
knowable.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from finagent_model.errors import InvalidNewsError

HEADLINE_LIMIT = 300
BODY_LIMIT = 2000


class NewsItem(BaseModel):
    """One item as it was published. Text is data for the model, never an instruction to it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    published_at: datetime
    """UTC; the first moment at which anybody could have read it."""
    headline: str = Field(min_length=1)
    body: str = ""
    source: str = ""
    url: str = ""

    @field_validator("published_at")
    @classmethod
    def _aware(cls, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise ValueError("published_at has no time zone; add one (+00:00)")
        return value.astimezone(UTC)

    @field_validator("headline")
    @classmethod
    def _cut_headline(cls, value: str) -> str:
        return value[:HEADLINE_LIMIT]

    @field_validator("body")
    @classmethod
    def _cut_body(cls, value: str) -> str:
        return value[:BODY_LIMIT]


def read_news(records: list[dict[str, Any]]) -> tuple[tuple[NewsItem, ...], int]:
    """Items oldest first, and how many were dropped for want of `published_at`.

    Raises InvalidNewsError for a record that has a time but can't be read.
    """
    items, undated = [], 0
    for i, record in enumerate(records):
        if not record.get("published_at"):
            undated += 1
            continue
        try:
            items.append(NewsItem.model_validate(record))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InvalidNewsError(f"news item {i}: {where}: {first['msg']}") from None
    return tuple(sorted(items, key=lambda item: item.published_at)), undated
