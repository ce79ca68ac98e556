"""A chat client of OpenAI's protocol over plain HTTP: neither AutoGen's extension nor an SDK.

A desk would go on with it if `autogen-ext` ended (`docs/decisions/0013-leaving-autogen.md`). A row
chooses it by `transport: http`. Its requests say what those of AutoGen's client say, so recorded
replies are found by the same keys. Replies come through the guarded wire (`_wire`), which leaves
only fields of known types.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal

import httpx
from autogen_core import CancellationToken, FunctionCall, Image
from autogen_core.models import (
    AssistantMessage,
    ChatCompletionClient,
    CreateResult,
    FinishReasons,
    FunctionExecutionResultMessage,
    LLMMessage,
    ModelCapabilities,
    ModelInfo,
    RequestUsage,
    SystemMessage,
)
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel, SecretStr

from finagent_model.agents._wire_formats import read_frames

FINISH_REASONS: dict[str, FinishReasons] = {
    "stop": "stop",
    "end_turn": "stop",
    "length": "length",
    "content_filter": "content_filter",
    "tool_calls": "function_calls",
    "function_calls": "function_calls",
}
"""AutoGen's word by the server's; any other is `unknown`."""
CHARACTERS_PER_TOKEN = 4
Choice = Tool | Literal["auto", "required", "none"]


class HttpChatClient(ChatCompletionClient):
    """Asks one server's `chat/completions`; for one event loop. It never retries."""

    component_type = "model"
    component_config_schema = BaseModel

    def __init__(
        self,
        model: str,
        key: SecretStr,
        base_url: str,
        info: ModelInfo,
        timeout_s: float,
        sampling: Mapping[str, Any],
    ) -> None:
        """`sampling` are fields of each request, under OpenAI's names."""
        self._model, self._key, self._info = model, key, info
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._sampling = dict(sampling)
        self.http = httpx.AsyncClient(timeout=timeout_s)
        """The wire's guard is put on its `send`."""
        self._usage = RequestUsage(prompt_tokens=0, completion_tokens=0)

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
        body = self._body(messages, tools, tool_choice, json_output, extra_create_args)
        sending = asyncio.ensure_future(self._send(body, stream=False))
        if cancellation_token is not None:
            cancellation_token.link_future(sending)
        reply = (await sending).json()
        [choice] = reply["choices"]
        message = choice["message"]
        calls = [_as_call(call) for call in message.get("tool_calls", ())]
        # Not every server gives a reply with calls its own reason.
        reason = "tool_calls" if calls else choice["finish_reason"]
        return _as_result(message["content"] or "", calls, reason)

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

        `include_usage` asks the server to count tokens, which it does in a stream only when asked.
        """
        body = self._body(messages, tools, tool_choice, json_output, extra_create_args)
        if include_usage is not None:
            body.setdefault("stream_options", {"include_usage": True})
        sending = asyncio.ensure_future(self._send(body, stream=True))
        if cancellation_token is not None:
            cancellation_token.link_future(sending)
        response = await sending
        texts: list[str] = []
        calls: dict[int, FunctionCall] = {}
        finish_reason: str | None = None
        try:
            async with aclosing(_frames(response)) as frames:
                async for frame in frames:
                    [choice] = frame["choices"]
                    delta, finish_reason = choice["delta"], choice["finish_reason"] or finish_reason
                    if text := delta.get("content"):
                        texts.append(text)
                        yield text
                    for part in delta.get("tool_calls", ()):
                        call = calls.setdefault(part["index"], FunctionCall("", "", ""))
                        call.id += part["id"]
                        call.name += part["function"]["name"]
                        call.arguments += part["function"]["arguments"]
        finally:
            await response.aclose()
        yield _as_result("".join(texts), list(calls.values()), finish_reason)

    async def _send(self, body: dict[str, Any], *, stream: bool) -> httpx.Response:
        request = self.http.build_request(
            "POST",
            self._url,
            json={**body, "stream": stream},
            headers={"Authorization": f"Bearer {self._key.get_secret_value()}"},
        )
        return await self.http.send(request, stream=stream)

    def _body(
        self,
        messages: Sequence[LLMMessage],
        tools: Sequence[Tool | ToolSchema],
        tool_choice: Choice,
        json_output: bool | type[BaseModel] | None,
        extra: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """Return the body of a request but for `stream`."""
        body = {
            "model": self._model,
            "messages": [wire for message in messages for wire in _as_wire(message)],
            **self._sampling,
            **(extra or {}),
        }
        if isinstance(json_output, bool):
            body["response_format"] = {"type": "json_object" if json_output else "text"}
        elif json_output is not None:
            schema = {"name": json_output.__name__, "schema": json_output.model_json_schema()}
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {**schema, "strict": True},
            }
        if tools:
            body["tools"] = [_as_wire_tool(tool) for tool in tools]
            body["tool_choice"] = (
                {"type": "function", "function": {"name": tool_choice.name}}
                if isinstance(tool_choice, Tool)
                else tool_choice
            )
        return body

    async def close(self) -> None:
        """Close the connections."""
        await self.http.aclose()

    def actual_usage(self) -> RequestUsage:
        """Return no tokens: a desk counts what each reply says."""
        return self._usage

    def total_usage(self) -> RequestUsage:
        """Return no tokens: a desk counts what each reply says."""
        return self._usage

    def count_tokens(
        self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()
    ) -> int:
        """Return about how many tokens a request takes, by its characters."""
        body = self._body(messages, tools, "auto", None, None)
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


async def _frames(response: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the parts of a stream, which the wire has rebuilt, up to its end."""
    rest = b""
    async for data in response.aiter_bytes():
        events, separator, rest = (rest + data).rpartition(b"\n\n")
        for text in read_frames(events + separator, is_sse=True):
            if text != "[DONE]":
                yield json.loads(text)


