"""What passes between chat clients and a provider over HTTP, held to what both understand.

AutoGen's clients trust a reply's fields, and raise for one that is null or missing. So a reply is
rebuilt before they see it (`_wire_formats`), and an answer that is an error, whatever its status,
is raised in the provider's own words (`_provider_errors`). A request is edited where a server
refuses what AutoGen's clients write.

The SDKs use two HTTP libraries of one interface (`httpx` and a fork), so nothing is imported from
either.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any
from urllib.parse import urljoin, urlsplit

from autogen_core.models import ChatCompletionClient

from finagent_model.agents._http_client import find_http
from finagent_model.agents._provider_errors import (
    ProviderError,
    UnusableReplyError,
    find_error,
    parse_json,
    read_provider_error,
)
from finagent_model.agents._wire_formats import (
    ReplyFacts,
    WireFormat,
    read_frames,
    unify_line_ends,
)

MAX_BYTES = 4_000_000
"""Of an answer; a longer one is not read on."""
MAX_HOST_CHARS = 253
"""Of a name, as DNS takes it."""
REMOVED_FROM_HOST = re.compile(r"[^A-Za-z0-9.:_-]")
DONE = "[DONE]"
"""The last event of OpenAI's streams."""
BEDROCK = "vnd.amazon.eventstream"
"""Type of the streams of Amazon's service."""
EVENT_STARTS = (b"data:", b"event:", b":")
Edit = Callable[[dict[str, Any]], dict[str, Any]]
"""Returns the body of a request as a server takes it."""
_FACTS: ContextVar[list[ReplyFacts] | None] = ContextVar("facts", default=None)


def capture_facts() -> list[ReplyFacts]:
    """Return a list that gets the facts of replies to this task and the tasks that it starts.

    The last one is of the last answer; clients that no wire was put on leave it empty.
    """
    facts: list[ReplyFacts] = []
    _FACTS.set(facts)
    return facts


def guard(client: ChatCompletionClient, wire_format: WireFormat, edit: Edit) -> None:
    """Put a client on a guarded wire: every answer to it is rebuilt."""
    # `send` is the one method through which all three SDKs and our own client pass, and it keeps
    # proxies and certificates as they are set.
    http = find_http(client)
    if http is None:
        return  # a component's class of another build; its replies are checked when recorded
    original = http.send
    # OpenAI's client warns of a reply by any other name than the one that it makes of the model's.
    resolved_name = getattr(client, "_resolved_model", None)

    async def send(request: Any, *, stream: bool = False, **options: Any) -> Any:
        body = parse_json(request.content) if request.content else {}
        # A redirect makes a GET of a POST, and its target's answer would pass for the reply.
        options["follow_redirects"] = False
        response = await original(_edit_wire_request(request, body, edit), stream=True, **options)
        content_type = response.headers.get("content-type", "")
        if stream and BEDROCK in content_type:
            return response  # binary, and its own SDK's to read
        facts = ReplyFacts()
        if (captured := _FACTS.get()) is not None:
            captured.append(facts)
        model = resolved_name or str(body.get("model", ""))
        if not stream or response.status_code >= 300 or _is_whole(content_type, wire_format):
            return await _rebuild_response(response, wire_format, facts, model, stream=stream)
        raw = response.aiter_bytes
        response.aiter_bytes = lambda *_: _clean_stream(raw(), wire_format, facts, model)
        return response

    http.send = send


def _edit_wire_request(request: Any, body: dict[str, Any], edit: Edit) -> Any:
    """Return the request with its edited body; itself where nothing is edited."""
    edited = edit(body)
    if edited == body:
        return request
    return type(request)(
        request.method,
        request.url,
        headers={k: v for k, v in request.headers.items() if k.lower() != "content-length"},
        content=json.dumps(edited).encode(),
        extensions=request.extensions,
    )


async def _rebuild_response(
    response: Any, wire_format: WireFormat, facts: ReplyFacts, model: str, *, stream: bool
) -> Any:
    """Return a response with a reply that came whole, rebuilt; `stream` is what was asked for.

    Raises ProviderError or UnusableReplyError.
    """
    try:
        data = await _read(response)
    finally:
        await response.aclose()
    if stream and data.lstrip().startswith(EVENT_STARTS):  # a stream by another name
        parts = _clean_stream(_one(data), wire_format, facts, model)
        content_type, content = "text/event-stream", b"".join([part async for part in parts])
    else:
        reply = _read_reply(data, response)
        if stream:
            raise UnusableReplyError(
                "it came whole where a stream was asked for; set `stream: false`", retryable=False
            )
        cleaned = wire_format.clean_body(reply, facts, model)
        content_type, content = "application/json", json.dumps(cleaned).encode()
    return type(response)(
        response.status_code,
        headers={"content-type": content_type},
        content=content,
        request=response.request,
    )


