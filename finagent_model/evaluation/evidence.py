"""Grade the evidence of an edge after costs: numbers, checks with thresholds, and one grade.

The grade is `none` unless the out-of-sample Sharpe ratio is probably above zero and the returns
beat cash; `strong` only if every check passes; `weak` between. An undefined number fails its check,
but for a cost margin without costs, which is infinite. docs/evidence.md defines each number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from finagent_model.config.rules import GateRules, Grade
from finagent_model.evaluation.calibrate import MIN_OUTCOMES, ConfidenceRecord
from finagent_model.market.bars import TRADING_DAYS_PER_YEAR, Floats
from finagent_model.statistics.resampling import (
    monte_carlo_p_value,
    sharpe_interval,
    superior_predictive_ability,
)
from finagent_model.statistics.sharpe import Moments
from finagent_model.training.search import Trials

GRADES: tuple[Grade, ...] = ("none", "weak", "strong")
"""Worst first."""
REQUIRED_FOR_WEAK = ("sharpe_above_zero", "better_than_cash")


class EvidenceCheck(BaseModel):
    """One number against its threshold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    passed: bool
    number: float | None
    """None: undefined."""
    threshold: float
    at_least: bool
    """False: the number must be at most the threshold."""
    why: str | None = None
    """Why the number is undefined; None where it is not."""

    @property
    def number_text(self) -> str:
        """Return the number with four digits, or why it is undefined."""
        return f"undefined: {self.why}" if self.number is None else f"{self.number:.4g}"


class Evidence(BaseModel):
    """The grade, and the checks and numbers behind it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    grade: Grade
    checks: tuple[EvidenceCheck, ...]
    numbers: dict[str, float | None]
    """None: undefined, since JSON has no nan."""

    def meets(self, required: Grade) -> bool:
        """Return whether the grade is `required` or better."""
        return GRADES.index(self.grade) >= GRADES.index(required)


class SymbolFacts(BaseModel):
    """One symbol's out-of-sample part, as far as the grade needs it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: str
    closed_at: tuple[int, ...]
    """Milliseconds since 1970 of each bar but the first."""
    returns: tuple[float, ...]
    benchmark_returns: tuple[float, ...]
    total_return: float
    random_returns: tuple[float, ...] | None
    """None: there was no trade."""
    cost_curve: tuple[float, ...]
    """Total return at each commission of `statistics.resampling.COST_CURVE_BP`."""
    break_even_commission: float | None
    """Fraction of a fill at which nothing is earned; None: undefined."""
    commission: float
    slippage: float
    lagged_sharpe: float | None
    """Sharpe ratio when each decision waits a bar; None: undefined."""


