"""Chat messages as a fingerprint sees them, and about how many tokens they take.

Why a reply ended, in the provider's own words.

AutoGen's result knows `stop`, `length` and `content_filter`; a refusal in so many words, as OpenAI
and Anthropic send it, gets lost. Its log of calls has the whole answer, so that is listened to.

One reply for one agent: found among the recorded ones or called for, always on the books.

A request that finally fails is recorded as well, so that a replay of the decision fails alike.
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

from finagent_model.agents.budget import Amount, OverBudgetError
from finagent_model.agents.providers import ClientPool
from finagent_model.agents.replies import asked_for
from finagent_model.agents.retry import (
    CallFailedError,
    ProviderFailure,
    call_with_retry,
    limits_for,
)
from finagent_model.agents.session import Session
from finagent_model.cassette.cassette import Cassette
from finagent_model.cassette.fingerprint import fingerprint, make_outline
from finagent_model.cassette.records import RecordedReply, ToolCall
from finagent_model.config.roster import AgentRow, ModelConfig
from finagent_model.decision.signal import Status
from finagent_model.errors import ConfigError

IMAGE_TOKENS = 1000
"""Counted for a chart; providers count 85 to 1,600 for its size."""


class Chart(Image):
    """A picture that knows what it shows, so that a request is known by that and not by the bytes
    that a font library made of it.
    """

    def __init__(self, png: bytes, digest: str) -> None:
        super().__init__(PIL.Image.open(BytesIO(png)))
        self.digest = digest


def as_json(message: LLMMessage) -> dict[str, Any]:
    """Type, source and content."""
    if isinstance(message, UserMessage) and not isinstance(message.content, str):
        content = [part if isinstance(part, str) else _picture(part) for part in message.content]
        return {"content": content, "source": message.source, "type": message.type}
    return message.model_dump(mode="json")


def estimated_tokens(messages: Sequence[LLMMessage], tools: Sequence[dict[str, Any]] = ()) -> int:
    """Four characters a token: exact counters fetch their tables over the network."""
    total = len(json.dumps(list(tools))) if tools else 0
    pictures = 0
    for message in messages:
        content = message.content
        if isinstance(message, UserMessage) and not isinstance(content, str):
            total += sum(len(part) for part in content if isinstance(part, str))
            pictures += sum(not isinstance(part, str) for part in content)
        else:
            total += len(str(content))
    return total // 4 + pictures * IMAGE_TOKENS


def _picture(image: Image) -> dict[str, str]:
    return {"image": image.digest if isinstance(image, Chart) else image.to_base64()}


_CAPTURED: ContextVar[list[dict[str, Any]] | None] = ContextVar("heard", default=None)


class _RawResponseHandler(logging.Handler):
    """Keeps the answers of calls that somebody listens to; writes nothing anywhere."""

    def emit(self, record: logging.LogRecord) -> None:
        heard = _CAPTURED.get()
        if heard is not None and isinstance(record.msg, LLMCallEvent):
            heard.append(record.msg.kwargs.get("response") or {})


_RAW_RESPONSE_HANDLER = _RawResponseHandler()


def silence_autogen_logs() -> None:
    """AutoGen logs whole prompts, and a traceback for every cancelled agent: from now on its events
    reach our ear alone, and not even that before somebody listens.
    """
    events = logging.getLogger(EVENT_LOGGER_NAME)
    if _RAW_RESPONSE_HANDLER not in events.handlers:
        events.handlers = [_RAW_RESPONSE_HANDLER]
        events.propagate = False
        for name in ("autogen_core", EVENT_LOGGER_NAME):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def capture_responses() -> list[dict[str, Any]]:
    """A list that the raw answers of this task's calls are put into, and of the tasks it starts."""
    silence_autogen_logs()
    logging.getLogger(EVENT_LOGGER_NAME).setLevel(logging.INFO)
    heard: list[dict[str, Any]] = []
    _CAPTURED.set(heard)
    return heard


def hit_length_limit(answer: dict[str, Any]) -> bool:
    """Whether a raw answer ended at its length limit."""
    choices: list[dict[str, Any]] = answer.get("choices") or [{}]
    words = (choices[0].get("finish_reason"), answer.get("stop_reason"), answer.get("done_reason"))
    return "length" in words or "max_tokens" in words


def refusal_text(answer: dict[str, Any]) -> str | None:
    """What a raw answer refuses with; None where it doesn't."""
    for choice in answer.get("choices") or ():
        said = (choice.get("message") or {}).get("refusal")
        if said:
            return str(said)
        if choice.get("finish_reason") == "content_filter":
            return "the provider's content filter stopped it"
    return "the model declined to answer" if answer.get("stop_reason") == "refusal" else None


ToolChoice = Literal["auto", "none"]
NOTHING = Amount(0, 0.0)


