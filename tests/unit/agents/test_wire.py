"""What a provider answers reaches an agent as a typed reply, or as a failure that says why."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from autogen_core import FunctionCall
from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    SystemMessage,
    UserMessage,
)

from finagent_model.agents import _wire
from finagent_model.agents._wire_formats import OPENAI, ReplyFacts
from finagent_model.agents.completion import UnavailableError
from finagent_model.cassette.records import RecordedReply, reply_from_row, reply_to_row
from support.raw_replies import (
    ARGUMENTS,
    BODIES,
    STREAMS,
    TEXT,
    RawProvider,
    as_stream,
    on_provider,
    spoilt,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:autogen_ext")
STREAM_KIND = {"openai": "text/event-stream", "anthropic": "text/event-stream"}


async def outcome(provider: RawProvider) -> RecordedReply | str:
    """Return the recorded reply, or why there is none; anything else is raised."""
    try:
        return await provider.ask()
    except UnavailableError as error:
        return str(error)


def answered(
    client: str, data: bytes, status: int = 200, kind: str = "application/json", **changes: Any
) -> RecordedReply | str:
    """Return what comes of one answer of a provider."""

    async def story(provider: RawProvider) -> RecordedReply | str:
        provider.answer(data, status=status, kind=kind)
        return await outcome(provider)

    return on_provider(client, story, **changes)


def assert_usable(reply: RecordedReply | str, what: str) -> None:
    """A reply is of the recorded types and can be sent back; a failure has words."""
    if isinstance(reply, str):
        assert len(reply) > 20, what
        return
    assert reply_from_row(json.loads(json.dumps(reply_to_row(reply)))) == reply, what
    ids = [call.id for call in reply.tool_calls]
    assert all(ids) and len(set(ids)) == len(ids), what
    assert all(call.name and len(call.name) <= 64 for call in reply.tool_calls), what


async def send_back(provider: RawProvider, reply: RecordedReply) -> None:
    """Ask again with the results of the reply's calls."""
    calls = [FunctionCall(id=c.id, name=c.name, arguments=c.arguments) for c in reply.tool_calls]
    results = [
        FunctionExecutionResult(content="{}", name=c.name, call_id=c.id, is_error=False)
        for c in calls
    ]
    await provider.ask(
        [
            SystemMessage(content="Answer in JSON."),
            UserMessage(content=str(len(provider.requests)), source="desk"),
            AssistantMessage(content=calls, source="TechnicalAnalyst"),
            FunctionExecutionResultMessage(content=results),
        ]
    )


TRANSPORTS = pytest.mark.parametrize("transport", ["autogen", "http"])
STEP = int(os.environ.get("FINAGENT_EVERY_SPOILT", "101"))
"""One in so many spoilt replies is tried, which takes every field in turn; 1 tries them all."""


def some(cases: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, Any]]:
    return itertools.islice(cases, 0, None, STEP)


@TRANSPORTS
@pytest.mark.parametrize("kind", BODIES)
def test_wire_reply_spoilt_in_any_field_never_raises(kind: str, transport: str) -> None:
    client = kind.split()[0]

    async def story(provider: RawProvider) -> None:
        for what, body in some(spoilt(BODIES[kind])):
            provider.answer(json.dumps(body).encode())
            reply = await outcome(provider)
            assert_usable(reply, what)
            if isinstance(reply, RecordedReply) and reply.tool_calls:
                provider.answer(json.dumps(BODIES[f"{client} text"]).encode())
                await send_back(provider, reply)

    on_provider(client, story, transport=transport, traffic={"break_after": 0})


@TRANSPORTS
@pytest.mark.parametrize("kind", STREAMS)
def test_wire_stream_spoilt_in_any_field_never_raises(kind: str, transport: str) -> None:
    client = kind.split()[0]

    async def story(provider: RawProvider) -> None:
        for i, frame in enumerate(STREAMS[kind]):
            for what, spoilt_frame in some(spoilt(frame)):
                frames = [*STREAMS[kind][:i], spoilt_frame, *STREAMS[kind][i + 1 :]]
                stream = as_stream(client, frames)
                provider.answer(stream, kind=STREAM_KIND.get(client, "application/x-ndjson"))
                assert_usable(await outcome(provider), what)

    keys = {"transport": transport, "stream": True, "traffic": {"break_after": 0}}
    on_provider(client, story, **keys)


