"""Replies of OpenAI, Anthropic and Ollama as they arrive, made safe for AutoGen's clients.

Every field of a reply is foreign: it may be null, missing, of another type, empty or huge. A
`WireFormat` rebuilds a reply from the few fields that are read, each of its right type, and notes
in `ReplyFacts` what AutoGen's result loses. A reply that can't be rebuilt is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from finagent_model.agents._provider_errors import UnusableReplyError, parse_json

MAX_TOKENS = 100_000_000
"""Nobody's reply takes more tokens; a larger number counts as unknown."""
CUT_REASONS = ("length", "max_tokens", "model_length", "model_context_window_exceeded")
"""How providers say that a reply reached its length limit.

The last is Anthropic's where the model's own limit is reached; it counts as cut off, too:
https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons
"""
Body = Mapping[str, Any]


@dataclass
class ReplyFacts:
    """What a raw reply says beyond what AutoGen passes on."""

    prompt_tokens: int | None = None
    """None: not said."""
    completion_tokens: int | None = None
    """None: not said."""
    total_tokens: int | None = None
    """None: not said. Some servers count a model's thoughts here and not in the completion."""
    reasoning_tokens: int | None = None
    """None: not said."""
    finish_reason: str = ""
    """In the provider's word; empty: not said."""
    refusal: str | None = None
    """The words by which the model refused; None where it didn't."""
    reasoning: str = ""
    """What the model thought before it answered."""
    ended: bool = False
    """Whether a stream came to its end."""

    @property
    def usage(self) -> tuple[int, int] | None:
        """Tokens of prompt and completion; None where either is unknown."""
        # No prompt is empty: a count of 0 is a server that does not count.
        if not self.prompt_tokens:
            return None
        # Without a count of its own the completion is what the total leaves for it.
        rest = (self.total_tokens or 0) - self.prompt_tokens
        completion = self.completion_tokens
        if completion is None:
            return None if rest < 0 else (self.prompt_tokens, rest)
        # A part can't exceed its whole: such thoughts were counted beside the completion.
        thoughts = self.reasoning_tokens or 0
        beside = completion + thoughts if thoughts > completion else completion
        return self.prompt_tokens, max(beside, rest)

    @property
    def was_cut(self) -> bool:
        """Whether the reply ended at its length limit."""
        return self.finish_reason.lower() in CUT_REASONS

    def finish(self, reason: Any) -> str | None:
        """Note a finish reason, and return it as text; None where it is none."""
        if not isinstance(reason, str) or not reason:
            return None
        self.finish_reason, self.ended = reason, True
        if reason == "content_filter":
            self.refusal = self.refusal or "the provider's content filter stopped it"
        if reason == "refusal":
            self.refusal = self.refusal or "the model declined to answer"
        return reason

    def count(self, prompt: Any, completion: Any) -> None:
        """Note counted tokens; what is no count changes nothing."""
        self.prompt_tokens = _as_count(prompt, self.prompt_tokens)
        self.completion_tokens = _as_count(completion, self.completion_tokens)

    def count_openai(self, usage: Body) -> None:
        """Note the tokens of a `usage` in OpenAI's form."""
        self.count(usage.get("prompt_tokens"), usage.get("completion_tokens"))
        self.total_tokens = _as_count(usage.get("total_tokens"), self.total_tokens)
        details = _mapping(usage.get("completion_tokens_details"))
        self.reasoning_tokens = _as_count(details.get("reasoning_tokens"), self.reasoning_tokens)


@dataclass(frozen=True)
class WireFormat:
    """How one protocol writes replies; both functions get the body, the facts and the model."""

    clean_body: Callable[[Body, ReplyFacts, str], dict[str, Any]]
    """Returns a whole reply, rebuilt. Raises UnusableReplyError."""
    clean_frame: Callable[[Body, ReplyFacts, str], list[dict[str, Any]]]
    """Returns one part of a stream, rebuilt: none, one or two parts. Raises UnusableReplyError."""
    is_sse: bool = True
    """Whether a stream is server-sent events; else it is lines of JSON."""


def _as_count(value: Any, default: int | None) -> int | None:
    # Not isinstance: a bool is an int.
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else default


def _mapping(value: Any) -> Body:
    return value if isinstance(value, Mapping) else {}


def _items(value: Any) -> list[Body]:
    """Return the objects of a list; one object alone counts as a list of one."""
    if isinstance(value, Mapping):
        return [value]
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    """Return a field that should be text; empty where it is something else."""
    return value if isinstance(value, str) else ""


def _content(value: Any, facts: ReplyFacts) -> str:
    """Return a reply's text, which may come in typed parts. Raises UnusableReplyError."""
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list):
        raise UnusableReplyError(f"its content is of type {type(value).__name__}, not text")
    texts = []
    for part in value:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping) and part.get("type", "text") in ("text", "output_text"):
            texts.append(_text(part.get("text")))
        elif isinstance(part, Mapping) and part.get("type") in ("thinking", "reasoning"):
            facts.reasoning += _thinking(part)
    return "".join(texts)


