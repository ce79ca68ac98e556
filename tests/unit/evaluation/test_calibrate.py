"""Calibrated confidence: what is fitted on what, what is served, and whether it means that."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss

from finagent_model.decision.signal import Status, TradingSignal
from finagent_model.errors import BeforeFirstFitError
from finagent_model.evaluation.calibrate import (
    LEARNED,
    MIN_OUTCOMES,
    SLOPE_SPREAD,
    ConfidenceRecord,
    build_confidence_record,
    calibrate,
    fit_platt,
)
from finagent_model.market.bars import Floats, parse_as_of
from finagent_model.policy.trained_state import (
    NO_INFORMATION,
    Calibration,
    CalibrationBook,
    TradeOutcome,
    calibrate_signal,
    log_odds,
)
from finagent_model.statistics.reliability import (
    brier_score,
    calibration_slope,
    decompose_brier,
    expected_calibration_error,
    log_loss,
    log_losses,
    reliability_bins,
    skill_interval,
    skill_score,
    squared_errors,
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


def test_calibrate_serves_method_with_skill_on_past_folds() -> None:
    calls = history(900, stretch=1.0, shift=-0.3)
    fits = calibrate(calls, [day(100), day(300), day(2000)]).fits
    # The first fit has nothing to be judged on yet.
    assert fits[0].method == "base_rate"
    assert fits[-1].method == fits[-1].candidate
    assert fits[-1].method in LEARNED
    assert "had a Brier skill of +0." in fits[-1].reason
    for confidences in (30, 50, 70, 90):
        truth = 1 / (1 + math.exp(-(log_odds(confidences) - 0.3)))
        assert fits[-1].probability(confidences) == pytest.approx(truth, abs=0.1)


def test_calibrate_serves_isotonic_where_it_does_better() -> None:
    """A step, which no logistic curve fits."""
    rng = np.random.default_rng(5)
    scores = rng.uniform(20, 95, 1500)
    calls = [
        call(n, s, rng.random() < (0.85 if s > 85 else 0.35)) for n, s in enumerate(scores.tolist())
    ]
    assert calibrate(calls, [day(300), day(900), day(2000)]).fits[-1].method == "isotonic"


@pytest.mark.parametrize("stretch", [0.0, -1.0])
def test_calibrate_useless_confidence_becomes_base_rate(stretch: float) -> None:
    calls = history(900, stretch=stretch, shift=0.2)
    fit = calibrate(calls, [day(100), day(300), day(2000)]).fits[-1]
    assert fit.method == "base_rate"
    assert NO_INFORMATION in fit.reason
    share = np.mean([c.was_profitable for c in calls])
    assert fit.probability(20) == fit.probability(95) == pytest.approx(share, abs=0.01)


def test_calibrate_counts_equal_symbols_once() -> None:
    one = history(60)
    four = [c.model_copy(update={"symbol": name}) for name in "ABCD" for c in one]
    [alone], [together] = (calibrate(calls, [day(1000)]).fits for calls in (one, four))
    assert together.effective == pytest.approx(alone.effective)
    assert together.calls == 4 * alone.calls
    assert together.base_rate == pytest.approx(alone.base_rate)


def test_calibrate_counts_symbols_of_other_years_apart() -> None:
    one = history(60)
    later = [call(n + 500, c.confidence, c.was_profitable) for n, c in enumerate(one)]
    moved = [c.model_copy(update={"symbol": "Y"}) for c in later]
    [fit] = calibrate([*one, *moved], [day(2000)]).fits
    assert fit.effective == pytest.approx(120)


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
    calls = history(3000, stretch=1.0, shift=0.0)
    [fit] = calibrate(calls, [day(9000)]).fits
    confidences, true, weight = arrays(calls)
    oracle = IsotonicRegression(out_of_bounds="clip").fit(confidences, true, weight)
    for s in np.linspace(25, 90, 27):
        expected = float(oracle.predict([s])[0])
        assert fit.learned("isotonic", s) == pytest.approx(expected, abs=0.08)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), min_size=30, max_size=60))
def test_calibration_is_monotone_within_open_interval(
    outcomes: list[tuple[float, bool]],
) -> None:
    [fit] = calibrate([call(n, c, t) for n, (c, t) in enumerate(outcomes)], [day(999)]).fits
    for method in LEARNED:
        levels = [fit.learned(method, s) for s in range(101)]
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
    method="platt",
    candidate="platt",
    valid_from=day(400),
    calls=50,
    effective=50,
    reason="",
    base_rate=0.55,
    slope=0.2,
    intercept=0.0,
)
BASE_RATE = PLATT.model_copy(update={"method": "base_rate"})
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


def test_calibrate_signal_with_base_rate_says_so() -> None:
    served = calibrate_signal(signal(), CalibrationBook(fits=(NONE, BASE_RATE)))
    assert (served.calibrated, served.confidence_score) == (True, 55)
    assert served.raw_confidence_score == 90
    assert served.warnings == (NO_INFORMATION,)


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
        {"method": "base_rate", "base_rate": None},
        {"method": "base_rate", "base_rate": 1.0},
    ],
)
def test_calibration_refuses_inconsistent_parameters(broken: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"slope|knots|greater|base rate|less than"):
        Calibration.model_validate(PLATT.model_dump() | broken)


def test_confidence_record_uses_calibration_of_its_time() -> None:
    late = PLATT.model_copy(update={"valid_from": day(450), "intercept": 1.0})
    calls = [call(n, 60, True) for n in (20, 410, 460)]
    record = build_confidence_record(calls, CalibrationBook(fits=(NONE, PLATT, late)))
    expected = [PLATT.probability(60), late.probability(60)]
    assert record.calibrated.tolist() == pytest.approx(expected)
    assert record.climatology.tolist() == [0.55, 0.55]
    assert record.measure(seed=1)["calibrated_calls"] == 2


def test_confidence_record_judges_method_that_is_not_served() -> None:
    record = build_confidence_record([call(410, 60, True)], CalibrationBook(fits=(BASE_RATE,)))
    assert record.calibrated.tolist() == [0.55]
    assert record.learned.tolist() == [PLATT.probability(60)]


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


def test_murphy_decomposition_adds_up_to_brier_score() -> None:
    rng = np.random.default_rng(1)
    # One stated probability a bin: nothing is lost within the bins.
    stated = rng.choice([0.15, 0.35, 0.55, 0.75], 400)
    true, weight = (rng.random(400) < stated**1.5).astype(float), rng.uniform(0.1, 1, 400)
    parts = decompose_brier(stated, true, weight)
    total = parts.reliability - parts.resolution + parts.uncertainty
    assert total == pytest.approx(brier_score(stated, true, weight))
    constant = decompose_brier(np.full(400, 0.3), true, weight)
    assert constant.resolution == 0
    assert constant.reliability == pytest.approx((0.3 - np.average(true, weights=weight)) ** 2)


def test_log_loss_equals_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    stated, true = rng.uniform(0.05, 0.95, 100), (rng.random(100) < 0.4).astype(float)
    weight = rng.uniform(0.1, 1, 100)
    expected = sklearn_log_loss(true, stated, sample_weight=weight)
    assert log_loss(stated, true, weight) == pytest.approx(expected)


def test_skill_score_compares_with_reference() -> None:
    true = np.array([1.0, 0.0])
    one = np.ones(2)
    half, better = (squared_errors(np.array(p), true) for p in ([0.5, 0.5], [0.75, 0.25]))
    assert skill_score(half, half, one) == 0
    assert skill_score(better, half, one) == 0.75
    assert skill_score(half, better, one) == -3
    assert math.isnan(skill_score(half, np.zeros(2), one))


def forecasts(
    seed: int, skill: float, days: int = 900, overlap: int = 20
) -> tuple[Floats, Floats, Floats]:
    """Return losses of a forecast and of the base rate a half, for outcomes that overlap."""
    rng = np.random.default_rng(seed)
    hidden = np.convolve(rng.standard_normal(days + overlap - 1), np.ones(overlap), "valid")
    true = (hidden > 0).astype(float)
    known = skill * hidden / math.sqrt(overlap) + rng.standard_normal(days)
    stated = 1 / (1 + np.exp(-0.4 * known))
    return squared_errors(stated, true), squared_errors(np.full(days, 0.5), true), np.ones(days)


def test_skill_interval_of_empty_forecasts_is_rarely_above_zero() -> None:
    above = [
        skill_interval(*forecasts(seed, 0.0), np.arange(900), overlap=20, seed=1, draws=200).low > 0
        for seed in range(60)
    ]
    assert np.mean(above) <= 0.05


def test_skill_interval_finds_skill() -> None:
    losses = forecasts(1, 3.0)
    found = skill_interval(*losses, np.arange(900), overlap=20, seed=1)
    assert 0 < found.low < skill_score(*losses) < found.high


def test_skill_interval_counts_symbols_of_a_day_once() -> None:
    losses, day_number = forecasts(2, 1.0), np.arange(900)
    alone = skill_interval(*losses, day_number, overlap=20, seed=1)
    four = skill_interval(
        *(np.tile(each, 4) for each in losses), np.tile(day_number, 4), overlap=20, seed=1
    )
    assert (four.low, four.high) == pytest.approx((alone.low, alone.high))


def test_calibration_slope_recovers_stretch() -> None:
    rng = np.random.default_rng(4)
    stated = rng.uniform(0.1, 0.9, 4000)
    odds = np.log(stated / (1 - stated))
    true = (rng.random(4000) < 1 / (1 + np.exp(-(0.5 * odds + 0.1)))).astype(float)
    found = calibration_slope(stated, true, np.ones(4000), np.arange(4000))
    assert found.low < 0.5 < found.high
    assert found.high - found.low < 0.3
    # The same call of four symbols is one call.
    four = calibration_slope(
        np.tile(stated, 4), np.tile(true, 4), np.ones(16000), np.tile(np.arange(4000), 4)
    )
    assert (four.slope, four.low) == pytest.approx((found.slope, found.low), abs=1e-3)


def test_reliability_without_calls_is_undefined() -> None:
    none = np.array([])
    for measure in (brier_score, log_loss, expected_calibration_error):
        assert math.isnan(measure(none, none, none))
    assert math.isnan(decompose_brier(none, none, none).resolution)
    record = build_confidence_record([], CalibrationBook(fits=(PLATT,)))
    numbers = record.measure(seed=1)
    assert numbers.pop("calibrated_calls") == numbers.pop("calibrated_calls_effective") == 0
    assert all(math.isnan(number) for number in numbers.values())


def test_reliability_needs_enough_independent_calls() -> None:
    count = int(MIN_OUTCOMES)
    calls = [call(n, 40 + n % 7, n % 2 == 0) for n in range(410, 410 + count)]
    few, enough = (
        build_confidence_record(chosen, CalibrationBook(fits=(PLATT,))).measure(seed=1)
        for chosen in (calls[1:], calls)
    )
    assert few["calibrated_calls_effective"] == count - 1
    assert math.isnan(few["brier_skill_low"])
    assert math.isfinite(few["brier"])
    assert math.isfinite(enough["brier_skill_low"])


def test_reliability_of_equal_forecasts_is_undefined() -> None:
    """Who only ever said the base rate has no skill to be tested."""
    half = np.full(100, 0.5)
    true = np.arange(100.0) % 2
    record = ConfidenceRecord(half, half, half, half, true, np.ones(100), np.arange(100))
    numbers = record.measure(seed=1)
    for name in ("brier_skill_low", "log_skill_low", "calibration_slope"):
        assert math.isnan(numbers[name]), name


def test_calibration_slope_refuses_certainty() -> None:
    with pytest.raises(ValueError, match="0 or 1"):
        calibration_slope(np.ones(30), np.ones(30), np.ones(30), np.arange(30))
    assert log_losses(np.array([1.0]), np.array([1.0])).tolist() == [0]
