"""Azure OpenAI: OpenAI's chat completions with an address, verdicts and errors of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from finagent_model.testing import (
    ScriptedReply,
    completion,
    completion_chunk,
    completion_events,
    error_body,
)
from support.fake_llm import openai
from support.fake_llm.dialect import Dialect, Error
from support.fake_llm.faults import Fault
from support.fake_llm.requests import ProviderRequest

SAFE = {
    kind: {"filtered": False, "severity": "safe"}
    for kind in ("hate", "self_harm", "sexual", "violence")
}
VIOLENT = SAFE | {"violence": {"filtered": True, "severity": "medium"}}
VERDICT = [{"prompt_index": 0, "content_filter_results": SAFE}]


def body(request: ProviderRequest, reply: ScriptedReply) -> dict[str, Any]:
    plain = completion(request, reply)
    choice = plain["choices"][0] | {"content_filter_results": SAFE}
    return plain | {"choices": [choice], "prompt_filter_results": VERDICT}


def frames(request: ProviderRequest, reply: ScriptedReply) -> Iterator[bytes]:
    yield completion_chunk(request, [], prompt_filter_results=VERDICT)
    yield from completion_events(request, reply)


def error(request: ProviderRequest, fault: Fault) -> Error:
    match fault:
        case Fault.BAD_KEY:
            return 401, _plain(
                "401", f"Access denied due to invalid subscription key {request.api_key}."
            )
        case Fault.MODEL_NOT_FOUND:
            gone = "The API deployment for this resource does not exist."
            return 404, _plain("DeploymentNotFound", gone)
        case Fault.CONTENT_FILTER:
            return 400, _filtered()
        case Fault.RATE_LIMITED | Fault.RATE_LIMITED_SECONDS | Fault.RATE_LIMITED_MS:
            return 429, _plain("429", "Requests have exceeded the token rate limit of your tier.")
    return openai.error(request, fault)


def _plain(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def _filtered() -> dict[str, Any]:
    why = (
        "The response was filtered due to the prompt triggering Azure OpenAI's content management "
        "policy. Please modify your prompt and retry."
    )
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": VIOLENT}
    plain = error_body(why, "content_filter", None, "prompt")["error"]
    return {"error": plain | {"status": 400, "innererror": inner}}


def rejection(request: ProviderRequest) -> Error | None:
    if request.api_key and "api-version" not in request.query:
        return 404, _plain("404", "Resource not found")
    return openai.rejection(request)


DIALECT = Dialect(body, frames, error, rejection, openai.stream_error)
