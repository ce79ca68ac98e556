"""Azure OpenAI: OpenAI's chat completions with an address, verdicts and errors of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from support.fake_llm import openai
from support.fake_llm.answers import Answer
from support.fake_llm.dialect import Dialect, Problem
from support.fake_llm.faults import Fault
from support.fake_llm.requests import Asked

SAFE = {
    kind: {"filtered": False, "severity": "safe"}
    for kind in ("hate", "self_harm", "sexual", "violence")
}
VIOLENT = SAFE | {"violence": {"filtered": True, "severity": "medium"}}
VERDICT = [{"prompt_index": 0, "content_filter_results": SAFE}]


def whole(asked: Asked, answer: Answer) -> dict[str, Any]:
    body = openai.whole(asked, answer)
    choice = body["choices"][0] | {"content_filter_results": SAFE}
    return body | {"choices": [choice], "prompt_filter_results": VERDICT}


def frames(asked: Asked, answer: Answer) -> Iterator[bytes]:
    yield openai.chunk(asked, [], prompt_filter_results=VERDICT)
    yield from openai.frames(asked, answer)


def problem(asked: Asked, fault: Fault) -> Problem:
    match fault:
        case Fault.BAD_KEY:
            return 401, _plain("401", f"Access denied due to invalid subscription key {asked.key}.")
        case Fault.MODEL_NOT_FOUND:
            gone = "The API deployment for this resource does not exist."
            return 404, _plain("DeploymentNotFound", gone)
        case Fault.CONTENT_FILTER:
            return 400, _filtered()
        case Fault.RATE_LIMITED | Fault.RATE_LIMITED_SECONDS | Fault.RATE_LIMITED_MS:
            return 429, _plain("429", "Requests have exceeded the token rate limit of your tier.")
    return openai.problem(asked, fault)


def _plain(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def _filtered() -> dict[str, Any]:
    why = (
        "The response was filtered due to the prompt triggering Azure OpenAI's content management "
        "policy. Please modify your prompt and retry."
    )
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": VIOLENT}
    told = openai.error(why, "content_filter", None, "prompt")["error"]
    return {"error": told | {"status": 400, "innererror": inner}}


def objection(asked: Asked) -> Problem | None:
    if asked.key and "api-version" not in asked.query:
        return 404, _plain("404", "Resource not found")
    return openai.objection(asked)


DIALECT = Dialect(whole, frames, problem, objection, openai.broken)
