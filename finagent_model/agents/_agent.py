"""One agent in one decision: reads its colleagues, asks its model, calls tools, parses the reply.

An agent always answers. Whatever goes wrong is written into the session with its status, and its
colleagues read that it is unavailable: raised through an AutoGen team, an error would arrive as
prose. An agent hears those it waits for, directly or through others, in the roster's order, so that
it does not matter who happened to speak first.

`DeskAgent` is the agent; `components.ChatAgent` puts it into an AutoGen team.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autogen_core import ComponentModel, FunctionCall
from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    LLMMessage,
    SystemMessage,
    UserMessage,
)
from pydantic import BaseModel, ConfigDict, field_serializer

from finagent_model.agents._replies import (
    Reply,
    ReplyError,
    ReplySize,
    check_percent,
    parse_reply,
    unwrap,
)
from finagent_model.agents.completion import Chart, ChatService, CompletionRequest, UnavailableError
from finagent_model.agents.policy_client import Colleague
from finagent_model.agents.session import DeskQuery, Session, Tools, report_source
from finagent_model.cassette.records import RecordedReply
from finagent_model.config.roster import AgentRow, ModelConfig
from finagent_model.config.rules import DecisionLimits
from finagent_model.decision.opinions import REPAIR_PREFIX
from finagent_model.decision.signal import Status
from finagent_model.errors import LocalStateError

DESK = "desk"
"""The source of the question and of every request to repair a reply."""
QUOTE_CHARS = 2000
"""Characters of an unusable reply that its author is shown again."""


class AgentConfig(BaseModel):
    """All that makes an agent: its row, its prompt, its model and whom it hears.

    It is the configuration of the AutoGen component `components.ChatAgent`, and holds no key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: AgentRow
    hears: tuple[Colleague, ...]
    """The agents that it waits for, directly or through others, in roster order."""
    system_message: str
    model: ModelConfig
    """Its model, with the row's own sampling. A chat model's client is made from it with the key of
    the environment.
    """
    limits: DecisionLimits
    model_client: ComponentModel | None = None
    """The client `rules` as an AutoGen component; None for a chat model."""

    @field_serializer("row", "model", "limits")
    def _keep_nulls(self, value: BaseModel) -> dict[str, Any]:
        # AutoGen dumps a component without its nulls, and null is a value here: a sampling without
        # a temperature would come back with the default one.
        return value.model_dump(mode="json")


@dataclass(frozen=True)
class RunContext:
    """What all agents of one decision share."""

    query: DeskQuery
    session: Session
    chat_service: ChatService


class DeskAgent:
    """An agent that takes part in one decision; used once."""

    def __init__(self, config: AgentConfig, context: RunContext) -> None:
        self.name = config.row.name
        self._row = config.row
        self._ancestors = [each.name for each in config.hears]
        self._system_message = config.system_message
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
            SystemMessage(content=self._system_message),
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