@pytest.mark.parametrize("kind", BODIES)
def test_wire_good_reply_keeps_content(kind: str) -> None:
    reply = answered(kind.split()[0], json.dumps(BODIES[kind]).encode())
    assert isinstance(reply, RecordedReply)
    assert (reply.prompt_tokens, reply.completion_tokens, reply.usage_known) == (1000, 100, True)
    assert reply.content == (TEXT if "text" in kind else "")
    assert [json.loads(call.arguments) for call in reply.tool_calls] == [ARGUMENTS] * (
        "call" in kind
    )


@pytest.mark.parametrize("kind", STREAMS)
def test_wire_good_stream_keeps_content(kind: str) -> None:
    client = kind.split()[0]
    stream = as_stream(client, STREAMS[kind])
    reply = answered(
        client, stream, stream=True, kind=STREAM_KIND.get(client, "application/x-ndjson")
    )
    assert isinstance(reply, RecordedReply)
    assert (reply.prompt_tokens, reply.completion_tokens, reply.usage_known) == (1000, 100, True)
    assert reply.content == (TEXT if "text" in kind else "")
    assert [json.loads(call.arguments) for call in reply.tool_calls] == [ARGUMENTS] * (
        "call" in kind
    )


NO_REPLIES = (
    *(b"", b"[]", b"null", b'"x"', b"{}", b"[" * 100_000, b"\xff\xfe"),
    *(b'{"choices": [', b"<p>Hi</p>"),
)


@pytest.mark.parametrize("client", ["openai", "anthropic", "ollama"])
def test_wire_answer_that_is_no_reply_says_so(client: str) -> None:
    async def story(provider: RawProvider) -> None:
        for data in NO_REPLIES:
            provider.answer(data)
            said = await outcome(provider)
            assert isinstance(said, str) and "Error:" not in said, data[:20]

    on_provider(client, story, traffic={"break_after": 0})


def test_wire_stops_reading_a_huge_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wire, "MAX_BYTES", 1000)
    said = answered("openai", b" " * 2000)
    assert "longer than" in str(said)


@pytest.mark.parametrize("data", [b'data: {"choices": [', b"data: {}\n\n", b": comment\n\n", b""])
def test_wire_stream_that_breaks_off_is_no_reply(data: bytes) -> None:
    said = answered("openai", data, stream=True, kind="text/event-stream")
    assert "the answer can't be read: " in str(said)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_wire_stream_reads_other_line_ends_and_comments(end: bytes) -> None:
    frames = [b"data: " + json.dumps(frame).encode() for frame in STREAMS["openai text"]]
    stream = b": PROCESSING" + end + end.join(frames) + end
    reply = answered("openai", stream, stream=True, kind="text/event-stream")
    assert isinstance(reply, RecordedReply)
    assert (reply.content, reply.finish_reason) == (TEXT, "stop")


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_wire_stream_is_read_in_chunks_of_any_size(line_end: bytes) -> None:
    stream = as_stream("openai", STREAMS["openai text"]).replace(b"\n", line_end)

    async def story(size: int) -> bytes:
        async def chunks() -> AsyncIterator[bytes]:
            for i in range(0, len(stream), size):
                yield stream[i : i + size]

        parts = _wire._clean_stream(chunks(), OPENAI, ReplyFacts(), "m")
        return b"".join([part async for part in parts])

    whole, *others = (asyncio.run(story(size)) for size in (10**6, 1, 2, 7))
    assert others == [whole] * 3 and b'"finish_reason": "stop"' in whole


def test_wire_stream_that_calls_itself_json_is_read() -> None:
    stream = as_stream("openai", STREAMS["openai text"])
    reply = answered("openai", stream, stream=True, kind="application/json")
    assert isinstance(reply, RecordedReply)
    assert (reply.content, reply.usage_known) == (TEXT, True)


def test_wire_error_inside_a_stream_keeps_its_status() -> None:
    error = {"error": {"message": "Slow down", "code": 429}}
    stream = as_stream("openai", [STREAMS["openai text"][0], error])
    said = answered("openai", stream, stream=True, kind="text/event-stream")
    assert "HTTP 429" in str(said) and "Slow down" in str(said)


def test_wire_whole_answer_to_a_stream_names_the_setting() -> None:
    said = answered("openai", json.dumps(BODIES["openai text"]).encode(), stream=True)
    assert "set `stream: false`" in str(said)