def grade_evidence(
    facts: Sequence[SymbolFacts],
    trials: Trials,
    rules: GateRules,
    confidence: ConfidenceRecord,
    *,
    seed: int,
) -> Evidence:
    """Return the evidence of an equal-weighted portfolio of the symbols' out-of-sample parts."""
    _, returns, benchmark = pool_returns(facts)
    moments, benchmark_moments = Moments.from_returns(returns), Moments.from_returns(benchmark)
    interval = sharpe_interval(returns, seed=seed, confidence=rules.confidence)
    variance = trials.sharpe_variance
    if variance is not None:
        # Policies without merit differ by sampling error alone, which is 1/n where they are
        # independent: merit of some must not raise the bar for the one that is judged.
        variance = min(variance, 1 / len(returns))
    # The request's costs, and so the same for every symbol.
    assumed_cost = facts[0].commission + facts[0].slippage
    break_even = _mean_if_defined([f.break_even_commission for f in facts])
    numbers = {
        "observations": float(len(returns)),
        "sharpe": moments.sharpe * math.sqrt(TRADING_DAYS_PER_YEAR),
        "sharpe_low": interval.low,
        "sharpe_high": interval.high,
        "benchmark_sharpe": benchmark_moments.sharpe * math.sqrt(TRADING_DAYS_PER_YEAR),
        "probabilistic_sharpe": moments.probabilistic_sharpe(),
        "deflated_sharpe": math.nan
        if variance is None
        else moments.deflated_sharpe(trials.configurations, variance),
        "configurations": float(trials.configurations),
        "scorings": float(trials.scorings),
        "minimum_track_record": moments.minimum_track_record(confidence=rules.confidence),
        "overfitting": math.nan if trials.overfitting is None else trials.overfitting,
        # Each p-value has one null hypothesis: no better than cash, holding, or random entries.
        "p_cash": superior_predictive_ability(returns[:, None], seed=seed),
        "p_buy_and_hold": superior_predictive_ability((returns - benchmark)[:, None], seed=seed),
        "p_random_entry": _random_entry_p_value(facts),
        "break_even_commission": break_even,
        "cost_margin": (break_even + facts[0].slippage) / assumed_cost
        if assumed_cost > 0
        else math.inf,
        "lagged_sharpe": _mean_if_defined([f.lagged_sharpe for f in facts]),
        **confidence.measure(),
    }
    confidence_level, significance = rules.confidence, 1 - rules.confidence
    checks = tuple(
        EvidenceCheck(
            name=name,
            # Every comparison with nan is False: an undefined number fails.
            passed=bool(numbers[number] >= bound if at_least else numbers[number] <= bound),
            number=_finite_or_none(numbers[number]),
            threshold=bound,
            at_least=at_least,
            why=None if math.isfinite(numbers[number]) else _undefined_reason(number, numbers),
        )
        for name, number, bound, at_least in (
            ("sharpe_above_zero", "probabilistic_sharpe", confidence_level, True),
            ("better_than_cash", "p_cash", significance, False),
            ("better_than_buy_and_hold", "p_buy_and_hold", significance, False),
            ("better_than_random_entry", "p_random_entry", significance, False),
            ("above_the_best_of_chance", "deflated_sharpe", rules.min_deflated, True),
            ("costs_may_double", "cost_margin", rules.cost_margin, True),
            # A calibration is refuted by a small p-value: here a large one is good.
            ("confidence_means_what_it_says", "p_calibration", significance, True),
        )
    )
    passed = {check.name for check in checks if check.passed}
    grade: Grade = "none"
    if passed.issuperset(REQUIRED_FOR_WEAK):
        grade = "strong" if len(passed) == len(checks) else "weak"
    finite = {name: _finite_or_none(value) for name, value in numbers.items()}
    return Evidence(grade=grade, checks=checks, numbers=finite)


_NO_VARIANCE = "the returns don't vary, or are too few"
_UNDEFINED_REASONS = {
    "probabilistic_sharpe": _NO_VARIANCE,
    "deflated_sharpe": "the policies that were tried are alike, or the returns don't vary",
    "p_cash": _NO_VARIANCE,
    "p_buy_and_hold": "the returns don't differ from those of holding, or are too few",
    "p_random_entry": "no trade, or none whose times could be others",
    "cost_margin": "a symbol earns nothing even without costs",
    "p_calibration": f"fewer than {MIN_OUTCOMES:.0f} independent calls had a calibrated confidence",
}


def _undefined_reason(number: str, numbers: Mapping[str, float]) -> str:
    """Return why a number of `numbers` is not finite."""
    return "no costs are assumed" if numbers[number] == math.inf else _UNDEFINED_REASONS[number]


def pool_returns(facts: Sequence[SymbolFacts]) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Return the calendar of all symbols, the desk's mean returns on it and the benchmark's.

    The calendar is the union of the symbols' own, in milliseconds since 1970; each mean is over the
    symbols that have a bar then.
    """
    calendar = np.unique(np.concatenate([np.asarray(f.closed_at) for f in facts]))
    # A symbol without a bar on a day is left out of that day's mean: 0 would be a return.
    count, sums = np.zeros(len(calendar)), np.zeros((2, len(calendar)))
    for f in facts:
        positions = np.searchsorted(calendar, f.closed_at)
        count[positions] += 1
        sums[0, positions] += f.returns
        sums[1, positions] += f.benchmark_returns
    desk, benchmark = sums / count
    return calendar, desk, benchmark


def _random_entry_p_value(facts: Sequence[SymbolFacts]) -> float:
    """Return the share of random placements of all trades that earn as much; nan without trades."""
    drawn = [f.random_returns for f in facts if f.random_returns is not None]
    if not drawn:
        return math.nan
    # The n-th draws of all symbols are one draw of the portfolio.
    observed = [f.total_return for f in facts if f.random_returns is not None]
    return monte_carlo_p_value(float(np.mean(observed)), np.mean(np.array(drawn), axis=0))


def _mean_if_defined(values: Sequence[float | None]) -> float:
    """Return the mean; nan unless all values are defined."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if len(defined) == len(values) else math.nan


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
