"""One reply for one agent: from the cassette, or from a call to its model, always recorded.

A request that finally fails is recorded too, so that a replay of the decision fails alike. Replies
are found by the fingerprint of the whole request (`cassette.fingerprint`).

AutoGen's result loses a refusal that OpenAI and Anthropic send in so many words, and sometimes that
a reply was cut off. Its log of calls has the provider's whole response, so that is captured.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal, NamedTuple

import PIL.Image
from autogen_core import EVENT_LOGGER_NAME, Image
from autogen_core.logging import LLMCallEvent
from autogen_core.models import CreateResult, LLMMessage, UserMessage

from finagent_model.agents._retry import (
    CallFailedError,
    ProviderFailure,
    call_with_retry,
    limits_for,
)
from finagent_model.agents.budget import Amount, OverBudgetError
from finagent_model.agents.providers import ClientPool
from finagent_model.agents.session import Session
from finagent_model.cassette.cassette import Cassette
from finagent_model.cassette.fingerprint import fingerprint, make_outline
from finagent_model.cassette.records import RecordedReply, ToolCall
from finagent_model.config.roster import AgentRow, ModelConfig
from finagent_model.decision.signal import Status
from finagent_model.errors import ConfigError

IMAGE_TOKENS = 1000
"""Counted for a chart; providers count 85 to 1,600 for its size."""
NOTHING = Amount(0, 0.0)
ToolChoice = Literal["auto", "none"]


class UnavailableError(Exception):
    """An agent has no reply to give; `status` says why."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Chart(Image):
    """An image that a request is identified by through `digest`, a hash of what is drawn.

    The bytes won't do: another font library makes other bytes of the same chart.
    """

    def __init__(self, png: bytes, digest: str) -> None:
        super().__init__(PIL.Image.open(BytesIO(png)))
        self.digest = digest


class CompletionRequest(NamedTuple):
    """All that one call sends."""

    row: AgentRow
    messages: Sequence[LLMMessage]
    tools: Sequence[dict[str, Any]]
    tool_choice: ToolChoice


