"""Does it beat chance after costs? Numbers, checks with thresholds, and a grade that says no more.

`none` unless the out-of-sample Sharpe ratio is probably above zero and the returns beat cash;
`strong` only if every check passes; `weak` between. A number that is undefined fails its check.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from finagent_model.config.rules import GateRules, Grade
from finagent_model.evaluation.calibrate import FEWEST, ConfidenceRecord
from finagent_model.market.bars import TRADING_DAYS_PER_YEAR, Floats
from finagent_model.statistics.resampling import (
    monte_carlo_p_value,
    sharpe_interval,
    superior_predictive_ability,
)
from finagent_model.statistics.sharpe import Moments
from finagent_model.training.search import Trials

GRADES: tuple[Grade, ...] = ("none", "weak", "strong")
NEEDED_FOR_WEAK = ("sharpe_above_zero", "better_than_cash")


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
    def shown(self) -> str:
        """The number in words."""
        return f"undefined: {self.why}" if self.number is None else f"{self.number:.4g}"


class Evidence(BaseModel):
    """What was found; docs/evidence.md says what each number is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    grade: Grade
    checks: tuple[EvidenceCheck, ...]
    numbers: dict[str, float | None]

    def enough(self, required: Grade) -> bool:
        """Whether the grade is `required` or better."""
        return GRADES.index(self.grade) >= GRADES.index(required)


class SymbolFacts(BaseModel):
    """What one symbol's unseen part contributes."""

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
    break_even_commission: float | None
    commission: float
    slippage: float
    lagged_sharpe: float | None


def assess(
    facts: Sequence[SymbolFacts],
    trials: Trials,
    rules: GateRules,
    confidence: ConfidenceRecord,
    *,
    seed: int,
) -> Evidence:
    """Grade an equal-weighted portfolio of the symbols' unseen parts."""
    _, returns, benchmark = pooled(facts)
    moments, held = Moments.from_returns(returns), Moments.from_returns(benchmark)
    interval = sharpe_interval(returns, seed=seed, confidence=rules.confidence)
    variance = trials.sharpe_variance
    if variance is not None:
        # Policies without merit differ by sampling error alone, which is 1/n where they are
        # independent: merit of some must not raise the bar for the one that is judged.
        variance = min(variance, 1 / len(returns))
    break_even = [f.break_even_commission for f in facts]
    assumed = facts[0].commission + facts[0].slippage
    spare = _mean(break_even)
    numbers = {
        "observations": float(len(returns)),
        "sharpe": moments.sharpe * math.sqrt(TRADING_DAYS_PER_YEAR),
        "sharpe_low": interval.low,
        "sharpe_high": interval.high,
        "benchmark_sharpe": held.sharpe * math.sqrt(TRADING_DAYS_PER_YEAR),
        "probabilistic_sharpe": moments.probabilistic_sharpe(),
        "deflated_sharpe": math.nan
        if variance is None
        else moments.deflated_sharpe(trials.configurations, variance),
        "configurations": float(trials.configurations),
        "scorings": float(trials.scorings),
        "minimum_track_record": moments.minimum_track_record(confidence=rules.confidence),
        "overfitting": math.nan if trials.overfitting is None else trials.overfitting,
        "p_cash": superior_predictive_ability(returns[:, None], seed=seed),
        "p_buy_and_hold": superior_predictive_ability((returns - benchmark)[:, None], seed=seed),
        "p_random_entry": _chance(facts),
        "break_even_commission": spare,
        "cost_margin": (spare + facts[0].slippage) / assumed if assumed > 0 else math.inf,
        "lagged_sharpe": _mean([f.lagged_sharpe for f in facts]),
        **confidence.numbers(),
    }
    sure, chance = rules.confidence, 1 - rules.confidence
    checks = tuple(
        EvidenceCheck(
            name=name,
            passed=bool(numbers[number] >= bound if at_least else numbers[number] <= bound),
            number=_stored(numbers[number]),
            threshold=bound,
            at_least=at_least,
            why=None if math.isfinite(numbers[number]) else _why(number, numbers),
        )
        for name, number, bound, at_least in (
            ("sharpe_above_zero", "probabilistic_sharpe", sure, True),
            ("better_than_cash", "p_cash", chance, False),
            ("better_than_buy_and_hold", "p_buy_and_hold", chance, False),
            ("better_than_random_entry", "p_random_entry", chance, False),
            ("above_the_best_of_chance", "deflated_sharpe", rules.min_deflated, True),
            ("costs_may_double", "cost_margin", rules.cost_margin, True),
            ("confidence_means_what_it_says", "p_calibration", chance, True),
        )
    )
    passed = {check.name for check in checks if check.passed}
    grade: Grade = "none"
    if passed.issuperset(NEEDED_FOR_WEAK):
        grade = "strong" if len(passed) == len(checks) else "weak"
    stored = {name: _stored(value) for name, value in numbers.items()}
    return Evidence(grade=grade, checks=checks, numbers=stored)


_STILL = "the returns don't vary, or are too few"
_WHY = {
    "probabilistic_sharpe": _STILL,
    "deflated_sharpe": "the policies that were tried are alike, or the returns don't vary",
    "p_cash": _STILL,
    "p_buy_and_hold": "the returns don't differ from those of holding, or are too few",
    "p_random_entry": "no trade, or none whose times could be others",
    "cost_margin": "a symbol earns nothing even without costs",
    "p_calibration": f"fewer than {FEWEST:.0f} independent calls had a calibrated confidence",
}


def _why(number: str, numbers: Mapping[str, float]) -> str:
    """Why a number of `numbers` is not finite."""
    return "no costs are assumed" if numbers[number] == math.inf else _WHY[number]


def pooled(facts: Sequence[SymbolFacts]) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Moments of the union of the calendars, and there the mean return over the symbols that have a
    bar: the desk's and the benchmark's.
    """
    calendar = np.unique(np.concatenate([np.asarray(f.closed_at) for f in facts]))
    count, sums = np.zeros(len(calendar)), np.zeros((2, len(calendar)))
    for f in facts:
        at = np.searchsorted(calendar, f.closed_at)
        count[at] += 1
        sums[0, at] += f.returns
        sums[1, at] += f.benchmark_returns
    desk, benchmark = sums / count
    return calendar, desk, benchmark


def _chance(facts: Sequence[SymbolFacts]) -> float:
    """Share of random placements of all symbols' trades that earn as much, on average."""
    drawn = [f.random_returns for f in facts if f.random_returns is not None]
    if not drawn:
        return math.nan
    observed = [f.total_return for f in facts if f.random_returns is not None]
    return monte_carlo_p_value(float(np.mean(observed)), np.mean(np.array(drawn), axis=0))


def _mean(values: Sequence[float | None]) -> float:
    """nan unless all are defined."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if len(defined) == len(values) else math.nan


def _stored(value: float) -> float | None:
    return value if math.isfinite(value) else None
