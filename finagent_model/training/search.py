"""Scores candidate policies on one stretch of history and takes a robust one.

A candidate's score is the *median* Sharpe ratio over thirds of the stretch and over symbols: a
policy that shone once loses to one that did decently throughout. It is averaged with the scores of
the candidates most like it: a peak among failures loses to a plateau. Every candidate ever scored
is counted, since the best of many is partly luck.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from finagent_model.backtest.costs import Costs
from finagent_model.backtest.engine import Orders, equity_of
from finagent_model.backtest.metrics import returns_of, sharpe
from finagent_model.domain.bars import BarSeries, Floats
from finagent_model.domain.policy import Policy
from finagent_model.errors import ShortHistoryError
from finagent_model.features import FeatureBook

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
_AXES = tuple((name, tuple(values)) for name, values in GRID.items())
WEIGHTS = ("trend_weight", "momentum_weight", "reversion_weight", "breakout_weight")
NEIGHBOURS = 4
"""Policies whose scores count with one's own."""


@dataclass(frozen=True)
class Scored:
    """The chosen policy, its in-sample score, and how many were scored for it."""

    policy: Policy
    score: float
    configurations: int


class History:
    """One symbol's bars with the features that any candidate needs; computed once for all folds."""

    def __init__(self, bars: BarSeries) -> None:
        self.bars = bars
        self.growth = bars.growth()
        self._book = FeatureBook(bars)

    def equity(self, policy: Policy, part: slice, costs: Costs, allow_short: bool) -> Floats:
        """What the policy's technical vote alone would have earned over `part`, starting from 1."""
        orders = self.orders(policy, part)
        return equity_of(self.growth[part], orders, costs, cash=1.0, allow_short=allow_short)

    def score(self, policy: Policy, part: slice) -> Floats:
        """The technical score on each bar of `part`; nan where a feature is undefined."""
        features = self._book.under(policy).all()
        return np.asarray(policy.technical_score({k: v[part] for k, v in features.items()}))

    def orders(self, policy: Policy, part: slice) -> Orders:
        """What the policy's technical vote alone asks for on each bar of `part`."""
        features = self._book.under(policy)
        score = self.score(policy, part)
        action = np.where(score >= policy.threshold, 1, np.where(score <= -policy.threshold, -1, 0))
        action = action.astype(np.int8)
        growth = self.growth[part]
        atr = features.atr[part] * self.bars.growth_factor[part]
        stop = np.maximum(growth.close - action * policy.stop_atr * atr, 0.1 * growth.close)
        target = np.maximum(growth.close + action * policy.target_atr * atr, 0.1 * growth.close)
        with np.errstate(divide="ignore", invalid="ignore"):
            size = policy.size(np.abs(growth.close - stop) / growth.close)
        action[~np.isfinite(stop) | ~np.isfinite(score)] = 0
        return Orders(action, np.asarray(size), stop, target)


def candidates(count: int, seed: int) -> tuple[Policy, ...]:
    """`count` different policies drawn from the grid, the default policy first; the same for the
    same seed.
    """
    rng = np.random.default_rng(seed)
    found = {Policy(): None}
    while len(found) < count:
        drawn = {name: values[rng.integers(len(values))] for name, values in GRID.items()}
        trend, momentum, reversion, breakout = (
            float(w) for w in np.round(rng.dirichlet(np.ones(4)), 2)
        )
        weights = {
            "trend_weight": trend,
            "momentum_weight": momentum,
            "reversion_weight": reversion,
            "breakout_weight": breakout,
        }
        found[Policy.model_validate(drawn | weights)] = None
    return tuple(found)


def search(
    histories: list[tuple[History, slice]],
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
            [values.index(getattr(policy, name)) / (len(values) - 1) for name, values in _AXES]
            + [getattr(policy, name) for name in WEIGHTS]
            for policy in policies
        ]
    )
    _, near = KDTree(places).query(places, k=min(NEIGHBOURS + 1, len(policies)))
    averaged: Floats = np.nan_to_num(scores)[near].mean(axis=1)
    return np.where(np.isfinite(scores), averaged, np.nan)


def robust_score(equities: list[Floats]) -> float:
    """Median annual Sharpe over thirds and symbols; nan when none is defined."""
    ratios = [sharpe(returns_of(third)) for e in equities for third in np.array_split(e, THIRDS)]
    defined = [r for r in ratios if np.isfinite(r)]
    # A third without trades has no ratio; it counts as nothing gained: idling is no way to win.
    return (
        float(np.median(defined + [0.0] * (len(ratios) - len(defined))))
        if defined
        else float("nan")
    )
