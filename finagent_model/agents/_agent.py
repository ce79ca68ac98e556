"""One agent in one decision: reads its colleagues, asks its model, calls tools, parses the reply.

An agent always answers. Whatever goes wrong is written into the session with its status, and its
colleagues read that it is unavailable: raised through an AutoGen team, an error would arrive as
prose. An agent hears those it waits for, directly or through others, in the roster's order, so that
it does not matter who happened to speak first.

`DeskAgent` is the agent; `ChatAgent` puts it into an AutoGen team.
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

from finagent_model.agents._replies import (
    Reply,
    ReplyError,
    ReplySize,
    check_percent,
    parse_reply,
    unwrap,
)
from finagent_model.agents.completion import Chart, ChatService, CompletionRequest, UnavailableError
from finagent_model.agents.session import DeskQuery, Session, Tools, report_source
from finagent_model.cassette.records import RecordedReply
from finagent_model.config.desk_config import Prompts
from finagent_model.config.roster import AgentRow
from finagent_model.decision.opinions import REPAIR_PREFIX
from finagent_model.decision.signal import Status
from finagent_model.errors import LocalStateError

DESK = "desk"
"""The source of the question and of every request to repair a reply."""
QUOTE_CHARS = 2000
"""Characters of an unusable reply that its author is shown again."""


@dataclass(frozen=True)
class RunContext:
    """What all agents of one decision share."""

    query: DeskQuery
    session: Session
    chat_service: ChatService
    prompts: Prompts


class DeskAgent:
    """A row of the roster, taking part in one decision; used once."""

    def __init__(self, row: AgentRow, ancestors: Sequence[str], context: RunContext) -> None:
        """`ancestors` are the names of the agents that it hears, in roster order."""
        self.name = row.name
        self.role = row.role
        self._row = row
        self._ancestors = ancestors
        self._context = context
        self._session = context.session

    async def reply(self, messages: Mapping[str, str]) -> str:
        """Return the agent's reply as JSON; `messages` are the question and replies by speaker.

        Raises LocalStateError only; any other failure is in the session, and the reply says so.
        """
        try:
            return await self._usable_reply(await self._build_prompt(messages))
        except UnavailableError as error:
            self._session.fail(self.name, error.status, str(error))
            return json.dumps({"unavailable": self.name, "status": error.status})
        except LocalStateError as error:
            self._session.fatal_error = error  # a team would pass it on as prose
            raise

    async def _build_prompt(self, messages: Mapping[str, str]) -> list[LLMMessage]:
        """Return prompt, question (with a chart where the row asks for it) and what it hears.

        An external analyst's report, where the row asks for it, stands right after the question.
        """
        # In roster order, not in the order of arrival: the request's fingerprint depends on it.
        texts = [(name, messages[name]) for name in (DESK, *self._ancestors) if name in messages]
        prompt: list[LLMMessage] = [
            SystemMessage(content=self._context.prompts.text(self._row.prompt)),
            *(UserMessage(content=text, source=name) for name, text in texts),
        ]
        if self._row.chart and self._can_see():
            picture = self._context.query.chart()
            chart = Chart(picture.png, picture.digest)
            prompt[1] = UserMessage(content=[messages[DESK], chart], source=DESK)
        if analyst := self._row.external_analyst:
            report = await self._context.query.external(self._session, self.name)
            prompt.insert(2, UserMessage(content=report.text, source=report_source(analyst)))
        return prompt

    def _can_see(self) -> bool:
        model = self._context.chat_service.pool.model_of(self._row)
        if not model.vision:
            self._session.skip(self.name, f"chart not shown: {model.author} can't see pictures")
        return model.vision

    async def _usable_reply(self, messages: list[LLMMessage]) -> str:
        """Return a reply that parses, after at most `repairs` explanations of what was wrong.

        Raises UnavailableError.
        """
        # Risk terms or a decision without any report would be the model's imagination.
        if self._row.role in ("risk", "executor") and not self._session.analysts:
            raise UnavailableError(Status.MODEL_ERROR, "no analyst gave a report")
        problem, cuts = "", 0
        for _ in range(self._session.config.limits.repairs + 1):
            messages, reply = await self._resolve_tool_calls(messages, cuts)
            try:
                answer, wrappings = unwrap(self._reply_text(reply, cuts))
                parsed = self._parse(answer)
            except ReplyError as error:
                problem = str(error)
                messages = [*messages, *self._repair_messages(reply, problem)]
                cuts += reply.finish_reason == "length"
            else:
                if wrappings:
                    self._session.note("unwrapped", self.name, taken_off=list(wrappings))
                self._session.replies[self.name] = parsed
                if self._row.role == "analyst":
                    self._session.analysts.add(self.name)
                return answer
        raise UnavailableError(Status.PARSE_FAILED, f"{self.name} gave no usable reply: {problem}")

    def _parse(self, answer: str) -> Reply:
        parsed = parse_reply(answer, self._row.role)
        # The rules' own confidence may be less than a percent.
        if self._context.chat_service.pool.model_of(self._row).client != "rules":
            check_percent(parsed)
        return parsed

    def _reply_text(self, reply: RecordedReply, cuts: int) -> str:
        """Return the reply's text. Raises ReplyError where asking again may help.

        Raises UnavailableError where it won't.
        """
        max_tokens = self._context.chat_service.pool.model_of(self._row).sampling.max_tokens
        if reply.finish_reason == "refusal":
            raise UnavailableError(
                Status.MODEL_ERROR, f"{self.name} refused: {reply.content[:QUOTE_CHARS]}"
            )
        # Some models call tools although the last request allowed none.
        if reply.tool_calls:
            names = ", ".join(call.name for call in reply.tool_calls)
            raise ReplyError(f"you called {names} instead of answering")
        if reply.finish_reason == "length":
            size = ReplySize.within(max_tokens, cuts + 1)
            raise ReplyError(
                f"the reply was cut off at {max_tokens} tokens; answer more briefly: "
                f"{size.in_words(self._row.role)}"
            )
        return reply.content

    def _repair_messages(self, reply: RecordedReply, problem: str) -> list[LLMMessage]:
        """Return the unusable reply and the request to repair it, and record them."""
        request = f"{REPAIR_PREFIX}: {problem}. Answer again with the JSON object alone."
        self._session.record(self.name, "request", request)
        self._session.note("repair", self.name, problem=problem)
        quote = reply.content[:QUOTE_CHARS]
        # Shown its own half a reply, a model writes it again. Anthropic takes no blank message.
        if reply.finish_reason == "length":
            quote = "(cut off)"
        return [
            AssistantMessage(content=quote if quote.strip() else "(no text)", source=self.name),
            UserMessage(content=request, source=DESK),
        ]

    async def _resolve_tool_calls(
        self, messages: list[LLMMessage], cuts: int
    ) -> tuple[list[LLMMessage], RecordedReply]:
        """Ask the model, run the tools that it calls, and ask again until it answers.

        `cuts` is how often the reply was cut off before. Returns the messages that led to the last
        reply, and that reply. After `tool_rounds` rounds the model may call no more tools. Raises
        UnavailableError.
        """
        tools = self._context.query.tools(self._row.tools) if self._row.tools else None
        schemas = tools.schemas if tools else ()
        for rounds_left in range(self._session.config.limits.tool_rounds, -1, -1):
            request = CompletionRequest(
                self._row, messages, schemas, "auto" if rounds_left else "none", cuts
            )
            reply = await self._context.chat_service.complete(request, self._session)
            if tools is None or not rounds_left or not reply.tool_calls:
                break
            messages = [*messages, *self._tool_messages(reply, tools)]
        return messages, reply

    def _tool_messages(self, reply: RecordedReply, tools: Tools) -> list[LLMMessage]:
        """Return the calls of a reply and their results, errors among them, and record both."""
        results = []
        for call in reply.tool_calls:
            self._session.note("tool_call", self.name, name=call.name, text=call.arguments)
            answer = tools.call(call.name, call.arguments)
            self._session.note(
                "tool_result",
                self.name,
                name=call.name,
                text=answer.content,
                error=answer.is_error,
            )
            self._session.record(self.name, "request", f"{call.name}: {answer.content}")
            results.append(
                FunctionExecutionResult(
                    content=answer.content,
                    name=call.name,
                    call_id=call.id,
                    is_error=answer.is_error,
                )
            )
        calls = [
            FunctionCall(id=c.id, name=c.name, arguments=c.arguments) for c in reply.tool_calls
        ]
        return [
            AssistantMessage(content=calls, thought=reply.reasoning or None, source=self.name),
            FunctionExecutionResultMessage(content=results),
        ]


class ChatAgent(BaseChatAgent):
    """A `DeskAgent` as AutoGen's teams know an agent; cancelled with its team."""

    def __init__(self, agent: DeskAgent) -> None:
        super().__init__(agent.name, description=agent.role)
        self._agent = agent

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        return (TextMessage,)

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        """Do nothing: an agent is used once and keeps no state."""

    async def on_messages(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> Response:
        by_speaker = {message.source: message.to_model_text() for message in messages}
        task = asyncio.ensure_future(self._agent.reply(by_speaker))
        cancellation_token.link_future(task)
        return Response(chat_message=TextMessage(content=await task, source=self.name))
