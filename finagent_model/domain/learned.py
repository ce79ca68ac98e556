"""All that a training learned, and what of it was known when: policies, calibrated confidence,
lessons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from finagent_model.domain.calibration import CalibrationBook
from finagent_model.domain.closed_call import ClosedCall
from finagent_model.domain.policy import PolicyBook, PolicyFit


@dataclass(frozen=True)
class Known:
    """What may be used for one decision."""

    fit: PolicyFit
    lessons: tuple[ClosedCall, ...]
    """Of the decision's symbol, oldest first; each closed before the fit may speak."""


@dataclass(frozen=True)
class Learned:
    """A question about the past is answered with what was known then."""

    policies: PolicyBook
    calibrations: CalibrationBook | None = None
    """None: while a training still makes the decisions that it will be fitted on."""
    lessons: Sequence[ClosedCall] = ()
    """By the moment at which they closed."""

    def at(self, symbol: str, as_of: datetime) -> Known:
        """Raises BeforeFirstFitError."""
        fit = self.policies.at(as_of, symbol)
        closed = tuple(
            lesson
            for lesson in self.lessons
            if lesson.symbol == symbol and lesson.closed_at < fit.valid_from
        )
        return Known(fit, closed)
