"""How often a version's calls came true, by what their confidence said: from the record of its
training, and as a drawing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from finagent_model.domain.bars import Floats
from finagent_model.domain.closed_call import load_calls
from finagent_model.pipeline.begun import Begun
from finagent_model.pipeline.outcome import CALLS
from finagent_model.pipeline.recorded import reading
from finagent_model.run_records import RunRecord
from finagent_model.statistics.reliability import reliability_bins
from finagent_model.tracking import RunLog
from finagent_model.training.calibrate import calibrate
from finagent_model.training.stated import Stated, stated
from finagent_model.webui.backtests import Backtests

LEFT, TOP, SIDE = 44.0, 10.0, 240.0
"""The square of the drawing, in its own units."""


@dataclass(frozen=True)
class Point:
    """A tenth of the scale, and where it is drawn."""

    said: float
    true: float
    weight: float

    @property
    def x(self) -> float:
        return round(LEFT + SIDE * self.said, 1)

    @property
    def y(self) -> float:
        return round(TOP + SIDE * (1 - self.true), 1)

    @property
    def radius(self) -> float:
        return round(2 + math.sqrt(self.weight) / 2, 1)


@dataclass(frozen=True)
class Reliability:
    """Before and after calibration; both are empty where too few outcomes were known."""

    raw: tuple[Point, ...]
    said: tuple[Point, ...]
    calls: int
    reason: str
    """What the calibration in force was fitted on, or why there is none."""
    short: str | None
    """Which part of the symbols it is, where it is not all of them."""

    @classmethod
    def of(cls, run: RunRecord) -> Self:
        """Of the version that the training `run` made. Raises TrackingError."""
        policies = Begun.read(RunLog(run.run_id)).policies
        below = Backtests.of(run)
        texts = [RunLog(each.run_id).read(CALLS).decode() for each in below.runs]
        with reading(run.run_id):
            calls = [call for text in texts for call in load_calls(text)]
            book = calibrate(calls, policies.moments)
            known = stated(calls, book)
        return cls(
            raw=_points(known.raw, known),
            said=_points(known.said, known),
            calls=len(known.said),
            reason=book.fits[-1].reason,
            short=below.short,
        )


def _points(said: Floats, known: Stated) -> tuple[Point, ...]:
    bins = reliability_bins(said, known.true, known.weight)
    return tuple(Point(b.said, b.true, b.weight) for b in bins)


def line(points: Sequence[Point]) -> str:
    """As the attribute `points` of SVG has it."""
    return " ".join(f"{point.x},{point.y}" for point in points)
