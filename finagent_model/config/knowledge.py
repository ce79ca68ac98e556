"""What a chat model may remember: how far its training data reaches, declared or as its maker says.

A model that has read about the days of a backtest may know how they went on. Nothing here measures
that: a cut-off is a statement of the maker or of the desk's author. The table of public models is
data, in `knowledge_cutoffs.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

import yaml
from pydantic import Field

from finagent_model._base import FrozenModel

FILE = "knowledge_cutoffs.yaml"
UNKNOWN: Final = "unknown"
Cutoff = date | Literal["unknown"]
"""Last day that a model has read about, or that nobody says which it is."""
DEFAULT_MARGIN_DAYS = 90
"""Calendar days after the cut-off that count as read: stated months are rounded, and later updates
and tuning carry later facts.
"""
MAX_MARGIN_DAYS = 3650
MAX_MODEL_CHARS = 80
MAX_REASON_CHARS = 200
MS_PER_DAY = 86_400_000
EPOCH = date(1970, 1, 1).toordinal()


class Knowledge(FrozenModel):
    """What one reader of the past, such as a chat model, may remember."""

    author: str
    """Name of the model, or of the analyst or decider that uses one."""
    cutoff: Cutoff
    margin_days: int = Field(DEFAULT_MARGIN_DAYS, ge=0, le=MAX_MARGIN_DAYS)
    """Calendar days after the cut-off that count as read, too."""
    override: str | None = None
    """Why the cut-off is earlier than the maker's, as the desk's author says; None: it is not."""

    @property
    def first_unread_ordinal(self) -> int | None:
        """Ordinal of the first day that it can't have read about; None: there is no such day."""
        if isinstance(self.cutoff, str):
            return None
        return self.cutoff.toordinal() + self.margin_days + 1

    @property
    def first_unread_ms(self) -> int | None:
        """Start of that day, UTC, in milliseconds since 1970."""
        first = self.first_unread_ordinal
        return None if first is None else (first - EPOCH) * MS_PER_DAY


def select_latest(known: Iterable[Knowledge | None]) -> Knowledge | None:
    """Return what reaches furthest; None where nobody has read anything.

    An unknown cut-off reaches further than any day.
    """
    readers = [each for each in known if each is not None]
    unknown = [each for each in readers if each.cutoff == UNKNOWN]
    if unknown:
        return unknown[0]
    return max(readers, key=lambda each: each.first_unread_ordinal or 0, default=None)


def parse_cutoff(value: object) -> Cutoff | None:
    """Return a cut-off from YAML, JSON or Python; None stays None. Raises ValueError."""
    if value is None or value == UNKNOWN:
        return None if value is None else UNKNOWN
    # A datetime is a date, too: an hour would be dropped without a word.
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        # Ten characters: "20250331" and week dates are days to Python, and slips to a reader.
        if isinstance(value, str) and len(value) == len("2025-03-31"):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise ValueError("must be a day such as 2025-03-31, or unknown")


def stated_cutoff(model: str) -> Cutoff:
    """Return the cut-off that the table has for a model's name; `unknown` for one without a row."""
    # Routers put the maker before the model's name: openai/gpt-4o.
    name = model.lower().rpartition("/")[2]
    return next(
        (row["cutoff"] for row in _rows() if any(fnmatchcase(name, n) for n in row["names"])),
        UNKNOWN,
    )


def find_earlier_declaration(model: str, declared: Cutoff | None) -> str | None:
    """Return what is wrong with a cut-off that is earlier than the table's for the model's name.

    None: it is not, or the table has no row. Days in between would be graded though they may be
    remembered.
    """
    stated = stated_cutoff(model)
    if not (isinstance(declared, date) and isinstance(stated, date) and declared < stated):
        return None
    return (
        f"{declared} is earlier than {stated}, which the maker of {model:.{MAX_MODEL_CHARS}} "
        "states: days in between would be graded though they may be remembered; declare that day "
        "or a later one, or say in knowledge_cutoff_reason why yours is right"
    )


def read_declared(source: object, author: str, absent: Cutoff | None) -> Knowledge | None:
    """Return what an object declares in its attributes `knowledge_cutoff` and `cutoff_margin_days`.

    None: it says that it has read nothing. `absent` is the cut-off of one that says nothing. Raises
    TypeError for an attribute that is no cut-off, or no number of days.
    """
    kind = type(source).__name__
    value = getattr(source, "knowledge_cutoff", absent)
    try:
        cutoff = parse_cutoff(value)
    except ValueError as error:
        raise TypeError(f"{kind}.knowledge_cutoff is {value!r:.80}; it {error}") from None
    margin = getattr(source, "cutoff_margin_days", DEFAULT_MARGIN_DAYS)
    is_days = isinstance(margin, int) and not isinstance(margin, bool)
    if not is_days or not 0 <= margin <= MAX_MARGIN_DAYS:
        raise TypeError(
            f"{kind}.cutoff_margin_days is {margin!r:.80}; give a number of days from 0 to "
            f"{MAX_MARGIN_DAYS}"
        )
    if cutoff is None:
        return None
    return Knowledge(author=author, cutoff=cutoff, margin_days=margin)


@cache
def _rows() -> tuple[Mapping[str, Any], ...]:
    table: dict[str, Any] = yaml.safe_load((files(__package__) / FILE).read_text())
    return tuple(table["models"])
