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

from support.fake_llm import Answer, Asked, Protocol, Said, Stop, ToolCall, Wire
from support.fake_llm.answers import ANALYST, DECISION, TERMS
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
def wire() -> Iterator[Wire]:
    with Wire() as double:
        yield double


@EVERY
@pytest.mark.parametrize(
    ("agent", "said"), [("NewsAnalyst", ANALYST), ("RiskManager", TERMS), ("Executor", DECISION)]
)
def test_wire_answers_agent_by_role(
    wire: Wire, protocol: Protocol, agent: str, said: dict[str, Any]
) -> None:
    body = told(wire, protocol, request(protocol, agent))
    assert json.loads(text_of(protocol, body)) == said
    assert wire.asked[0].agent == agent


@EVERY
def test_wire_stream_equals_whole_answer(wire: Wire, protocol: Protocol) -> None:
    _, headers, data = asked(wire, protocol, request(protocol, stream=True))
    pieces = pieces_of(protocol, data)
    assert json.loads("".join(pieces)) == DECISION
    assert len([piece for piece in pieces if piece]) > 5
    kind = "application/x-ndjson" if protocol is Protocol.OLLAMA else "text/event-stream"
    assert headers["Content-Type"] == kind


def test_wire_openai_stream_counts_tokens_on_request(wire: Wire) -> None:
    body = request(Protocol.OPENAI, stream=True)
    silent = events(asked(wire, Protocol.OPENAI, body)[2])
    counting = {**body, "stream_options": {"include_usage": True}}
    counted = events(asked(wire, Protocol.OPENAI, counting)[2])
    assert not any("usage" in frame for frame in silent)
    assert counted[-1]["usage"]["total_tokens"] == 1100


@EVERY
def test_wire_remembers_request(wire: Wire, protocol: Protocol) -> None:
    before = time.monotonic()
    body = request(protocol)
    asked(wire, protocol, body)
    (seen,) = wire.asked
    assert (seen.protocol, seen.body, seen.model) == (protocol, body, "stub-1")
    assert seen.path == PATHS[protocol].split("?")[0]
    assert seen.key == ("" if protocol is Protocol.OLLAMA else KEY)
    assert seen.said("user") == ["What now?"]
    assert before <= seen.at <= time.monotonic()
    assert (seen.deployment == "desk") == (protocol is Protocol.AZURE)


def test_wire_openai_answers_without_v1(wire: Wire) -> None:
    body = request(Protocol.OPENAI)
    assert asked(wire, Protocol.OPENAI, body, path="/chat/completions")[0] == 200
    assert asked(wire, Protocol.OPENAI, body, path="/v1/completions")[0] == 404
    assert len(wire.asked) == 1


def test_wire_connection_carries_several_requests(wire: Wire) -> None:
    connection = connected(wire, Protocol.OPENAI)
    for stream in (False, True, False):
        body = request(Protocol.OPENAI, stream=stream)
        assert sent(connection, Protocol.OPENAI, body).read()
    assert wire.connections == 1
    connection.close()
    wire.left_alone()


@EVERY
def test_wire_script_is_used_in_order(wire: Wire, protocol: Protocol) -> None:
    wire.answers["Executor"] = ["one", {"two": 2}, Answer("three")]
    texts = [text_of(protocol, told(wire, protocol)) for _ in range(3)]
    assert texts == ["one", '{"two": 2}', "three"]


def test_wire_exhausted_script_is_raised_at_exit() -> None:
    with pytest.raises(AssertionError, match="script of 'Executor' has no reply left"), Wire() as w:
        w.answers["Executor"] = []
        with pytest.raises(http.client.RemoteDisconnected):
            asked(w, Protocol.OPENAI)


@EVERY
def test_wire_function_answers_by_request(wire: Wire, protocol: Protocol) -> None:
    def echo(seen: Asked) -> str:
        return f"{seen.agent}: {seen.said('user')[0]}"

    wire.answers["Executor"] = echo
    assert text_of(protocol, told(wire, protocol)) == "Executor: What now?"


def test_wire_calls_tool_in_each_protocol(wire: Wire) -> None:
    call = Answer(tools=(ToolCall("price", {"symbol": "GOOG"}),))
    wire.answers["Executor"] = lambda seen: call
    for protocol in (Protocol.OPENAI, Protocol.AZURE):
        choice = told(wire, protocol)["choices"][0]
        (tool,) = choice["message"]["tool_calls"]
        assert (tool["function"]["name"], choice["finish_reason"]) == ("price", "tool_calls")
        assert json.loads(tool["function"]["arguments"]) == {"symbol": "GOOG"}
    body = told(wire, Protocol.ANTHROPIC)
    assert (body["content"][0]["input"], body["stop_reason"]) == ({"symbol": "GOOG"}, "tool_use")
    message = told(wire, Protocol.OLLAMA)["message"]
    assert message["tool_calls"][0]["function"]["arguments"] == {"symbol": "GOOG"}


def test_wire_finish_reasons_are_each_protocols(wire: Wire) -> None:
    script: list[Said] = [Answer("No.", stop=Stop.REFUSAL), Answer("{", stop=Stop.LENGTH)]
    wire.answers["Executor"] = script * 3
    refused, cut = (told(wire, Protocol.OPENAI)["choices"][0] for _ in range(2))
    assert (refused["message"]["refusal"], refused["message"]["content"]) == ("No.", None)
    assert (refused["finish_reason"], cut["finish_reason"]) == ("stop", "length")
    stops = [told(wire, Protocol.ANTHROPIC)["stop_reason"] for _ in range(2)]
    assert stops == ["refusal", "max_tokens"]
    assert [told(wire, Protocol.OLLAMA)["done_reason"] for _ in range(2)] == ["stop", "length"]


def test_wire_remembers_pictures(wire: Wire) -> None:
    data = base64.b64encode(b"a chart").decode()
    link = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    block = {"type": "image", "source": {"type": "base64", "data": data}}
    user = {"role": "user"}
    for protocol, message in {
        Protocol.OPENAI: {**user, "content": [{"type": "text", "text": "See"}, link]},
        Protocol.ANTHROPIC: {**user, "content": [block, {"type": "text", "text": "See"}]},
        Protocol.OLLAMA: {**user, "content": "See", "images": [data]},
    }.items():
        asked(wire, protocol, request(protocol, messages=[message]))
        assert wire.asked[-1].images == [b"a chart"]
        assert wire.asked[-1].said("user") == ["See"]


def test_wire_counts_requests_in_flight(wire: Wire) -> None:
    together = threading.Barrier(3, timeout=10)

    def wait(seen: Asked) -> str:
        together.wait()
        return "{}"

    wire.answers["Executor"] = wait
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda protocol: asked(wire, protocol), list(Protocol)[:3]))
    assert (wire.most, wire.in_flight) == (3, 0)