def _is_whole(content_type: str, wire_format: WireFormat) -> bool:
    """Tell whether an answer is no stream, by its type: a whole reply, an error or a page."""
    whole = "text/html" in content_type
    return whole or (wire_format.is_sse and content_type.startswith("application/json"))


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _read(response: Any) -> bytes:
    data = bytearray()
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > MAX_BYTES:
            raise _too_long()
    return bytes(data)


def _too_long() -> UnusableReplyError:
    return UnusableReplyError(f"it is longer than {MAX_BYTES // 10**6} MB", retryable=False)


def _read_reply(data: bytes, response: Any) -> dict[str, Any]:
    """Return the body of a whole reply. Raises ProviderError or UnusableReplyError."""
    if new_address := _redirect_target(response):
        words = f"it redirects to {new_address}, and is not followed: set base_url to that server"
        raise ProviderError(words, response.status_code, response)
    if response.status_code >= 300:
        raise read_provider_error(data, response.status_code, response)
    if not data.strip():
        raise UnusableReplyError("it is empty")
    try:
        body = parse_json(data)
    except ValueError as error:
        if data.lstrip()[:1] in (b"{", b"["):
            raise UnusableReplyError(f"it is not whole JSON: {error}") from None
        raise read_provider_error(data, 200, response) from None
    # Gemini's door wraps an error in a list.
    if isinstance(body, list) and body and isinstance(body[0], dict) and find_error(body[0]):
        body = body[0]
    if not isinstance(body, dict):
        raise UnusableReplyError(f"it is of type {type(body).__name__}, not an object")
    _raise_error_in(body, response, billed=False)
    return body


def _redirect_target(response: Any) -> str:
    """Return the scheme and host that an answer redirects to; empty where it is no redirect."""
    location = response.headers.get("location", "")
    if not 300 <= response.status_code < 400 or not location:
        return ""
    try:
        url = urlsplit(urljoin(str(response.request.url), location))
        port = f":{url.port}" if url.port else ""
    except ValueError:
        return "no address"
    # No more of it: a path or a query may hold a token.
    host = REMOVED_FROM_HOST.sub("?", url.hostname or "")[:MAX_HOST_CHARS]
    return f"{url.scheme[:10]}://{host}{port}"


def _raise_error_in(body: dict[str, Any], response: Any, *, billed: bool) -> None:
    """Raise ProviderError for a body of status 200 that names an error."""
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    named = find_error(body) or (isinstance(choice, dict) and choice.get("error"))
    if named:
        error = read_provider_error(json.dumps(named).encode(), 200, response)
        # The status may stand beside the error as well as in it.
        whole = read_provider_error(json.dumps(body).encode(), 200)
        status = error.status_code or whole.status_code
        raise ProviderError(error.words, status, response, code=error.code, billed=billed)


async def _clean_stream(
    chunks: AsyncIterator[bytes], wire_format: WireFormat, facts: ReplyFacts, model: str
) -> AsyncIterator[bytes]:
    """Yield a stream's events or lines, rebuilt.

    Raises ProviderError, or UnusableReplyError where the stream breaks off.
    """
    is_sse = wire_format.is_sse
    end = b"\n\n" if is_sse else b"\n"
    length, rest = 0, b""
    async for chunk in chunks:
        length += len(chunk)
        if length > MAX_BYTES:
            raise _too_long()
        data = rest + chunk
        # The line feed of a last carriage return may be in the next chunk.
        held = b"\r" if data.endswith(b"\r") else b""
        frames, separator, rest = unify_line_ends(data.removesuffix(held), is_sse).rpartition(end)
        rest += held
        for part in _clean_frames(frames + separator, wire_format, facts, model):
            yield part
    for part in _clean_frames(rest, wire_format, facts, model):
        yield part
    if not facts.ended:
        raise UnusableReplyError("it ended early")


def _clean_frames(
    data: bytes, wire_format: WireFormat, facts: ReplyFacts, model: str
) -> list[bytes]:
    parts = []
    for text in read_frames(data, wire_format.is_sse):
        if text.strip() == DONE:
            facts.ended = True
            parts.append(b"data: [DONE]\n\n")
            continue
        try:
            frame = parse_json(text)
        except ValueError:
            if text.lstrip().startswith("{"):
                raise UnusableReplyError("a part of it is not whole JSON") from None
            # A gateway's page in place of a stream, or its words.
            raise read_provider_error(text.encode(), 200) from None
        if not isinstance(frame, dict):
            raise UnusableReplyError("a part of it is not a JSON object")
        _raise_error_in(frame, None, billed=True)
        for cleaned in wire_format.clean_frame(frame, facts, model):
            parts.append(_written(cleaned, wire_format.is_sse))
    return parts


def _written(frame: dict[str, Any], is_sse: bool) -> bytes:
    line = json.dumps(frame)
    if not is_sse:
        return line.encode() + b"\n"
    # Anthropic's SDK goes by the name of an event, OpenAI's by its data.
    name = f"event: {frame['type']}\n" if isinstance(frame.get("type"), str) else ""
    return f"{name}data: {line}\n\n".encode()
