"""One agent of one decision: hears its colleagues, asks its model, looks things up, and holds the
reply to its schema.

A seat always answers. Whatever goes wrong is written into the session with its status, and the
colleagues read that the agent is unavailable; nothing is raised through a team, where it would
arrive as prose. A seat hears the agents it waits for, directly or through others, in roster order:
who happened to speak first changes nothing.

A seat as AutoGen's teams know it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_core import CancellationToken, FunctionCall
from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    LLMMessage,
    SystemMessage,
    UserMessage,
)

from finagent_model.agents.completion import Chart, ChatService, CompletionRequest, UnavailableError
from finagent_model.agents.prompt_templates import Prompts
from finagent_model.agents.replies import ReplyError, parse_reply
from finagent_model.agents.session import REPORT, DeskQuery, Session, Tools
from finagent_model.cassette.records import RecordedReply
from finagent_model.config.roster import AgentRow
from finagent_model.decision.signal import Status
from finagent_model.errors import LocalStateError

DESK = "desk"
"""Who asks: the source of the question and of every request to mend a reply."""
QUOTED = 2000
"""Characters of an unusable reply that its author is shown again."""


@dataclass(frozen=True)
class RunContext:
    """What all seats of one decision share."""

    inquiry: DeskQuery
    session: Session
    exchange: ChatService
    prompts: Prompts


class DeskAgent:
    """A row of the roster, taking part in one decision; used once."""

    def __init__(self, row: AgentRow, hears: Sequence[str], around: RunContext) -> None:
        self.name = row.name
        self.role = row.role
        self._row = row
        self._hears = hears
        self._around = around
        self._session = around.session

    async def reply(self, said: Mapping[str, str]) -> str:
        """What this seat says after `said`, by speaker, of which it hears its share."""
        try:
            return await self._speak(await self._briefing(said))
        except UnavailableError as why:
            self._session.fail(self.name, why.status, str(why))
            return json.dumps({"unavailable": self.name, "status": why.status})
        except LocalStateError as error:
            self._session.trouble = error  # a team would pass it on as prose
            raise

    async def _briefing(self, said: Mapping[str, str]) -> list[LLMMessage]:
        """Prompt, question (perhaps with a chart), upstream's report where it is to be read, and
        what was said by those whom it hears.
        """
        heard = [(name, said[name]) for name in (DESK, *self._hears) if name in said]
        briefing: list[LLMMessage] = [
            SystemMessage(content=self._around.prompts.text(self._row.prompt)),
            *(UserMessage(content=text, source=name) for name, text in heard),
        ]
        if self._row.chart and self._sees():
            drawn = self._around.inquiry.chart()
            shown = Chart(drawn.png, drawn.digest)
            briefing[1] = UserMessage(content=[said[DESK], shown], source=DESK)
        if self._row.upstream:
            read = await self._around.inquiry.upstream(self._session, self.name)
            briefing.insert(2, UserMessage(content=read.report, source=REPORT))
        return briefing

    def _sees(self) -> bool:
        model = self._around.exchange.pool.model_of(self._row)
        if not model.vision:
            self._session.skip(self.name, f"chart not shown: {model.author} can't see pictures")
        return model.vision

    async def _speak(self, messages: list[LLMMessage]) -> str:
        """A reply that parses, after at most `repairs` explanations of what was wrong."""
        if self._row.role in ("risk", "executor") and not self._session.analysts:
            raise UnavailableError(Status.MODEL_ERROR, "no analyst gave a report")
        problem = ""
        for _ in range(self._session.config.limits.repairs + 1):
            messages, reply = await self._looked_up(messages)
            try:
                parsed = parse_reply(self._usable(reply), self._row.role)
            except ReplyError as error:
                problem = str(error)
                messages = [*messages, *self._mend(reply, problem)]
            else:
                self._session.replies[self.name] = parsed
                if self._row.role == "analyst":
                    self._session.analysts.add(self.name)
                return reply.content
        raise UnavailableError(Status.PARSE_FAILED, f"{self.name} gave no usable reply: {problem}")

    def _usable(self, reply: RecordedReply) -> str:
        """Its text; raises ReplyError where asking again may help, else UnavailableError."""
        longest = self._around.exchange.pool.model_of(self._row).sampling.max_tokens
        if reply.finish_reason == "refusal":
            raise UnavailableError(
                Status.MODEL_ERROR, f"{self.name} refused: {reply.content[:QUOTED]}"
            )
        if reply.tool_calls:
            names = ", ".join(call.name for call in reply.tool_calls)
            raise ReplyError(f"you called {names} instead of answering")
        if reply.finish_reason == "length":
            raise ReplyError(f"the reply was cut off at {longest} tokens; answer more briefly")
        return reply.content

    def _mend(self, reply: RecordedReply, problem: str) -> list[LLMMessage]:
        mend = f"That was not usable: {problem}. Answer again with the JSON object alone."
        self._session.record(self.name, "request", mend)
        self._session.note("repair", self.name, problem=problem)
        return [
            AssistantMessage(content=reply.content[:QUOTED] or "(no text)", source=self.name),
            UserMessage(content=mend, source=DESK),
        ]

    async def _looked_up(
        self, messages: list[LLMMessage]
    ) -> tuple[list[LLMMessage], RecordedReply]:
        """A reply once the agent has looked up what it asked for, and all that led to it."""
        tools = self._around.inquiry.tools(self._row.tools) if self._row.tools else None
        offered = tools.schemas if tools else ()
        for left in range(self._session.config.limits.tool_rounds, -1, -1):
            question = CompletionRequest(self._row, messages, offered, "auto" if left else "none")
            reply = await self._around.exchange.ask(question, self._session)
            if tools is None or not left or not reply.tool_calls:
                break
            messages = [*messages, *self._tool_turn(reply, tools)]
        return messages, reply

    def _tool_turn(self, reply: RecordedReply, tools: Tools) -> list[LLMMessage]:
        """What the agent asked for and what it got; an error is an answer too."""
        results = []
        for call in reply.tool_calls:
            self._session.note("tool_call", self.name, name=call.name, text=call.arguments)
            found = tools.call(call.name, call.arguments)
            self._session.note(
                "tool_result", self.name, name=call.name, text=found.content, error=found.is_error
            )
            self._session.record(self.name, "request", f"{call.name}: {found.content}")
            results.append(
                FunctionExecutionResult(
                    content=found.content, name=call.name, call_id=call.id, is_error=found.is_error
                )
            )
        calls = [
            FunctionCall(id=c.id, name=c.name, arguments=c.arguments) for c in reply.tool_calls
        ]
        return [
            AssistantMessage(content=calls, source=self.name),
            FunctionExecutionResultMessage(content=results),
        ]


class ChatAgent(BaseChatAgent):
    """Hands a seat what was said and passes on what it says; cancelled with its team."""

    def __init__(self, seat: DeskAgent) -> None:
        super().__init__(seat.name, description=seat.role)
        self._seat = seat

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        return (TextMessage,)

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        """A seat is used once and keeps nothing."""

    async def on_messages(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> Response:
        said = {message.source: message.to_model_text() for message in messages}
        work = asyncio.ensure_future(self._seat.reply(said))
        cancellation_token.link_future(work)
        return Response(chat_message=TextMessage(content=await work, source=self.name))
