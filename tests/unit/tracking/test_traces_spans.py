"""A decision as a tree of spans: who asked what when, and what it took."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import load_preset
from finagent_model.data.market import Market
from finagent_model.decision.decision import Decision
from finagent_model.desk.desk import Desk
from finagent_model.market.bars import parse_as_of
from finagent_model.settings import Settings
from finagent_model.tracking._spans import Span, decision_span
from support.decisions import ASKED, PRICES, QUESTION, asked, at, decision, events, replied, signal


@pytest.fixture
def root() -> Span:
    return decision_span(decision(), PRICES)


def agents(root: Span) -> dict[str, Span]:
    return {span.name: span for span in root.children}


def calls(root: Span) -> list[Span]:
    return [call for agent in root.children for call in agent.children]


def seconds(span: Span) -> tuple[float, float]:
    return (span.start - ASKED).total_seconds(), (span.end - ASKED).total_seconds()


def test_span_of_decision_lasts_from_question_to_signal(root: Span) -> None:
    assert seconds(root) == (0, 7)
    assert root.inputs == {"symbol": "GOOG", "as_of": "2012-06-29T20:00:00Z"}
    assert root.outputs["action"] == "BUY"
    assert root.attributes["tokens"] == 660
    assert root.failure is None


def test_spans_cover_agents_not_the_desk(root: Span) -> None:
    assert {name: seconds(span) for name, span in agents(root).items()} == {
        "NewsAnalyst": (0, 0),
        "TechnicalAnalyst": (0.5, 3),
        "RiskManager": (3, 5),
        "Executor": (5, 6.5),
    }


def test_span_of_call_lasts_from_request_to_reply(root: Span) -> None:
    first, tool, second = agents(root)["TechnicalAnalyst"].children
    assert [seconds(span) for span in (first, tool, second)] == [(0.5, 2), (2, 2.25), (2.25, 3)]
    assert [span.kind for span in (first, tool, second)] == ["model", "tool", "model"]
    assert first.inputs["messages"] == [
        {"role": "system", "content": "You are an analyst."},
        {"role": "user", "content": QUESTION, "name": "desk"},
    ]
    [message] = first.outputs["messages"]
    assert message["tool_calls"][0]["function"] == {"name": "indicator", "arguments": "{}"}
    assert second.outputs["messages"][0]["content"] == '{"trend": "bullish"}'
    assert (first.tokens, second.tokens) == ((100, 20), (200, 20))


def test_span_marks_cached_reply(root: Span) -> None:
    assert [call.attributes["cached"] for call in calls(root) if "cached" in call.attributes] == [
        False,
        False,
        True,
    ]


def test_span_costs_add_up_to_those_of_decision(root: Span) -> None:
    [call] = agents(root)["Executor"].children
    assert call.cost_usd == pytest.approx((300e-6, 80e-6))
    assert root.cost_usd == pytest.approx((600e-6, 240e-6))
    assert root.tokens == (600, 60)


def test_span_cost_is_none_everywhere_if_unknown() -> None:
    for unknown in (
        decision_span(decision(cost_usd=None), PRICES),
        decision_span(decision(), {}),
    ):
        assert {call.cost_usd for call in calls(unknown)} == {None}
        assert unknown.cost_usd is None


def test_span_of_failed_call_has_reason(root: Span) -> None:
    agent = agents(root)["RiskManager"]
    [call] = agent.children
    assert call.failure == agent.failure == "model_error: no reply within 45 s"
    assert call.attributes == {"model": "stub-1", "retries": ["HTTP 500"]}
    assert seconds(call) == (3, 5)


def test_span_of_skipped_agent_has_reason(root: Span) -> None:
    skipped = agents(root)["NewsAnalyst"]
    assert skipped.failure is None
    assert skipped.outputs == {"skipped": "no dated news in the view"}


def test_span_of_cut_off_call_lasts_until_decision_end() -> None:
    cut_off = replace(decision(), events=(*events()[:3], asked("Executor", 9)))
    cut = agents(decision_span(cut_off, PRICES))["TechnicalAnalyst"]
    assert seconds(cut) == (0.5, 9)
    assert cut.children[0].failure == "the decision was broken off before there was a reply"


def test_span_of_failed_decision_has_reason() -> None:
    failed = signal(
        status="model_error",
        action="HOLD",
        confidence="LOW",
        confidence_score=0,
        reasoning="no analyst could report",
    )
    assert decision_span(replace(decision(), signal=failed), PRICES).failure == failed.reasoning


def test_span_of_rules_is_never_a_model() -> None:
    recorded = (asked("Executor", 0, model=""), replied("Executor", 1, "{}", (0, 0), model="rules"))
    root = decision_span(Decision(signal(cost_usd=0.0), events=recorded), PRICES)
    [call] = calls(root)
    assert (call.kind, call.tokens, call.cost_usd) == ("rule", None, None)
    [cut] = calls(decision_span(Decision(signal(), events=recorded[:1]), PRICES))
    assert cut.kind == "rule"


def test_span_without_conversation_is_a_moment() -> None:
    root = decision_span(Decision(signal()), PRICES)
    assert (root.start, root.end, root.children) == (at(7), at(7), ())


def test_spans_from_real_desk_form_same_tree() -> None:
    settings = Settings.load({})
    desk = Desk(load_preset(), None, settings, Cassette())
    view = Market.from_settings(settings).view("GOOG", parse_as_of("2012-06-29"))
    root = decision_span(desk.decide(view), {})
    assert list(agents(root)) == ["NewsAnalyst", "TechnicalAnalyst", "RiskManager", "Executor"]
    assert [(call.name, call.kind) for call in calls(root)] == [("rules", "rule")] * 3
    executor = calls(root)[-1].inputs["messages"]
    assert [m.get("name") for m in executor] == [None, "desk", "TechnicalAnalyst", "RiskManager"]
    for agent in root.children:
        assert root.start <= agent.start <= agent.end <= root.end