@dataclass(frozen=True)
class ChatService:
    """Completes requests of a desk's agents from the cassette or from their models."""

    pool: ClientPool
    cassette: Cassette

    async def complete(self, request: CompletionRequest, session: Session) -> RecordedReply:
        """Return the reply to `request`. Raises UnavailableError where none is to be had."""
        row, model = request.row, self.pool.model_of(request.row)
        content = self._request_content(request)
        key = fingerprint(content)
        session.note("request", row.name, key=key, **content)
        recorded = None
        # A recorded failure is a reply in a replay only; mode `cached` asks again.
        if session.mode != "live":
            recorded = self.cassette.get(key, errors=session.replay_errors)
        if recorded is None and session.mode == "replay":
            session.cache_miss = True
            raise UnavailableError(
                Status.MODEL_ERROR,
                f"replay: no recorded reply of {row.name} for this request ({key[:12]})"
                f"{self._nearest_recording(content, row.name) if session.replay_errors else ''}",
            )
        reply = recorded
        if reply is None:
            new_reply = await self._reply_or_failure(request, model, session)
            reply = self.cassette.put(key, new_reply, make_outline(content, row.name))
        if reply.error is not None:
            raise UnavailableError(Status(reply.error.status), reply.error.reason)
        tokens = (reply.prompt_tokens, reply.completion_tokens)
        session.charge(model, *tokens, called=recorded is None)
        text = reply.content or "; ".join(f"{c.name}({c.arguments})" for c in reply.tool_calls)
        session.record(
            row.name,
            "response",
            text,
            tokens=tokens,
            model=model.author,
            cached=recorded is not None,
        )
        session.note(
            "reply",
            row.name,
            key=key,
            text=reply.content,
            tool_calls=[[c.id, c.name, c.arguments] for c in reply.tool_calls],
            finish_reason=reply.finish_reason,
            tokens=tokens,
            model=model.author,
            cached=recorded is not None,
        )
        return reply

    def _request_content(self, request: CompletionRequest) -> dict[str, Any]:
        """Return all of a request that its reply depends on; recordings are found by its hash."""
        return {
            **self.pool.identity(request.row),
            "tools": list(request.tools),
            "tool_choice": request.tool_choice,
            "response": request.row.role,
            "messages": [message_json(message) for message in request.messages],
        }

    def _nearest_recording(self, content: dict[str, Any], agent: str) -> str:
        """Return the end of the sentence about a missing reply: what is recorded instead."""
        outline = make_outline(content, agent)
        return f"; {self.cassette.describe_nearest(outline)}" if outline else ""

    async def _reply_or_failure(
        self, request: CompletionRequest, model: ModelConfig, session: Session
    ) -> RecordedReply:
        """Return the model's reply, or how the request failed: both are recorded."""
        name = request.row.name
        try:
            return await self._call_model(request, model, session)
        except OverBudgetError as error:
            return RecordedReply.from_error(Status.BUDGET_EXCEEDED, f"{name} could exceed {error}")
        except ConfigError as error:
            return RecordedReply.from_error(Status.MODEL_ERROR, f"{name}: {error}")
        except CallFailedError as error:
            reason = self.pool.redact(f"{name}: {error.failure.reason}")[:500]
            return RecordedReply.from_error(Status.MODEL_ERROR, reason)

    async def _call_model(
        self, request: CompletionRequest, model: ModelConfig, session: Session
    ) -> RecordedReply:
        """Return a new reply, paid from the session's budgets.

        Raises OverBudgetError, ConfigError or CallFailedError.
        """
        client = self.pool.client(request.row)
        if model.client == "rules":
            return self._as_recorded(await client.create(request.messages), {})
        name, limits = request.row.name, session.config.limits
        # The budget is reserved for the longest reply there may be, and settled by the real one.
        prompt_tokens = estimated_tokens(request.messages, request.tools)
        reserved = self._price(session, model, prompt_tokens, model.sampling.max_tokens)
        session.reserve(name, reserved)
        spent = reserved  # a call that is cut off may have been charged for
        responses = capture_responses()

        def note_retry(attempt: int, failure: ProviderFailure, pause_s: float) -> None:
            why = self.pool.redact(failure.reason)
            session.note("retry", name, attempt=attempt, why=why, pause_s=round(pause_s, 3))

        options = self.pool.reply_options(request.row)
        if request.tools:
            options |= {"tools": request.tools, "tool_choice": request.tool_choice}
        # Two models at one address share a rate limiter and a circuit breaker.
        provider = f"{model.client} {model.base_url or ''}"
        try:
            result = await call_with_retry(
                client,
                request.messages,
                options,
                limits,
                limits_for(provider, session.config.traffic),
                reserved.tokens,
                stream=model.stream,
                on_retry=note_retry,
            )
            usage = result.usage
            spent = self._price(session, model, usage.prompt_tokens, usage.completion_tokens)
        except CallFailedError as error:
            if not error.failure.billed:
                spent = NOTHING
            raise
        finally:
            session.settle(name, reserved, spent)
        return self._as_recorded(result, responses[-1] if responses else {})

    def _price(self, session: Session, model: ModelConfig, prompt: int, completion: int) -> Amount:
        """Return what so many tokens take.

        Raises OverBudgetError where money is limited and the price is not known.
        """
        usd = session.price(model, prompt, completion)
        limits, spending = session.config.limits, session.config.spending
        if usd is None and (limits.budget_usd or spending.run_usd or spending.day_usd):
            raise OverBudgetError(
                f"a budget in USD, since the price of {model.model!r} is unknown; "
                "add it to 'prices' or set the budget to 0"
            )
        return Amount(prompt + completion, usd)

    def _as_recorded(self, result: CreateResult, response: dict[str, Any]) -> RecordedReply:
        """Return a reply as it is recorded, with any key of ours that it holds struck out.

        `response` is the provider's own response; empty where it was not captured.
        """
        content, calls = result.content, list[ToolCall]()
        if not isinstance(content, str):
            calls = [ToolCall(c.id, c.name, self.pool.redact(c.arguments)) for c in content]
            content = ""
        finish_reason: str = "length" if hit_length_limit(response) else result.finish_reason
        # A refusal is no reply to repair: asking again would be refused again.
        refusal = refusal_text(response)
        if refusal is not None or finish_reason == "content_filter":
            finish_reason, content = "refusal", refusal or content or "stopped by a content filter"
        return RecordedReply(
            content=self.pool.redact(content),
            finish_reason=finish_reason,
            prompt_tokens=result.usage.prompt_tokens,
            completion_tokens=result.usage.completion_tokens,
            tool_calls=tuple(calls),
        )


