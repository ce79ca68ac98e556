"""Scores candidate policies on one stretch of history and takes a robust one.

A candidate's score is the *median* Sharpe ratio over thirds of the stretch and over symbols: a
policy that shone once loses to one that did decently throughout. It is averaged with the scores of
the candidates most like it: a peak among failures loses to a plateau. Every candidate ever scored
is counted, since the best of many is partly luck.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.spatial import KDTree

from finagent_model.backtesting.engine import Costs, Orders, simulate_equity
from finagent_model.backtesting.metrics import sharpe, simple_returns
from finagent_model.errors import ShortHistoryError
from finagent_model.market.bars import BarSeries, Floats
from finagent_model.policy.context import FeatureBook
from finagent_model.policy.policy import EXTERNAL_WEIGHT_KEY, Policy


class Trials(BaseModel):
    """Everything that was ever scored to choose what spoke."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    configurations: int = Field(ge=1)
    """Choices that there were: policies, for each symbol that has its own."""
    scorings: int = Field(ge=1)
    """Times that one was scored: each policy in each fit."""
    sharpe_variance: float | None
    """Of the policies' Sharpe ratios over the unseen bars, per bar; None where they are alike."""
    overfitting: float | None
    """PBO of the policies over the unseen bars."""


THIRDS = 3
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
"""Rounded values of the trade: a finer grid would fit noise."""
TERMS = ("threshold", "stop_atr", "target_atr", "risk_fraction")
"""Those that count whoever gives the score."""
_AXES = tuple((name, tuple(values)) for name, values in GRID.items())
WEIGHTS = ("trend_weight", "momentum_weight", "reversion_weight", "breakout_weight")
EXTERNAL_WEIGHTS = (0.1, 0.25, 0.5, 1.0, 2.0)
TRIES = 100
"""Draws for each policy that is wanted: where little is left to choose, there may be fewer."""
NEIGHBOURS = 4
"""Policies whose scores count with one's own."""


@dataclass(frozen=True)
class Scored:
    """The chosen policy, its in-sample score, and how many were scored for it."""

    policy: Policy
    score: float
    configurations: int


@dataclass(frozen=True)
class ScoreSources:
    """Whose opinions a policy weighs, as far as code can tell before the desk speaks."""

    first: Policy = field(default_factory=Policy)
    """The policy before any training."""
    fixed: Mapping[str, float] = field(default_factory=dict)
    """Parameters that training leaves alone."""
    technical: bool = True
    external: Mapping[str, Floats] = field(default_factory=dict)
    """The external analyst's score on each bar, by symbol (nan where it has none); empty where
    nobody hears one.
    """


TECHNICAL_ONLY = ScoreSources()
"""The technical score and nobody else."""


class PolicyScorer:
    """One symbol's bars with the features that any candidate needs; computed once for all folds."""

    def __init__(self, bars: BarSeries, voices: ScoreSources = TECHNICAL_ONLY) -> None:
        self.bars = bars
        self.growth = bars.adjust_to_first_bar()
        self._book = FeatureBook(bars)
        self._technical = voices.technical
        self._external = voices.external.get(bars.symbol)

    def equity(self, policy: Policy, part: slice, costs: Costs, allow_short: bool) -> Floats:
        """What the policy's score alone would have earned over `part`, starting from 1."""
        orders = self.orders(policy, part)
        return simulate_equity(self.growth[part], orders, costs, cash=1.0, allow_short=allow_short)

    def score(self, policy: Policy, part: slice) -> Floats:
        """The score on each bar of `part`; nan where it is undefined."""
        external = None if self._external is None else self._external[part]
        if not self._technical:
            return np.asarray(policy.combine_scores(None, external))
        features = self._book.compute(policy).arrays()
        technical = policy.technical_score({k: v[part] for k, v in features.items()})
        return np.asarray(policy.combine_scores(technical, external))

    def orders(self, policy: Policy, part: slice) -> Orders:
        """What the policy's score alone asks for on each bar of `part`."""
        features = self._book.compute(policy)
        score = self.score(policy, part)
        action = np.where(score >= policy.threshold, 1, np.where(score <= -policy.threshold, -1, 0))
        action = action.astype(np.int8)
        growth = self.growth[part]
        atr = features.atr[part] * self.bars.growth_factor[part]
        stop = np.maximum(growth.close - action * policy.stop_atr * atr, 0.1 * growth.close)
        target = np.maximum(growth.close + action * policy.target_atr * atr, 0.1 * growth.close)
        with np.errstate(divide="ignore", invalid="ignore"):
            size = policy.position_size(np.abs(growth.close - stop) / growth.close)
        action[~np.isfinite(stop) | ~np.isfinite(score)] = 0
        return Orders(action, np.asarray(size), stop, target)


