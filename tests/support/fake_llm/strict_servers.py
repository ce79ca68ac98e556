"""What servers that speak OpenAI's protocol refuse, in their own words.

A key is a name of a server or a family in `model_families.yaml`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from finagent_model.testing import error_body
from support.fake_llm.dialect import Error

MISTRAL_FIELDS = {
    *("model", "messages", "temperature", "top_p", "max_tokens", "stream", "stop", "random_seed"),
    *("response_format", "tools", "tool_choice", "safe_prompt", "parallel_tool_calls"),
}
MISTRAL_ID = re.compile(r"[a-zA-Z0-9]{9}")
GEMINI_UNKNOWN = ("seed", "logit_bias", "stream_options")
BOUNDS = ("maxLength", "minLength", "maxItems", "minItems", "maximum", "minimum")
GRAMMAR_REPETITIONS = 2000
THOUGHT = "The bars rise."
"""What DeepSeek's thinking model thinks before a call of a tool."""


def _schema_of(body: dict[str, Any]) -> str:
    form = body.get("response_format") or {}
    return json.dumps((form.get("json_schema") or {}).get("schema", {}))


def _calls_tools(body: dict[str, Any]) -> bool:
    return bool(body.get("tools")) and body.get("tool_choice") != "none"


def _groq(body: dict[str, Any]) -> Error | None:
    for i, message in enumerate(body["messages"]):
        for name in ("name", "reasoning_content"):
            if name in message:
                must = f"('messages.{i}' : property '{name}' is unsupported)"
                why = f"for 'role:{message['role']}' the following must be satisfied[{must}]"
                return 400, error_body(f"'messages.{i}' : {why}")
    if _calls_tools(body) and "response_format" in body:
        return 400, error_body("json mode cannot be combined with tool/function calling")
    return None


def _mistral(body: dict[str, Any]) -> Error | None:
    places = [["body", field] for field in body if field not in MISTRAL_FIELDS]
    for i, message in enumerate(body["messages"]):
        if message["role"] == "user" and "name" in message:
            places.append(["body", "messages", str(i), "user", "name"])
        for call in message.get("tool_calls") or ():
            if not MISTRAL_ID.fullmatch(call["id"]):
                why = "Tool call id has to be defined in serving mode: a-z, A-Z, 0-9, length 9"
                return 400, {"object": "error", "message": why, "code": 3280}
    if not places:
        return None
    detail = [
        {"type": "extra_forbidden", "loc": place, "msg": "Extra inputs are not permitted"}
        for place in places
    ]
    return 422, {"object": "error", "message": {"detail": detail}, "code": None}


def _deepseek(body: dict[str, Any]) -> Error | None:
    if (body.get("response_format") or {}).get("type") == "json_schema":
        return 400, error_body("This response_format type is unavailable now")
    for i, message in enumerate(body["messages"]):
        if message.get("tool_calls") and message.get("reasoning_content") != THOUGHT:
            why = f"Missing `reasoning_content` field in the assistant message at message index {i}"
            return 400, error_body(why)
    return None


def _gemini(body: dict[str, Any]) -> Error | None:
    unknown = [name for name in GEMINI_UNKNOWN if name in body]
    unknown += ["name" for message in body["messages"] if "name" in message][:1]
    why = "\n".join(
        f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
        for name in unknown
    )
    if not why and _calls_tools(body) and "response_format" in body:
        why = "Function calling with a response mime type: 'application/json' is unsupported"
    error = {"code": 400, "message": why, "status": "INVALID_ARGUMENT"}
    return (400, [{"error": error}]) if why else None  # type: ignore[return-value]


def _lm_studio(body: dict[str, Any]) -> Error | None:
    if (body.get("response_format") or {}).get("type", "text") not in ("text", "json_schema"):
        return 400, {"error": "'response_format.type' must be 'json_schema' or 'text'"}
    return None


def _llama_cpp(body: dict[str, Any]) -> Error | None:
    lengths = map(int, re.findall(r'"max(?:Length|Items)": (\d+)', _schema_of(body)))
    if any(length >= GRAMMAR_REPETITIONS for length in lengths):
        return 400, error_body("Failed to initialize samplers: failed to parse grammar")
    return None


def _azure(body: dict[str, Any]) -> Error | None:
    found = [name for name in BOUNDS if f'"{name}"' in _schema_of(body)]
    if found:
        why = f"Invalid schema for response_format: '{found[0]}' is not permitted."
        return 400, error_body(why, param="response_format")
    return None


def _reasoning(body: dict[str, Any]) -> Error | None:
    if "max_tokens" in body:
        why = "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        return 400, error_body(f"Unsupported parameter: {why}", "unsupported_parameter")
    if body.get("temperature", 1) != 1:
        why = "'temperature' does not support 0.0 with this model. Only the default (1) is."
        return 400, error_body(f"Unsupported value: {why}", "unsupported_value")
    return None


def _gpt_5_chat(body: dict[str, Any]) -> Error | None:
    return _reasoning({**body, "temperature": 1})


def _o1_mini(body: dict[str, Any]) -> Error | None:
    if any(message["role"] == "system" for message in body["messages"]):
        return 400, error_body("Unsupported value: 'messages[0].role' does not support 'system'")
    if "response_format" in body:
        return 400, error_body("Unknown parameter: 'response_format'.")
    return _reasoning(body)


def _gemma_2(body: dict[str, Any]) -> Error | None:
    roles = [message["role"] for message in body["messages"]]
    if "system" in roles:
        return 400, error_body("System role not supported")
    if any(one == other for one, other in pairwise(roles)):
        return 400, error_body("Conversation roles must alternate user/assistant/user/assistant")
    return None


def _takes_all(body: dict[str, Any]) -> Error | None:
    return None


REFUSES: dict[str, Callable[[dict[str, Any]], Error | None]] = {
    "groq": _groq,
    "mistral": _mistral,
    "deepseek": _deepseek,
    "gemini": _gemini,
    "lm-studio": _lm_studio,
    "llama.cpp": _llama_cpp,
    "vllm": _takes_all,
    "openrouter": _takes_all,
    "azure": _azure,
    "gpt-5-chat": _gpt_5_chat,
    "gpt-5": _reasoning,
    "o-series": _reasoning,
    "o1-mini": _o1_mini,
    "fine-tuned": _azure,
    "gemma-2": _gemma_2,
}
