"""The double of the chat providers answers, streams, counts and remembers."""

from __future__ import annotations

import base64
import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from finagent_model.testing import (
    ANALYSIS,
    DECISION,
    TERMS,
    FinishReason,
    ReplyLike,
    ScriptedReply,
    ScriptedToolCall,
)
from support.fake_llm import FakeProvider, Protocol, ProviderRequest
from support.fake_llm.http_calls import (
    KEY,
    PATHS,
    asked,
    connected,
    events,
    pieces_of,
    request,
    sent,
    text_of,
    told,
)

EVERY = pytest.mark.parametrize("protocol", Protocol)


@pytest.fixture
def llm() -> Iterator[FakeProvider]:
    with FakeProvider() as double:
        yield double


@EVERY
@pytest.mark.parametrize(
    ("agent", "said"), [("NewsAnalyst", ANALYSIS), ("RiskManager", TERMS), ("Executor", DECISION)]
)
def test_fake_provider_answers_agent_by_role(
    llm: FakeProvider, protocol: Protocol, agent: str, said: dict[str, Any]
) -> None:
    body = told(llm, protocol, request(protocol, agent))
    assert json.loads(text_of(protocol, body)) == said
    assert llm.requests[0].agent == agent


@EVERY
def test_fake_provider_stream_equals_whole_answer(llm: FakeProvider, protocol: Protocol) -> None:
    _, headers, data = asked(llm, protocol, request(protocol, stream=True))
    pieces = pieces_of(protocol, data)
    assert json.loads("".join(pieces)) == DECISION
    assert len([piece for piece in pieces if piece]) > 5
    kind = "application/x-ndjson" if protocol is Protocol.OLLAMA else "text/event-stream"
    assert headers["Content-Type"] == kind


def test_fake_provider_openai_stream_counts_tokens_on_request(llm: FakeProvider) -> None:
    body = request(Protocol.OPENAI, stream=True)
    silent = events(asked(llm, Protocol.OPENAI, body)[2])
    counting = {**body, "stream_options": {"include_usage": True}}
    counted = events(asked(llm, Protocol.OPENAI, counting)[2])
    assert not any("usage" in frame for frame in silent)
    assert counted[-1]["usage"]["total_tokens"] == 1100


@EVERY
def test_fake_provider_remembers_request(llm: FakeProvider, protocol: Protocol) -> None:
    before = time.monotonic()
    body = request(protocol)
    asked(llm, protocol, body)
    (seen,) = llm.requests
    assert (seen.protocol, seen.body, seen.model) == (protocol, body, "stub-1")
    assert seen.path == PATHS[protocol].split("?")[0]
    assert seen.api_key == ("" if protocol is Protocol.OLLAMA else KEY)
    assert seen.texts("user") == ["What now?"]
    assert before <= seen.received_at <= time.monotonic()
    assert (seen.deployment == "desk") == (protocol is Protocol.AZURE)


def test_fake_provider_openai_answers_without_v1(llm: FakeProvider) -> None:
    body = request(Protocol.OPENAI)
    assert asked(llm, Protocol.OPENAI, body, path="/chat/completions")[0] == 200
    assert asked(llm, Protocol.OPENAI, body, path="/v1/completions")[0] == 404
    assert len(llm.requests) == 1


def test_fake_provider_connection_carries_several_requests(llm: FakeProvider) -> None:
    connection = connected(llm, Protocol.OPENAI)
    for stream in (False, True, False):
        body = request(Protocol.OPENAI, stream=stream)
        assert sent(connection, Protocol.OPENAI, body).read()
    assert llm.connections == 1
    connection.close()
    llm.wait_until_disconnected()


@EVERY
def test_fake_provider_script_is_used_in_order(llm: FakeProvider, protocol: Protocol) -> None:
    llm.replies["Executor"] = ["one", {"two": 2}, ScriptedReply("three")]
    texts = [text_of(protocol, told(llm, protocol)) for _ in range(3)]
    assert texts == ["one", '{"two": 2}', "three"]