def _thinking(part: Body) -> str:
    value = part.get("thinking") or part.get("text")
    if isinstance(value, list):
        return "".join(_text(_mapping(item).get("text")) for item in value)
    return _text(value)


def arguments_object(value: Any) -> dict[str, Any]:
    """Return a tool call's arguments as an object; empty where they are something else."""
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError:
            return {}
    return dict(value) if isinstance(value, Mapping) else {}


# --- OpenAI's chat completions, and the many servers that speak them -----------------------------


def _openai_body(body: Body, facts: ReplyFacts, model: str) -> dict[str, Any]:
    choices = _items(body.get("choices"))
    if not choices:
        raise UnusableReplyError("it holds no choice")
    choice, usage = choices[0], _mapping(body.get("usage"))
    if not isinstance(choice.get("message"), Mapping):
        raise UnusableReplyError("its choice holds no message")
    message = choice["message"]
    facts.count_openai(usage)
    finish_reason = facts.finish(choice.get("finish_reason"))
    facts.reasoning += _openai_reasoning(message)
    facts.refusal = _text(message.get("refusal")) or facts.refusal
    calls = [_openai_call(call, whole=True) for call in _items(message.get("tool_calls"))]
    # What servers from before `tool_calls` send.
    if not calls and isinstance(message.get("function_call"), Mapping):
        calls = [_openai_call({"function": message["function_call"]}, whole=True)]
    cleaned = {
        "role": "assistant",
        "content": _content(message.get("content"), facts) or None,
        **({"tool_calls": calls} if calls else {}),
    }
    return {
        "id": "reply",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "finish_reason": finish_reason, "message": cleaned}],
    }


def _openai_frame(frame: Body, facts: ReplyFacts, model: str) -> list[dict[str, Any]]:
    usage = _mapping(frame.get("usage")) or _mapping(_mapping(frame.get("x_groq")).get("usage"))
    facts.count_openai(usage)
    choices = _items(frame.get("choices"))
    if not choices:
        return []
    choice = choices[0]
    delta = _mapping(choice.get("delta"))
    facts.reasoning += _openai_reasoning(delta)
    if refusal := _text(delta.get("refusal")):
        facts.refusal = (facts.refusal or "") + refusal
    cleaned: dict[str, Any] = {"role": "assistant"}
    if content := _content(delta.get("content"), facts):
        cleaned["content"] = content
    if calls := _items(delta.get("tool_calls")):
        cleaned["tool_calls"] = [
            {"index": _as_count(call.get("index"), i), **_openai_call(call, whole=False)}
            for i, call in enumerate(calls)
        ]
    finish_reason = facts.finish(choice.get("finish_reason"))
    head = {"id": "reply", "object": "chat.completion.chunk", "created": 0, "model": model}
    frames = [{**head, "choices": [{"index": 0, "delta": cleaned, "finish_reason": finish_reason}]}]
    if "content" in cleaned and "tool_calls" in cleaned:
        # AutoGen's client reads one of the two in a part.
        text = {"role": "assistant", "content": cleaned.pop("content")}
        frames.insert(0, {**head, "choices": [{"index": 0, "delta": text, "finish_reason": None}]})
    return frames


def _openai_reasoning(message: Body) -> str:
    return _text(message.get("reasoning_content")) or _text(message.get("reasoning"))


def _openai_call(call: Body, *, whole: bool) -> dict[str, Any]:
    """Return a tool call, or part of one in a stream."""
    function = _mapping(call.get("function"))
    arguments = function.get("arguments")
    if isinstance(arguments, Mapping | list):
        arguments = json.dumps(arguments)
    arguments = _text(arguments) or ("{}" if whole else "")
    return {
        "id": _text(call.get("id")),
        "type": "function",
        "function": {"name": _text(function.get("name")), "arguments": arguments},
    }


# --- Anthropic's messages ------------------------------------------------------------------------


def _anthropic_body(body: Body, facts: ReplyFacts, model: str) -> dict[str, Any]:
    content = body.get("content")
    if not isinstance(content, list | str):
        raise UnusableReplyError("it holds no content")
    usage = _mapping(body.get("usage"))
    facts.count(usage.get("input_tokens"), usage.get("output_tokens"))
    stop_reason = facts.finish(body.get("stop_reason"))
    parts: list[Any] = [content] if isinstance(content, str) else content
    text = _content(parts, facts)
    blocks: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    blocks += [
        _anthropic_call(part) | {"input": arguments_object(part.get("input"))}
        for part in _items(parts)
        if part.get("type") == "tool_use"
    ]
    return _anthropic_message(model, blocks, stop_reason)


