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

from finagent_model.testing import DECISION
from support.fake_llm import FakeProvider, Fault, Protocol
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
def llm() -> Iterator[FakeProvider]:
    with FakeProvider() as double:
        yield double


def test_fake_provider_fault_hits_one_agent_or_first_calls(llm: FakeProvider) -> None:
    def status(agent: str) -> int:
        return asked(llm, Protocol.OLLAMA, request(Protocol.OLLAMA, agent))[0]

    llm.fail(Fault.OVERLOADED, agent="NewsAnalyst", first=2)
    statuses = [status(agent) for agent in ("Executor", *["NewsAnalyst"] * 3)]
    assert statuses == [200, 503, 503, 200]
    assert len(llm.requests_of("NewsAnalyst")) == 3
    llm.fail(Fault.SERVER_ERROR)
    assert status("Executor") == 500
    llm.recover()
    assert status("Executor") == 200


@EVERY
@pytest.mark.parametrize("fault", ERRORS)
def test_fake_provider_error_has_status_with_reason(
    llm: FakeProvider, protocol: Protocol, fault: Fault
) -> None:
    llm.fail(fault)
    status, headers, data = asked(llm, protocol)
    assert status >= 400
    assert headers["x-request-id"] == headers["request-id"] == "req_1"
    error = json.loads(data)["error"]
    assert error if protocol is Protocol.OLLAMA else error["message"]
    if fault is Fault.BAD_KEY:
        assert llm.requests[0].api_key in data.decode()
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
def test_fake_provider_openai_errors_have_their_codes(
    llm: FakeProvider, protocol: Protocol, fault: Fault, code: str
) -> None:
    llm.fail(fault)
    assert told(llm, protocol)["error"]["code"] == code


@EVERY
def test_fake_provider_redirect_leads_to_no_model(llm: FakeProvider, protocol: Protocol) -> None:
    llm.fail(Fault.REDIRECT)
    status, headers, _ = asked(llm, protocol)
    assert (status, asked(llm, protocol, path=headers["Location"])[0]) == (307, 404)


@EVERY
def test_fake_provider_half_answer_is_cut_or_ends_in_order(
    llm: FakeProvider, protocol: Protocol
) -> None:
    llm.fail(Fault.CUT, first=1)
    with pytest.raises(http.client.IncompleteRead):
        asked(llm, protocol)
    llm.fail(Fault.ENDED_EARLY)
    with pytest.raises(json.JSONDecodeError):
        told(llm, protocol)
    pieces = pieces_of(protocol, asked(llm, protocol, request(protocol, stream=True))[2])
    assert 0 < len("".join(pieces)) < len(json.dumps(DECISION))


@EVERY
def test_fake_provider_dripping_answer_is_whole_in_the_end(
    llm: FakeProvider, protocol: Protocol
) -> None:
    llm.byte_pause_s = 60.0
    llm.fail(Fault.DRIP)
    connection = connected(llm, protocol)
    assert sent(connection, protocol, request(protocol)).read1(100) == b"{"
    connection.close()
    llm.byte_pause_s = 0.0
    assert json.loads(text_of(protocol, told(llm, protocol))) == DECISION


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.DRIP, None], ids=["hang", "drip", "delay"])
def test_fake_provider_stop_leaves_no_thread(fault: Fault | None) -> None:
    before = set(threading.enumerate())
    llm = FakeProvider()
    llm.byte_pause_s = 600.0
    if fault:
        llm.fail(fault)
    else:
        llm.delay_s = 600.0
    connections = [connected(llm, protocol) for protocol in Protocol]
    for connection, protocol in zip(connections, Protocol, strict=True):
        path = PATHS[protocol]
        connection.request("POST", path, json.dumps(request(protocol)), HEADERS[protocol])
    llm.wait_for_requests(4)
    start = time.monotonic()
    llm.stop()
    assert time.monotonic() - start < 60
    assert set(threading.enumerate()) <= before
    for connection in connections:
        connection.close()


def test_fake_provider_releases_caller_that_hangs_up(llm: FakeProvider) -> None:
    llm.fail(Fault.HANG)
    connection = connected(llm, Protocol.OPENAI)
    body = json.dumps(request(Protocol.OPENAI))
    connection.request("POST", PATHS[Protocol.OPENAI], body, HEADERS[Protocol.OPENAI])
    llm.wait_for_requests(1)
    connection.close()
    llm.wait_until_disconnected()
    assert llm.in_flight == 0


def test_fake_provider_down_address_refuses_connections(llm: FakeProvider) -> None:
    llm.fail(Fault.NOBODY_LISTENS)
    with pytest.raises(ConnectionRefusedError):
        asked(llm, Protocol.OPENAI)
    llm.recover()
    assert asked(llm, Protocol.OPENAI)[0] == 200


def test_fake_provider_own_certificate_is_not_trusted(llm: FakeProvider) -> None:
    llm.fail(Fault.UNTRUSTED)
    place = urlsplit(llm.address(Protocol.OPENAI))
    assert place.scheme == "https"
    with (
        socket.create_connection((str(place.hostname), place.port or 0)) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        ssl.create_default_context().wrap_socket(plain, server_hostname="127.0.0.1")


def test_fake_provider_address_fault_cannot_be_one_agents(llm: FakeProvider) -> None:
    with pytest.raises(ValueError, match="'connection refused' is the address's"):
        llm.fail(Fault.NOBODY_LISTENS, agent="Executor")


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
def test_fake_provider_refuses_what_provider_would_refuse(
    llm: FakeProvider, protocol: Protocol, wrong: dict[str, Any], why: str
) -> None:
    status, _, data = asked(llm, protocol, request(protocol, **wrong))
    assert status == 400
    assert why in data.decode()


@pytest.mark.parametrize("protocol", [p for p in Protocol if p is not Protocol.OLLAMA])
def test_fake_provider_without_key_answers_nothing(llm: FakeProvider, protocol: Protocol) -> None:
    assert asked(llm, protocol, headers={})[0] == 401
