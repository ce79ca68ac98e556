"""Replies of each protocol as they arrive, spoilt in any field, and a desk's client that gets them.

No server is started: the client's own HTTP library is given an answer.
"""

from __future__ import annotations

import asyncio
import copy
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from autogen_core.models import LLMMessage, SystemMessage, UserMessage

from finagent_model.agents._http_client import HttpChatClient
from finagent_model.agents.completion import ChatService, CompletionRequest
from finagent_model.agents.providers import ClientPool
from finagent_model.agents.session import Session
from finagent_model.agents.tools import schemas
from finagent_model.cassette.cassette import Cassette
from finagent_model.cassette.records import RecordedReply
from finagent_model.config.desk_config import DeskConfig, load_preset
from finagent_model.desk.desk import utc_now
from finagent_model.settings import Settings
from finagent_model.testing import ANALYSIS

SETTINGS = Settings.load(
    dict.fromkeys(
        ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "ANTHROPIC_API_KEY"), "any-key-will-do"
    )
)
TEXT = json.dumps(ANALYSIS)
ARGUMENTS = {"last": 2}
MISSING = object()
"""In place of a value: the key is left out."""
ODD: tuple[Any, ...] = (
    *(MISSING, None, "", "x", "7", 0, -1, 10**30, 0.5, True, [], {}, [None], [[]], ["x"]),
    *({"x": 1}, "x" * 5000, "\x00\ud800", [{}], {"text": None}),
)
"""What a field may be instead: absent, null, of another type, empty or huge."""

_CALL = {"name": "bars", "arguments": json.dumps(ARGUMENTS)}
_OPENAI_USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
_ANTHROPIC_USAGE = {"input_tokens": 1000, "output_tokens": 100}


def _openai(message: dict[str, Any], finish_reason: str) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": finish_reason, "message": message}
    head = {"id": "c", "object": "chat.completion", "created": 0, "model": "m"}
    return {**head, "choices": [choice], "usage": _OPENAI_USAGE}


def _anthropic(block: dict[str, Any], stop_reason: str) -> dict[str, Any]:
    head = {"id": "m", "type": "message", "role": "assistant", "model": "m"}
    return {**head, "content": [block], "stop_reason": stop_reason, "usage": _ANTHROPIC_USAGE}


def _ollama(message: dict[str, Any]) -> dict[str, Any]:
    counts = {"prompt_eval_count": 1000, "eval_count": 100}
    said = {"role": "assistant", **message}
    return {"model": "m", "message": said, "done": True, "done_reason": "stop", **counts}


BODIES: dict[str, dict[str, Any]] = {
    "openai text": _openai({"role": "assistant", "content": TEXT}, "stop"),
    "openai call": _openai(
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": _CALL}],
        },
        "tool_calls",
    ),
    "anthropic text": _anthropic({"type": "text", "text": TEXT}, "end_turn"),
    "anthropic call": _anthropic(
        {"type": "tool_use", "id": "call_1", "name": "bars", "input": ARGUMENTS}, "tool_use"
    ),
    "ollama text": _ollama({"content": TEXT}),
    "ollama call": _ollama(
        {"content": "", "tool_calls": [{"function": {"name": "bars", "arguments": ARGUMENTS}}]}
    ),
}
"""A good reply of each kind; the first word is the client."""


def _openai_frame(delta: dict[str, Any], finish_reason: str | None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    head = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    return {**head, "choices": [choice], **more}


STREAMS: dict[str, list[dict[str, Any]]] = {
    "openai text": [
        _openai_frame({"role": "assistant", "content": TEXT[:20]}, None),
        _openai_frame({"content": TEXT[20:]}, None),
        _openai_frame({}, "stop", usage=_OPENAI_USAGE),
    ],
    "openai call": [
        _openai_frame(
            {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": _CALL}]},
            None,
        ),
        _openai_frame({}, "tool_calls", usage=_OPENAI_USAGE),
    ],
    "anthropic call": [
        {"type": "message_start", "message": {**BODIES["anthropic call"], "content": []}},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "tool_use", "id": "call_1", "name": "bars", "input": {}},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "input_json_delta", "partial_json": json.dumps(ARGUMENTS)},
        },
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use"},
            "usage": {"output_tokens": 100},
        },
        {"type": "message_stop"},
    ],
    "ollama call": [BODIES["ollama call"]],
}
"""A good reply of each kind as a stream, part by part."""


