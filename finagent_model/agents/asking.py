"""One reply for one agent: found among the recorded ones or called for, always on the books.

A request that finally fails is recorded as well, so that a replay of the decision fails alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from autogen_core.models import CreateResult, LLMMessage

from finagent_model.agents.calling import CallFailedError, call
from finagent_model.agents.clients import ClientPool
from finagent_model.agents.ending import listen, refusal, was_cut
from finagent_model.agents.faults import Fault
from finagent_model.agents.messages import as_json, estimated_tokens
from finagent_model.agents.purse import Amount, OverBudgetError
from finagent_model.agents.schema import asked_for
from finagent_model.agents.session import Session
from finagent_model.agents.traffic import lane
from finagent_model.cassette.cassette import (
    Cassette,
    RecordedReply,
    ToolCall,
    fingerprint,
)
from finagent_model.cassette.outline import outline_of
from finagent_model.domain.model_row import ModelRow
from finagent_model.domain.roster import AgentRow
from finagent_model.domain.signal import Status
from finagent_model.errors import ConfigError

ToolChoice = Literal["auto", "none"]
NOTHING = Amount(0, 0.0)


class UnavailableError(Exception):
    """An agent has no reply to give; carries the status."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Question(NamedTuple):
    """All that one call sends."""

    row: AgentRow
    messages: Sequence[LLMMessage]
    tools: Sequence[dict[str, Any]]
    tool_choice: ToolChoice


@dataclass(frozen=True)
class Exchange:
    """Where the seats of a desk ask."""

    pool: ClientPool
    cassette: Cassette

    async def ask(self, question: Question, session: Session) -> RecordedReply:
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
            reply = self.cassette.put(key, answer, outline_of(request, row.name))
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
        outline = outline_of(request, name)
        return f"; {self.cassette.nearest(outline)}" if outline else ""

    async def _answer(self, question: Question, model: ModelRow, session: Session) -> RecordedReply:
        """A new reply, or how the request failed."""
        name = question.row.name
        try:
            return await self._call(question, model, session)
        except OverBudgetError as error:
            return RecordedReply.failed(Status.BUDGET_EXCEEDED, f"{name} could exceed {error}")
        except ConfigError as error:
            return RecordedReply.failed(Status.MODEL_ERROR, f"{name}: {error}")
        except CallFailedError as error:
            reason = self.pool.redact(f"{name}: {error.fault.reason}")[:500]
            return RecordedReply.failed(Status.MODEL_ERROR, reason)

    async def _call(self, question: Question, model: ModelRow, session: Session) -> RecordedReply:
        if model.client == "rules":
            result = await self.pool.client(question.row).create(question.messages)
            return self._kept(result, {})
        name, limits = question.row.name, session.config.limits
        client = self.pool.client(question.row)
        asked = estimated_tokens(question.messages, question.tools)
        reserved = self._amount(session, model, asked, model.sampling.max_tokens)
        session.reserve(name, reserved)
        spent = reserved  # a call that is cut off may have been charged for
        heard = listen()

        def retried(attempt: int, fault: Fault, pause_s: float) -> None:
            why = self.pool.redact(fault.reason)
            session.note("retry", name, attempt=attempt, why=why, pause_s=round(pause_s, 3))

        options = asked_for(question.row.role, model, client)
        if question.tools:
            options |= {"tools": question.tools, "tool_choice": question.tool_choice}
        provider = f"{model.client} {model.base_url or ''}"
        try:
            result = await call(
                client,
                question.messages,
                options,
                limits,
                lane(provider, session.config.traffic),
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
        ended: str = "length" if was_cut(raw) else result.finish_reason
        refused = refusal(raw)
        if refused is not None or ended == "content_filter":
            ended, content = "refusal", refused or content or "stopped by a content filter"
        return RecordedReply(
            content=self.pool.redact(content),
            finish_reason=ended,
            prompt_tokens=result.usage.prompt_tokens,
            completion_tokens=result.usage.completion_tokens,
            tool_calls=tuple(calls),
        )

    def _amount(self, session: Session, model: ModelRow, prompt: int, completion: int) -> Amount:
        """Raises OverBudgetError where money is limited and a price is not known."""
        usd = session.price(model, prompt, completion)
        limits, spending = session.config.limits, session.config.spending
        if usd is None and (limits.budget_usd or spending.run_usd or spending.day_usd):
            raise OverBudgetError(
                f"a budget in USD, since the price of {model.model!r} is unknown; "
                "add it to 'prices' or set the budget to 0"
            )
        return Amount(prompt + completion, usd)

    def _request(self, question: Question) -> dict[str, Any]:
        return {
            **self.pool.identity(question.row),
            "tools": list(question.tools),
            "tool_choice": question.tool_choice,
            "response": question.row.role,
            "messages": [as_json(message) for message in question.messages],
        }
