"""What calibrated confidence said of calls whose outcome is known: each by the calibration that was
in force when it was made, which had not seen it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finagent_model.domain.bars import Floats
from finagent_model.domain.calibration import CalibrationBook
from finagent_model.domain.closed_call import ClosedCall
from finagent_model.statistics.reliability import (
    brier_score,
    calibration_p_value,
    expected_calibration_error,
)
from finagent_model.training.calibrate import FEWEST


@dataclass(frozen=True, eq=False)
class Stated:
    """One entry a call, as fractions of one."""

    raw: Floats
    """Confidence as the desk gave it."""
    said: Floats
    """Calibrated."""
    true: Floats
    """1 where the call made money after costs."""
    weight: Floats

    def numbers(self) -> dict[str, float]:
        """Of the calibrated calls; nan where there is none. Below `FEWEST` independent ones nothing
        speaks against any confidence, so that `p_calibration` is nan too.
        """
        effective = float(self.weight.sum())
        enough = effective >= FEWEST
        base = float(np.average(self.true, weights=self.weight)) if effective else math.nan
        return {
            "calibrated_calls": float(len(self.said)),
            "calibrated_calls_effective": effective,
            "came_true": base,
            "brier": brier_score(self.said, self.true, self.weight),
            "brier_uncalibrated": brier_score(self.raw, self.true, self.weight),
            "brier_base_rate": base * (1 - base),
            "calibration_error": expected_calibration_error(self.said, self.true, self.weight),
            "calibration_error_uncalibrated": expected_calibration_error(
                self.raw, self.true, self.weight
            ),
            "p_calibration": calibration_p_value(self.said, self.true, self.weight)
            if enough
            else math.nan,
        }


def stated(calls: Sequence[ClosedCall], book: CalibrationBook) -> Stated:
    """Of the calls that were made with a calibrated confidence."""
    fits = [(call, book.at(call.as_of)) for call in calls]
    chosen = [(call, fit) for call, fit in fits if fit.method != "none"]
    return Stated(
        raw=np.array([call.confidence / 100 for call, _ in chosen]),
        said=np.array([fit.probability(call.confidence) for call, fit in chosen]),
        true=np.array([float(call.came_true) for call, _ in chosen]),
        weight=np.array([call.weight for call, _ in chosen]),
    )
