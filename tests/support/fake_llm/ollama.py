"""Ollama's chat: a stream is lines of JSON, tools are called whole, nothing tells a refusal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from support.fake_llm.answers import Answer, Stop, pieces
from support.fake_llm.dialect import Dialect, Problem
from support.fake_llm.faults import Fault
from support.fake_llm.requests import Asked


def whole(asked: Asked, answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.tools:
        calls = [{"name": tool.name, "arguments": dict(tool.arguments)} for tool in answer.tools]
        message["tool_calls"] = [{"function": call} for call in calls]
    return {
        "model": asked.model,
        "created_at": "2026-01-01T00:00:00Z",
        "message": message,
        "done": True,
        "done_reason": "length" if answer.stop is Stop.LENGTH else "stop",
        "total_duration": 1,
        "prompt_eval_count": answer.prompt_tokens,
        "eval_count": answer.completion_tokens,
    }


def frames(asked: Asked, answer: Answer) -> Iterator[bytes]:
    last = whole(asked, answer)
    message = last["message"]
    silent = {"role": "assistant", "content": ""}

    def line(said: dict[str, Any]) -> bytes:
        head = {"model": last["model"], "created_at": last["created_at"]}
        return _line({**head, "message": said, "done": False})

    for piece in pieces(answer.text):
        yield line({**silent, "content": piece})
    if answer.tools:
        yield line({**message, "content": ""})
    yield _line({**last, "message": silent})


def _line(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode() + b"\n"


def problem(asked: Asked, fault: Fault) -> Problem:
    status, message = {
        Fault.BAD_REQUEST: (400, "invalid options: temperature"),
        Fault.BAD_KEY: (401, f"unauthorized: {asked.key}"),
        Fault.MODEL_NOT_FOUND: (404, f"model '{asked.model}' not found"),
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


def broken(asked: Asked) -> bytes:
    return _line(problem(asked, Fault.SERVER_ERROR)[1])


def objection(asked: Asked) -> Problem | None:
    """A local server takes anybody, with or without a key."""
    return None if asked.model else (400, {"error": "model is required"})


DIALECT = Dialect(whole, frames, problem, objection, broken, "application/x-ndjson")
