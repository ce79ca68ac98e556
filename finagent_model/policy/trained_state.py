"""What a training learned besides policies: trade outcomes, calibrated confidence, lessons.

A trade is judged on its own, whatever the account held: filled at the next open, closed at its
stop, at its target or after `HORIZON` bars (the triple barrier of Lopez de Prado, Advances in
Financial Machine Learning, 2018, chapter 3). A calibrated confidence is the estimated probability,
in percent, that such a trade makes money after costs. HOLD has no outcome and is never calibrated.

`TrainedState.at` returns only what was known at the moment it is asked about: no look-ahead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from finagent_model._documents import split_json_lines
from finagent_model.decision.signal import TradingSignal, confidence_label
from finagent_model.errors import BeforeFirstFitError
from finagent_model.policy.policy import PolicyBook, PolicyFit

HORIZON = 20
"""Bars after which a trade is closed: a month, as the agents are told."""
MIN_PROBABILITY = 0.01
"""Confidence is clipped to this and to its complement, so that its odds are finite."""


class TradeOutcome(BaseModel):
    """A trade that the desk proposed at `as_of`, and its result, known at `closed_at`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    symbol: str
    as_of: datetime
    closed_at: datetime
    """Close of the bar that ended it; nobody knew the outcome before."""
    action: Literal["BUY", "SELL"]
    confidence: float = Field(ge=0, le=100)
    """Of the desk, before calibration."""
    earned: float
    """Return after costs, as a fraction of the invested amount."""
    ended: Literal["stop", "target", "time"]
    bars_held: int = Field(ge=1)
    weight: float = Field(gt=0, le=1)
    """Average uniqueness (Lopez de Prado, chapter 4): its share of the bars that it spans, which
    trades of other days span as well. Overlapping trades are not independent.
    """
    key_factors: tuple[str, ...] = ()

    @property
    def was_profitable(self) -> bool:
        """Return whether the trade made money after costs."""
        return self.earned > 0


def dump_outcomes(outcomes: Sequence[TradeOutcome]) -> str:
    """Return JSON lines, one line an outcome."""
    return "".join(outcome.model_dump_json() + "\n" for outcome in outcomes)


def load_outcomes(text: str) -> tuple[TradeOutcome, ...]:
    """Parse what `dump_outcomes` wrote. Raises pydantic's ValidationError for anything else."""
    # JSON keeps every float to the bit, so that a package that is read back hashes alike.
    return tuple(TradeOutcome.model_validate_json(line) for line in split_json_lines(text))


Learned = Literal["platt", "isotonic"]
"""Methods that learn from the desk's confidence: Platt scaling and isotonic regression."""
NO_INFORMATION = "confidence carries no information beyond the base rate"
"""What a signal and the pages say where the base rate is served."""


class Calibration(BaseModel):
    """One fit of confidence to outcomes that had closed before `valid_from`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: Literal["none", "base_rate", "platt", "isotonic"]
    """What is served; `base_rate` says the same of each call, whatever the desk's confidence."""
    valid_from: datetime
    calls: int = Field(ge=0)
    """Outcomes that were known."""
    effective: float = Field(ge=0)
    """How many independent outcomes they are worth."""
    reason: str
    """What it was fitted on, or why there is none."""
    base_rate: float | None = Field(None, gt=0, lt=1)
    """Share of the calls that made money, by Laplace's rule; None with the method `none`, and in
    packages of before it was kept.
    """
    # The methods that were not chosen are kept: the next fit compares them on later calls.
    candidate: Learned | None = None
    """The learned method that did better so far, served or not; None without any."""
    slope: float | None = Field(None, ge=0)
    intercept: float | None = None
    knots: tuple[tuple[float, float], ...] = ()
    """Isotonic: raw confidence and probability, both in 0..1 and neither ever falling."""

    @model_validator(mode="after")
    def _check_parameters(self) -> Self:
        if self.method == "base_rate" and self.base_rate is None:
            raise ValueError("base_rate needs a base rate")
        for method in {self.method, self.candidate}:
            if method == "platt" and (self.slope is None or self.intercept is None):
                raise ValueError("platt needs slope and intercept")
            if method == "isotonic" and not self.knots:
                raise ValueError("isotonic needs knots")
        # A falling curve would give a surer trade the lower probability.
        if self.knots and (np.diff(np.array(self.knots), axis=0) < 0).any():
            raise ValueError("isotonic knots must never fall")
        return self

    def probability(self, raw: float) -> float:
        """Return the probability, in 0..1, that a trade of raw confidence 0..100 makes money.

        Raises ValueError for the method `none`.
        """
        if self.method == "base_rate" and self.base_rate is not None:
            return self.base_rate
        if self.method in ("platt", "isotonic"):
            return self.learned(self.method, raw)
        raise ValueError(f"confidence is not calibrated: {self.reason}")

    def learned(self, method: Learned, raw: float) -> float:
        """Return the probability, in 0..1, by a learned method, whether it is served or not.

        Raises ValueError where the method was not fitted.
        """
        if method == "platt" and self.slope is not None and self.intercept is not None:
            return 1 / (1 + math.exp(-(self.slope * log_odds(raw) + self.intercept)))
        if method == "isotonic" and self.knots:
            confidences, probabilities = zip(*self.knots, strict=True)
            # Outside the knots np.interp keeps the value of the nearest one.
            return float(np.interp(raw / 100, confidences, probabilities))
        raise ValueError(f"{method} was not fitted: {self.reason}")


