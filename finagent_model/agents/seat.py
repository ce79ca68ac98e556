"""One agent of one decision: asks its chat client through the cassette, holds the reply to its
schema, keeps within the budget.

To AutoGen a seat always answers. Whatever goes wrong is written into the session with its status,
and the colleagues read that the agent is unavailable; nothing is raised through the team, where it
would arrive as prose. A seat hears the agents it waits for, directly or through others, in roster
order: who happened to speak first changes nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_core import CancellationToken
from autogen_core.models import AssistantMessage, LLMMessage, SystemMessage, UserMessage

from finagent_model.agents.cassette import Cassette, RecordedReply, fingerprint
from finagent_model.agents.clients import ClientPool, estimated_tokens
from finagent_model.agents.outline import outline_of
from finagent_model.agents.prompts import prompt
from finagent_model.agents.replies import ReplyError, parse_reply
from finagent_model.agents.session import Session
from finagent_model.domain.desk_config import AgentRow
from finagent_model.domain.signal import Status

DESK = "desk"
"""Who asks: the source of the question and of every request to mend a reply."""


class _Unavailable(Exception):
    """This agent has no reply to give; carries the status."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Seat(BaseChatAgent):
    """A row of the roster, taking part in one decision."""

    def __init__(
        self,
        row: AgentRow,
        hears: Sequence[str],
        session: Session,
        pool: ClientPool,
        cassette: Cassette,
    ) -> None:
        super().__init__(row.name, description=row.role)
        self._row = row
        self._hears = hears
        self._session = session
        self._pool = pool
        self._cassette = cassette
        self._model = row.model or session.config.model

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        return (TextMessage,)

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        """A seat is used once and keeps nothing."""

    async def on_messages(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> Response:
        work = asyncio.ensure_future(self.reply(messages))
        cancellation_token.link_future(work)
        return Response(chat_message=await work)

    async def reply(self, messages: Sequence[BaseChatMessage]) -> TextMessage:
        """What this seat says after `messages`, of which it hears its share."""
        try:
            content = await self._speak(self._briefing(messages))
        except _Unavailable as why:
            self._session.fail(self.name, why.status, str(why))
            content = json.dumps({"unavailable": self.name, "status": why.status})
        return TextMessage(content=content, source=self.name)

    def _briefing(self, messages: Sequence[BaseChatMessage]) -> list[LLMMessage]:
        """Prompt, question, and what was said by those whom this seat hears."""
        said = {m.source: m.to_model_text() for m in messages}
        heard = [(name, said[name]) for name in (DESK, *self._hears) if name in said]
        system = SystemMessage(content=prompt(self._row.prompt))
        return [system, *(UserMessage(content=text, source=name) for name, text in heard)]

    async def _speak(self, messages: list[LLMMessage]) -> str:
        """A reply that parses, after at most `repairs` explanations of what was wrong."""
        if self._row.role != "analyst" and not self._session.an_analyst_spoke:
            raise _Unavailable(Status.MODEL_ERROR, "no analyst gave a report")
        problem = ""
        for _ in range(self._session.config.limits.repairs + 1):
            reply = await self._ask(messages)
            try:
                if reply.finish_reason == "length":
                    raise ReplyError("the reply was cut off; answer more briefly")
                parsed = parse_reply(reply.content, self._row.role)
            except ReplyError as error:
                problem = str(error)
                mend = f"That was not usable: {problem}. Answer again with the JSON object alone."
                self._session.record(self.name, "request", mend)
                messages = [
                    *messages,
                    AssistantMessage(content=reply.content[:2000] or "(empty)", source=self.name),
                    UserMessage(content=mend, source=DESK),
                ]
            else:
                self._session.replies[self.name] = parsed
                return reply.content
        raise _Unavailable(Status.PARSE_FAILED, f"{self.name} gave no usable reply: {problem}")

    async def _ask(self, messages: list[LLMMessage]) -> RecordedReply:
        """One reply, recorded or called for, on the books and in the conversation."""
        request = self._request(messages)
        key, recorded = fingerprint(request), None
        if self._session.mode != "live":
            recorded = self._cassette.get(key, errors=self._session.past_errors)
        if recorded is None and self._session.mode == "replay":
            self._session.missed = True
            raise _Unavailable(
                Status.MODEL_ERROR,
                f"replay: no recorded reply of {self.name} for this request ({key[:12]})"
                f"{self._nearest(request)}",
            )
        reply = recorded
        if reply is None:
            answer = await self._answer(messages)
            reply = self._cassette.put(key, answer, outline_of(request, self.name))
        if reply.error is not None:
            raise _Unavailable(Status(reply.error.status), reply.error.reason)
        tokens = (reply.prompt_tokens, reply.completion_tokens)
        self._session.charge(self._model, *tokens, called=recorded is None)
        self._session.record(
            self.name,
            "response",
            reply.content,
            tokens=tokens,
            model=self._model or "rules",
            cached=recorded is not None,
        )
        return reply

    def _nearest(self, request: dict[str, Any]) -> str:
        """Ends the sentence about a missing reply; empty where a call will be made instead."""
        outline = outline_of(request, self.name) if self._session.past_errors else None
        return f"; {self._cassette.nearest(outline)}" if outline else ""

    async def _answer(self, messages: list[LLMMessage]) -> RecordedReply:
        """A reply, or how the request failed."""
        try:
            return await self._call(messages)
        except _Unavailable as why:
            return RecordedReply.failed(why.status, str(why))

    async def _call(self, messages: list[LLMMessage]) -> RecordedReply:
        limits = self._session.config.limits
        self._check_budget(messages)
        try:
            client = self._pool.client(self._model)
            result = await asyncio.wait_for(
                client.create(messages, json_output=True), timeout=limits.call_timeout_s
            )
        except TimeoutError:
            raise _Unavailable(
                Status.MODEL_ERROR, f"{self.name}: no reply within {limits.call_timeout_s:g} s"
            ) from None
        except Exception as error:  # a vendor's client may raise anything; here it becomes a status
            reason = self._pool.redact(f"{type(error).__name__}: {error}")[:500]
            raise _Unavailable(Status.MODEL_ERROR, f"{self.name}: {reason}") from None
        if not isinstance(result.content, str):
            raise _Unavailable(
                Status.PARSE_FAILED, f"{self.name} called a tool instead of answering"
            )
        return RecordedReply(
            content=result.content,
            finish_reason=result.finish_reason,
            prompt_tokens=result.usage.prompt_tokens,
            completion_tokens=result.usage.completion_tokens,
        )

    def _check_budget(self, messages: list[LLMMessage]) -> None:
        """Refuse a call that could exceed the decision's tokens or money."""
        if self._session.config.client == "rules":
            return
        limits, longest = self._session.config.limits, self._session.config.sampling.max_tokens
        estimated = estimated_tokens(messages)
        if self._session.spent_tokens + estimated + longest > limits.max_tokens:
            raise _Unavailable(
                Status.BUDGET_EXCEEDED,
                f"{self.name} could exceed the {limits.max_tokens} tokens of a decision",
            )
        if limits.budget_usd:
            cost = self._session.price(self._model, estimated, longest)
            if cost is None or self._session.spent_usd is None:
                raise _Unavailable(
                    Status.BUDGET_EXCEEDED,
                    f"a budget of {limits.budget_usd:g} USD is set but the price of "
                    f"{self._model!r} is unknown; add it to 'prices' or set the budget to 0",
                )
            if self._session.spent_usd + cost > limits.budget_usd:
                raise _Unavailable(
                    Status.BUDGET_EXCEEDED,
                    f"{self.name} could exceed the {limits.budget_usd:g} USD of a decision",
                )

    def _request(self, messages: list[LLMMessage]) -> dict[str, Any]:
        return {
            **self._pool.identity(self._model),
            "tools": [],
            "tool_choice": "auto",
            "response": self._row.role,
            "messages": [m.model_dump(mode="json") for m in messages],
        }
