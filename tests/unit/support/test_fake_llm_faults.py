"""The double of the chat providers fails as it is told, and objects as the providers do."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.fake_llm import Fault, Protocol, Wire
from support.fake_llm.answers import DECISION
from support.fake_llm.faults import ERRORS
from support.fake_llm.http_calls import (
    HEADERS,
    PATHS,
    asked,
    connected,
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


def test_wire_fault_hits_one_agent_or_first_calls(wire: Wire) -> None:
    def status(agent: str) -> int:
        return asked(wire, Protocol.OLLAMA, request(Protocol.OLLAMA, agent))[0]

    wire.fail(Fault.OVERLOADED, agent="NewsAnalyst", first=2)
    statuses = [status(agent) for agent in ("Executor", *["NewsAnalyst"] * 3)]
    assert statuses == [200, 503, 503, 200]
    assert len(wire.asked_by("NewsAnalyst")) == 3
    wire.fail(Fault.SERVER_ERROR)
    assert status("Executor") == 500
    wire.heal()
    assert status("Executor") == 200


@EVERY
@pytest.mark.parametrize("fault", ERRORS)
def test_wire_error_has_status_with_reason(wire: Wire, protocol: Protocol, fault: Fault) -> None:
    wire.fail(fault)
    status, headers, data = asked(wire, protocol)
    assert status >= 400
    assert headers["x-request-id"] == headers["request-id"] == "req_1"
    error = json.loads(data)["error"]
    assert error if protocol is Protocol.OLLAMA else error["message"]
    if fault is Fault.BAD_KEY:
        assert wire.asked[0].key in data.decode()
    limited = {Fault.RATE_LIMITED_SECONDS: "Retry-After", Fault.RATE_LIMITED_MS: "retry-after-ms"}
    if fault in limited:
        assert (status, headers[limited[fault]]) == (429, "1")
    if fault is Fault.RATE_LIMITED:
        assert (status, headers["Retry-After"], headers["retry-after-ms"]) == (429, None, None)


@pytest.mark.parametrize(
    ("protocol", "fault", "code"),
    [
        (Protocol.OPENAI, Fault.CONTEXT_TOO_LONG, "context_length_exceeded"),
        (Protocol.AZURE, Fault.CONTEXT_TOO_LONG, "context_length_exceeded"),
        (Protocol.OPENAI, Fault.MODEL_NOT_FOUND, "model_not_found"),
        (Protocol.AZURE, Fault.MODEL_NOT_FOUND, "DeploymentNotFound"),
        (Protocol.OPENAI, Fault.CONTENT_FILTER, "invalid_prompt"),
        (Protocol.AZURE, Fault.CONTENT_FILTER, "content_filter"),
        (Protocol.OPENAI, Fault.NO_CREDIT, "insufficient_quota"),
    ],
)
def test_wire_openai_errors_have_their_codes(
    wire: Wire, protocol: Protocol, fault: Fault, code: str
) -> None:
    wire.fail(fault)
    assert told(wire, protocol)["error"]["code"] == code


@EVERY
def test_wire_half_answer_is_cut_or_ends_in_order(wire: Wire, protocol: Protocol) -> None:
    wire.fail(Fault.CUT, first=1)
    with pytest.raises(http.client.IncompleteRead):
        asked(wire, protocol)
    wire.fail(Fault.ENDED_EARLY)
    with pytest.raises(json.JSONDecodeError):
        told(wire, protocol)
    pieces = pieces_of(protocol, asked(wire, protocol, request(protocol, stream=True))[2])
    assert 0 < len("".join(pieces)) < len(json.dumps(DECISION))


@EVERY
def test_wire_dripping_answer_is_whole_in_the_end(wire: Wire, protocol: Protocol) -> None:
    wire.pause = 60.0
    wire.fail(Fault.DRIP)
    connection = connected(wire, protocol)
    assert sent(connection, protocol, request(protocol)).read1(100) == b"{"
    connection.close()
    wire.pause = 0.0
    assert json.loads(text_of(protocol, told(wire, protocol))) == DECISION


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.DRIP, None], ids=["hang", "drip", "delay"])
def test_wire_stop_leaves_no_thread(fault: Fault | None) -> None:
    before = set(threading.enumerate())
    wire = Wire()
    wire.pause = 60.0
    if fault:
        wire.fail(fault)
    else:
        wire.delay = 60.0
    connections = [connected(wire, protocol) for protocol in Protocol]
    for connection, protocol in zip(connections, Protocol, strict=True):
        path = PATHS[protocol]
        connection.request("POST", path, json.dumps(request(protocol)), HEADERS[protocol])
    wire.arrived(4)
    start = time.monotonic()
    wire.stop()
    assert time.monotonic() - start < 5
    assert set(threading.enumerate()) <= before
    for connection in connections:
        connection.close()


def test_wire_releases_caller_that_hangs_up(wire: Wire) -> None:
    wire.fail(Fault.HANG)
    connection = connected(wire, Protocol.OPENAI)
    body = json.dumps(request(Protocol.OPENAI))
    connection.request("POST", PATHS[Protocol.OPENAI], body, HEADERS[Protocol.OPENAI])
    wire.arrived(1)
    connection.close()
    wire.left_alone()
    assert wire.in_flight == 0


def test_wire_down_address_refuses_connections(wire: Wire) -> None:
    wire.fail(Fault.NOBODY_LISTENS)
    with pytest.raises(ConnectionRefusedError):
        asked(wire, Protocol.OPENAI)
    wire.heal()
    assert asked(wire, Protocol.OPENAI)[0] == 200


def test_wire_own_certificate_is_not_trusted(wire: Wire) -> None:
    wire.fail(Fault.UNTRUSTED)
    place = urlsplit(wire.address(Protocol.OPENAI))
    assert place.scheme == "https"
    with (
        socket.create_connection((str(place.hostname), place.port or 0)) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        ssl.create_default_context().wrap_socket(plain, server_hostname="127.0.0.1")


def test_wire_address_fault_cannot_be_one_agents(wire: Wire) -> None:
    with pytest.raises(ValueError, match="'nobody listens' is the address's"):
        wire.fail(Fault.NOBODY_LISTENS, agent="Executor")


LAX = {"name": "reply", "strict": True, "schema": {"type": "object"}}


@pytest.mark.parametrize(
    ("protocol", "wrong", "why"),
    [
        (
            Protocol.OPENAI,
            {"response_format": {"type": "json_object"}, "messages": [{"role": "user"}]},
            "must contain the word 'json'",
        ),
        (
            Protocol.OPENAI,
            {"response_format": {"type": "json_schema", "json_schema": LAX}},
            "'additionalProperties' is required",
        ),
        (
            Protocol.AZURE,
            {"messages": [{"role": "tool", "content": "1", "tool_call_id": "call_9"}]},
            "must be a response to a preceding message",
        ),
        (Protocol.OPENAI, {"messages": []}, "Missing required parameter"),
        (Protocol.ANTHROPIC, {"response_format": {}}, "Extra inputs are not permitted"),
        (Protocol.ANTHROPIC, {"max_tokens": None}, "Field required"),
        (Protocol.ANTHROPIC, {"temperature": 1.5}, "range: 0..1"),
        (Protocol.ANTHROPIC, {"messages": [{"role": "system", "content": "x"}]}, "Unexpected role"),
        (Protocol.OLLAMA, {"model": ""}, "model is required"),
    ],
)
def test_wire_refuses_what_provider_would_refuse(
    wire: Wire, protocol: Protocol, wrong: dict[str, Any], why: str
) -> None:
    status, _, data = asked(wire, protocol, request(protocol, **wrong))
    assert status == 400
    assert why in data.decode()


@pytest.mark.parametrize("protocol", [p for p in Protocol if p is not Protocol.OLLAMA])
def test_wire_without_key_answers_nothing(wire: Wire, protocol: Protocol) -> None:
    assert asked(wire, protocol, headers={})[0] == 401