def _as_wire(message: LLMMessage) -> list[dict[str, Any]]:
    """Return a message in OpenAI's form: one, or one for each result of a tool."""
    if isinstance(message, FunctionExecutionResultMessage):
        return [
            {"content": result.content, "role": "tool", "tool_call_id": result.call_id}
            for result in message.content
        ]
    if isinstance(message, SystemMessage):
        return [{"content": message.content, "role": "system"}]
    if isinstance(message, AssistantMessage):
        if isinstance(message.content, str):
            return [{"role": "assistant", "content": message.content}]
        calls = [
            {
                "id": call.id,
                "function": {"arguments": call.arguments, "name": call.name},
                "type": "function",
            }
            for call in message.content
        ]
        return [{"role": "assistant", "tool_calls": calls, "content": message.thought}]
    content: Any = message.content
    if not isinstance(content, str):
        content = [
            part.to_openai_format() if isinstance(part, Image) else {"type": "text", "text": part}
            for part in content
        ]
    return [{"role": "user", "name": message.source, "content": content}]


def _as_wire_tool(tool: Tool | ToolSchema) -> dict[str, Any]:
    schema: Mapping[str, Any] = tool.schema if isinstance(tool, Tool) else tool
    return {
        "type": "function",
        "function": {
            "name": schema["name"],
            "description": schema.get("description", ""),
            "parameters": schema.get("parameters", {}),
            "strict": schema.get("strict", False),
        },
    }


def _as_result(text: str, calls: list[FunctionCall], finish_reason: str | None) -> CreateResult:
    """Return AutoGen's result; text beside calls is what the model thought."""
    return CreateResult(
        finish_reason=FINISH_REASONS.get((finish_reason or "").lower(), "unknown"),
        content=calls or text,
        # The wire counts: what it leaves of a reply has no count.
        usage=RequestUsage(prompt_tokens=0, completion_tokens=0),
        cached=False,
        thought=(text or None) if calls else None,
    )


def _as_call(call: Mapping[str, Any]) -> FunctionCall:
    function = call["function"]
    return FunctionCall(id=call["id"], arguments=function["arguments"], name=function["name"])
