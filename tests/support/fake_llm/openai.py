"""OpenAI's chat completions, spoken by many servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from finagent_model.testing import completion, completion_events, error_body, server_sent_event
from support.fake_llm.dialect import Dialect, Error
from support.fake_llm.faults import Fault
from support.fake_llm.requests import ProviderRequest


def error(request: ProviderRequest, fault: Fault) -> Error:
    return {
        Fault.BAD_REQUEST: (
            400,
            error_body("Invalid value for 'temperature'.", param="temperature"),
        ),
        Fault.BAD_KEY: (
            401,
            error_body(f"Incorrect API key provided: {request.api_key}.", "invalid_api_key"),
        ),
        Fault.MODEL_NOT_FOUND: (
            404,
            error_body(
                f"The model `{request.model}` does not exist or you do not have access to it.",
                "model_not_found",
            ),
        ),
        Fault.CONTEXT_TOO_LONG: (
            400,
            error_body(
                "This model's maximum context length is 8192 tokens. However, your messages "
                "resulted in 9000 tokens. Please reduce the length of the messages.",
                "context_length_exceeded",
                param="messages",
            ),
        ),
        Fault.CONTENT_FILTER: (
            400,
            error_body(
                "Invalid prompt: your prompt was flagged as potentially violating our usage "
                "policy. Please try again with a different prompt.",
                "invalid_prompt",
            ),
        ),
        Fault.NO_CREDIT: (
            429,
            error_body(
                "You exceeded your current quota, please check your plan and billing details.",
                "insufficient_quota",
                "insufficient_quota",
            ),
        ),
        Fault.SERVER_ERROR: (
            500,
            error_body(
                "The server had an error while processing your request.", None, "server_error"
            ),
        ),
        Fault.OVERLOADED: (
            503,
            error_body("The engine is currently overloaded.", None, "server_error"),
        ),
    }.get(
        fault,
        (
            429,
            error_body(
                f"Rate limit reached for {request.model}.", "rate_limit_exceeded", "requests"
            ),
        ),
    )


def stream_error(request: ProviderRequest) -> bytes:
    return server_sent_event(error(request, Fault.SERVER_ERROR)[1])


def rejection(request: ProviderRequest) -> Error | None:
    if not request.api_key:
        return 401, error_body("You didn't provide an API key.")
    if not request.model or not request.body.get("messages"):
        return 400, error_body("Missing required parameter: 'model' or 'messages'.")
    text = " ".join(request.texts("system", "developer", "user", "assistant", "tool"))
    form = request.body.get("response_format") or {}
    if form.get("type") == "json_object" and "json" not in text.lower():
        return 400, error_body(
            "'messages' must contain the word 'json' in some form, to use 'response_format' of "
            "type 'json_object'.",
            param="messages",
        )
    if form.get("type") == "json_schema" and form["json_schema"].get("strict"):
        lax = next(_lax(form["json_schema"]["schema"]), None)
        if lax:
            name = form["json_schema"]["name"]
            why = f"Invalid schema for response_format '{name}': {lax}"
            return 400, error_body(why, param="response_format")
    return _unasked_result(request)


def _lax(schema: Any) -> Iterator[str]:
    """Yield what a strict schema may not leave open."""
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


def _unasked_result(request: ProviderRequest) -> Error | None:
    called: set[str] = set()
    for message in request.body["messages"]:
        called |= {call["id"] for call in message.get("tool_calls") or ()}
        if message["role"] == "tool" and message.get("tool_call_id") not in called:
            return 400, error_body(
                "messages with role 'tool' must be a response to a preceding message with "
                "'tool_calls'.",
                param="messages",
            )
    return None


DIALECT = Dialect(completion, completion_events, error, rejection, stream_error)
