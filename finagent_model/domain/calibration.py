"""From what a desk says of its confidence to how often that came true; which fit of it may speak
when.

A calibrated confidence is the estimated probability, in percent, that a call makes money after
costs until its stop, its target or `HORIZON` bars. HOLD has no outcome and stays as it was said.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from finagent_model.domain.signal import TradingSignal, confidence_label
from finagent_model.errors import BeforeFirstFitError

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
