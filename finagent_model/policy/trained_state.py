"""A call to act whose outcome is known: what confidence is calibrated on and lessons are made of.

A call is judged on its own, whatever the account held: filled at the next open, left at its stop,
at its target or after `HORIZON` bars (the triple barrier of Lopez de Prado, Advances in Financial
Machine Learning, 2018, chapter 3).

From what a desk says of its confidence to how often that came true; which fit of it may speak
when.

A calibrated confidence is the estimated probability, in percent, that a call makes money after
costs until its stop, its target or `HORIZON` bars. HOLD has no outcome and stays as it was said.

All that a training learned, and what of it was known when: policies, calibrated confidence,
lessons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from finagent_model.decision.signal import TradingSignal, confidence_label
from finagent_model.errors import BeforeFirstFitError
from finagent_model.policy.policy import PolicyBook, PolicyFit

HORIZON = 20
"""Bars until a call must have come true: a month, as the agents are told."""


class TradeOutcome(BaseModel):
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


def dump_outcomes(calls: Sequence[TradeOutcome]) -> str:
    """One line of JSON a call."""
    return "".join(call.model_dump_json() + "\n" for call in calls)


def load_outcomes(text: str) -> tuple[TradeOutcome, ...]:
    """What `dump_calls` wrote; raises pydantic's ValidationError for anything else."""
    return tuple(TradeOutcome.model_validate_json(line) for line in text.splitlines())


EDGE = 0.01
"""Confidence is taken as at least this and at most its complement, so that its odds are finite."""


class Calibration(BaseModel):
    """One fit, on the outcomes that had closed before `valid_from`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: Literal["none", "platt", "isotonic"]
    valid_from: datetime
    calls: int = Field(ge=0)
    """Outcomes that were known."""
    effective: float = Field(ge=0)
    """How many independent ones they are worth."""
    reason: str
    """What it was fitted on, or why there is none."""
    slope: float | None = Field(None, ge=0)
    intercept: float | None = None
    knots: tuple[tuple[float, float], ...] = ()
    """Isotonic: raw confidence and probability, both in 0..1 and neither ever falling."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.method == "platt" and (self.slope is None or self.intercept is None):
            raise ValueError("platt needs slope and intercept")
        if self.method == "isotonic":
            if not self.knots:
                raise ValueError("isotonic needs knots")
            steps = np.diff(np.array(self.knots), axis=0)
            if (steps < 0).any():
                raise ValueError("isotonic knots must never fall")
        return self

    def probability(self, raw: float) -> float:
        """That a call said with confidence `raw` (0..100) comes true; raises ValueError where there
        is no calibration.
        """
        if self.method == "platt" and self.slope is not None and self.intercept is not None:
            return 1 / (1 + math.exp(-(self.slope * log_odds(raw) + self.intercept)))
        if self.method == "isotonic":
            said, true = zip(*self.knots, strict=True)
            return float(np.interp(raw / 100, said, true))
        raise ValueError(f"confidence is not calibrated: {self.reason}")


class CalibrationBook(BaseModel):
    """All calibrations of one training, oldest first, one for each moment from which another fit of
    the policy speaks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fits: tuple[Calibration, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _oldest_first(self) -> Self:
        starts = [fit.valid_from for fit in self.fits]
        if starts != sorted(set(starts)):
            raise ValueError("calibrations must have increasing valid_from")
        return self

    def at(self, as_of: datetime) -> Calibration:
        """The newest that may speak at `as_of`; raises BeforeFirstFitError."""
        usable = [fit for fit in self.fits if fit.valid_from <= as_of]
        if not usable:
            raise BeforeFirstFitError(as_of, self.fits[0].valid_from)
        return usable[-1]


def log_odds(raw: float) -> float:
    """Of a confidence in 0..100."""
    share = min(max(raw / 100, EDGE), 1 - EDGE)
    return math.log(share / (1 - share))


def calibrated(signal: TradingSignal, book: CalibrationBook) -> TradingSignal:
    """`signal` with its confidence calibrated by what was known at its `as_of`, or with a warning
    that says why it is not; without an action it stays as it is.
    """
    if signal.action == "HOLD":
        return signal
    known = book.at(signal.as_of)
    if known.method == "none":
        said = f"confidence not calibrated: {known.reason}"
        return signal.model_copy(update={"warnings": (*signal.warnings, said)})
    score = round(100 * known.probability(signal.raw_confidence_score), 2)
    return signal.model_copy(
        update={
            "confidence_score": score,
            "confidence": confidence_label(score),
            "calibrated": True,
        }
    )


@dataclass(frozen=True)
class StateAt:
    """What may be used for one decision."""

    fit: PolicyFit
    lessons: tuple[TradeOutcome, ...]
    """Of the decision's symbol, oldest first; each closed before the fit may speak."""


@dataclass(frozen=True)
class TrainedState:
    """A question about the past is answered with what was known then."""

    policies: PolicyBook
    calibrations: CalibrationBook | None = None
    """None: while a training still makes the decisions that it will be fitted on."""
    lessons: Sequence[TradeOutcome] = ()
    """By the moment at which they closed."""

    def at(self, symbol: str, as_of: datetime) -> StateAt:
        """Raises BeforeFirstFitError."""
        fit = self.policies.at(as_of, symbol)
        closed = tuple(
            lesson
            for lesson in self.lessons
            if lesson.symbol == symbol and lesson.closed_at < fit.valid_from
        )
        return StateAt(fit, closed)
