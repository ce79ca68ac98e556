"""One reply for one agent: from the cassette, or from a call to its model, always recorded.

A request that finally fails is recorded too, so that a replay of the decision fails alike. Replies
are found by the fingerprint of the whole request (`cassette.fingerprint`).

Every field of a reply is foreign: what a client returns is recorded only after each field has its
type. AutoGen's result loses a refusal that OpenAI and Anthropic send in so many words, sometimes
that a reply was cut off, and whether tokens were counted at all. The wire notes these (`_wire`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, Literal, NamedTuple

import PIL.Image
from autogen_core import EVENT_LOGGER_NAME, Image
from autogen_core.models import (
    AssistantMessage,
    CreateResult,
    LLMMessage,
    SystemMessage,
    UserMessage,
)

from finagent_model.agents._replies import AnalystReply, ReplyError, parse_reply, unwrap
from finagent_model.agents._retry import (
    CallFailedError,
    ProviderFailure,
    call_with_retry,
    limits_for,
)
from finagent_model.agents._wire import capture_facts
from finagent_model.agents._wire_formats import ReplyFacts, arguments_object
from finagent_model.agents.budget import Amount, OverBudgetError
from finagent_model.agents.providers import ClientPool, provider_of
from finagent_model.agents.session import Session
from finagent_model.cassette.cassette import Cassette
from finagent_model.cassette.fingerprint import DESK, fingerprint, make_outline
from finagent_model.cassette.records import RecordedReply, ToolCall
from finagent_model.config.roster import AgentRow, ModelConfig
from finagent_model.decision.signal import Status
from finagent_model.errors import ConfigError

log = logging.getLogger(__name__)
IMAGE_TOKENS = 1000
"""Counted for a chart; providers count 85 to 1,600 for its size."""
NOTHING = Amount(0, 0.0)
SILENT = logging.CRITICAL + 1
_AUTOGEN_LOGGERS = [logging.getLogger(name) for name in ("autogen_core", EVENT_LOGGER_NAME)]
SENDABLE_ID = re.compile(r"[!-~]{1,200}")
"""An identity of a tool call that its provider takes back."""
UNSENDABLE_IN_NAME = re.compile(r"[^A-Za-z0-9_-]")
MAX_NAME_CHARS = 64
"""Of a tool's name, as providers take it back."""
UNCOUNTED = "the provider did not count tokens: what was reserved counts, and the cost is unknown"
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


@dataclass
class Uncounted:
    """Tokens of failed attempts that may have been charged for: unknown, so what was reserved."""

    prompt: int = 0
    completion: int = 0