class CalibrationBook(BaseModel):
    """All calibrations of one training, oldest first: one for each start time of a policy fit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fits: tuple[Calibration, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_dates(self) -> Self:
        starts = [fit.valid_from for fit in self.fits]
        if starts != sorted(set(starts)):
            raise ValueError("calibrations must have increasing valid_from")
        return self

    def at(self, as_of: datetime) -> Calibration:
        """Return the newest fit that was valid at `as_of`. Raises BeforeFirstFitError."""
        valid_fits = [fit for fit in self.fits if fit.valid_from <= as_of]
        if not valid_fits:
            raise BeforeFirstFitError(as_of, self.fits[0].valid_from)
        return valid_fits[-1]


def log_odds(raw: float) -> float:
    """Return the natural log of the odds of a confidence in 0..100."""
    share = min(max(raw / 100, MIN_PROBABILITY), 1 - MIN_PROBABILITY)
    return math.log(share / (1 - share))


def calibrate_signal(signal: TradingSignal, book: CalibrationBook) -> TradingSignal:
    """Return `signal` with its confidence calibrated by what was known at its `as_of`.

    Where there is no calibration, the signal gets a warning that says why; where the base rate is
    served, one that says so. A HOLD is returned unchanged. Raises BeforeFirstFitError.
    """
    # A HOLD has no outcome, so nothing says how often such a confidence comes true.
    if signal.action == "HOLD":
        return signal
    calibration = book.at(signal.as_of)
    if calibration.method == "none":
        return signal.with_warnings(f"confidence not calibrated: {calibration.reason}")
    score = round(100 * calibration.probability(signal.raw_confidence_score), 2)
    if calibration.method == "base_rate":
        signal = signal.with_warnings(NO_INFORMATION)
    return signal.model_copy(
        update={
            "confidence_score": score,
            "confidence": confidence_label(score),
            "calibrated": True,
        }
    )


@dataclass(frozen=True)
class StateAt:
    """The trained state that one decision may use."""

    fit: PolicyFit
    lessons: tuple[TradeOutcome, ...]
    """Outcomes of the decision's symbol, oldest first, all closed before the fit was valid."""


@dataclass(frozen=True)
class TrainedState:
    """Everything that one training learned, with the dates from which it was known."""

    policies: PolicyBook
    calibrations: CalibrationBook | None = None
    """None while a training still makes the decisions that calibration will be fitted on."""
    lessons: Sequence[TradeOutcome] = ()
    """Ordered by `closed_at`."""

    def at(self, symbol: str, as_of: datetime) -> StateAt:
        """Return the fit and the lessons that were known for `symbol` at `as_of`.

        Raises BeforeFirstFitError and UnknownSymbolError.
        """
        fit = self.policies.at(as_of, symbol)
        # Lessons change with the fit, not daily: a version answers alike until its next fit.
        lessons = tuple(
            lesson
            for lesson in self.lessons
            if lesson.symbol == symbol and lesson.closed_at < fit.valid_from
        )
        return StateAt(fit, lessons)
