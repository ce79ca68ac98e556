"""Calibrated confidence: what is fitted on what, what is served, and whether it means that."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from finagent_model.decision.signal import Status, TradingSignal
from finagent_model.errors import BeforeFirstFitError
from finagent_model.evaluation.calibrate import (
    MIN_ISOTONIC_OUTCOMES,
    MIN_OUTCOMES,
    SLOPE_SPREAD,
    build_confidence_record,
    calibrate,
    fit_platt,
)
from finagent_model.market.bars import Floats, parse_as_of
from finagent_model.policy.trained_state import (
    Calibration,
    CalibrationBook,
    TradeOutcome,
    calibrate_signal,
    log_odds,
)
from finagent_model.statistics.reliability import (
    brier_score,
    calibration_p_value,
    expected_calibration_error,
    reliability_bins,
)

START = datetime(2010, 1, 1, tzinfo=UTC)


def day(n: int) -> datetime:
    return START + timedelta(days=n)


def call(n: int, confidence: float, true: bool, weight: float = 1.0) -> TradeOutcome:
    """Made on day `n`, closed a day later."""
    return TradeOutcome(
        symbol="X",
        as_of=day(n),
        closed_at=day(n + 1),
        action="BUY",
        confidence=confidence,
        earned=0.01 if true else -0.01,
        ended="time",
        bars_held=1,
        weight=weight,
    )


def history(
    count: int, stretch: float = 0.3, shift: float = -0.4, seed: int = 3
) -> list[TradeOutcome]:
    """Calls that come true with log odds that are stretched and shifted from what they say."""
    rng = np.random.default_rng(seed)
    confidences = rng.uniform(20, 95, count)
    chance = [1 / (1 + math.exp(-(stretch * log_odds(s) + shift))) for s in confidences]
    return [
        call(n, s, rng.random() < p)
        for n, (s, p) in enumerate(zip(confidences, chance, strict=True))
    ]


def arrays(calls: list[TradeOutcome]) -> tuple[Floats, Floats, Floats]:
    return (
        np.array([c.confidence for c in calls]),
        np.array([float(c.was_profitable) for c in calls]),
        np.array([c.weight for c in calls]),
    )


def test_calibrate_too_few_outcomes_gives_reason() -> None:
    few = history(100)[: int(MIN_OUTCOMES) - 1]
    [fit] = calibrate(few, [day(1000)]).fits
    assert fit.method == "none"
    assert "29 outcomes known, worth 29 independent ones; 30 are needed" in fit.reason
    with pytest.raises(ValueError, match="not calibrated"):
        fit.probability(70)


def test_calibrate_weighs_overlapping_outcomes() -> None:
    many = [c.model_copy(update={"weight": 0.05}) for c in history(500)]
    [fit] = calibrate(many, [day(1000)]).fits
    assert (fit.method, fit.calls, fit.effective) == ("none", 500, 25.0)


def test_calibrate_uses_only_closed_outcomes() -> None:
    calls = history(400)
    moments = [day(100), day(250), day(1000)]
    book = calibrate(calls, moments)
    assert [fit.calls for fit in book.fits] == [99, 249, 400]
    other = [c if c.closed_at < day(250) else call(n, 5, True) for n, c in enumerate(calls)]
    assert calibrate(other, moments).fits[:2] == book.fits[:2]
    assert calibrate(other, moments).fits[2] != book.fits[2]


def test_calibrate_recovers_platt_parameters() -> None:
    calls = history(900, stretch=0.5, shift=-0.3)
    [fit] = calibrate(calls, [day(2000)]).fits
    assert fit.method == "platt"
    for confidences in (30, 50, 70, 90):
        truth = 1 / (1 + math.exp(-(0.5 * log_odds(confidences) - 0.3)))
        assert fit.probability(confidences) == pytest.approx(truth, abs=0.06)


def test_calibrate_useless_confidence_becomes_base_rate() -> None:
    for stretch in (0.0, -1.0):
        [fit] = calibrate(history(900, stretch=stretch, shift=0.2), [day(2000)]).fits
        spread = fit.probability(95) - fit.probability(20)
        assert 0 <= spread < 0.08


def test_platt_equals_scikit_learn() -> None:
    calls = history(300)
    confidences, true, _ = arrays(calls)
    weight = np.random.default_rng(1).uniform(0.2, 1.0, len(calls))
    odds = np.array([log_odds(s) for s in confidences])
    slope, intercept = fit_platt(odds, true, weight)
    positive, negative = weight @ true, weight @ (1 - true)
    soft = np.where(true > 0, (positive + 1) / (positive + 2), 1 / (negative + 2))
    oracle = LogisticRegression(C=SLOPE_SPREAD**2, tol=1e-10)
    oracle.fit(
        np.concatenate([odds, odds])[:, None],
        np.repeat([1, 0], len(odds)),
        sample_weight=np.concatenate([weight * soft, weight * (1 - soft)]),
    )
    assert slope == pytest.approx(oracle.coef_[0, 0], abs=2e-4)
    assert intercept == pytest.approx(oracle.intercept_[0], abs=2e-4)


def test_isotonic_equals_scikit_learn() -> None:
    calls = history(int(MIN_ISOTONIC_OUTCOMES) * 3, stretch=1.0, shift=0.0)
    [fit] = calibrate(calls, [day(9000)]).fits
    assert fit.method == "isotonic"
    confidences, true, weight = arrays(calls)
    oracle = IsotonicRegression(out_of_bounds="clip").fit(confidences, true, weight)
    for s in np.linspace(25, 90, 27):
        assert fit.probability(s) == pytest.approx(float(oracle.predict([s])[0]), abs=0.08)
    levels = [fit.probability(s) for s in np.linspace(0, 100, 201)]
    assert levels == sorted(levels)
    assert 0 < levels[0] < levels[-1] < 1


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), min_size=30, max_size=60))
def test_calibration_is_monotone_within_open_interval(
    outcomes: list[tuple[float, bool]],
) -> None:
    [fit] = calibrate([call(n, c, t) for n, (c, t) in enumerate(outcomes)], [day(999)]).fits
    levels = [fit.probability(s) for s in range(101)]
    assert levels == sorted(levels)
    assert 0 < levels[0] <= levels[-1] < 1


def signal(action: str = "BUY", confidence: float = 90.0) -> TradingSignal:
    acts = action != "HOLD"
    return TradingSignal(
        symbol="X",
        action=action,
        confidence="HIGH",
        confidence_score=confidence,
        raw_confidence_score=confidence,
        calibrated=False,
        status=Status.OK,
        reasoning="the trend is up",
        suggested_entry_price=100 if acts else None,
        suggested_stop_loss=90 if acts else None,
        suggested_take_profit=120 if acts else None,
        model_used="rules",
        generated_at=day(500),
        as_of=day(500),
        conversation_id="c",
        tokens=0,
    )


PLATT = Calibration(
    method="platt", valid_from=day(400), calls=50, effective=50, reason="", slope=0.2, intercept=0.0
)
NONE = Calibration(method="none", valid_from=day(10), calls=3, effective=3, reason="3 are too few")


def test_calibrate_signal_keeps_raw_confidence() -> None:
    served = calibrate_signal(signal(), CalibrationBook(fits=(NONE, PLATT)))
    assert served.calibrated
    assert served.raw_confidence_score == 90
    assert served.confidence_score == pytest.approx(100 / (1 + 9**-0.2), abs=0.01)
    assert served.confidence == "MEDIUM"
    assert TradingSignal.model_validate(served.model_dump(exclude={"is_actionable"})) == served


def test_calibrate_signal_without_fit_warns() -> None:
    early = signal().model_copy(update={"as_of": day(20)})
    served = calibrate_signal(early, CalibrationBook(fits=(NONE, PLATT)))
    assert (served.calibrated, served.confidence_score) == (False, 90)
    assert served.warnings == ("confidence not calibrated: 3 are too few",)


def test_calibrate_signal_leaves_hold() -> None:
    assert calibrate_signal(signal("HOLD"), CalibrationBook(fits=(PLATT,))) == signal("HOLD")


def test_calibrate_signal_before_first_fit_raises() -> None:
    with pytest.raises(BeforeFirstFitError):
        CalibrationBook(fits=(PLATT,)).at(parse_as_of("2010-02-01"))


@pytest.mark.parametrize(
    "broken",
    [
        {"method": "platt", "slope": None},
        {"method": "isotonic", "knots": ()},
        {"method": "isotonic", "knots": ((0.2, 0.5), (0.4, 0.3))},
        {"method": "platt", "slope": -1.0},
    ],
)
def test_calibration_refuses_inconsistent_parameters(broken: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"slope|knots|greater"):
        Calibration.model_validate(PLATT.model_dump() | broken)


def test_confidence_record_uses_calibration_of_its_time() -> None:
    late = PLATT.model_copy(update={"valid_from": day(450), "intercept": 1.0})
    calls = [call(n, 60, True) for n in (20, 410, 460)]
    record = build_confidence_record(calls, CalibrationBook(fits=(NONE, PLATT, late)))
    expected = [PLATT.probability(60), late.probability(60)]
    assert record.calibrated.tolist() == pytest.approx(expected)
    assert record.measure()["calibrated_calls"] == 2


def test_brier_score_with_bins_equals_textbook() -> None:
    rng = np.random.default_rng(0)
    confidences, true = rng.uniform(0, 1, 200), (rng.random(200) < 0.5).astype(float)
    weight = rng.uniform(0.1, 1, 200)
    assert brier_score(confidences, true, weight) == pytest.approx(
        brier_score_loss(true, confidences, sample_weight=weight)
    )
    bins = reliability_bins(np.array([0.05, 0.95, 1.0]), np.array([0.0, 1.0, 0.0]), np.ones(3))
    assert [(b.probability, b.outcome, b.weight) for b in bins] == [
        (0.05, 0.0, 1.0),
        (0.975, 0.5, 2.0),
    ]
    outcomes = (np.array([0.7] * 10), np.array([1.0] * 5 + [0.0] * 5), np.ones(10))
    assert expected_calibration_error(*outcomes) == pytest.approx(0.2)


def test_reliability_without_calls_is_undefined() -> None:
    none = np.array([])
    for measure in (brier_score, expected_calibration_error, calibration_p_value):
        assert math.isnan(measure(none, none, none))
    assert math.isnan(
        build_confidence_record([], CalibrationBook(fits=(PLATT,))).measure()["p_calibration"]
    )


def test_reliability_test_needs_enough_calls() -> None:
    count = int(MIN_OUTCOMES)
    calls = [call(n, 60, n % 2 == 0) for n in range(410, 410 + count)]
    few, enough = (
        build_confidence_record(chosen, CalibrationBook(fits=(PLATT,))).measure()
        for chosen in (calls[1:], calls)
    )
    assert few["calibrated_calls_effective"] == count - 1
    assert math.isnan(few["p_calibration"])
    assert math.isfinite(few["brier"])
    assert 0 < enough["p_calibration"] <= 1


@pytest.mark.slow
def test_reliability_test_size_with_power() -> None:
    rng = np.random.default_rng(5)
    honest = off = 0
    for _ in range(400):
        confidences = rng.uniform(0.3, 0.8, 150)
        drawn = rng.random(150)
        honest += (
            calibration_p_value(confidences, (drawn < confidences).astype(float), np.ones(150))
            < 0.05
        )
        off += (
            calibration_p_value(
                confidences, (drawn < confidences - 0.2).astype(float), np.ones(150)
            )
            < 0.05
        )
    assert 0.02 < honest / 400 < 0.09
    assert off / 400 > 0.95


def test_reliability_test_refuses_certainty() -> None:
    with pytest.raises(ValueError, match="0 or 1"):
        calibration_p_value(np.array([1.0]), np.array([1.0]), np.ones(1))