class CompletionRequest(NamedTuple):
    """All that one call sends."""

    row: AgentRow
    messages: Sequence[LLMMessage]
    tools: Sequence[dict[str, Any]]
    tool_choice: ToolChoice
    cuts: int = 0
    """How often the reply was cut off before; the schema's bounds are narrowed for each."""


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
        tokens = (reply.prompt_tokens, reply.completion_tokens)
        # A failure costs something only where an attempt may have been charged for.
        if reply.error is None or any(tokens):
            session.charge(model, *tokens, counted=reply.usage_known)
        if not reply.usage_known:
            session.warn(UNCOUNTED)
        if reply.error is not None:
            raise UnavailableError(Status(reply.error.status), reply.error.reason)
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
            **({} if reply.usage_known else {"usage": "unknown"}),
        )
        return reply

    async def ask(
        self, row: AgentRow, prompt: str, question: str, session: Session
    ) -> AnalystReply | None:
        """Return the report of an agent's model on a prompt and a question, without tools.

        None: the reply can't be read. Raises UnavailableError.
        """
        messages: list[LLMMessage] = [
            SystemMessage(content=prompt),
            UserMessage(content=question, source=DESK),
        ]
        asked = row.model_copy(update={"role": "analyst"})
        reply = await self.complete(CompletionRequest(asked, messages, (), "none"), session)
        try:
            report = parse_reply(unwrap(reply.content)[0], "analyst")
        except ReplyError:
            return None
        assert isinstance(report, AnalystReply)
        return report

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
        name, uncounted = request.row.name, Uncounted()
        try:
            reply = await self._call_model(request, model, session, uncounted)
        except OverBudgetError as error:
            reply = RecordedReply.from_error(Status.BUDGET_EXCEEDED, f"{name} could exceed {error}")
        except ConfigError as error:
            reply = RecordedReply.from_error(Status.MODEL_ERROR, f"{name}: {error}")
        except CallFailedError as error:
            reason = self.pool.redact(f"{name}: {error.failure.reason}")[:500]
            reply = RecordedReply.from_error(Status.MODEL_ERROR, reason)
        except asyncio.CancelledError:
            if uncounted != Uncounted():
                tokens = (uncounted.prompt, uncounted.completion)
                session.charge(model, *tokens, counted=False)
                session.warn(UNCOUNTED)
            raise
        if uncounted == Uncounted():
            return reply
        return replace(
            reply,
            prompt_tokens=reply.prompt_tokens + uncounted.prompt,
            completion_tokens=reply.completion_tokens + uncounted.completion,
            usage_known=False,
        )

    async def _call_model(
        self,
        request: CompletionRequest,
        model: ModelConfig,
        session: Session,
        uncounted: Uncounted,
    ) -> RecordedReply:
        """Return a new reply, paid from the session's budgets.

        Adds to `uncounted` what failed attempts may have taken. Raises OverBudgetError, ConfigError
        or CallFailedError.
        """
        client = self.pool.client(request.row)
        if model.client == "rules":
            session.count_call()
            result = await client.create(request.messages)
            usage = (result.usage.prompt_tokens, result.usage.completion_tokens)
            return self._as_recorded(request, result, ReplyFacts(), usage)
        name, limits = request.row.name, session.config.limits
        # The budget is reserved for the longest reply there may be, and settled by the real one.
        prompt_tokens = estimated_tokens(request.messages, request.tools)
        reserved = self._price(session, model, prompt_tokens, model.sampling.max_tokens)
        session.reserve(name, reserved)
        spent: Amount | None = reserved  # a call that is cut off may have been charged for
        silence_autogen_logs()
        captured = capture_facts()

        def count_failed_attempt() -> None:
            uncounted.prompt += prompt_tokens
            uncounted.completion += model.sampling.max_tokens

        def note_retry(attempt: int, failure: ProviderFailure, pause_s: float) -> None:
            nonlocal spent
            why = self.pool.redact(failure.reason)
            session.note("retry", name, attempt=attempt, why=why, pause_s=round(pause_s, 3))
            if failure.billed:
                # A reservation is for one attempt: this one is spent, the next takes another.
                count_failed_attempt()
                session.settle(name, reserved, reserved)
                spent = None
                session.reserve(name, reserved)
                spent = reserved

        log.info("%s asks %s", name, model.author)
        options = self.pool.reply_options(request.row, request.cuts)
        if request.tools:
            options |= {"tools": request.tools, "tool_choice": request.tool_choice}
        try:
            result = await call_with_retry(
                client,
                sendable(request.messages),
                options,
                limits,
                limits_for(provider_of(model), session.config.traffic),
                reserved.tokens,
                stream=model.stream,
                on_attempt=session.count_call,
                on_retry=note_retry,
            )
            facts = captured[-1] if captured else read_facts(result)
            # Unknown is not 0: a reply without a count is taken for the longest that there may be,
            # or for its total where that is more.
            longest = max(model.sampling.max_tokens, (facts.total_tokens or 0) - prompt_tokens)
            tokens = facts.usage or (prompt_tokens, longest)
            spent = self._price(session, model, *tokens)
        except CallFailedError as error:
            if error.failure.billed:
                count_failed_attempt()
            else:
                spent = NOTHING
            raise
        except asyncio.CancelledError:
            count_failed_attempt()
            raise
        finally:
            if spent is not None:  # None: nothing is reserved any more
                session.settle(name, reserved, spent)
        log.info("%s has its reply", name)
        recorded = self._as_recorded(request, result, facts, tokens)
        return replace(recorded, usage_known=facts.usage is not None)

    def _price(self, session: Session, model: ModelConfig, prompt: int, completion: int) -> Amount:
        """Return what so many tokens take.

        Raises OverBudgetError where money is limited and the price is not known.
        """
        usd = session.price(model, prompt, completion)
        limits, spending = session.config.limits, session.config.spending
        if usd is None and (limits.budget_usd or spending.run_usd or spending.day_usd):
            raise OverBudgetError(
                f"a budget in USD, since the price of {model.model!r} is unknown; add it to the "
                f"configuration, prices: {{{model.model}: {{prompt: P, completion: C, as_of: "
                "YYYY-MM-DD}} in USD a million tokens, or set the budget to 0"
            )
        return Amount(prompt + completion, usd)

    def _as_recorded(
        self,
        request: CompletionRequest,
        result: CreateResult,
        facts: ReplyFacts,
        tokens: tuple[int, int],
    ) -> RecordedReply:
        """Return a reply as it is recorded, with any key of ours that it holds redacted."""
        content, calls = result.content, list[ToolCall]()
        if not isinstance(content, str):
            calls = usable_calls(content, request.messages)
            content = ""
        finish_reason = "length" if facts.was_cut else str(result.finish_reason)
        # A refusal is no reply to repair: asking again would be refused again.
        if facts.refusal is not None or finish_reason == "content_filter":
            finish_reason, calls = "refusal", []
            content = facts.refusal or content or "stopped by a content filter"
        keeps_reasoning = bool(calls) and self.pool.returns_reasoning(request.row)
        redact = self.pool.redact
        return RecordedReply(
            content=redact(content),
            finish_reason=finish_reason,
            prompt_tokens=tokens[0],
            completion_tokens=tokens[1],
            tool_calls=tuple(c._replace(arguments=redact(c.arguments)) for c in calls),
            reasoning=redact(facts.reasoning) if keeps_reasoning else "",
        )