def candidates(count: int, seed: int, voices: ScoreSources = TECHNICAL_ONLY) -> tuple[Policy, ...]:
    """`count` different policies drawn from the grid, the untrained one first; the same for the
    same seed. Fewer where the voices leave less to choose.
    """
    rng, own = np.random.default_rng(seed), np.random.default_rng([seed, len(EXTERNAL_WEIGHTS)])
    found = {voices.first: None}
    for _ in range(TRIES * count):
        if len(found) == count:
            break
        drawn: dict[str, float] = {
            name: values[rng.integers(len(values))] for name, values in GRID.items()
        }
        trend, momentum, reversion, breakout = (
            float(w) for w in np.round(rng.dirichlet(np.ones(4)), 2)
        )
        drawn |= {
            "trend_weight": trend,
            "momentum_weight": momentum,
            "reversion_weight": reversion,
            "breakout_weight": breakout,
        }
        if not voices.technical:
            drawn = {name: drawn[name] for name in TERMS}
        elif voices.external:
            drawn[EXTERNAL_WEIGHT_KEY] = EXTERNAL_WEIGHTS[own.integers(len(EXTERNAL_WEIGHTS))]
        found[Policy.model_validate({**voices.first.model_dump(), **drawn, **voices.fixed})] = None
    return tuple(found)


def search(
    histories: list[tuple[PolicyScorer, slice]],
    policies: tuple[Policy, ...],
    costs: Costs,
    allow_short: bool,
) -> Scored:
    """The policy with the best robust score over each history's part. Raises ShortHistoryError
    where none traded.
    """
    scores = np.array(
        [
            robust_score([h.equity(p, part, costs, allow_short) for h, part in histories])
            for p in policies
        ]
    )
    if np.isnan(scores).all():
        moved = any(np.ptp(h.growth.close[part]) > 0 for h, part in histories)
        raise ShortHistoryError(
            f"none of {len(policies)} policies traded in the fitted stretch; give more bars or "
            "candidates"
            if moved
            else "prices that don't move give no policy a trade; look at the bars of "
            + ", ".join(h.bars.symbol for h, _ in histories)
        )
    best = int(np.nanargmax(smoothed(scores, policies)))
    return Scored(policies[best], float(scores[best]), len(policies))


def smoothed(scores: Floats, policies: tuple[Policy, ...]) -> Floats:
    """Each score averaged with those of its nearest policies: a plateau wins against a peak.

    Distance is Euclidean over places in the grid and weights, each scaled to its range. A neighbour
    that never traded counts as nothing gained; a policy that never traded stays undefined.
    """
    places = np.array(
        [
            [_place(getattr(policy, name), values) for name, values in _AXES]
            + [getattr(policy, name) for name in WEIGHTS]
            + [_place(policy.external_weight, EXTERNAL_WEIGHTS)]
            for policy in policies
        ]
    )
    _, near = KDTree(places).query(places, k=min(NEIGHBOURS + 1, len(policies)))
    averaged: Floats = np.nan_to_num(scores)[near].mean(axis=1)
    return np.where(np.isfinite(scores), averaged, np.nan)


def _place(value: float | None, values: Sequence[float]) -> float:
    """Of a grid's value, from 0 to 1; 0 for what is fixed elsewhere, and so the same for all."""
    return values.index(value) / (len(values) - 1) if value in values else 0.0


def robust_score(equities: list[Floats]) -> float:
    """Median annual Sharpe over thirds and symbols; nan when none is defined."""
    ratios = [
        sharpe(simple_returns(third)) for e in equities for third in np.array_split(e, THIRDS)
    ]
    defined = [r for r in ratios if np.isfinite(r)]
    # A third without trades has no ratio; it counts as nothing gained: idling is no way to win.
    return (
        float(np.median(defined + [0.0] * (len(ratios) - len(defined))))
        if defined
        else float("nan")
    )
