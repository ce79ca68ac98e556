"""Requests of OpenAI's protocol, as a server takes them that refuses some of its fields."""

from __future__ import annotations

from typing import Any

from finagent_model.config.request_rules import RequestRules


def edit_request(body: dict[str, Any], rules: RequestRules) -> dict[str, Any]:
    """Return the body of a request without what `rules` leave out."""
    edited = dict(body)
    left_out = [
        field for field in ("seed", "temperature", "stream_options") if not getattr(rules, field)
    ]
    may_call = bool(body.get("tools")) and body.get("tool_choice") != "none"
    if rules.response_format is False or (rules.response_format == "without tools" and may_call):
        left_out.append("response_format")
    for field in left_out:
        edited.pop(field, None)
    if rules.max_tokens != "max_tokens" and "max_tokens" in edited:
        limit = edited.pop("max_tokens")
        if rules.max_tokens:
            edited[rules.max_tokens] = limit
    if isinstance(edited.get("messages"), list):
        edited["messages"] = _edit_messages(edited["messages"], rules)
    return edited


def _edit_messages(messages: list[dict[str, Any]], rules: RequestRules) -> list[dict[str, Any]]:
    edited = [dict(message) for message in messages]
    for message in edited:
        if not rules.name:
            message.pop("name", None)
        # AutoGen's client writes thoughts as the content of a message that calls tools.
        if rules.reasoning_content and message.get("tool_calls") and message.get("content"):
            message["reasoning_content"] = message["content"]
            message["content"] = None
    return edited if rules.system else _without_system(edited)


def _without_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages with the system's as a user's; neighbours of one role become one."""
    # A template without a system role also wants user and assistant by turns.
    merged: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] in ("system", "developer"):
            message = {**message, "role": "user"}
        last = merged[-1] if merged else {}
        if message["role"] == last.get("role") == "user":
            last["content"] = _joined(last["content"], message["content"])
            last.pop("name", None)
        else:
            merged.append(message)
    return merged


def _joined(first: Any, second: Any) -> Any:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*_parts(first), *_parts(second)]


def _parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