def message_json(message: LLMMessage) -> dict[str, Any]:
    """Return a message as JSON, as a fingerprint sees it; a chart is given by its digest."""
    if isinstance(message, UserMessage) and not isinstance(message.content, str):
        content = [part if isinstance(part, str) else _image_json(part) for part in message.content]
        return {"content": content, "source": message.source, "type": message.type}
    return message.model_dump(mode="json")


def _image_json(image: Image) -> dict[str, str]:
    return {"image": image.digest if isinstance(image, Chart) else image.to_base64()}


def estimated_tokens(messages: Sequence[LLMMessage], tools: Sequence[dict[str, Any]] = ()) -> int:
    """Return about how many tokens a request takes, at four characters a token."""
    # Exact counters fetch their tables over the network.
    chars = len(json.dumps(list(tools))) if tools else 0
    images = 0
    for message in messages:
        content = message.content
        if isinstance(message, UserMessage) and not isinstance(content, str):
            chars += sum(len(part) for part in content if isinstance(part, str))
            images += sum(not isinstance(part, str) for part in content)
        else:
            chars += len(str(content))
    return chars // 4 + images * IMAGE_TOKENS


_RESPONSES: ContextVar[list[dict[str, Any]] | None] = ContextVar("responses", default=None)


class _RawResponseHandler(logging.Handler):
    """Collects the responses of calls that were asked for by `capture_responses`; writes no log."""

    def emit(self, record: logging.LogRecord) -> None:
        responses = _RESPONSES.get()
        if responses is not None and isinstance(record.msg, LLMCallEvent):
            responses.append(record.msg.kwargs.get("response") or {})


_RAW_RESPONSE_HANDLER = _RawResponseHandler()


def silence_autogen_logs() -> None:
    """Send AutoGen's events to our handler alone, and drop them until `capture_responses`."""
    # AutoGen logs whole prompts, and a traceback for every cancelled agent.
    events = logging.getLogger(EVENT_LOGGER_NAME)
    if _RAW_RESPONSE_HANDLER not in events.handlers:
        events.handlers = [_RAW_RESPONSE_HANDLER]
        events.propagate = False
        for name in ("autogen_core", EVENT_LOGGER_NAME):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def capture_responses() -> list[dict[str, Any]]:
    """Return a list that gets the raw responses of calls by this task and the tasks it starts."""
    silence_autogen_logs()
    logging.getLogger(EVENT_LOGGER_NAME).setLevel(logging.INFO)
    responses: list[dict[str, Any]] = []
    _RESPONSES.set(responses)
    return responses


def hit_length_limit(response: dict[str, Any]) -> bool:
    """Return whether a raw response ended at its length limit, in any provider's words."""
    choices: list[dict[str, Any]] = response.get("choices") or [{}]
    reasons = (
        choices[0].get("finish_reason"),
        response.get("stop_reason"),
        response.get("done_reason"),
    )
    return "length" in reasons or "max_tokens" in reasons


def refusal_text(response: dict[str, Any]) -> str | None:
    """Return the words by which a raw response refuses to answer; None where it doesn't."""
    for choice in response.get("choices") or ():
        refusal = (choice.get("message") or {}).get("refusal")
        if refusal:
            return str(refusal)
        if choice.get("finish_reason") == "content_filter":
            return "the provider's content filter stopped it"
    return "the model declined to answer" if response.get("stop_reason") == "refusal" else None