def read_facts(result: CreateResult) -> ReplyFacts:
    """Return what a client's result tells of its reply, where no wire noted more."""
    facts = ReplyFacts(finish_reason=result.finish_reason)
    facts.count(
        getattr(result.usage, "prompt_tokens", None),
        getattr(result.usage, "completion_tokens", None),
    )
    return facts


def usable_calls(calls: Sequence[Any], messages: Sequence[LLMMessage]) -> list[ToolCall]:
    """Return the tool calls of a reply, each with a name, JSON arguments and an id of its own.

    `messages` are those that it replies to; their calls have ids already.
    """
    earlier = [
        call.id
        for message in messages
        if isinstance(message, AssistantMessage) and not isinstance(message.content, str)
        for call in message.content
    ]
    usable: list[ToolCall] = []
    for call in calls:
        number = len(earlier) + len(usable)
        # Nine letters and digits, which is all that Mistral takes.
        made_up = f"call{number:05d}"
        identity, name, arguments = (
            getattr(call, field, None) for field in ("id", "name", "arguments")
        )
        if not isinstance(identity, str) or not SENDABLE_ID.fullmatch(identity):
            identity = made_up
        if identity in {other.id for other in usable}:
            identity = made_up
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments) if isinstance(arguments, dict) else "{}"
        name = UNSENDABLE_IN_NAME.sub("_", name) if isinstance(name, str) else ""
        usable.append(ToolCall(identity, name[:MAX_NAME_CHARS] or "unnamed", arguments or "{}"))
    return usable


def sendable(messages: Sequence[LLMMessage]) -> list[LLMMessage]:
    """Return the messages with arguments that every server can read.

    A model's own arguments may be no JSON object, which servers and clients refuse to be sent back.
    """
    return [_with_readable_calls(message) for message in messages]


def _with_readable_calls(message: LLMMessage) -> LLMMessage:
    if not isinstance(message, AssistantMessage) or isinstance(message.content, str):
        return message
    calls = [
        replace(call, arguments=_readable_arguments(call.arguments)) for call in message.content
    ]
    return message.model_copy(update={"content": calls})


def _readable_arguments(text: str) -> str:
    value = arguments_object(text)
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which no client can send
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()
    return text if value else "{}"


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


def silence_autogen_logs() -> None:
    """Drop AutoGen's logs: whole prompts, and a traceback for every cancelled agent."""
    for logger in _AUTOGEN_LOGGERS:
        # Setting a level clears the caches of all loggers, so it is done once and not per decision.
        if logger.level != SILENT:
            logger.setLevel(SILENT)
