"""Ollama's chat, for the client over plain HTTP.

https://github.com/ollama/ollama/blob/main/docs/api.md#generate-a-chat-completion
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from autogen_core import Image
from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResultMessage,
    LLMMessage,
    SystemMessage,
)
from autogen_core.tools import Tool

from finagent_model.agents._http_client import ChatQuestion, HttpProtocol, ReplyDraft
from finagent_model.agents._wire_formats import arguments_object

DEFAULT_PORT = 11434


def ollama_url(host: str) -> str:
    """Return the address of Ollama's chat; `host` may be a host, a host and port, or a URL."""
    has_scheme = "://" in host
    url = urlsplit(host if has_scheme else f"http://{host}")
    has_port = url.port is not None
    place = url.netloc
    if not url.hostname:  # ":11434", as the server's own OLLAMA_HOST may be
        place = f"127.0.0.1{place}"
    if not has_scheme and not has_port:
        place = f"{place}:{DEFAULT_PORT}"
    return f"{url.scheme}://{place}{url.path.rstrip('/')}/api/chat"


def _write_body(question: ChatQuestion) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": question.model,
        "messages": [wire for message in question.messages for wire in _as_wire(message)],
        **question.sampling,
    }
    # There is no `tool_choice`: a model that may call nothing is shown no tool.
    choice, schemas = question.tool_choice, question.tool_schemas
    if isinstance(choice, Tool):
        schemas = [choice.schema]
    if schemas and choice != "none":
        body["tools"] = [_as_wire_tool(schema) for schema in schemas]
    if isinstance(question.json_output, type):
        body["format"] = question.json_output.model_json_schema()
    elif question.json_output:
        body["format"] = "json"
    return body


def _as_wire(message: LLMMessage) -> list[dict[str, Any]]:
    """Return a message in Ollama's form: one, or one for each result of a tool or part of text."""
    if isinstance(message, FunctionExecutionResultMessage):
        return [{"role": "tool", "content": result.content} for result in message.content]
    if isinstance(message, SystemMessage):
        return [{"role": "system", "content": message.content}]
    if isinstance(message, AssistantMessage):
        if isinstance(message.content, str):
            return [{"role": "assistant", "content": message.content}]
        calls = [
            {"function": {"name": call.name, "arguments": arguments_object(call.arguments)}}
            for call in message.content
        ]
        return [{"role": "assistant", "tool_calls": calls}]
    if isinstance(message.content, str):
        return [{"role": "user", "content": message.content}]
    parts: list[dict[str, Any]] = []
    for part in message.content:
        if not isinstance(part, Image):
            parts.append({"role": "user", "content": part})
            continue
        if not parts:
            parts.append({"role": "user"})
        parts[-1].setdefault("images", []).append(part.to_base64())
    return parts


def _as_wire_tool(schema: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": schema["name"], "description": schema.get("description", "")}
    given = schema.get("parameters")
    parameters: dict[str, Any] = {"type": "object"}
    if given is not None:
        if "required" in given:
            parameters["required"] = list(given["required"])
        parameters["properties"] = {
            name: _as_wire_property(each) for name, each in given["properties"].items()
        }
    return {"type": "function", "function": {**function, "parameters": parameters}}


def _as_wire_property(schema: Mapping[str, Any]) -> dict[str, Any]:
    # Type and description alone, as AutoGen's client sends them; of several types the first.
    types = [option.get("type") for option in schema.get("anyOf", ())]
    kind = schema.get("type") or next((each for each in types if each not in (None, "null")), None)
    written = {"type": kind or "string"}
    if "description" in schema:
        written["description"] = schema["description"]
    return written


def _read_body(body: dict[str, Any], draft: ReplyDraft) -> None:
    if text := _read_frame(body, draft):
        draft.texts.append(text)


def _read_frame(frame: dict[str, Any], draft: ReplyDraft) -> str:
    message = frame["message"]
    for call in message.get("tool_calls", ()):
        # Calls have no id here, and their results go by their order.
        draft.add_call("", call["function"]["name"], json.dumps(call["function"]["arguments"]))
    draft.finish_reason = frame["done_reason"] or draft.finish_reason
    return str(message["content"])


OLLAMA_HTTP = HttpProtocol(_write_body, _read_body, _read_frame, is_sse=False)
