"""Grade the evidence of an edge after costs: numbers, checks with thresholds, and one grade.

The grade is about skill, not about exposure: `weak` where the desk has alpha to holding and beats
the same trades at random times; `strong` where it also earns more at equal risk than holding, more
than the best of as many policies without skill, and still does so a bar later and at twice the
costs; else `none`. An undefined number fails its check, but for a cost margin without costs, which
is infinite. Days that a chat model may have read about are never graded. docs/evidence.md defines
each number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from finagent_model.backtesting.portfolio import pool_by_day
from finagent_model.config.knowledge import Knowledge
from finagent_model.config.rules import GateRules, Grade
from finagent_model.evaluation.calibrate import MIN_OUTCOMES, ConfidenceRecord
from finagent_model.evaluation.memory import MemorySplit, measure_split, split_days
from finagent_model.evaluation.memory_probes import CHECK_NAME, SIGNIFICANCE, MemoryReport
from finagent_model.market.bars import Floats
from finagent_model.market.timeframe import bars_per_year
from finagent_model.statistics.resampling import monte_carlo_p_value, sharpe_interval
from finagent_model.statistics.sharpe import Moments, expected_maximum
from finagent_model.statistics.skill import (
    alpha_contributions,
    delay_p_value,
    mean_t_ratio,
    positive_mean_p_value,
    sharpe_difference_p_value,
)
from finagent_model.training.search import Trials

GRADES: tuple[Grade, ...] = ("none", "weak", "strong")
"""Worst first."""
MIN_T_RATIO = 3.0
"""Least alpha for `strong`, in its standard errors.

Harvey, Liu and Zhu, ... and the Cross-Section of Expected Returns (2016): so many have searched
the same prices that two errors, the textbook's bound, are found by chance.
"""


class EvidenceCheck(BaseModel):
    """One number against its threshold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    needed_for: Grade = "strong"
    """The lowest grade that needs it; `none`: no grade does."""
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
    # Left out of a dump where it is None: packages of rules have no such key.
    memory: MemorySplit | None = Field(None, exclude_if=lambda memory: memory is None)
    """Which days a chat model may remember; None where none took part."""

    @property
    def ungraded_reason(self) -> str | None:
        """Why nothing could be graded, in words; None where it could be."""
        return self.memory.reason if self.memory else None

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
    delayed_returns: tuple[float, ...] | None
    """Of the same orders, each acted on a bar later; None: that ruins the account earlier."""
    cost_curve: tuple[float, ...]
    """Total return at each commission of `statistics.resampling.COST_CURVE_BP`."""
    break_even_commission: float | None
    """Fraction of a fill at which nothing is earned; None: undefined."""
    commission: float
    slippage: float
    lagged_sharpe: float | None
    """Sharpe ratio when each decision waits a bar; None: undefined."""
    # Left out of a dump where it is None: trainings of rules have no such key.
    unread: SymbolFacts | None = Field(None, exclude_if=lambda unread: unread is None)
    """The facts of the days that no chat model has read about, traded anew with these days alone.

    None: there is no such day, or no chat model took part.
    """

    def without_days(self) -> SymbolFacts:
        """Return the facts of no day at all, at the same costs."""
        return SymbolFacts(
            symbol=self.symbol,
            closed_at=(),
            returns=(),
            benchmark_returns=(),
            total_return=0.0,
            random_returns=None,
            delayed_returns=None,
            cost_curve=(),
            break_even_commission=None,
            commission=self.commission,
            slippage=self.slippage,
            lagged_sharpe=None,
        )


def select_graded(facts: Sequence[SymbolFacts], knowledge: Knowledge | None) -> list[SymbolFacts]:
    """Return the facts that a grade may rest on: those of days that nobody has read about.

    One entry without days where there is none; all facts where no chat model took part.
    """
    if knowledge is None:
        return list(facts)
    first = knowledge.first_unread_ms
    # Compared again: another version of the table may have cut them elsewhere.
    unread = [
        each.unread
        for each in facts
        if first is not None
        and each.unread
        and each.unread.closed_at
        and each.unread.closed_at[0] >= first
    ]
    return unread or [facts[0].without_days()]