def test_fake_provider_exhausted_script_is_raised_at_exit() -> None:
    with (
        pytest.raises(AssertionError, match="script of 'Executor' has no reply left"),
        FakeProvider() as w,
    ):
        w.replies["Executor"] = []
        with pytest.raises(http.client.RemoteDisconnected):
            asked(w, Protocol.OPENAI)


@EVERY
def test_fake_provider_function_answers_by_request(llm: FakeProvider, protocol: Protocol) -> None:
    def echo(seen: ProviderRequest) -> str:
        return f"{seen.agent}: {seen.texts('user')[0]}"

    llm.replies["Executor"] = echo
    assert text_of(protocol, told(llm, protocol)) == "Executor: What now?"


def test_fake_provider_calls_tool_in_each_protocol(llm: FakeProvider) -> None:
    call = ScriptedReply(tool_calls=(ScriptedToolCall("price", {"symbol": "GOOG"}),))
    llm.replies["Executor"] = lambda seen: call
    for protocol in (Protocol.OPENAI, Protocol.AZURE):
        choice = told(llm, protocol)["choices"][0]
        (tool,) = choice["message"]["tool_calls"]
        assert (tool["function"]["name"], choice["finish_reason"]) == ("price", "tool_calls")
        assert json.loads(tool["function"]["arguments"]) == {"symbol": "GOOG"}
    body = told(llm, Protocol.ANTHROPIC)
    assert (body["content"][0]["input"], body["stop_reason"]) == ({"symbol": "GOOG"}, "tool_use")
    message = told(llm, Protocol.OLLAMA)["message"]
    assert message["tool_calls"][0]["function"]["arguments"] == {"symbol": "GOOG"}


def test_fake_provider_finish_reasons_are_each_protocols(llm: FakeProvider) -> None:
    script: list[ReplyLike] = [
        ScriptedReply("No.", finish_reason=FinishReason.REFUSAL),
        ScriptedReply("{", finish_reason=FinishReason.LENGTH),
    ]
    llm.replies["Executor"] = script * 3
    refused, cut = (told(llm, Protocol.OPENAI)["choices"][0] for _ in range(2))
    assert (refused["message"]["refusal"], refused["message"]["content"]) == ("No.", None)
    assert (refused["finish_reason"], cut["finish_reason"]) == ("stop", "length")
    stops = [told(llm, Protocol.ANTHROPIC)["stop_reason"] for _ in range(2)]
    assert stops == ["refusal", "max_tokens"]
    assert [told(llm, Protocol.OLLAMA)["done_reason"] for _ in range(2)] == ["stop", "length"]


def test_fake_provider_remembers_pictures(llm: FakeProvider) -> None:
    data = base64.b64encode(b"a chart").decode()
    link = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    block = {"type": "image", "source": {"type": "base64", "data": data}}
    user = {"role": "user"}
    for protocol, message in {
        Protocol.OPENAI: {**user, "content": [{"type": "text", "text": "See"}, link]},
        Protocol.ANTHROPIC: {**user, "content": [block, {"type": "text", "text": "See"}]},
        Protocol.OLLAMA: {**user, "content": "See", "images": [data]},
    }.items():
        asked(llm, protocol, request(protocol, messages=[message]))
        assert llm.requests[-1].images == [b"a chart"]
        assert llm.requests[-1].texts("user") == ["See"]


def test_fake_provider_counts_requests_in_flight(llm: FakeProvider) -> None:
    together = threading.Barrier(3, timeout=60)

    def wait(seen: ProviderRequest) -> str:
        together.wait()
        return "{}"

    llm.replies["Executor"] = wait
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda protocol: asked(llm, protocol), list(Protocol)[:3]))
    llm.wait_until_idle()
    assert llm.max_in_flight == 3
