"""The gate's own trial: simulated markets end in a grade, and equal cases in equal ones."""

from __future__ import annotations

import numpy as np
import pytest

from finagent_model.config.rules import GateRules
from finagent_model.evaluation.gate_simulation import (
    DECIDED_ELSEWHERE,
    NO_PATTERN,
    Kind,
    SimulatedMarket,
    calibrate_gate,
    count_grades,
    judge_market,
    load_real_returns,
    make_markets,
    simulate_histories,
)
from finagent_model.market.bars import Floats

pytestmark = pytest.mark.slow

RULES = GateRules()


@pytest.fixture(scope="module")
def real() -> Floats:
    return load_real_returns()


def test_make_markets_covers_truths_with_distinct_seeds() -> None:
    markets = make_markets(2, (1.0, 2.0), seed=5)
    assert len({case.seed for case in markets}) == len(markets)
    truths = {case.truth for case in markets}
    assert len(markets) == 2 * len(truths)
    assert {"bear", "ar, decided elsewhere", "garch, 4 symbols"} <= truths
    assert {"information ratio 1", "information ratio 2, 4 symbols"} <= truths


@pytest.mark.parametrize("kind", [*NO_PATTERN, *DECIDED_ELSEWHERE])
def test_simulate_histories_drift_as_promised(kind: Kind, real: Floats) -> None:
    ratios = []
    for seed in range(12):
        rng, market = np.random.default_rng(seed), SimulatedMarket(kind, seed)
        [bars] = simulate_histories(rng, market, 2500, real, {}).values()
        returns = np.diff(np.log(bars.close))
        ratios.append(np.mean(returns) / np.std(returns) * np.sqrt(252))
    # 12 markets of ten years: a standard error below 0.12.
    assert np.mean(ratios) == pytest.approx(-0.7 if kind == "bear" else 0.7, abs=0.4)


def test_simulated_stops_earn_nothing(real: Floats) -> None:
    """Where the day's range is no Brownian motion, stops or targets alone make or lose money."""
    rng = np.random.default_rng(1)
    market = SimulatedMarket("random walk", 1)
    [bars] = simulate_histories(rng, market, 20_000, real, {}).values()
    level = 0.985 * bars.open
    stopped = bars.low <= level
    # What follows within the day of a stop that was hit is a fair game.
    gain = np.log(bars.close[stopped] / np.minimum(level, bars.open)[stopped])
    assert stopped.sum() > 2000
    assert abs(np.mean(gain)) < 4 * np.std(gain) / np.sqrt(stopped.sum())


@pytest.mark.parametrize("kind", ["garch", "ar"])
def test_judge_market_without_skill_grades_none_repeatably(kind: Kind, real: Floats) -> None:
    case = SimulatedMarket(kind, 3)
    evidence = judge_market(case, real, RULES)
    assert evidence.grade == "none"
    assert evidence.numbers["observations"] == 8 * 252 - 1
    assert judge_market(case, real, RULES) == evidence


def test_judge_market_detects_large_planted_skill(real: Floats) -> None:
    evidence = judge_market(SimulatedMarket("planted", 1, 2.0), real, RULES)
    ratio = evidence.numbers["appraisal_ratio"]
    assert ratio is not None and 1 < ratio < 3
    [row] = count_grades([(SimulatedMarket("planted", 1, 2.0), evidence)])
    assert (row.truth, row.markets, row.weak) == ("information ratio 2", 1, 1)
    assert row.passed["alpha_above_zero"] == 1


def test_calibrate_gate_in_processes_returns_row_a_truth() -> None:
    rows = calibrate_gate(1, [], RULES, jobs=2)
    assert len(rows) == len(NO_PATTERN) + len(DECIDED_ELSEWHERE) + 2
    assert all(row.markets == 1 for row in rows)
