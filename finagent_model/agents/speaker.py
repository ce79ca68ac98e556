"""An agent's voice: asks its client through the cassette, holds the reply to its schema, keeps within the budget.

AutoGen sees a client that always answers. Whatever goes wrong is written into the session, with its status, and the
colleagues read that the agent is unavailable; nothing is raised through the team, where it would arrive as prose.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from autogen_core import CancellationToken
from autogen_core.models import (
    AssistantMessage,
    CreateResult,
    LLMMessage,
    RequestUsage,
    SystemMessage,
    UserMessage,
)
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel

from finagent_model.agents.cassette import Cassette, RecordedReply, fingerprint
from finagent_model.agents.clients import AnsweringClient, ClientPool
from finagent_model.agents.replies import ReplyError, parse_reply
from finagent_model.agents.session import Session
from finagent_model.domain.desk_config import AgentRow
from finagent_model.domain.signal import Status


class _Unavailable(Exception):
    """This agent has no reply to give; carries the status."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class SpeakerClient(AnsweringClient):
    """The chat client that one agent of one decision is given."""

    def __init__(
        self, row: AgentRow, order: Sequence[str], session: Session, pool: ClientPool, cassette: Cassette
    ) -> None:
        self._row = row
        self._order = order
        self._session = session
        self._pool = pool
        self._cassette = cassette
        self._model = row.model or session.config.model

    async def create(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: Tool | Literal["auto", "required", "none"] = "auto",
        json_output: bool | type[BaseModel] | None = None,
        extra_create_args: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
    ) -> CreateResult:
        work = asyncio.ensure_future(self._speak(self._in_order(messages)))
        if cancellation_token is not None:
            cancellation_token.link_future(work)
        try:
            content = await work
        except _Unavailable as why:
            self._session.fail(self._row.name, why.status, str(why))
            content = json.dumps({"unavailable": self._row.name, "status": why.status})
        usage = RequestUsage(prompt_tokens=0, completion_tokens=0)
        return CreateResult(content=content, finish_reason="stop", usage=usage, cached=False)

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
                self._session.record(self._row.name, "request", mend)
                messages = [
                    *messages,
                    AssistantMessage(content=reply.content[:2000] or "(empty)", source=self._row.name),
                    UserMessage(content=mend, source="desk"),
                ]
            else:
                self._session.replies[self._row.name] = parsed
                return reply.content
        raise _Unavailable(Status.PARSE_FAILED, f"{self._row.name} gave no usable reply: {problem}")

    async def _ask(self, messages: list[LLMMessage]) -> RecordedReply:
        """One reply, recorded or called for, on the books and in the conversation."""
        key = fingerprint(self._request(messages))
        recorded = None if self._session.mode == "live" else self._cassette.get(key)
        if recorded is None and self._session.mode == "replay":
            raise _Unavailable(
                Status.MODEL_ERROR, f"replay: no recorded reply of {self._row.name} for this request ({key[:12]})"
            )
        reply = recorded or await self._call(messages)
        if recorded is None:
            self._cassette.put(key, reply)
        tokens = (reply.prompt_tokens, reply.completion_tokens)
        self._session.charge(self._model, *tokens, called=recorded is None)
        self._session.record(
            self._row.name,
            "response",
            reply.content,
            tokens=tokens,
            model=self._model or "rules",
            cached=recorded is not None,
        )
        return reply

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
                Status.MODEL_ERROR, f"{self._row.name}: no reply within {limits.call_timeout_s:g} s"
            ) from None
        except Exception as error:  # a vendor's client may raise anything; here it becomes a status
            reason = self._pool.redact(f"{type(error).__name__}: {error}")[:500]
            raise _Unavailable(Status.MODEL_ERROR, f"{self._row.name}: {reason}") from None
        if not isinstance(result.content, str):
            raise _Unavailable(Status.PARSE_FAILED, f"{self._row.name} called a tool instead of answering")
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
        estimated = self.count_tokens(messages)
        if self._session.spent_tokens + estimated + longest > limits.max_tokens:
            raise _Unavailable(
                Status.BUDGET_EXCEEDED,
                f"{self._row.name} could exceed the {limits.max_tokens} tokens of a decision",
            )
        if limits.budget_usd:
            cost = self._session.price(self._model, estimated, longest)
            if cost is None or self._session.spent_usd is None:
                raise _Unavailable(
                    Status.BUDGET_EXCEEDED,
                    f"a budget of {limits.budget_usd:g} USD is set but the price of {self._model!r} is "
                    "unknown; add it to 'prices' or set the budget to 0",
                )
            if self._session.spent_usd + cost > limits.budget_usd:
                raise _Unavailable(
                    Status.BUDGET_EXCEEDED,
                    f"{self._row.name} could exceed the {limits.budget_usd:g} USD of a decision",
                )

    def _in_order(self, messages: Sequence[LLMMessage]) -> list[LLMMessage]:
        """System, question, then colleagues by roster: agents that spoke side by side arrive in any order."""
        system = [m for m in messages if isinstance(m, SystemMessage)]
        said = [m for m in messages if isinstance(m, UserMessage)]
        question = [m for m in said if m.source not in self._order]
        colleagues = [m for name in self._order for m in said if m.source == name]
        return [*system, *question, *colleagues]

    def _request(self, messages: list[LLMMessage]) -> dict[str, Any]:
        return {
            **self._pool.identity(self._model),
            "tools": [],
            "tool_choice": "auto",
            "response": self._row.role,
            "messages": [m.model_dump(mode="json") for m in messages],
        }
