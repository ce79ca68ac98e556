"""What confidence was worth: the reliability diagram of a training, from its calls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Self

import numpy as np

from finagent_model.evaluation.calibrate import ConfidenceRecord, build_confidence_record, calibrate
from finagent_model.market.bars import Floats
from finagent_model.pipeline.backtest import CALLS
from finagent_model.pipeline.run_metadata import TrainingState, schema_errors_as_tracking_error
from finagent_model.policy.trained_state import load_outcomes
from finagent_model.statistics.reliability import reliability_bins, wilson_interval
from finagent_model.statistics.resampling import Interval
from finagent_model.tracking.queries import RunRecord
from finagent_model.tracking.runs import RunLog
from finagent_model.webui._run_records import FinishedBacktests

PLOT_LEFT, PLOT_TOP, PLOT_SIDE = 44.0, 10.0, 240.0
"""Square of the reliability diagram, in units of its SVG."""


@dataclass(frozen=True)
class ReliabilityPoint:
    """A tenth of the scale of confidence, and where it is drawn."""

    stated: float
    """Mean stated confidence, a fraction."""
    observed: float
    """Share of the calls that made money, a fraction."""
    weight: float
    """Number of independent calls."""

    @property
    def x(self) -> float:
        """Centre, from the left."""
        return round(PLOT_LEFT + PLOT_SIDE * self.stated, 1)

    @property
    def y(self) -> float:
        """Centre, from the top."""
        return round(PLOT_TOP + PLOT_SIDE * (1 - self.observed), 1)

    @property
    def radius(self) -> float:
        """Radius; the area grows with the weight."""
        return round(2 + math.sqrt(self.weight) / 2, 1)


@dataclass(frozen=True)
class CalibrationPeriod:
    """The calls of the days that one fit decided on: what was predicted, and what came true."""

    since: str
    until: str
    """First and last day with a call, as YYYY-MM-DD."""
    calls: int
    independent: float
    """How many independent outcomes the calls are worth."""
    stated: float
    """Mean calibrated confidence, a fraction."""
    observed: float
    """Share of the calls that made money, a fraction."""
    interval: Interval
    """In which the true share lies, by the independent outcomes."""

    @property
    def is_off(self) -> bool:
        """Whether what was predicted lies outside of the interval."""
        return not self.interval.low <= self.stated <= self.interval.high


def calibration_periods(
    record: ConfidenceRecord, starts: Sequence[datetime]
) -> tuple[CalibrationPeriod, ...]:
    """Return predicted and realised shares by the fit that was in force, oldest first; a fit
    without a call is left out.
    """
    ordinals = np.array([start.toordinal() for start in starts])
    fit = np.searchsorted(ordinals, record.day, side="right")
    periods = []
    for number in np.unique(fit):
        rows = fit == number
        weight, days = record.weight[rows], record.day[rows]
        observed = float(np.average(record.outcome[rows], weights=weight))
        periods.append(
            CalibrationPeriod(
                since=date.fromordinal(int(days.min())).isoformat(),
                until=date.fromordinal(int(days.max())).isoformat(),
                calls=int(rows.sum()),
                independent=float(weight.sum()),
                stated=float(np.average(record.calibrated[rows], weights=weight)),
                observed=observed,
                interval=wilson_interval(observed, float(weight.sum())),
            )
        )
    return tuple(periods)


@dataclass(frozen=True)
class Reliability:
    """Reliability diagram of a version; without points if too few outcomes were known."""

    raw: tuple[ReliabilityPoint, ...]
    """Before calibration."""
    calibrated: tuple[ReliabilityPoint, ...]
    calls: int
    """Calls with a calibrated confidence and a known outcome."""
    reason: str
    """What the calibration in force was fitted on, or why there is none."""
    periods: tuple[CalibrationPeriod, ...]
    incomplete: str | None
    """Which symbols are missing, in words; None: none."""

    @classmethod
    def from_run(cls, run: RunRecord) -> Self:
        """Read the diagram of the version that the training `run` made. Raises TrackingError."""
        # Calibrated anew from the outcomes, as training did: the run has no file of the diagram.
        policies = TrainingState.read(RunLog(run.run_id)).policies
        backtests = FinishedBacktests.from_run(run)
        texts = [
            RunLog(backtest.run_id).read_artifact(CALLS).decode() for backtest in backtests.runs
        ]
        with schema_errors_as_tracking_error(run.run_id):
            calls = [call for text in texts for call in load_outcomes(text)]
            book = calibrate(calls, policies.start_times)
            record = build_confidence_record(calls, book)
        return cls(
            raw=_reliability_points(record.raw, record),
            calibrated=_reliability_points(record.calibrated, record),
            calls=len(record.calibrated),
            reason=book.fits[-1].reason,
            periods=calibration_periods(record, policies.start_times),
            incomplete=backtests.incomplete,
        )


def _reliability_points(
    confidence: Floats, record: ConfidenceRecord
) -> tuple[ReliabilityPoint, ...]:
    bins = reliability_bins(confidence, record.outcome, record.weight)
    return tuple(ReliabilityPoint(b.probability, b.outcome, b.weight) for b in bins)


PERIODS_WIDTH = 400.0
PERIODS_LEFT, PERIODS_TOP, PERIODS_FOOT = 44.0, 10.0, 160.0
"""Width of the chart of the periods, and the edges of its plot, in units of its SVG."""


@dataclass(frozen=True)
class DrawnPeriod:
    """A period and where it is drawn."""

    period: CalibrationPeriod
    x: float
    stated_y: float
    observed_y: float
    low_y: float
    high_y: float
    radius: float


def draw_periods(periods: Sequence[CalibrationPeriod]) -> list[DrawnPeriod]:
    """Return where each period is drawn: evenly spaced, shares from 0 at the foot to 1."""

    def y(share: float) -> float:
        return round(PERIODS_FOOT - share * (PERIODS_FOOT - PERIODS_TOP), 1)

    step = (PERIODS_WIDTH - PERIODS_LEFT) / max(len(periods), 1)
    return [
        DrawnPeriod(
            period=each,
            x=round(PERIODS_LEFT + (i + 0.5) * step, 1),
            stated_y=y(each.stated),
            observed_y=y(each.observed),
            low_y=y(each.interval.low),
            high_y=y(each.interval.high),
            radius=round(2 + math.sqrt(each.independent) / 2, 1),
        )
        for i, each in enumerate(periods)
    ]


def svg_points(points: Sequence[ReliabilityPoint]) -> str:
    """Return the value of SVG's attribute `points`."""
    return " ".join(f"{point.x},{point.y}" for point in points)
