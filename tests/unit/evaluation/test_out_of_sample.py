"""Out-of-sample outcomes: what is said of decisions that failed."""

from __future__ import annotations

from finagent_model import make_decision, market_view
from finagent_model.data.bundled import BundledBars
from finagent_model.decision.signal import Status
from finagent_model.evaluation.out_of_sample import OutOfSampleBacktest, judge_out_of_sample
from finagent_model.training.request import EvaluationRequest


def judged(*statuses: Status) -> OutOfSampleBacktest:
    """One decision a bar at the end of June 2012, with these statuses."""
    bars = BundledBars().bars("FB").until(market_view("FB", "2012-06-29").as_of)[-len(statuses) :]
    decisions = [
        make_decision(
            market_view("FB", bars.close_time(i).date()),
            "HOLD",
            reasoning=f"reason of day {i}",
            author="me",
            status=status,
        )
        for i, status in enumerate(statuses)
    ]
    return judge_out_of_sample(bars, range(len(bars)), decisions, EvaluationRequest(symbols="FB"))


def test_notes_count_failures_with_first_reason() -> None:
    outcome = judged(Status.OK, Status.MODEL_ERROR, Status.MODEL_ERROR)
    assert outcome.notes() == [
        "2 of 3 decisions failed, first as of 2012-06-28 (model_error): reason of day 1"
    ]


def test_notes_are_empty_where_nothing_failed() -> None:
    assert judged(Status.OK, Status.ABSTAINED).notes() == []
