"""The gate's own trial: simulated markets end in a grade, and equal cases in equal ones."""

from __future__ import annotations

import numpy as np
import pytest

from finagent_model.config.rules import GateRules
from finagent_model.evaluation.gate_simulation import (
    GateResult,
    SimulatedMarket,
    calibrate_gate,
    count_grades,
    judge_market,
    load_real_returns,
    make_markets,
)
from finagent_model.market.bars import Floats

pytestmark = pytest.mark.slow

RULES = GateRules()


@pytest.fixture(scope="module")
def real() -> Floats:
    return load_real_returns()


def test_make_markets_mixes_kinds_with_distinct_seeds() -> None:
    markets = make_markets(9, (1.0, 2.0), seed=5)
    assert [case.kind for case in markets[:9]] == ["random walk", "garch", "shuffled"] * 3
    assert [case.sharpe for case in markets[9:]] == [1.0, 2.0]
    assert len({case.seed for case in markets}) == len(markets)


def test_count_grades_groups_by_truth() -> None:
    planted = [
        (SimulatedMarket("planted", seed, 1.5), grade)
        for seed, grade in enumerate(("weak", "strong"))
    ]
    rows = count_grades([(SimulatedMarket("garch", 1), "none"), *planted])  # type: ignore[list-item]
    assert rows == [GateResult("garch", 1, 0, 0), GateResult("Sharpe 1.5", 2, 2, 1)]


@pytest.mark.parametrize("kind", ["garch", "shuffled"])
def test_judge_market_without_edge_grades_none_repeatably(kind: str, real: Floats) -> None:
    case = SimulatedMarket(kind, 3)  # type: ignore[arg-type]
    evidence = judge_market(case, real, RULES)
    assert evidence.grade == "none"
    assert evidence.numbers["observations"] == 8 * 252 - 1
    assert judge_market(case, real, RULES) == evidence


def test_judge_market_detects_large_planted_edge(real: Floats) -> None:
    evidence = judge_market(SimulatedMarket("planted", 1, 4.0), real, RULES)
    assert evidence.grade != "none"
    sharpe = evidence.numbers["sharpe"]
    assert sharpe is not None and 3 < sharpe < 5


def test_load_real_returns_are_finite(real: Floats) -> None:
    assert len(real) > 8 * 252
    assert np.isfinite(real).all()


@pytest.mark.slow
def test_calibrate_gate_in_processes_returns_table() -> None:
    rows = calibrate_gate(3, [4.0], RULES, jobs=2)
    assert [(row.truth, row.markets) for row in rows] == [
        ("random walk", 1),
        ("garch", 1),
        ("shuffled", 1),
        ("Sharpe 4", 1),
    ]
    assert rows[-1].weak == 1
