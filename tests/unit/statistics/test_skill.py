"""Skill apart from exposure: known answers, stated sizes, and what is undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finagent_model.market.bars import Floats
from finagent_model.statistics.sharpe import Moments
from finagent_model.statistics.skill import (
    alpha_contributions,
    delay_p_value,
    positive_mean_p_value,
    sharpe_difference_p_value,
)

DAYS = 2016
YEAR = math.sqrt(252)


def market(seed: int, ratio: float = 0.7) -> Floats:
    """Daily returns of a market that rises by chance and by its drift."""
    return np.random.default_rng(seed).normal(ratio / YEAR * 0.01, 0.01, DAYS)


def exposed(held: Floats, seed: int) -> Floats:
    """In the market every other month, at sizes of no meaning."""
    rng, months = np.random.default_rng([seed, 1]), len(held) // 20 + 1
    size = (rng.random(months) < 0.5) * rng.uniform(0.2, 1, months)
    return held * size.repeat(20)[: len(held)]


def test_alpha_contributions_equal_least_squares() -> None:
    held = market(1)
    returns = exposed(held, 1) + 0.0002
    design = np.column_stack([np.ones(DAYS), held])
    [alpha, beta], *_ = np.linalg.lstsq(design, returns, rcond=None)
    contributions = alpha_contributions(returns, held)
    assert contributions.mean() == pytest.approx(alpha)
    # White's standard error of alpha, from the textbook's sandwich.
    bread = np.linalg.inv(design.T @ design)
    residual = returns - design @ [alpha, beta]
    meat = (design * residual[:, None] ** 2).T @ design
    assert np.std(contributions) / math.sqrt(DAYS) == pytest.approx(
        math.sqrt((bread @ meat @ bread)[0, 0])
    )


def test_alpha_contributions_ignore_exposure_and_size() -> None:
    held = market(2)
    timing = exposed(held, 2)
    ratio = Moments.from_returns(alpha_contributions(timing, held)).sharpe
    moved = alpha_contributions(0.1 * timing + 0.8 * held, held)
    assert Moments.from_returns(moved).sharpe == pytest.approx(ratio)


@pytest.mark.parametrize("ratio", [-0.7, 0.7, 2.0])
def test_alpha_of_exposure_by_chance_has_its_stated_size(ratio: float) -> None:
    p_values = []
    for seed in range(300):
        held = market(seed, ratio)
        p_values.append(positive_mean_p_value(alpha_contributions(exposed(held, seed), held)))
    assert 0.02 <= np.mean(np.array(p_values) < 0.05) <= 0.085


def test_alpha_finds_skill_of_small_sizes() -> None:
    held = market(3, 0.5)
    returns = 0.1 * held + np.random.default_rng(4).normal(1.4 / YEAR * 0.001, 0.001, DAYS)
    # In money it is far behind holding.
    assert returns.sum() < held.sum()
    assert positive_mean_p_value(alpha_contributions(returns, held)) < 0.01
    assert sharpe_difference_p_value(returns, held, seed=1) < 0.05


def test_alpha_of_cash_in_falling_market_is_undefined() -> None:
    held = market(5, -1.0)
    assert math.isnan(positive_mean_p_value(alpha_contributions(np.zeros(DAYS), held)))
    assert math.isnan(sharpe_difference_p_value(np.zeros(DAYS), held, seed=1))


def memmel_p_value(ours: Floats, theirs: Floats) -> float:
    """Jobson and Korkie's test as corrected by Memmel (2003), for normal independent returns."""
    a, b = (float(r.mean() / r.std()) for r in (ours, theirs))
    rho = float(np.corrcoef(ours, theirs)[0, 1])
    variance = 2 - 2 * rho + (a**2 + b**2 - 2 * a * b * rho**2) / 2
    return 0.5 * math.erfc((a - b) / math.sqrt(variance / len(ours)) / math.sqrt(2))


@pytest.mark.parametrize("seed", range(3))
def test_sharpe_difference_equals_memmel_on_normal_returns(seed: int) -> None:
    held = market(seed)
    ours = 0.6 * held + np.random.default_rng([seed, 2]).normal(0.0003, 0.006, DAYS)
    result = sharpe_difference_p_value(ours, held, seed=1)
    assert result == pytest.approx(memmel_p_value(ours, held), abs=0.03)


@pytest.mark.slow
def test_sharpe_difference_has_its_stated_size() -> None:
    rng, p_values = np.random.default_rng(6), []
    for seed in range(200):
        shared, a, b = rng.standard_normal((3, 1000)) + 0.03
        p_values.append(
            sharpe_difference_p_value(shared + a, 3 * (shared + b), seed=seed, draws=200)
        )
    assert 0.02 <= np.mean(np.array(p_values) < 0.05) <= 0.09


def test_probabilistic_sharpe_has_its_size_under_autocorrelation() -> None:
    """Without the correction 11 % are above 95 %."""
    paths = np.random.default_rng(7).standard_normal((1500, 400))
    for t in range(1, 1500):
        paths[t] += 0.3 * paths[t - 1]
    above = [Moments.from_returns(path).probabilistic_sharpe() > 0.95 for path in paths.T]
    assert 0.03 <= np.mean(above) <= 0.085


def test_delay_p_value_finds_collapse() -> None:
    rng = np.random.default_rng(8)
    noise = rng.normal(0, 0.01, (2, 1650))
    noise -= noise.mean(axis=1, keepdims=True)
    returns, delayed = (
        column + ratio / YEAR * column.std()
        for column, ratio in zip(noise, (0.82, -0.22), strict=True)
    )
    mixed = 0.6 * returns + 0.8 * delayed
    assert delay_p_value(returns, mixed - mixed.mean() - 0.22 / YEAR * mixed.std(), seed=1) < 0.05
    assert delay_p_value(returns, 0.9 * returns, seed=1) == 1
    assert delay_p_value(-returns, delayed, seed=1) == 1
    # A last trade that a bar later never happens.
    assert math.isnan(delay_p_value(returns, np.zeros(1650), seed=1))


@given(
    n=st.integers(0, 40),
    value=st.floats(-0.1, 0.1),
    kind=st.sampled_from(["constant", "holding", "leveraged", "flat market", "few"]),
)
def test_skill_that_is_undefined_is_nan(n: int, value: float, kind: str) -> None:
    """No skill can be told from no variation: never 0, and never a passed test."""
    n = min(n, 19) if kind == "few" else n
    held = np.random.default_rng(n).normal(0, 0.01, n)
    returns = {
        "constant": np.full(n, value),
        "holding": held,
        "leveraged": 0.5 * held,
        "flat market": held,
        "few": held[::-1],
    }[kind]
    benchmark = np.zeros(n) if kind == "flat market" else held
    p_alpha = positive_mean_p_value(alpha_contributions(returns, benchmark))
    p_sharpe = sharpe_difference_p_value(returns, benchmark, seed=1, draws=20)
    assert math.isnan(p_alpha)
    assert math.isnan(p_sharpe)
