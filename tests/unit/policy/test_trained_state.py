"""Lessons: what the desk remembers of its own calls, and that it never remembers the future."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finagent_model._progress import no_progress
from finagent_model.audit.chain import CONVERSATION_FILE as CONVERSATION
from finagent_model.audit.verification import verify_chain
from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import DeskConfig, MemoryConfig, load_preset
from finagent_model.data.bundled import BundledBars
from finagent_model.data.market import Market
from finagent_model.desk.desk import Desk
from finagent_model.evaluation.calibrate import calibrate, select_lessons
from finagent_model.evaluation.out_of_sample import OutOfSampleBacktest
from finagent_model.evaluation.probes import check_memory_dated, check_trained_state_repeats
from finagent_model.pipeline.backtest import (
    TranscriptWriter,
    decide_and_reflect,
    decide_out_of_sample,
)
from finagent_model.policy.context import build_context
from finagent_model.policy.policy import Policy, PolicyBook
from finagent_model.policy.trained_state import (
    CalibrationBook,
    StateAt,
    TradeOutcome,
    TrainedState,
    dump_outcomes,
    load_outcomes,
)
from finagent_model.settings import Settings
from finagent_model.training.request import TrainRequest
from finagent_model.training.walk_forward import fit_policies

REQUEST = TrainRequest(symbols=("GOOG",), train_bars=250, test_bars=60, candidates=6)


def desk(learned: TrainedState | None, config: DeskConfig | None = None) -> Desk:
    return Desk(config or load_preset(), learned, Settings.load({}), Cassette())


def market() -> Market:
    result = Market(BundledBars(), None)
    result._bars["GOOG"] = BundledBars().bars("GOOG")[:700]
    return result


@pytest.fixture(scope="module")
def policies() -> PolicyBook:
    return fit_policies({"GOOG": market().bars("GOOG")}, REQUEST).policies


@pytest.fixture(scope="module")
def taken(
    policies: PolicyBook, tmp_path_factory: pytest.TempPathFactory
) -> tuple[OutOfSampleBacktest, Path]:
    """A record, and the conversation behind it."""
    folder = tmp_path_factory.mktemp("minutes")
    with TranscriptWriter() as minutes:
        result = decide_and_reflect(
            desk(None), market(), "GOOG", policies, REQUEST, no_progress, minutes
        )
        head = minutes.close(folder)
    assert verify_chain((folder / "audit.jsonl").read_text(), head) == ()
    return result, folder / CONVERSATION


@pytest.fixture(scope="module")
def record(taken: tuple[OutOfSampleBacktest, Path]) -> OutOfSampleBacktest:
    return taken[0]


@pytest.fixture(scope="module")
def transcript(taken: tuple[OutOfSampleBacktest, Path]) -> Path:
    return taken[1]


def learned_from(record: OutOfSampleBacktest, policies: PolicyBook) -> TrainedState:
    calls = record.trade_outcomes()
    return TrainedState(policies, calibrate(calls, policies.start_times), select_lessons(calls))


def questions(transcript: Path) -> list[dict[str, Any]]:
    """What was asked on each day, in the order of the decisions."""
    turns = [json.loads(line) for line in transcript.read_text().splitlines()]
    firsts = [next(group) for _, group in groupby(turns, key=itemgetter("conversation_id"))]
    return [json.loads(turn["message_content"]) for turn in firsts]


def test_lessons_never_overlap_or_see_later_outcomes(record: OutOfSampleBacktest) -> None:
    calls = record.trade_outcomes()
    lessons = select_lessons(calls)
    assert 5 < len(lessons) < len(calls)
    for one, other in pairwise(lessons):
        assert one.closed_at <= other.as_of
    for moment in [call.closed_at for call in calls[::7]]:
        early = select_lessons([call for call in calls if call.closed_at <= moment])
        assert early == tuple(lesson for lesson in lessons if lesson.closed_at <= moment)


@pytest.mark.slow
def test_lessons_of_fold_had_closed_before_it(
    record: OutOfSampleBacktest, transcript: Path, policies: PolicyBook
) -> None:
    remembering = 0
    for decision, question in zip(record.decisions, questions(transcript), strict=True):
        memory = question["memory"]
        if decision.signal.as_of < policies.start_times[1]:
            assert memory is None
        if memory is not None:
            remembering += 1
            lessons = learned_from(record, policies).at("GOOG", decision.signal.as_of).lessons
            assert memory["calls"] == len(lessons)
            assert all(lesson.closed_at < decision.signal.as_of for lesson in lessons)
    assert remembering > 100


@pytest.mark.slow
def test_trained_desk_repeats_questions_of_training(
    record: OutOfSampleBacktest, transcript: Path, policies: PolicyBook, tmp_path: Path
) -> None:
    complete = desk(learned_from(record, policies))
    with TranscriptWriter() as later:
        decide_out_of_sample(complete, market(), "GOOG", policies, REQUEST, no_progress, later)
        later.close(tmp_path)
    assert questions(tmp_path / CONVERSATION) == questions(transcript)


def test_out_of_sample_transcripts_go_to_disk(
    record: OutOfSampleBacktest, transcript: Path
) -> None:
    assert [decision.turns for decision in record.decisions] == [()] * len(record.decisions)
    assert len(questions(transcript)) == len(record.decisions)


def test_question_ignores_later_bars(
    record: OutOfSampleBacktest, transcript: Path, policies: PolicyBook, tmp_path: Path
) -> None:
    cut = 520
    shorter = market()
    shorter._bars["GOOG"] = shorter.bars("GOOG")[:cut]
    with TranscriptWriter() as taken:
        decide_and_reflect(desk(None), shorter, "GOOG", policies, REQUEST, no_progress, taken)
        taken.close(tmp_path)
    earlier = questions(tmp_path / CONVERSATION)
    assert len(earlier) == cut - 255
    assert earlier == questions(transcript)[: cut - 255]


def test_lessons_stay_with_their_symbol(record: OutOfSampleBacktest, policies: PolicyBook) -> None:
    learned = learned_from(record, policies)
    last = record.decisions[-1].signal.as_of
    assert learned.at("GOOG", last).lessons
    assert learned.at("IBM", last).lessons == ()


def test_lesson_has_age_with_outcome(record: OutOfSampleBacktest) -> None:
    lessons = select_lessons(record.trade_outcomes())
    view = market().bar_views("GOOG", [699])[0]
    text = json.loads(build_context(view, Policy(), lessons, 2).text)
    assert text["memory"]["calls"] == len(lessons)
    latest = text["memory"]["latest"]
    assert len(latest) == 2
    assert latest[-1]["days_ago"] == (view.as_of.date() - lessons[-1].as_of.date()).days
    assert latest[-1]["earned_percent"] == pytest.approx(100 * lessons[-1].earned, rel=1e-2)
    assert not [key for key in latest[-1] if key in ("as_of", "closed_at")]


def test_memory_of_zero_lessons_is_empty(record: OutOfSampleBacktest, policies: PolicyBook) -> None:
    config = load_preset().model_copy(update={"memory": MemoryConfig(lessons=0)})
    view = market().bar_views("GOOG", [699])[0]
    decision = desk(learned_from(record, policies), config).decide(view)
    assert json.loads(decision.turns[0].message_content)["memory"] is None


def test_verify_detects_look_ahead_lessons(
    record: OutOfSampleBacktest, policies: PolicyBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = learned_from(record, policies)
    moments = [decision.signal.as_of for decision in record.decisions]
    assert check_memory_dated(learned, "GOOG", moments).passed

    def forward(self: TrainedState, symbol: str, as_of: datetime) -> StateAt:
        return StateAt(self.policies.at(as_of, symbol), tuple(self.lessons))

    monkeypatch.setattr(TrainedState, "at", forward)
    check = check_memory_dated(learned, "GOOG", moments)
    assert not check.passed
    assert "had not closed, first as of" in check.found


def test_verify_detects_changed_lessons_or_calibrations(
    record: OutOfSampleBacktest, policies: PolicyBook
) -> None:
    learned = learned_from(record, policies)
    calls = {"GOOG": record.trade_outcomes()}
    assert check_trained_state_repeats(learned, calls).passed
    first: TradeOutcome = learned.lessons[0].model_copy(update={"earned": 0.5})
    forged = TrainedState(policies, learned.calibrations, (first, *learned.lessons[1:]))
    assert "other lessons" in check_trained_state_repeats(forged, calls).found
    assert learned.calibrations
    fits = learned.calibrations.fits
    sure = fits[-1].model_copy(update={"calls": 10**6})
    boasting = TrainedState(policies, CalibrationBook(fits=(*fits[:-1], sure)), learned.lessons)
    assert "other calibrations" in check_trained_state_repeats(boasting, calls).found


def test_lessons_have_raw_confidence(record: OutOfSampleBacktest) -> None:
    raw_scores = {d.signal.as_of: d.signal.raw_confidence_score for d in record.decisions}
    calls = record.trade_outcomes()
    assert all(call.confidence == raw_scores[call.as_of] for call in calls)
    assert np.mean([call.was_profitable for call in calls]) < 1


def test_outcomes_keep_line_separators_of_their_texts() -> None:
    outcome = TradeOutcome(
        symbol="GOOG",
        as_of=datetime(2012, 6, 29, 20, tzinfo=UTC),
        closed_at=datetime(2012, 7, 30, 20, tzinfo=UTC),
        action="BUY",
        confidence=60,
        earned=0.01,
        ended="time",
        bars_held=20,
        weight=1,
        key_factors=("one\u2028two", "three\x85four"),
    )
    assert load_outcomes(dump_outcomes([outcome, outcome])) == (outcome, outcome)
