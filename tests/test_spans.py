"""A decision as a tree of spans: who spoke when, to what, and what it took."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from decisions import ASKED, QUESTION, at, decision, signal

from finagent_model.artifacts.spans import Span, decision_span
from finagent_model.domain.decision import Decision, Turn
from finagent_model.domain.desk_config import DeskConfig
from finagent_model.domain.model_row import Price
from finagent_model.presets import load_preset

PRICES = {"stub-1": Price(prompt=1.0, completion=4.0, as_of=date(2026, 1, 1))}


def config(prices: dict[str, Price] = PRICES) -> DeskConfig:
    return load_preset().model_copy(update={"prices": prices})


@pytest.fixture
def root() -> Span:
    return decision_span(decision(), config())


def agents(root: Span) -> dict[str, Span]:
    return {span.name: span for span in root.children}


def seconds(span: Span) -> tuple[float, float]:
    return (span.start - ASKED).total_seconds(), (span.end - ASKED).total_seconds()


def test_the_decision_lasts_from_its_question_to_its_signal(root: Span) -> None:
    assert seconds(root) == (0, 7)
    assert root.inputs == {"symbol": "GOOG", "as_of": "2012-06-29T20:00:00Z"}
    assert root.outputs["action"] == "BUY"
    assert root.facts["tokens"] == 660
    assert root.failure is None


def test_there_is_a_span_for_each_agent_and_none_for_the_desk_that_asks(root: Span) -> None:
    assert list(agents(root)) == ["NewsAnalyst", "TechnicalAnalyst", "RiskManager", "Executor"]


def test_an_agent_begins_when_those_whom_it_waits_for_have_spoken(root: Span) -> None:
    assert seconds(agents(root)["TechnicalAnalyst"]) == (0, 3)
    assert seconds(agents(root)["RiskManager"]) == (3, 5)
    assert seconds(agents(root)["Executor"]) == (5, 6.5)


def test_each_call_goes_from_what_was_asked_to_its_reply(root: Span) -> None:
    first, mended = agents(root)["TechnicalAnalyst"].children
    assert (seconds(first), seconds(mended)) == ((0, 2), (2, 3))
    assert first.inputs == {"messages": [{"role": "user", "content": QUESTION}]}
    assert "not usable" in mended.inputs["messages"][0]["content"]
    assert mended.outputs["messages"][0]["content"] == '{"trend": "bullish"}'
    assert (first.tokens, mended.tokens) == ((100, 20), (200, 20))
    assert [call.facts["cached"] for call in (first, *agents(root)["Executor"].children)] == [
        False,
        True,
    ]


def test_costs_are_list_prices_and_add_up_to_the_decisions(root: Span) -> None:
    [call] = agents(root)["Executor"].children
    assert call.cost_usd == pytest.approx((300e-6, 80e-6))
    assert root.cost_usd == pytest.approx((600e-6, 240e-6))


def test_an_unknown_cost_is_unknown_in_every_span() -> None:
    for unknown in (
        decision_span(decision(cost_usd=None), config()),
        decision_span(decision(), config({})),
    ):
        calls = [call for agent in unknown.children for call in agent.children]
        assert {call.cost_usd for call in calls} == {None}
        assert unknown.cost_usd is None


def test_who_failed_or_was_skipped_says_why(root: Span) -> None:
    assert agents(root)["RiskManager"].failure == "model_error: no reply within 45 s"
    skipped = agents(root)["NewsAnalyst"]
    assert skipped.failure is None
    assert skipped.outputs == {"skipped": "no dated news in the view"}
    assert skipped.start == skipped.end


def test_a_failed_decision_says_why() -> None:
    failed = signal(
        status="model_error",
        action="HOLD",
        confidence="LOW",
        confidence_score=0,
        reasoning="no analyst could report",
    )
    assert decision_span(replace(decision(), signal=failed), config()).failure == failed.reasoning


def test_rules_are_never_called_a_model() -> None:
    turns = (
        Turn("desk", "request", QUESTION, at(0)),
        Turn("Executor", "response", "{}", at(1), model="rules"),
    )
    root = decision_span(Decision(signal(cost_usd=0.0), turns), config())
    [call] = root.children[0].children
    assert (call.kind, call.tokens, call.cost_usd) == ("rule", None, None)


def test_an_agent_that_the_desk_does_not_list_still_has_its_span() -> None:
    stranger = Turn("Stranger", "response", "{}", at(4), 1, 1, "stub-1")
    made = replace(decision(), turns=(*decision().turns, stranger))
    assert seconds(agents(decision_span(made, config()))["Stranger"]) == (0, 4)


def test_a_decision_without_a_conversation_is_a_moment() -> None:
    root = decision_span(Decision(signal()), config())
    assert (root.start, root.end, root.children) == (at(7), at(7), ())