def grade_evidence(
    facts: Sequence[SymbolFacts],
    trials: Trials,
    rules: GateRules,
    confidence: ConfidenceRecord,
    *,
    seed: int,
    earlier_trainings: int = 0,
    knowledge: Knowledge | None = None,
    probes: MemoryReport | None = None,
    needs_probes: bool = True,
) -> Evidence:
    """Return the evidence of an equal-weighted portfolio of the symbols' out-of-sample parts.

    `earlier_trainings` are those of the same kind of desk on the same data, thrown away or not.
    With `knowledge` only days that it can't hold are graded: none where they are too few. Then
    `strong` also needs `probes` without a sign of memory, unless `needs_probes` is False.
    """
    all_days = pool_returns(facts)
    facts = select_graded(facts, knowledge)
    if knowledge:
        confidence = confidence.from_day(knowledge.first_unread_ordinal)
    calendar, returns, benchmark = pool_returns(facts)
    periods = bars_per_year(calendar.astype("datetime64[ms]"))
    # Each symbol has a beta of its own: holding more of one symbol than of another is exposure.
    _, skill = _pool(
        facts,
        [alpha_contributions(np.array(f.returns), np.array(f.benchmark_returns)) for f in facts],
    )
    unknown = [np.full(len(f.returns), math.nan) for f in facts]
    _, delayed = _pool(
        facts,
        [
            nothing if f.delayed_returns is None else np.array(f.delayed_returns)
            for f, nothing in zip(facts, unknown, strict=True)
        ],
    )
    moments, benchmark_moments = Moments.from_returns(returns), Moments.from_returns(benchmark)
    skill_moments = Moments.from_returns(skill)
    interval = sharpe_interval(returns, seed=seed, confidence=rules.confidence, periods=periods)
    # What the best of as many independent policies without skill shows by chance: their ratios vary
    # by 1 over the number of days. Policies that are alike show less, and ones with skill differ
    # more; neither may move the hurdle for the one that is judged.
    tried = expected_maximum(trials.configurations * (1 + earlier_trainings))
    hurdle = tried / math.sqrt(len(returns)) if len(returns) else math.nan
    spread = math.nan if trials.sharpe_variance is None else math.sqrt(trials.sharpe_variance)
    # The request's costs, and so the same for every symbol.
    assumed_cost = facts[0].commission + facts[0].slippage
    break_even = _mean_if_defined([f.break_even_commission for f in facts])
    annual = math.sqrt(periods)
    numbers = {
        "observations": float(len(returns)),
        "sharpe": moments.sharpe * annual,
        "sharpe_low": interval.low,
        "sharpe_high": interval.high,
        "benchmark_sharpe": benchmark_moments.sharpe * annual,
        "alpha": float(np.mean(skill)) * periods if len(skill) else math.nan,
        "appraisal_ratio": skill_moments.sharpe * annual,
        "t_alpha": mean_t_ratio(skill),
        "p_alpha": positive_mean_p_value(skill),
        "p_random_entry": _random_entry_p_value(facts),
        "p_sharpe_difference": sharpe_difference_p_value(returns, benchmark, seed=seed),
        "probabilistic_sharpe": moments.probabilistic_sharpe(),
        "deflated_sharpe": skill_moments.probabilistic_sharpe(hurdle),
        "deflated_hurdle": hurdle * annual,
        "deflated_hurdle_observed": tried * spread * annual,
        "configurations": float(trials.configurations),
        "scorings": float(trials.scorings),
        "earlier_trainings": float(earlier_trainings),
        "minimum_track_record": moments.minimum_track_record(confidence=rules.confidence),
        "overfitting": math.nan if trials.overfitting is None else trials.overfitting,
        "break_even_commission": break_even,
        "cost_margin": (break_even + facts[0].slippage) / assumed_cost
        if assumed_cost > 0
        else math.inf,
        "lagged_sharpe": _mean_if_defined([f.lagged_sharpe for f in facts]),
        "p_delay": delay_p_value(returns, delayed, seed=seed),
        **confidence.measure(seed=seed, confidence=rules.confidence),
    }
    memory = None
    if knowledge:
        track_record = numbers["minimum_track_record"]
        memory = split_days(knowledge, all_days[0], len(returns), track_record)
        numbers |= measure_split(
            knowledge,
            all_days[0],
            all_days[1:],
            (returns, benchmark),
            seed=seed,
            confidence=rules.confidence,
        )
    significance = 1 - rules.confidence
    checks = tuple(
        EvidenceCheck(
            name=name,
            needed_for=needed_for,
            # Every comparison with nan is False: an undefined number fails.
            passed=bool(numbers[number] >= bound if at_least else numbers[number] <= bound),
            number=_finite_or_none(numbers[number]),
            threshold=bound,
            at_least=at_least,
            why=None
            if math.isfinite(numbers[number])
            else "no day can be graded"
            if not len(returns)
            else _undefined_reason(number, numbers),
        )
        for name, needed_for, number, bound, at_least in _thresholds(rules, significance)
    )
    if knowledge and needs_probes:
        checks += (_memory_check(probes),)
    grade: Grade = "none"
    for candidate in GRADES[1:]:
        if all(c.passed for c in checks if is_needed(c.needed_for, candidate)):
            grade = candidate
    # Too few days may pass every check by luck.
    if memory and memory.reason:
        grade = "none"
    finite = {name: _finite_or_none(value) for name, value in numbers.items()}
    return Evidence(grade=grade, checks=checks, numbers=finite, memory=memory)


