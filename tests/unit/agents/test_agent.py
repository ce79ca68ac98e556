"""An agent whose model answers badly: what it is asked again, and what is taken off."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finagent_model.cassette.cassette import Cassette
from finagent_model.data.market import Market
from finagent_model.decision.decision import Decision
from finagent_model.desk.desk import Desk
from finagent_model.market.bars import parse_as_of
from finagent_model.market.view import MarketView
from finagent_model.settings import Settings
from finagent_model.testing import (
    ANALYSIS,
    DECISION,
    ChatRequest,
    FakeLLM,
    FinishReason,
    ScriptedReply,
)
from support.chat_model import KEY, config

CUT = ScriptedReply('{"trend": "bullish", "key_fac', finish_reason=FinishReason.LENGTH)


@pytest.fixture(scope="module")
def view() -> MarketView:
    return Market.from_settings(Settings.load({})).view("GOOG", parse_as_of("2012-06-29"))


def decided(llm: FakeLLM, view: MarketView, **changes: Any) -> Decision:
    settings = Settings.load({"OPENAI_API_KEY": KEY})
    desk = Desk(config(llm, **changes), None, settings, Cassette())
    try:
        return desk.decide(view)
    finally:
        desk.close()


def test_agent_cut_reply_is_not_sent_back(view: MarketView) -> None:
    with FakeLLM({"TechnicalAnalyst": [CUT, ANALYSIS]}) as llm:
        assert decided(llm, view).signal.status == "ok"
    *_, shown, asked = llm.requests_of("TechnicalAnalyst")[1].messages
    assert shown["content"] == "(cut off)"
    assert "`summary` in at most 300 characters, at most 2 `key_factors`" in asked["content"]


def test_agent_cut_reply_narrows_the_bounds_of_its_schema(view: MarketView) -> None:
    with FakeLLM({"TechnicalAnalyst": [CUT, CUT, ANALYSIS]}) as llm:
        assert decided(llm, view, structured=True).signal.status == "ok"
    schemas = [
        request.body["response_format"]["json_schema"]["schema"]["properties"]
        for request in llm.requests_of("TechnicalAnalyst")
    ]
    assert [schema["summary"]["maxLength"] for schema in schemas] == [600, 300, 150]
    assert [schema["key_factors"]["maxItems"] for schema in schemas] == [5, 2, 1]


@pytest.mark.parametrize("blank", ["\n\n", " ", "\t \r\n"])
def test_agent_blank_reply_is_asked_again_without_it(view: MarketView, blank: str) -> None:
    with FakeLLM({"TechnicalAnalyst": [blank, ANALYSIS]}) as llm:
        assert decided(llm, view).signal.status == "ok"
    assert llm.requests_of("TechnicalAnalyst")[1].messages[-2]["content"] == "(no text)"


def test_agent_wrapped_reply_is_heard_without_its_wrapping(view: MarketView) -> None:
    answer = json.dumps(ANALYSIS)
    with FakeLLM({"TechnicalAnalyst": f"<think>Hm.</think>\n```json\n{answer}\n```"}) as llm:
        decision = decided(llm, view)
    assert decision.signal.status == "ok"
    assert llm.requests_of("RiskManager")[0].messages[2]["content"] == answer
    taken_off = [e.body["taken_off"] for e in decision.events if e.kind == "unwrapped"]
    assert taken_off == [["thoughts", "code fence"]]


def test_agent_is_asked_about_confidence_as_a_fraction(view: MarketView) -> None:
    fraction = DECISION | {"confidence_score": 0.7}
    with FakeLLM({"Executor": [fraction, DECISION]}) as llm:
        signal = decided(llm, view).signal
    assert (signal.status, signal.confidence_score) == ("ok", 70)
    assert "percentage from 0 to 100" in llm.requests_of("Executor")[1].messages[-1]["content"]


def longest(schema: dict[str, Any]) -> Any:
    """Return the longest value that a grammar of `schema` lets a model write."""
    endless = 100_000
    if "enum" in schema:
        return max(schema["enum"], key=len)
    if "anyOf" in schema:
        return longest(schema["anyOf"][0])
    if schema["type"] == "object":
        return {name: longest(part) for name, part in schema["properties"].items()}
    if schema["type"] == "array":
        return [longest(schema["items"])] * schema.get("maxItems", 100)
    return "x" * schema.get("maxLength", endless) if schema["type"] == "string" else 0.123456789


@pytest.mark.parametrize("bounds", [True, False])
def test_agent_small_model_under_a_grammar_ends_its_reply(view: MarketView, bounds: bool) -> None:
    def babble(request: ChatRequest) -> ScriptedReply:
        # It stops where the grammar makes it stop; two characters a token is a poor tokenizer.
        schema = request.body["response_format"]["json_schema"]["schema"]
        text, room = json.dumps(longest(schema)), 2 * request.body["max_tokens"]
        reason = FinishReason.LENGTH if len(text) > room else FinishReason.STOP
        return ScriptedReply(text[:room], finish_reason=reason)

    with FakeLLM({"TechnicalAnalyst": babble, "RiskManager": babble}) as llm:
        changes: dict[str, Any] = {"request": {"schema_bounds": bounds}}
        signal = decided(llm, view, structured=True, **changes).signal
    assert signal.status == ("ok" if bounds else "parse_failed")
    assert len(llm.requests_of("TechnicalAnalyst")) == (1 if bounds else 3)
