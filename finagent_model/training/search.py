"""Score candidate policies on one stretch of history and choose a robust one.

A candidate's score is the *median* Sharpe ratio over thirds of the stretch and over symbols: a
policy that shone once loses to one that did decently throughout. It is averaged with the scores of
the candidates most like it: a peak among failures loses to a plateau. Candidates that share their
neighbours tie often, so scores are rounded before they are compared, and ties go to the better
score of its own, then to the policy nearest to the untrained one: the last bit of a price decides
nothing. Every candidate ever scored is counted, since the best of many is partly luck.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy.spatial import KDTree

from finagent_model.backtesting.engine import Costs, Orders, simulate_equity
from finagent_model.backtesting.metrics import sharpe, simple_returns
from finagent_model.errors import ShortHistoryError
from finagent_model.market.bars import BarSeries, Floats
from finagent_model.policy.context import FeatureBook
from finagent_model.policy.policy import EXTERNAL_WEIGHT_KEY, Policy

THIRDS = 3
"""Parts of a stretch that are scored apart: one good stretch must not decide."""
GRID = {
    "fast": (5, 10, 20, 30, 50),
    "slow": (60, 100, 150, 200),
    "rsi": (7, 14, 21),
    "channel": (20, 55, 100),
    "threshold": (0.05, 0.1, 0.2, 0.3, 0.4),
    "stop_atr": (2.0, 3.0, 4.0, 6.0),
    "target_atr": (6.0, 9.0, 12.0, 20.0),
    "risk_fraction": (0.01, 0.02, 0.03, 0.05),
}
"""Rounded values in common use: a finer grid would fit noise."""
TRADE_PARAMS = ("threshold", "stop_atr", "target_atr", "risk_fraction")
"""Parameters that matter whatever the score comes from."""
_AXES = tuple((name, tuple(values)) for name, values in GRID.items())
WEIGHTS = ("trend_weight", "momentum_weight", "reversion_weight", "breakout_weight")
EXTERNAL_WEIGHTS = (0.1, 0.25, 0.5, 1.0, 2.0)
DRAWS_PER_CANDIDATE = 100
"""Limit of the draws: where most parameters are fixed, fewer distinct candidates may exist."""
SCORE_STEP = 1e-6
"""Scores and distances that round to the same multiple of this are equal. Prices in another unit
move a score by 1e-12."""
NEIGHBOURS = 4
"""Nearest policies that a score is averaged with."""


class Trials(BaseModel):
    """How many policies were scored to choose the ones in use, and how they differ."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    configurations: int = Field(ge=1)
    """Number of alternatives: candidate policies, times symbols where each has its own policy."""
    scorings: int = Field(ge=1)
    """Number of scorings: each policy in each fit."""
    sharpe_variance: float | None
    """Variance of the policies' out-of-sample appraisal ratios per day; None for fewer than two."""
    overfitting: float | None
    """Probability of backtest overfitting (PBO) on the out-of-sample bars; None: undefined."""


@dataclass(frozen=True)
class ScoredPolicy:
    """The chosen policy, its in-sample score, and the number of policies that were scored."""

    policy: Policy
    score: float
    configurations: int


@dataclass(frozen=True)
class ScoreSources:
    """Scores that a policy weighs, and the parameters that the search may not change."""

    # News is no source: there is too little dated news to fit a weight on.
    initial_policy: Policy = field(default_factory=Policy)
    """The policy before any training."""
    fixed_params: Mapping[str, float] = field(default_factory=dict)
    """Policy parameters that the configuration fixes."""
    technical: bool = True
    """Whether an agent of the desk reads the technical score."""
    external: Mapping[str, Floats] = field(default_factory=dict)
    """The external analyst's score (n,) by symbol, nan where it has none; empty without one."""


TECHNICAL_ONLY = ScoreSources()
"""The technical score, and no external analyst."""