def _memory_check(probes: MemoryReport | None) -> EvidenceCheck:
    """Return the check that probes were made, and found no sign of memory."""
    number = probes.smallest_p_value if probes else None
    why = None
    if number is None:
        why = (probes and probes.too_few) or "finagent memory was not run on such a desk"
    return EvidenceCheck(
        name=CHECK_NAME,
        passed=bool(probes and probes.passed),
        number=number,
        threshold=SIGNIFICANCE,
        at_least=True,
        why=why,
    )


def is_needed(needed_for: Grade, required: Grade) -> bool:
    """Return whether a check that is needed for one grade counts where another is required."""
    return needed_for != "none" and GRADES.index(needed_for) <= GRADES.index(required)


def _thresholds(
    rules: GateRules, significance: float
) -> tuple[tuple[str, Grade, str, float, bool], ...]:
    """Return name, grade that needs it, number, threshold and direction of each check."""
    return (
        # Half: the usual tests are two-sided, and a fall below chance would count as well.
        ("alpha_above_zero", "weak", "p_alpha", significance / 2, False),
        ("better_than_random_entry", "weak", "p_random_entry", significance / 2, False),
        ("alpha_far_above_zero", "strong", "t_alpha", MIN_T_RATIO, True),
        ("sharpe_above_zero", "strong", "probabilistic_sharpe", rules.confidence, True),
        ("better_than_buy_and_hold", "strong", "p_sharpe_difference", significance, False),
        ("above_the_best_of_chance", "strong", "deflated_sharpe", rules.min_deflated, True),
        ("costs_may_double", "strong", "cost_margin", rules.cost_margin, True),
        # A small p-value says that the loss by a delay is no accident: here a large one is good.
        ("survives_delay", "strong", "p_delay", significance, True),
        # Decides what confidence is served, and nothing about what was earned.
        ("confidence_means_what_it_says", "none", "brier_skill_low", 0.0, True),
    )


_NO_SKILL = "nothing is left of the returns beside holding's, or they are too few"
_UNDEFINED_REASONS = {
    "p_alpha": _NO_SKILL,
    "t_alpha": _NO_SKILL,
    "p_random_entry": "no trade, or none whose times could be others",
    "probabilistic_sharpe": "the returns don't vary, or are too few",
    "p_sharpe_difference": "the returns don't vary, are those of holding, or are too few",
    "deflated_sharpe": _NO_SKILL,
    "cost_margin": "a symbol earns nothing even without costs",
    "p_delay": "the returns don't vary, at once or a bar later",
    "brier_skill_low": f"fewer than {MIN_OUTCOMES:.0f} independent calls had a calibrated "
    "confidence that differed from the base rate",
}


def _undefined_reason(number: str, numbers: Mapping[str, float]) -> str:
    """Return why a number of `numbers` is not finite."""
    return "no costs are assumed" if numbers[number] == math.inf else _UNDEFINED_REASONS[number]


def pool_returns(facts: Sequence[SymbolFacts]) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Return the calendar of all symbols, the desk's mean returns on it and the benchmark's.

    The calendar is the union of the symbols' own, in milliseconds since 1970; each mean is over the
    symbols that have a bar then.
    """
    calendar, desk = _pool(facts, [np.array(f.returns) for f in facts])
    _, benchmark = _pool(facts, [np.array(f.benchmark_returns) for f in facts])
    return calendar, desk, benchmark


def _pool(
    facts: Sequence[SymbolFacts], values: Sequence[Floats]
) -> tuple[npt.NDArray[np.int64], Floats]:
    return pool_by_day([np.asarray(f.closed_at) for f in facts], values)


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
