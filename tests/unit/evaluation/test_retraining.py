"""Training again on cut and on corrupted bars: a search that saw its future is caught."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

import numpy as np
import pytest

from finagent_model.data.bundled import BundledBars
from finagent_model.decision.decision import Decision, make_decision
from finagent_model.evaluation import out_of_sample
from finagent_model.evaluation.calibrate import calibrate
from finagent_model.evaluation.out_of_sample import OutOfSampleBacktest, judge_out_of_sample
from finagent_model.evaluation.retraining import check_policies_refitted, check_training_causal
from finagent_model.market.bars import BarSeries, parse_as_of
from finagent_model.market.view import MarketView
from finagent_model.policy.policy import PolicyBook
from finagent_model.policy.trained_state import TradeOutcome, TrainedState
from finagent_model.training import walk_forward
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import PolicyScorer, ScoreSources
from finagent_model.training.walk_forward import fit_policies, out_of_sample_part

REQUEST = TrainRequest(train_bars=250, test_bars=60, candidates=24)


@cache
def goog() -> BarSeries:
    return BundledBars().bars("GOOG")[:440]


def fit(request: TrainRequest = REQUEST) -> PolicyBook:
    return fit_policies(histories(request), request).policies


def histories(request: TrainRequest = REQUEST) -> dict[str, BarSeries]:
    symbols = {"GOOG": goog(), "AAPL": replace(goog()[100:], symbol="AAPL")}
    return {symbol: symbols[symbol] for symbol in request.symbols}


@cache
def backtest() -> OutOfSampleBacktest:
    """Of a call to buy on every fifth out-of-sample day."""
    bars = goog()[out_of_sample_part(goog(), fit())]
    positions = range(0, len(bars), 5)
    return judge_out_of_sample(bars, positions, [buy(bars, i) for i in positions], REQUEST)


def buy(bars: BarSeries, position: int) -> Decision:
    view = MarketView.at(parse_as_of(bars.close_time(position).date()), bars)
    levels = {"stop": view.last_close * 0.96, "target": view.last_close * 1.06}
    return make_decision(view, "BUY", reasoning="by the calendar", author="test", **levels)


def train() -> TrainedState:
    policies = fit()
    calls = backtest().trade_outcomes()
    return TrainedState(policies, calibrations=calibrate(calls, policies.start_times))


@pytest.mark.parametrize(
    "request_",
    [
        REQUEST,
        REQUEST.model_copy(update={"symbols": ("GOOG", "AAPL")}),
        REQUEST.model_copy(update={"symbols": ("GOOG", "AAPL"), "pooled": False}),
    ],
)
def test_policies_refitted_pass_honest_training(request_: TrainRequest) -> None:
    check = check_policies_refitted(histories(request_), fit(request_), request_)
    assert check.passed, check.found


def test_training_causal_passes_honest_training() -> None:
    check = check_training_causal(histories(), train(), [backtest()], REQUEST)
    assert check.passed, check.found


@pytest.fixture
def searched_on_test_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each search looks at its own test window as well, and says nothing of it."""
    parts_of = walk_forward._training_parts

    def with_test_window(
        scorers: Any, calendar: Any, window: walk_forward._FitWindow, request: TrainRequest
    ) -> Any:
        stop = min(window.stop + request.purge_bars + request.test_bars, len(calendar))
        return parts_of(scorers, calendar, replace(window, stop=stop), request)

    monkeypatch.setattr(walk_forward, "_training_parts", with_test_window)


@pytest.mark.usefixtures("searched_on_test_fold")
def test_policies_searched_on_test_fold_are_not_refitted() -> None:
    check = check_policies_refitted(histories(), fit(), REQUEST)
    assert not check.passed
    assert "another policy" in check.found


@pytest.mark.usefixtures("searched_on_test_fold")
def test_policies_searched_on_test_fold_are_not_causal() -> None:
    state = TrainedState(fit())
    check = check_training_causal(histories(), state, [], REQUEST)
    assert not check.passed
    assert "change the policy that was fitted until then" in check.found


def test_fold_without_purge_is_not_refitted() -> None:
    first, *rest = fit().fits
    early = first.model_copy(update={"valid_from": first.fit_until + timedelta(days=1)})
    check = check_policies_refitted(histories(), PolicyBook(fits=(early, *rest)), REQUEST)
    assert not check.passed
    assert "another valid_from" in check.found


def test_missing_fit_is_not_refitted() -> None:
    check = check_policies_refitted(histories(), PolicyBook(fits=fit().fits[1:]), REQUEST)
    assert not check.passed


def test_outcomes_stamped_closed_early_are_not_causal(monkeypatch: pytest.MonkeyPatch) -> None:
    label, state = out_of_sample.label_outcomes, train()

    def early(*args: Any) -> tuple[TradeOutcome, ...]:
        return tuple(
            call.model_copy(update={"closed_at": call.as_of + timedelta(days=1)})
            for call in label(*args)
        )

    monkeypatch.setattr(out_of_sample, "label_outcomes", early)
    check = check_training_causal(histories(), state, [backtest()], REQUEST)
    assert not check.passed
    assert "change outcomes of GOOG that had closed before" in check.found


def test_calibration_on_later_outcomes_is_not_causal() -> None:
    state = train()
    known_at_once = [
        call.model_copy(update={"closed_at": call.as_of}) for call in backtest().trade_outcomes()
    ]
    leaky = calibrate(known_at_once, state.policies.start_times)
    state = replace(state, calibrations=leaky)
    check = check_training_causal(histories(), state, [backtest()], REQUEST)
    assert not check.passed
    assert "change its calibration" in check.found


def test_external_scores_are_cut_with_the_bars() -> None:
    scores = {"GOOG": np.sin(np.arange(len(goog())) / 9.0)}
    sources = ScoreSources(external=scores)
    policies = fit_policies(histories(), REQUEST, score_sources=sources).policies
    check = check_policies_refitted(histories(), policies, REQUEST, sources)
    assert check.passed, check.found
    causal = check_training_causal(histories(), TrainedState(policies), [], REQUEST, sources)
    assert causal.passed, causal.found


def test_features_of_the_whole_history_are_not_refitted(monkeypatch: pytest.MonkeyPatch) -> None:
    scored = PolicyScorer.score

    def peeking(self: PolicyScorer, policy: Any, part: slice) -> Any:
        # The score of ten bars ahead, where the history has them.
        later = slice(part.start + 10, min(part.stop + 10, len(self.bars)))
        score = scored(self, policy, later)
        return np.append(score, scored(self, policy, part)[len(score) :])

    monkeypatch.setattr(PolicyScorer, "score", peeking)
    assert not check_policies_refitted(histories(), fit(), REQUEST).passed
