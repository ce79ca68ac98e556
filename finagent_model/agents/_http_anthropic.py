"""Anthropic's messages, for the client over plain HTTP.

https://platform.claude.com/docs/en/api/messages/create for the bodies,
https://platform.claude.com/docs/en/build-with-claude/streaming for the events of a stream.
"""

from __future__ import annotations

import json
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

from finagent_model.agents._http_client import ChatQuestion, Choice, HttpProtocol, ReplyDraft
from finagent_model.agents._wire_formats import arguments_object

API_VERSION = {"anthropic-version": "2023-06-01"}
"""A header that every request must have; the version is the one that Anthropic's SDK sends.

https://platform.claude.com/docs/en/api/versioning: a later version takes no `temperature`.
"""
SCHEMA_KEYS = ("type", "properties", "required")
"""Of a tool's parameters, as AutoGen's client sends them."""


def _write_body(question: ChatQuestion) -> dict[str, Any]:
    if isinstance(question.json_output, type):
        raise ValueError("Anthropic's messages are asked for no schema; leave out `json_output`")
    system = [m.content for m in question.messages if isinstance(m, SystemMessage)]
    others = [_as_wire(m) for m in question.messages if not isinstance(m, SystemMessage)]
    body = {"model": question.model, "messages": others, **question.sampling}
    if system:
        body["system"] = "\n".join(system).rstrip()
    if question.tools:
        body["tools"] = [_as_wire_tool(schema) for schema in question.tool_schemas]
        body["tool_choice"] = _as_wire_choice(question.tool_choice)
    return body


def _as_wire(message: LLMMessage) -> dict[str, Any]:
    if isinstance(message, FunctionExecutionResultMessage):
        # All results of one reply's calls belong into one message, which is a user's.
        results = [
            {"type": "tool_result", "tool_use_id": result.call_id, "content": result.content}
            for result in message.content
        ]
        return {"role": "user", "content": results}
    if isinstance(message.content, str):
        role = "assistant" if isinstance(message, AssistantMessage) else "user"
        return {"role": role, "content": message.content}
    if isinstance(message, AssistantMessage):
        thought = [] if message.thought is None else [{"type": "text", "text": message.thought}]
        calls = [
            {
                "type": "tool_use",
                "id": call.id,
                "name": call.name,
                "input": arguments_object(call.arguments),
            }
            for call in message.content
        ]
        return {"role": "assistant", "content": [*thought, *calls]}
    return {"role": "user", "content": [_as_block(part) for part in message.content]}


def _as_block(part: str | Image) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    # AutoGen's image gives its bytes as PNG, whatever it was made from.
    source = {"type": "base64", "media_type": "image/png", "data": part.to_base64()}
    return {"type": "image", "source": source}


def _as_wire_tool(schema: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", **schema.get("parameters", {})}
    return {
        "name": schema["name"],
        "description": schema.get("description", ""),
        "input_schema": {key: parameters[key] for key in SCHEMA_KEYS if key in parameters},
    }


def _as_wire_choice(choice: Choice) -> dict[str, str]:
    if isinstance(choice, Tool):
        return {"type": "tool", "name": choice.name}
    return {"type": "any" if choice == "required" else choice}


def _read_body(body: dict[str, Any], draft: ReplyDraft) -> None:
    draft.finish_reason = body["stop_reason"] or ""
    for block in body["content"]:
        if block["type"] == "text":
            draft.texts.append(block["text"])
        else:
            draft.add_call(block["id"], block["name"], json.dumps(block["input"]))


def _read_frame(frame: dict[str, Any], draft: ReplyDraft) -> str:
    match frame["type"]:
        case "content_block_start" if frame["content_block"]["type"] == "tool_use":
            block = frame["content_block"]
            draft.calls[frame["index"]] = FunctionCall(block["id"], "", block["name"])
        case "content_block_delta" if frame["delta"]["type"] == "text_delta":
            return str(frame["delta"]["text"])
        case "content_block_delta" if frame["index"] in draft.calls:
            draft.calls[frame["index"]].arguments += frame["delta"]["partial_json"]
        case "message_delta":
            draft.finish_reason = frame["delta"]["stop_reason"] or draft.finish_reason
    return ""


ANTHROPIC_HTTP = HttpProtocol(_write_body, _read_body, _read_frame)
