"""Anthropic's messages: the system prompt beside them, named events in a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from finagent_model.testing import FinishReason, ScriptedReply, chunked, server_sent_event
from support.fake_llm.dialect import Dialect, Error
from support.fake_llm.faults import Fault
from support.fake_llm.requests import ProviderRequest

STOP_REASON = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.REFUSAL: "refusal",
    FinishReason.CONTENT_FILTER: "refusal",
}
KNOWN = {
    *("model", "messages", "max_tokens", "system", "temperature", "top_p", "top_k", "tools"),
    *("tool_choice", "stream", "stop_sequences", "metadata", "thinking"),
    *("output_config", "cache_control", "container", "service_tier"),
}
"""Fields of a request; any other is refused."""


def body(request: ProviderRequest, reply: ScriptedReply) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
    content += [
        {"type": "tool_use", "id": tool.id, "name": tool.name, "input": dict(tool.arguments)}
        for tool in reply.tool_calls
    ]
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": content,
        "stop_reason": "tool_use" if reply.tool_calls else STOP_REASON[reply.finish_reason],
        "stop_sequence": None,
        "usage": {"input_tokens": reply.prompt_tokens, "output_tokens": reply.completion_tokens},
    }


def frames(request: ProviderRequest, reply: ScriptedReply) -> Iterator[bytes]:
    def say(kind: str, **more: Any) -> bytes:
        return server_sent_event({"type": kind, **more}, kind)

    message = body(request, reply)
    usage = {"input_tokens": reply.prompt_tokens, "output_tokens": 1}
    start = {**message, "content": [], "stop_reason": None, "usage": usage}
    yield say("message_start", message=start)
    yield say("ping")
    for i, block in enumerate(message["content"]):
        bare: dict[str, Any]
        if block["type"] == "text":
            bare, kind, key, text = {"text": ""}, "text_delta", "text", block["text"]
        else:
            bare, kind, key = {"input": {}}, "input_json_delta", "partial_json"
            text = json.dumps(block["input"])
        yield say("content_block_start", index=i, content_block={**block, **bare})
        for piece in chunked(text):
            yield say("content_block_delta", index=i, delta={"type": kind, key: piece})
        yield say("content_block_stop", index=i)
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield say("message_delta", delta=delta, usage={"output_tokens": reply.completion_tokens})
    yield say("message_stop")


def _error(kind: str, message: str) -> dict[str, Any]:
    error = {"type": kind, "message": message}
    return {"type": "error", "error": error, "request_id": "req_1"}


def error(request: ProviderRequest, fault: Fault) -> Error:
    refuse, wait = "invalid_request_error", "rate_limit_error"
    return {
        Fault.BAD_REQUEST: (400, _error(refuse, "temperature: range: 0..1")),
        Fault.BAD_KEY: (
            401,
            _error("authentication_error", f"invalid x-api-key: {request.api_key}"),
        ),
        Fault.MODEL_NOT_FOUND: (404, _error("not_found_error", f"model: {request.model}")),
        Fault.CONTEXT_TOO_LONG: (
            400,
            _error(refuse, "prompt is too long: 210000 tokens > 200000 maximum"),
        ),
        Fault.CONTENT_FILTER: (400, _error(refuse, "Output blocked by content filtering policy")),
        Fault.NO_CREDIT: (
            400,
            _error(refuse, "Your credit balance is too low to access the Anthropic API."),
        ),
        Fault.SERVER_ERROR: (500, _error("api_error", "Internal server error")),
        Fault.OVERLOADED: (529, _error("overloaded_error", "Overloaded")),
    }.get(fault, (429, _error(wait, "This request would exceed your rate limit.")))


def stream_error(request: ProviderRequest) -> bytes:
    return server_sent_event(error(request, Fault.OVERLOADED)[1], "error")


def rejection(request: ProviderRequest) -> Error | None:
    body = request.body
    if not request.api_key:
        return 401, _error("authentication_error", "x-api-key header is required")
    unknown = sorted(set(body) - KNOWN)
    reasons = {
        "anthropic-version: header is required": "anthropic-version" not in request.headers,
        "model, messages and max_tokens: Field required": not (
            body.get("model") and body.get("messages") and body.get("max_tokens")
        ),
        f"{unknown[:1]}: Extra inputs are not permitted": bool(unknown),
        'messages: Unexpected role "system"': any(
            message["role"] not in ("user", "assistant") for message in body.get("messages", ())
        ),
        "messages: text content blocks must contain non-whitespace text": any(
            not text.strip() for text in request.texts("user", "assistant")
        ),
        "temperature: range: 0..1": not 0 <= (body.get("temperature") or 0) <= 1,
        "messages: unexpected `tool_use_id` found in `tool_result` blocks": _unasked_result(
            request
        ),
    }
    why = next((reason for reason, holds in reasons.items() if holds), None)
    return (400, _error("invalid_request_error", why)) if why else None


def _unasked_result(request: ProviderRequest) -> bool:
    called: set[str] = set()
    for message in request.body.get("messages", ()):
        blocks = message["content"] if isinstance(message["content"], list) else []
        called |= {block["id"] for block in blocks if block["type"] == "tool_use"}
        results = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
        if results - called:
            return True
    return False


DIALECT = Dialect(body, frames, error, rejection, stream_error)