def _anthropic_message(
    model: str, blocks: list[dict[str, Any]], stop_reason: str | None
) -> dict[str, Any]:
    return {
        "id": "reply",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": blocks,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }


def _anthropic_call(part: Body, default_id: str = "") -> dict[str, Any]:
    identity = _text(part.get("id")) or default_id
    return {"type": "tool_use", "id": identity, "name": _text(part.get("name")), "input": {}}


def _anthropic_frame(frame: Body, facts: ReplyFacts, model: str) -> list[dict[str, Any]]:
    index, kind = _as_count(frame.get("index"), 0), frame.get("type")
    match kind:
        case "message_start":
            usage = _mapping(_mapping(frame.get("message")).get("usage"))
            facts.count(usage.get("input_tokens"), usage.get("output_tokens"))
            return [{"type": kind, "message": _anthropic_message(model, [], None)}]
        case "content_block_start":
            block = _mapping(frame.get("content_block"))
            # AutoGen's client tells calls apart by their id alone.
            start = _anthropic_call(block, f"call{index:05d}")
            if block.get("type") != "tool_use":
                start = {"type": "text", "text": ""}
            frames = [{"type": kind, "index": index, "content_block": start}]
            if text := _text(block.get("text")):
                frames.append(_anthropic_delta(index, "text_delta", "text", text))
            return frames
        case "content_block_delta":
            delta = _mapping(frame.get("delta"))
            for name, key in (("text_delta", "text"), ("input_json_delta", "partial_json")):
                if delta.get("type") == name:
                    return [_anthropic_delta(index, name, key, _text(delta.get(key)))]
            facts.reasoning += _text(delta.get("thinking"))
        case "content_block_stop" | "message_stop":
            facts.ended = facts.ended or kind == "message_stop"
            return [{"type": kind, "index": index}]
        case "message_delta":
            usage = _mapping(frame.get("usage"))
            facts.count(usage.get("input_tokens"), usage.get("output_tokens"))
            reason = facts.finish(_mapping(frame.get("delta")).get("stop_reason"))
            ending = {"stop_reason": reason, "stop_sequence": None}
            return [{"type": kind, "delta": ending, "usage": {"output_tokens": 0}}]
    return []


def _anthropic_delta(index: int | None, kind: str, key: str, text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, key: text}}


# --- Ollama's chat -------------------------------------------------------------------------------


def _ollama_body(body: Body, facts: ReplyFacts, model: str) -> dict[str, Any]:
    if not isinstance(body.get("message"), Mapping):
        raise UnusableReplyError("it holds no message")
    message = body["message"]
    facts.count(body.get("prompt_eval_count"), body.get("eval_count"))
    facts.reasoning += _text(message.get("thinking"))
    cleaned: dict[str, Any] = {
        "role": "assistant",
        "content": _content(message.get("content"), facts),
    }
    functions = [_mapping(call.get("function")) for call in _items(message.get("tool_calls"))]
    if functions:
        cleaned["tool_calls"] = [
            {
                "function": {
                    "name": _text(function.get("name")),
                    "arguments": arguments_object(function.get("arguments")),
                }
            }
            for function in functions
        ]
    done = body.get("done") is not False
    done_reason = facts.finish(body.get("done_reason")) if done else None
    facts.ended = facts.ended or done
    return {"model": model, "message": cleaned, "done": done, "done_reason": done_reason}


def _ollama_frame(frame: Body, facts: ReplyFacts, model: str) -> list[dict[str, Any]]:
    cleaned = _ollama_body({"done": False, **frame}, facts, model)
    if not cleaned["done"] or not cleaned["message"]["content"]:
        return [cleaned]
    # AutoGen's client loses a text that comes in one part.
    last = {**cleaned, "message": {"role": "assistant", "content": ""}}
    return [{**cleaned, "done": False, "done_reason": None}, last]


OPENAI = WireFormat(_openai_body, _openai_frame)
ANTHROPIC = WireFormat(_anthropic_body, _anthropic_frame)
OLLAMA = WireFormat(_ollama_body, _ollama_frame, is_sse=False)


def unify_line_ends(data: bytes, is_sse: bool) -> bytes:
    """Return data with line feeds as ends; in events a carriage return alone ends a line, too."""
    data = data.replace(b"\r\n", b"\n")
    return data.replace(b"\r", b"\n") if is_sse else data


def read_frames(data: bytes, is_sse: bool) -> Iterator[str]:
    """Yield the JSON texts of complete events or lines; comments and names are left out."""
    text = unify_line_ends(data, is_sse).decode("utf-8", "replace")
    if not is_sse:
        yield from (line for line in text.split("\n") if line.strip())
        return
    for event in text.split("\n\n"):
        lines = [line[5:].removeprefix(" ") for line in event.split("\n") if line[:5] == "data:"]
        if lines:
            yield "\n".join(lines)