PAGE = b"<html><title>503 Busy</title><body><script>x</script></body></html>"
ERRORS: tuple[tuple[int, Any, str], ...] = (
    (200, {"error": {"message": "No auth credentials found", "code": 401}}, "HTTP 401"),
    (200, {"error": {"message": "Slow down", "code": "429"}}, "HTTP 429"),
    (200, {"error": "the model is loading"}, "answered with an error: the model is loading"),
    (200, {"choices": [{"error": {"message": "Upstream died", "code": 502}}]}, "HTTP 502"),
    (302, "Moved", "HTTP 302, the request was refused: Moved"),
    (400, {"error": "text alone"}, "HTTP 400, the request was refused: text alone"),
    (422, {"detail": [{"loc": ["body"], "msg": "extra field"}]}, "extra field"),
    (400, [{"error": {"code": 400, "message": "Unknown name seed"}}], "Unknown name seed"),
    (400, {"message": {"detail": [{"msg": "seed is extra"}]}}, "seed is extra"),
    (402, {"error": {"message": "Insufficient Balance"}}, "the account has no credit"),
    (503, PAGE, "HTTP 503, the provider failed: a page, not JSON: 503 Busy"),
)


def test_wire_error_reaches_user_in_providers_words() -> None:
    async def story(provider: RawProvider) -> None:
        for status, body, said in ERRORS:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            provider.answer(data, status=status)
            assert said in str(await outcome(provider))

    on_provider("openai", story, traffic={"break_after": 0})


WIRES = [
    (client, transport)
    for client in ("openai", "anthropic", "ollama")
    for transport in ("autogen", "http")
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(("client", "transport"), WIRES)
def test_wire_redirect_is_named_but_never_followed(
    client: str, transport: str, status: int, stream: bool
) -> None:
    async def story(provider: RawProvider) -> tuple[str, int, dict[str, Any]]:
        target = "https://new.test:8443/v1?token=very-secret"
        provider.answer(b"", status=status, location=target)
        session = provider.new_session()
        with pytest.raises(UnavailableError) as error:
            await provider.ask(session=session)
        [settled] = (e.body["settled"] for e in session.events if "settled" in e.body)
        return str(error.value), len(provider.requests), settled

    keys = {"transport": transport, "stream": stream, "limits": {"retries": 2}}
    said, asked, settled = on_provider(client, story, **keys)
    assert f"HTTP {status}" in said and "it redirects to https://new.test:8443, " in said
    assert "set base_url" in said and "very-secret" not in said
    assert (asked, settled["tokens"]) == (1, 0)


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("/v2/chat", "http://provider.test,"),
        ('https://a b"<x>.test/', "https://a?b??x?.test,"),
        ("https://h:notaport/", "no address,"),
        (f"https://{'a' * 5000}.test/", f"https://{'a' * 200}"),
    ],
)
def test_wire_redirect_shows_no_more_than_a_host(location: str, shown: str) -> None:
    async def story(provider: RawProvider) -> str:
        provider.answer(b"", status=302, location=location)
        return str(await outcome(provider))

    said = on_provider("openai", story)
    assert f"it redirects to {shown}" in said and len(said) < 500


def sent(client: str, **changes: Any) -> dict[str, Any]:
    """Return the body of one request."""

    async def story(provider: RawProvider) -> dict[str, Any]:
        provider.answer(json.dumps(BODIES[f"{client} text"]).encode())
        await provider.ask()
        return provider.requests[0]

    body: dict[str, Any] = on_provider(client, story, **changes)
    return body


def test_wire_request_to_a_reasoning_model() -> None:
    body = sent("openai", model="gpt-5-mini", sampling={"reasoning_effort": "low"})
    assert (body["max_completion_tokens"], body["reasoning_effort"]) == (800, "low")
    assert not {"max_tokens", "temperature"} & set(body)


@pytest.mark.parametrize("client", ["openai", "anthropic", "ollama"])
def test_wire_request_leaves_out_a_temperature_of_null(client: str) -> None:
    body = sent(client, sampling={"temperature": None})
    assert "temperature" not in {**body, **body.get("options", {})}


def test_wire_request_of_an_unknown_model_is_as_before() -> None:
    body = sent("openai")
    assert set(body) == {
        *("model", "messages", "temperature", "max_tokens", "seed", "response_format"),
        *("tools", "tool_choice", "stream"),
    }
