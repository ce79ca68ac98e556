"""OpenAI's chat completions, spoken by many servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from support.fake_llm.answers import Answer, Stop, ToolCall, pieces
from support.fake_llm.dialect import Dialect, Problem, event
from support.fake_llm.faults import Fault
from support.fake_llm.requests import Asked

STOP = {
    Stop.END: "stop",
    Stop.LENGTH: "length",
    Stop.REFUSAL: "stop",
    Stop.FILTERED: "content_filter",
}


def whole(asked: Asked, answer: Answer) -> dict[str, Any]:
    refused = answer.stop is Stop.REFUSAL
    silent = refused or (bool(answer.tools) and not answer.text)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if silent else answer.text,
        "refusal": answer.text if refused else None,
    }
    if answer.tools:
        message["tool_calls"] = [_call(tool) for tool in answer.tools]
    choice = {"index": 0, "finish_reason": _stop(answer), "logprobs": None, "message": message}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": asked.model,
        "choices": [choice],
        "usage": _usage(answer),
    }


def frames(asked: Asked, answer: Answer) -> Iterator[bytes]:
    def delta(change: dict[str, Any], stop: str | None = None) -> bytes:
        return chunk(asked, [{"index": 0, "delta": change, "finish_reason": stop}])

    yield delta({"role": "assistant", "content": ""})
    name = "refusal" if answer.stop is Stop.REFUSAL else "content"
    for piece in pieces(answer.text):
        yield delta({name: piece})
    for i, tool in enumerate(answer.tools):
        call = _call(tool)
        written, call["function"]["arguments"] = call["function"]["arguments"], ""
        yield delta({"tool_calls": [{"index": i, **call}]})
        for piece in pieces(written):
            yield delta({"tool_calls": [{"index": i, "function": {"arguments": piece}}]})
    yield delta({}, _stop(answer))
    if (asked.body.get("stream_options") or {}).get("include_usage"):
        yield chunk(asked, [], usage=_usage(answer))
    yield event("[DONE]")


def chunk(asked: Asked, choices: list[dict[str, Any]], **more: Any) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0}
    return event({**head, "model": asked.model, "choices": choices, **more})


def _stop(answer: Answer) -> str:
    return "tool_calls" if answer.tools else STOP[answer.stop]


def _call(tool: ToolCall) -> dict[str, Any]:
    function = {"name": tool.name, "arguments": json.dumps(tool.arguments)}
    return {"id": tool.id, "type": "function", "function": function}


def _usage(answer: Answer) -> dict[str, int]:
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
    }


def error(
    message: str,
    code: str | None = None,
    kind: str | None = "invalid_request_error",
    param: str | None = None,
) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def problem(asked: Asked, fault: Fault) -> Problem:
    return {
        Fault.BAD_REQUEST: (400, error("Invalid value for 'temperature'.", param="temperature")),
        Fault.BAD_KEY: (
            401,
            error(f"Incorrect API key provided: {asked.key}.", "invalid_api_key"),
        ),
        Fault.MODEL_NOT_FOUND: (
            404,
            error(
                f"The model `{asked.model}` does not exist or you do not have access to it.",
                "model_not_found",
            ),
        ),
        Fault.CONTEXT_TOO_LONG: (
            400,
            error(
                "This model's maximum context length is 8192 tokens. However, your messages "
                "resulted in 9000 tokens. Please reduce the length of the messages.",
                "context_length_exceeded",
                param="messages",
            ),
        ),
        Fault.CONTENT_FILTER: (
            400,
            error(
                "Invalid prompt: your prompt was flagged as potentially violating our usage "
                "policy. Please try again with a different prompt.",
                "invalid_prompt",
            ),
        ),
        Fault.NO_CREDIT: (
            429,
            error(
                "You exceeded your current quota, please check your plan and billing details.",
                "insufficient_quota",
                "insufficient_quota",
            ),
        ),
        Fault.SERVER_ERROR: (
            500,
            error("The server had an error while processing your request.", None, "server_error"),
        ),
        Fault.OVERLOADED: (
            503,
            error("The engine is currently overloaded.", None, "server_error"),
        ),
    }.get(
        fault,
        (429, error(f"Rate limit reached for {asked.model}.", "rate_limit_exceeded", "requests")),
    )


def broken(asked: Asked) -> bytes:
    return event(problem(asked, Fault.SERVER_ERROR)[1])


def objection(asked: Asked) -> Problem | None:
    if not asked.key:
        return 401, error("You didn't provide an API key.")
    if not asked.model or not asked.body.get("messages"):
        return 400, error("Missing required parameter: 'model' or 'messages'.")
    said = " ".join(asked.said("system", "developer", "user", "assistant", "tool"))
    form = asked.body.get("response_format") or {}
    if form.get("type") == "json_object" and "json" not in said.lower():
        return 400, error(
            "'messages' must contain the word 'json' in some form, to use 'response_format' of "
            "type 'json_object'.",
            param="messages",
        )
    if form.get("type") == "json_schema" and form["json_schema"].get("strict"):
        lax = next(_lax(form["json_schema"]["schema"]), None)
        if lax:
            name = form["json_schema"]["name"]
            why = f"Invalid schema for response_format '{name}': {lax}"
            return 400, error(why, param="response_format")
    return _unasked_result(asked)


def _lax(schema: Any) -> Iterator[str]:
    """What a strict schema may not leave open."""
    if isinstance(schema, list):
        for part in schema:
            yield from _lax(part)
    elif isinstance(schema, dict):
        if schema.get("type") == "object":
            if schema.get("additionalProperties") is not False:
                yield "'additionalProperties' is required to be supplied and to be false."
            missing = set(schema.get("properties", ())) - set(schema.get("required", ()))
            if missing:
                yield f"'required' must name every key in properties. Missing {min(missing)!r}."
        for part in schema.values():
            yield from _lax(part)


def _unasked_result(asked: Asked) -> Problem | None:
    called: set[str] = set()
    for message in asked.body["messages"]:
        called |= {call["id"] for call in message.get("tool_calls") or ()}
        if message["role"] == "tool" and message.get("tool_call_id") not in called:
            return 400, error(
                "messages with role 'tool' must be a response to a preceding message with "
                "'tool_calls'.",
                param="messages",
            )
    return None


DIALECT = Dialect(whole, frames, problem, objection, broken)
