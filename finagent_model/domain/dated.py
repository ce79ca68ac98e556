"""Records that somebody published: read with the moment at which anybody could have known them.

A record without `published_at` is dropped and counted, since nobody can say when it was knowable;
one that has a moment but can't be read is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from finagent_model.errors import BadInputError


class Published(BaseModel):
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


P = TypeVar("P", bound=Published)


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