class UnavailableError(Exception):
    """An agent has no reply to give; carries the status."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class CompletionRequest(NamedTuple):
    """All that one call sends."""

    row: AgentRow
    messages: Sequence[LLMMessage]
    tools: Sequence[dict[str, Any]]
    tool_choice: ToolChoice


@dataclass(frozen=True)
class ChatService:
    """Where the seats of a desk ask."""

    pool: ClientPool
    cassette: Cassette

    async def ask(self, question: CompletionRequest, session: Session) -> RecordedReply:
        """Raises UnavailableError where there is no reply to be had."""
        row, model = question.row, self.pool.model_of(question.row)
        request = self._request(question)
        key = fingerprint(request)
        session.note("request", row.name, key=key, **request)
        recorded = None
        if session.mode != "live":
            recorded = self.cassette.get(key, errors=session.past_errors)
        if recorded is None and session.mode == "replay":
            session.missed = True
            raise UnavailableError(
                Status.MODEL_ERROR,
                f"replay: no recorded reply of {row.name} for this request ({key[:12]})"
                f"{self._nearest(request, row.name) if session.past_errors else ''}",
            )
        reply = recorded
        if reply is None:
            answer = await self._answer(question, model, session)
            reply = self.cassette.put(key, answer, make_outline(request, row.name))
        if reply.error is not None:
            raise UnavailableError(Status(reply.error.status), reply.error.reason)
        tokens = (reply.prompt_tokens, reply.completion_tokens)
        session.charge(model, *tokens, called=recorded is None)
        said = reply.content or "; ".join(f"{c.name}({c.arguments})" for c in reply.tool_calls)
        session.record(
            row.name,
            "response",
            said,
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

    def _nearest(self, request: dict[str, Any], name: str) -> str:
        """Ends the sentence about a missing reply."""
        outline = make_outline(request, name)
        return f"; {self.cassette.describe_nearest(outline)}" if outline else ""

    async def _answer(
        self, question: CompletionRequest, model: ModelConfig, session: Session
    ) -> RecordedReply:
        """A new reply, or how the request failed."""
        name = question.row.name
        try:
            return await self._call(question, model, session)
        except OverBudgetError as error:
            return RecordedReply.from_error(Status.BUDGET_EXCEEDED, f"{name} could exceed {error}")
        except ConfigError as error:
            return RecordedReply.from_error(Status.MODEL_ERROR, f"{name}: {error}")
        except CallFailedError as error:
            reason = self.pool.redact(f"{name}: {error.fault.reason}")[:500]
            return RecordedReply.from_error(Status.MODEL_ERROR, reason)

    async def _call(
        self, question: CompletionRequest, model: ModelConfig, session: Session
    ) -> RecordedReply:
        if model.client == "rules":
            result = await self.pool.client(question.row).create(question.messages)
            return self._kept(result, {})
        name, limits = question.row.name, session.config.limits
        client = self.pool.client(question.row)
        asked = estimated_tokens(question.messages, question.tools)
        reserved = self._amount(session, model, asked, model.sampling.max_tokens)
        session.reserve(name, reserved)
        spent = reserved  # a call that is cut off may have been charged for
        heard = capture_responses()

        def retried(attempt: int, fault: ProviderFailure, pause_s: float) -> None:
            why = self.pool.redact(fault.reason)
            session.note("retry", name, attempt=attempt, why=why, pause_s=round(pause_s, 3))

        options = asked_for(question.row.role, model, client)
        if question.tools:
            options |= {"tools": question.tools, "tool_choice": question.tool_choice}
        provider = f"{model.client} {model.base_url or ''}"
        try:
            result = await call_with_retry(
                client,
                question.messages,
                options,
                limits,
                limits_for(provider, session.config.traffic),
                reserved.tokens,
                stream=model.stream,
                retried=retried,
            )
            usage = result.usage
            spent = self._amount(session, model, usage.prompt_tokens, usage.completion_tokens)
        except CallFailedError as error:
            if error.fault.unpaid:
                spent = NOTHING
            raise
        finally:
            session.settle(name, reserved, spent)
        return self._kept(result, heard[-1] if heard else {})

    def _kept(self, result: CreateResult, raw: dict[str, Any]) -> RecordedReply:
        """A reply as it is recorded: without our keys, should the model have got hold of one.
        `raw` is the provider's own answer, where it was heard.
        """
        content, calls = result.content, list[ToolCall]()
        if not isinstance(content, str):
            calls = [ToolCall(c.id, c.name, self.pool.redact(c.arguments)) for c in content]
            content = ""
        ended: str = "length" if hit_length_limit(raw) else result.finish_reason
        refused = refusal_text(raw)
        if refused is not None or ended == "content_filter":
            ended, content = "refusal", refused or content or "stopped by a content filter"
        return RecordedReply(
            content=self.pool.redact(content),
            finish_reason=ended,
            prompt_tokens=result.usage.prompt_tokens,
            completion_tokens=result.usage.completion_tokens,
            tool_calls=tuple(calls),
        )

    def _amount(self, session: Session, model: ModelConfig, prompt: int, completion: int) -> Amount:
        """Raises OverBudgetError where money is limited and a price is not known."""
        usd = session.price(model, prompt, completion)
        limits, spending = session.config.limits, session.config.spending
        if usd is None and (limits.budget_usd or spending.run_usd or spending.day_usd):
            raise OverBudgetError(
                f"a budget in USD, since the price of {model.model!r} is unknown; "
                "add it to 'prices' or set the budget to 0"
            )
        return Amount(prompt + completion, usd)

    def _request(self, question: CompletionRequest) -> dict[str, Any]:
        return {
            **self.pool.identity(question.row),
            "tools": list(question.tools),
            "tool_choice": question.tool_choice,
            "response": question.row.role,
            "messages": [as_json(message) for message in question.messages],
        }