class PolicyScorer:
    """Scores and orders that any policy gives on one symbol's bars.

    Features are computed once for all folds and candidates; each value depends on its bar and on
    earlier ones only, so a part of the whole history's features has no look-ahead.
    """

    def __init__(self, bars: BarSeries, score_sources: ScoreSources = TECHNICAL_ONLY) -> None:
        self.bars = bars
        # Adjusted forward from the first bar: a later split or dividend changes no earlier price.
        self.growth = bars.adjust_to_first_bar()
        self._book = FeatureBook(bars)
        self._technical = score_sources.technical
        self._external = score_sources.external.get(bars.symbol)

    def equity(self, policy: Policy, part: slice, costs: Costs, allow_short: bool) -> Floats:
        """Return the equity (n,) of trading the policy's score over `part`, starting from 1."""
        orders = self.orders(policy, part)
        return simulate_equity(self.growth[part], orders, costs, cash=1.0, allow_short=allow_short)

    def score(self, policy: Policy, part: slice) -> Floats:
        """Return the combined score (n,) on each bar of `part`, in [-1, 1]; nan where undefined."""
        external = None if self._external is None else self._external[part]
        if not self._technical:
            return np.asarray(policy.combine_scores(None, external))
        features = self._book.compute(policy).arrays()
        technical = policy.technical_score({k: v[part] for k, v in features.items()})
        return np.asarray(policy.combine_scores(technical, external))

    def orders(self, policy: Policy, part: slice) -> Orders:
        """Return the orders that the policy's score leads to on each bar of `part`."""
        score = self.score(policy, part)
        action = np.where(score >= policy.threshold, 1, np.where(score <= -policy.threshold, -1, 0))
        # Bars within the warm-up have no score: no order.
        action[~np.isfinite(score)] = 0
        return self.size_orders(policy, part, action.astype(np.int8))

    def size_orders(self, policy: Policy, part: slice, action: npt.NDArray[np.int8]) -> Orders:
        """Return orders for given actions on each bar of `part`, with the policy's size, stop and
        target; none within the warm-up.
        """
        growth = self.growth[part]
        atr = self._book.compute(policy).atr[part] * self.bars.growth_factor[part]
        # A level may not fall below a tenth of the price: many ATRs of a wild symbol would.
        stop = np.maximum(growth.close - action * policy.stop_atr * atr, 0.1 * growth.close)
        target = np.maximum(growth.close + action * policy.target_atr * atr, 0.1 * growth.close)
        with np.errstate(divide="ignore", invalid="ignore"):
            size = policy.position_size(np.abs(growth.close - stop) / growth.close)
        # Bars within the warm-up have no ATR either.
        return Orders(np.where(np.isfinite(stop), action, 0), np.asarray(size), stop, target)


def draw_candidates(
    count: int, seed: int, score_sources: ScoreSources = TECHNICAL_ONLY
) -> tuple[Policy, ...]:
    """Return up to `count` different policies drawn from the grid, the untrained one first.

    Equal arguments give equal policies. There are fewer where the score sources leave less to
    choose.
    """
    rng = np.random.default_rng(seed)
    # A generator of its own: with and without an external analyst the other draws are equal.
    external_rng = np.random.default_rng([seed, len(EXTERNAL_WEIGHTS)])
    # A dict for its order: which candidates are drawn first is part of a training's result.
    policies = {score_sources.initial_policy: None}
    for _ in range(DRAWS_PER_CANDIDATE * count):
        if len(policies) == count:
            break
        params: dict[str, float] = {
            name: values[rng.integers(len(values))] for name, values in GRID.items()
        }
        trend, momentum, reversion, breakout = (
            float(w) for w in np.round(rng.dirichlet(np.ones(4)), 2)
        )
        params |= {
            "trend_weight": trend,
            "momentum_weight": momentum,
            "reversion_weight": reversion,
            "breakout_weight": breakout,
        }
        if not score_sources.technical:
            params = {name: params[name] for name in TRADE_PARAMS}
        elif score_sources.external:
            at = external_rng.integers(len(EXTERNAL_WEIGHTS))
            params[EXTERNAL_WEIGHT_KEY] = EXTERNAL_WEIGHTS[at]
        initial = score_sources.initial_policy.model_dump()
        policy = Policy.model_validate({**initial, **params, **score_sources.fixed_params})
        policies[policy] = None
    return tuple(policies)


