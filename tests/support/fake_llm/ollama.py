"""Ollama's chat: a stream is lines of JSON, tools are called whole, nothing tells a refusal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from finagent_model.testing import FinishReason, ScriptedReply, chunked
from support.fake_llm.dialect import Dialect, Error
from support.fake_llm.faults import Fault
from support.fake_llm.requests import ProviderRequest


def body(request: ProviderRequest, reply: ScriptedReply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text}
    if reply.tool_calls:
        calls = [
            {"name": tool.name, "arguments": dict(tool.arguments)} for tool in reply.tool_calls
        ]
        message["tool_calls"] = [{"function": call} for call in calls]
    return {
        "model": request.model,
        "created_at": "2026-01-01T00:00:00Z",
        "message": message,
        "done": True,
        "done_reason": "length" if reply.finish_reason is FinishReason.LENGTH else "stop",
        "total_duration": 1,
        "prompt_eval_count": reply.prompt_tokens,
        "eval_count": reply.completion_tokens,
    }


def frames(request: ProviderRequest, reply: ScriptedReply) -> Iterator[bytes]:
    last = body(request, reply)
    message = last["message"]
    silent = {"role": "assistant", "content": ""}

    def line(said: dict[str, Any]) -> bytes:
        head = {"model": last["model"], "created_at": last["created_at"]}
        return _line({**head, "message": said, "done": False})

    for piece in chunked(reply.text):
        yield line({**silent, "content": piece})
    if reply.tool_calls:
        yield line({**message, "content": ""})
    yield _line({**last, "message": silent})


def _line(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode() + b"\n"


def error(request: ProviderRequest, fault: Fault) -> Error:
    status, message = {
        Fault.BAD_REQUEST: (400, "invalid options: temperature"),
        Fault.BAD_KEY: (401, f"unauthorized: {request.api_key}"),
        Fault.MODEL_NOT_FOUND: (404, f"model '{request.model}' not found"),
        Fault.CONTEXT_TOO_LONG: (
            400,
            "request (9000 tokens) exceeds the available context size (8192 tokens), "
            "try increasing it",
        ),
        Fault.CONTENT_FILTER: (400, "the prompt was refused by the content policy"),
        Fault.NO_CREDIT: (402, "this model requires a subscription, upgrade for access"),
        Fault.SERVER_ERROR: (500, "model runner has unexpectedly stopped"),
        Fault.OVERLOADED: (503, "server busy, please try again. maximum pending requests exceeded"),
    }.get(fault, (429, "you've reached your hourly usage limit"))
    return status, {"error": message}


def stream_error(request: ProviderRequest) -> bytes:
    return _line(error(request, Fault.SERVER_ERROR)[1])


def rejection(request: ProviderRequest) -> Error | None:
    """A local server takes anybody, with or without a key."""
    return None if request.model else (400, {"error": "model is required"})


DIALECT = Dialect(body, frames, error, rejection, stream_error, "application/x-ndjson")
