"""Statistics against the numbers that their papers print, and against other libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finagent_model.statistics import resampling
from finagent_model.statistics.resampling import (
    optimal_block_length,
    resample_histories,
    sharpe_interval,
    superior_predictive_ability,
)
from finagent_model.statistics.sharpe import (
    Moments,
    expected_maximum,
    minimum_backtest_years,
    probability_of_overfitting,
    sharpe_standard_error,
)

PAPER = Moments(0.458, -2.448, 10.164, 24)
"""Bailey and Lopez de Prado 2012, section 3: monthly."""
TRACK = [
    *(-3.455641, 0.660267, 1.156258, 0.820209, 0.374748, 0.98597, 1.515189, 1.330652),
    *(0.251659, -0.17325, 0.310862, 0.777926, -1.002867, 0.600255, -0.158211, 0.23055),
    *(0.368511, 0.531854, 1.017305, 1.381993, 0.662721, 1.545345, 0.280079, 0.979615),
]
"""Twenty-four returns with those moments."""


def test_probabilistic_sharpe_equals_paper() -> None:
    assert Moments(0.458, 0.0, 3.0, 24).probabilistic_sharpe() == pytest.approx(0.982, abs=5e-4)
    assert PAPER.probabilistic_sharpe() == pytest.approx(0.913361, abs=1e-6)
    assert Moments(0.458, -2.448, 10.164, 36).probabilistic_sharpe() == pytest.approx(
        0.953505, abs=1e-6
    )


def test_moments_are_population_moments() -> None:
    result = Moments.from_returns(np.array(TRACK))
    assert (result.sharpe, result.skew) == pytest.approx((0.458, -2.448), abs=1e-6)
    assert result.kurtosis == pytest.approx(10.164002, abs=1e-5)
    assert result.probabilistic_sharpe() == pytest.approx(0.913361, abs=1e-5)


@pytest.mark.parametrize(
    ("periods", "skew", "kurtosis", "years"),
    [(250, 0, 3, 2.73), (52, 0, 3, 2.83), (12, 0, 3, 3.24), (12, -0.72, 5.78, 4.99)],
)
def test_minimum_track_record_equals_paper(
    periods: int, skew: float, kurtosis: float, years: float
) -> None:
    root = math.sqrt(periods)
    result = Moments(2 / root, skew, kurtosis, 2).minimum_track_record(1 / root)
    assert result / periods == pytest.approx(years, abs=5e-3)


@pytest.mark.parametrize(
    ("trials", "skew", "kurtosis", "deflated"),
    [(100, -3, 10, 0.9004), (46, -3, 10, 0.9505), (88, 0, 3, 0.9505)],
)
def test_deflated_sharpe_equals_paper(
    trials: int, skew: float, kurtosis: float, deflated: float
) -> None:
    result = Moments(2.5 / math.sqrt(250), skew, kurtosis, 1250).deflated_sharpe(trials, 0.5 / 250)
    assert result == pytest.approx(deflated, abs=5e-5)


@pytest.mark.parametrize(
    ("trials", "value"),
    [(1, 0.0), (2, 0.519755), (10, 1.574598), (100, 2.530603), (1000, 3.255122)],
)
def test_expected_maximum_equals_paper(trials: int, value: float) -> None:
    assert expected_maximum(trials) == pytest.approx(value, abs=1e-6)


def test_minimum_backtest_years_equals_paper() -> None:
    assert minimum_backtest_years(45) == pytest.approx(5, abs=5e-3)
    assert minimum_backtest_years(7) == pytest.approx(1.9231, abs=1e-4)


@pytest.mark.parametrize(
    ("ratio", "count", "error"), [(0.5, 12, 0.306), (1, 24, 0.25), (1, 60, 0.158), (3, 500, 0.105)]
)
def test_sharpe_standard_error_equals_lo(ratio: float, count: int, error: float) -> None:
    assert sharpe_standard_error(ratio, count) == pytest.approx(error, abs=5e-4)


def test_moments_of_constant_or_losing_returns_are_undefined() -> None:
    still = Moments.from_returns(np.zeros(50))
    assert math.isnan(still.sharpe)
    assert math.isnan(still.probabilistic_sharpe())
    assert math.isnan(Moments.from_returns(-np.array(TRACK)).minimum_track_record())
    assert math.isnan(Moments.from_returns(np.array([0.01])).probabilistic_sharpe())
    with pytest.raises(ValueError, match="0 trials"):
        expected_maximum(0)


def test_probability_of_overfitting_on_noise() -> None:
    noise = np.random.default_rng(765).standard_normal((2400, 100))
    assert probability_of_overfitting(noise, 8) == pytest.approx(41 / 70)
    centred = (noise - noise.mean(axis=0)) / noise.std(axis=0)
    assert probability_of_overfitting(centred, 8) == 1.0
    noise[:, 0] += 0.15
    assert probability_of_overfitting(noise, 8) == 0.0


def test_probability_of_overfitting_equals_purgedcv() -> None:
    from purgedcv import probability_of_backtest_overfitting

    returns = np.random.default_rng(3).standard_normal((800, 20)) * 0.01
    theirs = probability_of_backtest_overfitting(returns.T, n_splits=8)
    expected = getattr(theirs, "pbo", theirs)
    assert probability_of_overfitting(returns, 8) == pytest.approx(float(expected))


def test_probability_of_overfitting_refuses_too_few_periods() -> None:
    for shape, blocks in (((10, 3), 8), ((100, 1), 8), ((100, 5), 7)):
        with pytest.raises(ValueError):
            probability_of_overfitting(np.ones(shape), blocks)
    assert math.isnan(probability_of_overfitting(np.ones((100, 5)), 8))


def test_superior_predictive_ability_finds_clear_winner() -> None:
    """`arch` alone says 0.68 here: it does not studentise the statistic."""
    rng = np.random.default_rng(2024)
    z = rng.standard_normal((1000, 30))
    gains = 0.03 * z
    gains[:, 0] = 0.002 * z[:, 0] + 0.0003
    assert superior_predictive_ability(gains, seed=1) < 0.01


def test_superior_predictive_ability_of_noise_or_constants() -> None:
    gains = np.random.default_rng(12345).standard_normal((500, 20)) * 0.01
    assert superior_predictive_ability(gains, seed=1) > 0.2
    assert math.isnan(superior_predictive_ability(np.zeros((500, 1)), seed=1))


def test_superior_predictive_ability_has_its_stated_size() -> None:
    rng = np.random.default_rng(5)
    rejected = [
        superior_predictive_ability(rng.standard_normal((400, 1)) * 0.01, seed=i, draws=300) <= 0.1
        for i in range(200)
    ]
    assert 0.05 <= np.mean(rejected) <= 0.16


@pytest.mark.parametrize("seed", range(5))
def test_superior_predictive_ability_equals_arch_on_scaled_gains(seed: int) -> None:
    from arch.bootstrap import SPA

    rng = np.random.default_rng(seed)
    gains = rng.standard_normal((600, 8)) * rng.uniform(0.005, 0.03, 8) + 0.0004
    length = max(optimal_block_length(column) for column in gains.T)
    scales = np.std(gains, axis=0)  # independent draws: the long run is the short one
    theirs = SPA(np.zeros(600), -gains / scales, block_size=round(length), reps=4000, seed=1)
    theirs.compute()
    ours = superior_predictive_ability(gains, seed=1, draws=4000)
    assert ours == pytest.approx(float(theirs.pvalues["consistent"]), abs=0.06)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.8])
def test_optimal_block_length_equals_arch(ratio: float) -> None:
    from arch import bootstrap

    noise = np.random.default_rng(8).standard_normal(1500)
    for t in range(1, len(noise)):
        noise[t] += ratio * noise[t - 1]
    theirs = max(float(bootstrap.optimal_block_length(noise)["stationary"].iloc[0]), 1.0)
    assert optimal_block_length(noise) == pytest.approx(theirs, rel=1e-6)


def test_sharpe_interval_of_twenty_years_of_index_covers_zero() -> None:
    from arch.data import sp500

    returns = sp500.load()["Adj Close"].pct_change().dropna().to_numpy()
    assert optimal_block_length(returns) == pytest.approx(9.085239, abs=1e-4)
    result = sharpe_interval(returns, seed=7)
    assert result.low < 0 < 0.28277 < result.high
    assert (result.low, result.high) == pytest.approx((-0.083, 0.662), abs=0.06)  # as arch says


def test_sharpe_interval_of_constant_or_few_returns_is_undefined() -> None:
    assert math.isnan(sharpe_interval(np.zeros(100), seed=1).low)
    assert math.isnan(sharpe_interval(np.array(TRACK[:19]), seed=1).low)


@pytest.mark.parametrize("length", [1.0, 3.3, 20.0])
def test_resample_histories_do_not_depend_on_how_many_come_at_a_time(
    length: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = np.concatenate(list(resample_histories(37, length, 50, seed=3)))
    monkeypatch.setattr(resampling, "MAX_POSITIONS", 3 * 37)
    parts = list(resample_histories(37, length, 50, seed=3))
    assert [len(part) for part in parts] == [3] * 16 + [2]
    assert (np.concatenate(parts) == whole).all()
    follows = (whole[:, 1:] - whole[:, :-1]) % 37 == 1
    assert 1 - follows.mean() == pytest.approx((1 - 1 / 37) / length, abs=0.03)
