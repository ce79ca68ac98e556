"""A chat client over plain HTTP: neither AutoGen's extension nor an SDK.

A desk would go on with it if `autogen-ext` ended (`docs/decisions/0013-leaving-autogen.md`). A row
chooses it by `transport: http`. How a provider words a request and a reply is an `HttpProtocol`,
one file for each. Requests say what those of AutoGen's clients say, so recorded replies are found
by the same keys. Replies come through the guarded wire (`_wire`), which leaves only fields of known
types.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
from autogen_core import CancellationToken, FunctionCall
from autogen_core.models import (
    ChatCompletionClient,
    CreateResult,
    FinishReasons,
    LLMMessage,
    ModelCapabilities,
    ModelInfo,
    RequestUsage,
)
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel, SecretStr

from finagent_model.agents._wire_formats import CUT_REASONS, read_frames

FINISH_REASONS: dict[str, FinishReasons] = {
    **dict.fromkeys(("stop", "end_turn", "stop_sequence"), "stop"),
    **dict.fromkeys(CUT_REASONS, "length"),
    **dict.fromkeys(("tool_calls", "function_calls", "tool_use"), "function_calls"),
    "content_filter": "content_filter",
}
"""AutoGen's word by the server's; any other is `unknown`."""
CHARACTERS_PER_TOKEN = 4
NO_USAGE = RequestUsage(prompt_tokens=0, completion_tokens=0)
"""Tokens of every result and client: the wire counts, and what it leaves of a reply has none."""
Choice = Tool | Literal["auto", "required", "none"]


@dataclass(frozen=True)
class ChatQuestion:
    """What one request asks, before a protocol words it."""

    model: str
    messages: Sequence[LLMMessage]
    tools: Sequence[Tool | ToolSchema]
    tool_choice: Choice
    json_output: bool | type[BaseModel] | None
    sampling: Mapping[str, Any]
    """Fields that each request has, under the protocol's names."""
    include_usage: bool = False
    """Whether a stream has to be asked for its tokens."""

    @property
    def tool_schemas(self) -> list[Mapping[str, Any]]:
        """What the model is told of each tool."""
        return [tool.schema if isinstance(tool, Tool) else tool for tool in self.tools]


@dataclass
class ReplyDraft:
    """A reply while its parts are read."""

    texts: list[str] = field(default_factory=list)
    calls: dict[int, FunctionCall] = field(default_factory=dict)
    """By place in the reply."""
    finish_reason: str = ""
    """In the server's word; empty: not said."""

    def add_call(self, identity: str, name: str, arguments: str) -> None:
        """Add a whole tool call."""
        self.calls[len(self.calls)] = FunctionCall(identity, arguments, name)

    def result(self) -> CreateResult:
        """Return AutoGen's result; text beside calls is what the model thought."""
        text, calls = "".join(self.texts), list(self.calls.values())
        # Not every server gives a reply with calls its own reason.
        reason = "tool_calls" if calls else self.finish_reason.lower()
        return CreateResult(
            finish_reason=FINISH_REASONS.get(reason, "unknown"),
            content=calls or text,
            usage=NO_USAGE,
            cached=False,
            thought=(text or None) if calls else None,
        )


@dataclass(frozen=True)
class HttpProtocol:
    """How one provider words requests and replies; what is read has passed the wire."""

    write_body: Callable[[ChatQuestion], dict[str, Any]]
    """Returns the body of a request but for `stream`."""
    read_body: Callable[[dict[str, Any], ReplyDraft], None]
    """Puts a whole reply into the draft."""
    read_frame: Callable[[dict[str, Any], ReplyDraft], str]
    """Puts one part of a stream into the draft, its text aside, and returns that text."""
    is_sse: bool = True
    """Whether a stream is server-sent events; else it is lines of JSON."""


@dataclass(frozen=True)
class Endpoint:
    """Where a model is asked."""

    url: str
    key: tuple[str, SecretStr] | None = None
    """Header of the key, and its value; None: the server takes no key."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Further headers."""
    trust_env: bool = True
    """Whether a proxy of the environment is used."""