def spoilt(body: Any) -> Iterator[tuple[str, Any]]:
    """Yield the body with one field spoilt, for each field and each of `ODD`, and what was done."""
    for path in _paths(body):
        for odd in ODD:
            changed = copy.deepcopy(body)
            parent = changed
            for key in path[:-1]:
                parent = parent[key]
            if odd is MISSING:
                del parent[path[-1]]
            else:
                parent[path[-1]] = odd
            yield f"{path} {'missing' if odd is MISSING else repr(odd)[:40]}", changed


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, part in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield from _paths(part, (*path, key))


def as_stream(client: str, frames: list[Any]) -> bytes:
    """Return frames as the client's provider streams them."""
    if client == "ollama":
        return b"".join(json.dumps(frame).encode() + b"\n" for frame in frames)
    names = [json.dumps(f.get("type", ""))[1:-1] for f in frames]
    events = [f"event: {n}\ndata: {json.dumps(f)}\n\n" for n, f in zip(names, frames, strict=True)]
    return "".join(events).encode()


class RawProvider:
    """A desk's chat service whose provider answers with bytes; use it on one event loop."""

    def __init__(self, client: str, **changes: Any) -> None:
        preset = load_preset("lean").model_dump()
        given = {"client": client, "model": "m", "base_url": "http://provider.test", **changes}
        given["limits"] = {**preset["limits"], "retries": 0, **changes.get("limits", {})}
        self.config = DeskConfig.model_validate({**preset, **given})
        self.pool = ClientPool(self.config, SETTINGS)
        self.cassette = Cassette()
        self.requests: list[dict[str, Any]] = []
        self._answer: tuple[int, dict[str, str], bytes] = (200, {}, b"")
        chat: Any = self.pool.client(self.pool.roster[0])
        http: Any = chat.http if isinstance(chat, HttpChatClient) else chat._client._client
        root = next(c for c in type(http).__mro__ if c.__name__ == "AsyncClient").__module__
        library: Any = sys.modules[root.partition(".")[0]]
        self._response = library.Response
        http._transport, http._mounts = library.MockTransport(self._respond), {}

    def answer(
        self, data: bytes, *, status: int = 200, kind: str = "application/json", **headers: str
    ) -> None:
        """Answer so from now on."""
        self._answer = status, {"content-type": kind, **headers}, data

    async def ask(
        self, messages: list[LLMMessage] | None = None, session: Session | None = None
    ) -> RecordedReply:
        """Return what is recorded of one request, which may call `bars`."""
        row = self.pool.roster[0]
        asked = messages or [
            SystemMessage(content="Answer in JSON."),
            UserMessage(content=f"Request {len(self.requests)}", source="desk"),
        ]
        request = CompletionRequest(row, asked, schemas(["bars"]), "auto")
        return await ChatService(self.pool, self.cassette).complete(
            request, session or self.new_session()
        )

    def new_session(self) -> Session:
        """Return the memory of a new decision."""
        return Session(self.config, "cached", utc_now)

    def _respond(self, request: Any) -> Any:
        self.requests.append(json.loads(request.content))
        status, headers, data = self._answer
        return self._response(status, headers=headers, content=data)


def on_provider(client: str, story: Callable[[RawProvider], Any], **changes: Any) -> Any:
    """Return what the coroutine `story` returns for a provider that is closed after it."""

    async def told() -> Any:
        provider = RawProvider(client, **changes)
        try:
            return await story(provider)
        finally:
            await provider.pool.close()

    return asyncio.run(told())
