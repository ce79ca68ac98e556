"""AutoGen's own client of each protocol, made for the double's address, and asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from autogen_core.models import (
    ChatCompletionClient,
    CreateResult,
    LLMMessage,
    ModelInfo,
    SystemMessage,
    UserMessage,
)
from autogen_ext.models.anthropic import AnthropicChatCompletionClient
from autogen_ext.models.ollama import OllamaChatCompletionClient
from autogen_ext.models.openai import AzureOpenAIChatCompletionClient, OpenAIChatCompletionClient

from support.fake_llm.answers import DECISION
from support.fake_llm.http_calls import KEY
from support.fake_llm.requests import Protocol

PROMPT = SystemMessage(content="You are the Executor of a trading desk. Answer in JSON.")
QUESTION: list[LLMMessage] = [PROMPT, UserMessage(content="What now?", source="desk")]
ABLE = ModelInfo(
    vision=True,
    function_calling=True,
    json_output=True,
    family="unknown",
    structured_output=True,
)


def made(protocol: Protocol, address: str, **options: Any) -> ChatCompletionClient:
    """A client that asks once. Ollama's takes no key and no time limit."""
    given = {"model": "stub-1", "model_info": ABLE, **options}
    if protocol is Protocol.OLLAMA:
        return OllamaChatCompletionClient(host=address, **given)
    given = {"api_key": KEY, "max_retries": 0, "timeout": 10.0, **given}
    if protocol is Protocol.ANTHROPIC:
        return AnthropicChatCompletionClient(base_url=address, **given)
    if protocol is Protocol.OPENAI:
        return OpenAIChatCompletionClient(base_url=address, **given)
    return AzureOpenAIChatCompletionClient(
        azure_endpoint=address, azure_deployment="desk", api_version="2024-10-21", **given
    )


@asynccontextmanager
async def client(
    protocol: Protocol, address: str, **options: Any
) -> AsyncIterator[ChatCompletionClient]:
    """A client, closed in the end; Ollama's own `close` leaves its connections open."""
    asker = made(protocol, address, **options)
    try:
        yield asker
    finally:
        await asker.close()
        if isinstance(asker, OllamaChatCompletionClient):
            await asker._client.close()  # type: ignore[no-untyped-call]


async def ask(
    asker: ChatCompletionClient,
    messages: Sequence[LLMMessage],
    *,
    streamed: bool,
    **options: Any,
) -> CreateResult:
    """One call, whole or streamed; a stream's pieces are dropped."""
    if not streamed:
        return await asker.create(messages, **options)
    async with aclosing(asker.create_stream(messages, **options)) as pieces:
        async for piece in pieces:
            if isinstance(piece, CreateResult):
                return piece
    raise AssertionError("the stream ended without a result")


def outcome(result: CreateResult | BaseException) -> str:
    """How a call to the Executor ended, in a few words."""
    if isinstance(result, BaseException):
        status = getattr(result, "status_code", None)
        return f"{type(result).__name__} {'' if status is None else status}".strip()
    good, content = json.dumps(DECISION), result.content
    if not isinstance(content, str):
        return f"{result.finish_reason}: {content}"
    half = good.startswith(content) and content != good
    what = "nothing" if not content else "half" if half else "whole" if content == good else "other"
    return f"{result.finish_reason}: {what}"
