"""A call to act whose outcome is known: what confidence is calibrated on and lessons are made of.

A call is judged on its own, whatever the account held: filled at the next open, left at its stop,
at its target or after `HORIZON` bars (the triple barrier of Lopez de Prado, Advances in Financial
Machine Learning, 2018, chapter 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

HORIZON = 20
"""Bars until a call must have come true: a month, as the agents are told."""


class ClosedCall(BaseModel):
    """What was said at `as_of`, and what had come of it at `closed_at`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    symbol: str
    as_of: datetime
    closed_at: datetime
    """Close of the bar that ended it; nobody knew the outcome before."""
    action: Literal["BUY", "SELL"]
    confidence: float = Field(ge=0, le=100)
    """As the desk gave it, before calibration."""
    earned: float
    """Return after costs, as a fraction of what was put in."""
    ended: Literal["stop", "target", "time"]
    bars_held: int = Field(ge=1)
    weight: float = Field(gt=0, le=1)
    """Its share of the bars that it spans, which calls of other days span as well (average
    uniqueness, chapter 4): overlapping calls are not independent.
    """
    key_factors: tuple[str, ...] = ()

    @property
    def came_true(self) -> bool:
        return self.earned > 0


def dump_calls(calls: Sequence[ClosedCall]) -> str:
    """One line of JSON a call."""
    return "".join(call.model_dump_json() + "\n" for call in calls)


def load_calls(text: str) -> tuple[ClosedCall, ...]:
    """What `dump_calls` wrote; raises pydantic's ValidationError for anything else."""
    return tuple(ClosedCall.model_validate_json(line) for line in text.splitlines())