class HttpChatClient(ChatCompletionClient):
    """Asks one model of one server; for one event loop. It never retries."""

    component_type = "model"
    component_config_schema = BaseModel

    def __init__(
        self,
        protocol: HttpProtocol,
        endpoint: Endpoint,
        model: str,
        info: ModelInfo,
        timeout_s: float,
        sampling: Mapping[str, Any],
    ) -> None:
        """`sampling` are fields of each request, under the protocol's names."""
        self._protocol, self._endpoint = protocol, endpoint
        self._model, self._info, self._sampling = model, info, dict(sampling)
        self.http = httpx.AsyncClient(timeout=timeout_s, trust_env=endpoint.trust_env)
        """The wire's guard is put on its `send`."""

    async def create(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: Choice = "auto",
        json_output: bool | type[BaseModel] | None = None,
        extra_create_args: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
    ) -> CreateResult:
        """Return the reply to `messages`. Raises what the wire and httpx raise."""
        question = self._question(messages, tools, tool_choice, json_output)
        body = {**self._protocol.write_body(question), **(extra_create_args or {})}
        response = await self._send(body, stream=False, token=cancellation_token)
        draft = ReplyDraft()
        self._protocol.read_body(response.json(), draft)
        return draft.result()

    async def create_stream(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: Choice = "auto",
        json_output: bool | type[BaseModel] | None = None,
        extra_create_args: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
        include_usage: bool | None = None,
    ) -> AsyncGenerator[str | CreateResult, None]:
        """Yield the reply's text as it comes, and last the whole result.

        `include_usage` asks the server to count tokens; OpenAI's does so in a stream only if asked.
        """
        question = self._question(
            messages, tools, tool_choice, json_output, include_usage=include_usage is not None
        )
        body = {**self._protocol.write_body(question), **(extra_create_args or {})}
        response = await self._send(body, stream=True, token=cancellation_token)
        draft = ReplyDraft()
        try:
            async with aclosing(_frames(response, self._protocol.is_sse)) as frames:
                async for frame in frames:
                    if text := self._protocol.read_frame(frame, draft):
                        draft.texts.append(text)
                        yield text
        finally:
            await response.aclose()
        yield draft.result()

    def _question(
        self,
        messages: Sequence[LLMMessage],
        tools: Sequence[Tool | ToolSchema],
        tool_choice: Choice,
        json_output: bool | type[BaseModel] | None,
        *,
        include_usage: bool = False,
    ) -> ChatQuestion:
        return ChatQuestion(
            self._model,
            messages,
            tools,
            tool_choice,
            json_output,
            self._sampling,
            include_usage,
        )

    async def _send(
        self, body: dict[str, Any], *, stream: bool, token: CancellationToken | None
    ) -> httpx.Response:
        headers = dict(self._endpoint.headers)
        if self._endpoint.key is not None:
            name, value = self._endpoint.key
            headers[name] = value.get_secret_value()
        request = self.http.build_request(
            "POST", self._endpoint.url, json={**body, "stream": stream}, headers=headers
        )
        sending = asyncio.ensure_future(self.http.send(request, stream=stream))
        if token is not None:
            token.link_future(sending)
        return await sending

    async def close(self) -> None:
        """Close the connections."""
        await self.http.aclose()

    def actual_usage(self) -> RequestUsage:
        """Return no tokens: a desk counts what each reply says."""
        return NO_USAGE

    def total_usage(self) -> RequestUsage:
        """Return no tokens: a desk counts what each reply says."""
        return NO_USAGE

    def count_tokens(
        self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()
    ) -> int:
        """Return about how many tokens a request takes, by its characters."""
        body = self._protocol.write_body(self._question(messages, tools, "auto", None))
        return len(json.dumps(body)) // CHARACTERS_PER_TOKEN

    def remaining_tokens(
        self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()
    ) -> int:
        """Raise NotImplementedError: the server knows its limit, and refuses what is too long."""
        raise NotImplementedError("the server's limit of tokens is not known")

    @property
    def capabilities(self) -> ModelCapabilities:
        """What the model can do, in AutoGen's older form."""
        return self._info

    @property
    def model_info(self) -> ModelInfo:
        """What the model can do."""
        return self._info


def find_http(client: ChatCompletionClient) -> Any:
    """Return the HTTP library's client that a chat client sends by; None where it has none."""
    if isinstance(client, HttpChatClient):
        return client.http
    # AutoGen's client holds the SDK's, and that one the HTTP library's.
    return getattr(getattr(client, "_client", None), "_client", None)


async def _frames(response: httpx.Response, is_sse: bool) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the parts of a stream, which the wire has rebuilt, up to its end."""
    end, rest = (b"\n\n" if is_sse else b"\n"), b""
    async for data in response.aiter_bytes():
        events, separator, rest = (rest + data).rpartition(end)
        for text in read_frames(events + separator, is_sse):
            if text != "[DONE]":
                yield json.loads(text)
