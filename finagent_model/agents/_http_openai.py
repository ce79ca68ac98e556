"""OpenAI's chat completions, for the client over plain HTTP; Azure's have another address only.

https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autogen_core import FunctionCall, Image
from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResultMessage,
    LLMMessage,
    SystemMessage,
)
from autogen_core.tools import Tool

from finagent_model.agents._http_client import ChatQuestion, HttpProtocol, ReplyDraft


def _write_body(question: ChatQuestion) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": question.model,
        "messages": [wire for message in question.messages for wire in _as_wire(message)],
        **question.sampling,
    }
    json_output = question.json_output
    if isinstance(json_output, bool):
        body["response_format"] = {"type": "json_object" if json_output else "text"}
    elif json_output is not None:
        schema = {"name": json_output.__name__, "schema": json_output.model_json_schema()}
        body["response_format"] = {"type": "json_schema", "json_schema": {**schema, "strict": True}}
    if question.tools:
        choice = question.tool_choice
        body["tools"] = [_as_wire_tool(schema) for schema in question.tool_schemas]
        body["tool_choice"] = (
            {"type": "function", "function": {"name": choice.name}}
            if isinstance(choice, Tool)
            else choice
        )
    if question.include_usage:
        body["stream_options"] = {"include_usage": True}
    return body


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


def _as_wire_tool(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": schema["name"],
            "description": schema.get("description", ""),
            "parameters": schema.get("parameters", {}),
            "strict": schema.get("strict", False),
        },
    }


def _read_body(body: dict[str, Any], draft: ReplyDraft) -> None:
    [choice] = body["choices"]
    message = choice["message"]
    draft.texts.append(message["content"] or "")
    draft.finish_reason = choice["finish_reason"] or ""
    for call in message.get("tool_calls", ()):
        draft.add_call(call["id"], call["function"]["name"], call["function"]["arguments"])


def _read_frame(frame: dict[str, Any], draft: ReplyDraft) -> str:
    [choice] = frame["choices"]
    delta = choice["delta"]
    draft.finish_reason = choice["finish_reason"] or draft.finish_reason
    for part in delta.get("tool_calls", ()):
        call = draft.calls.setdefault(part["index"], FunctionCall("", "", ""))
        call.id += part["id"]
        call.name += part["function"]["name"]
        call.arguments += part["function"]["arguments"]
    return str(delta.get("content", ""))


OPENAI_HTTP = HttpProtocol(_write_body, _read_body, _read_frame)