def search_policy(
    histories: list[tuple[PolicyScorer, slice]],
    policies: tuple[Policy, ...],
    costs: Costs,
    allow_short: bool,
) -> ScoredPolicy:
    """Return the policy with the best smoothed robust score over each history's part.

    Raises ShortHistoryError where no policy traded, or each that did lost everything.
    """
    scores = np.array(
        [
            robust_score([h.equity(p, part, costs, allow_short) for h, part in histories])
            for p in policies
        ]
    )
    if np.isnan(scores).all():
        prices_move = any(np.ptp(h.growth.close[part]) > 0 for h, part in histories)
        raise ShortHistoryError(
            f"none of {len(policies)} policies traded in the fitted stretch, or all that did "
            "lost everything; give more bars or candidates"
            if prices_move
            else "prices that don't move give no policy a trade; look at the bars of "
            + ", ".join(h.bars.symbol for h, _ in histories)
        )
    best = select_policy(scores, policies)
    return ScoredPolicy(policies[best], float(scores[best]), len(policies))


def select_policy(scores: Floats, policies: tuple[Policy, ...]) -> int:
    """Return the position of the policy to use, given each one's robust score (n,).

    The smoothed score decides, then the score itself, then the distance to the first policy, the
    untrained one, then the order. A score of nan is never chosen; at least one must be defined.
    """
    coordinates = grid_coordinates(policies)
    # Whole numbers: their sums are exact in any order, so that equal neighbourhoods tie exactly.
    steps = np.rint(scores / SCORE_STEP)
    smoothed = smooth_scores(steps, coordinates)
    distance = np.rint(np.linalg.norm(coordinates - coordinates[0], axis=1) / SCORE_STEP)
    # Sorted by the last key first; stable, so that equals keep their order.
    ranking = np.lexsort((distance, -steps, -smoothed))
    return next(int(position) for position in ranking if np.isfinite(scores[position]))


def smooth_scores(scores: Floats, coordinates: Floats) -> Floats:
    """Return each score (n,) averaged with those of its nearest policies.

    Distance is Euclidean over the policies' `coordinates` (n, k). A policy without a score is nan,
    and stays nan.
    """
    # One more than the neighbours, since each policy is its own nearest.
    _, nearest = KDTree(coordinates).query(coordinates, k=min(NEIGHBOURS + 1, len(scores)))
    # A neighbour without a score counts as nothing gained.
    averaged: Floats = np.nan_to_num(scores)[nearest].mean(axis=1)
    return np.where(np.isfinite(scores), averaged, np.nan)


def grid_coordinates(policies: tuple[Policy, ...]) -> Floats:
    """Return the grid coordinates and weights (n, k) of policies, each in [0, 1]."""
    return np.array(
        [
            [_grid_coordinate(getattr(policy, name), values) for name, values in _AXES]
            + [getattr(policy, name) for name in WEIGHTS]
            + [_grid_coordinate(policy.external_weight, EXTERNAL_WEIGHTS)]
            for policy in policies
        ]
    )


def robust_score(equities: list[Floats]) -> float:
    """Return the median annual Sharpe ratio over thirds and symbols; nan where none is defined, or
    where an account was lost.
    """
    # The median would forgive one lost account: what was earned elsewhere doesn't bring it back.
    if any(equity[-1] <= 0 for equity in equities):
        return float("nan")
    ratios = [
        sharpe(simple_returns(third))
        for equity in equities
        for third in np.array_split(equity, THIRDS)
    ]
    defined = [r for r in ratios if np.isfinite(r)]
    # A third without trades has no ratio; it counts as nothing gained: idling is no way to win.
    return (
        float(np.median(defined + [0.0] * (len(ratios) - len(defined))))
        if defined
        else float("nan")
    )


def _grid_coordinate(value: float | None, values: Sequence[float]) -> float:
    """Return the grid coordinate of `value` in [0, 1]; 0 for a value that is not in the grid."""
    # Such a value is fixed by the configuration: equal for all policies, it adds no distance.
    return values.index(value) / (len(values) - 1) if value in values else 0.0
