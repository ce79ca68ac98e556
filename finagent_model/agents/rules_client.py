"""The fitted policy as a chat client, asked through the same seam as any model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal

from autogen_core import CancellationToken
from autogen_core.models import (
    ChatCompletionClient,
    CreateResult,
    LLMMessage,
    ModelInfo,
    RequestUsage,
    SystemMessage,
    UserMessage,
)
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel

from finagent_model.agents import rules
from finagent_model.agents.inquiry import REPORT
from finagent_model.agents.prompts import Prompts
from finagent_model.agents.replies import Reply, ReplyError, parse_reply
from finagent_model.domain.desk_config import DeskConfig
from finagent_model.errors import ConfigError

TEXT_ONLY = ModelInfo(
    vision=False,
    function_calling=False,
    json_output=True,
    family="unknown",
    structured_output=False,
)
NO_USAGE = RequestUsage(prompt_tokens=0, completion_tokens=0)


class RulesConfig(BaseModel):
    """Seats by name, and the rule that each answers by; for AutoGen's component export."""

    seats: dict[str, str]


class RulesClient(ChatCompletionClient):
    """Answers from the messages alone. Uses no tokens, since no model is asked."""

    component_type = "model"
    component_config_schema = RulesConfig
    component_provider_override = "finagent_model.agents.rules_client.RulesClient"

    def __init__(self, config: DeskConfig) -> None:
        """Raises ConfigError for an agent that there is no rule for."""
        roster = config.roster
        self._roles = {row.name: row.role for row in roster}
        self._seats = {row.name: row.prompt for row in roster}
        played = {row.prompt for row in roster if config.model_of(row).client == "rules"}
        without = sorted(played - set(rules.RULES))
        if without:
            raise ConfigError(
                f"client 'rules' has no rule for prompt {without[0]!r}; it has: "
                f"{', '.join(rules.RULES)}; use a chat model for other agents"
            )
        texts = Prompts(config.prompts)
        self._prompts = {texts.text(name): name for name in sorted(played)}

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
        system = next(m.content for m in messages if isinstance(m, SystemMessage))
        said = [m for m in messages if isinstance(m, UserMessage)]
        heard = [
            rules.Heard(m.source, self._seats[m.source], reply)
            for m in said[1:]
            if m.source != REPORT and (reply := self._reply(m))
        ]
        report = next((str(m.content) for m in said if m.source == REPORT), None)
        content = rules.answer(self._prompts[system], str(said[0].content), heard, report)
        return CreateResult(content=content, finish_reason="stop", usage=NO_USAGE, cached=False)

    def _reply(self, message: UserMessage) -> Reply | None:
        """What a colleague said; None from one that was left out."""
        try:
            return parse_reply(str(message.content), self._roles[message.source])
        except ReplyError:
            return None

    def _to_config(self) -> RulesConfig:
        return RulesConfig(seats=self._seats)

    def create_stream(
        self, messages: Sequence[LLMMessage], **options: Any
    ) -> AsyncGenerator[str | CreateResult, None]:
        async def whole() -> AsyncGenerator[str | CreateResult, None]:
            yield await self.create(messages, **options)

        return whole()

    async def close(self) -> None:
        """Nothing is open."""

    def actual_usage(self) -> RequestUsage:
        return NO_USAGE

    def total_usage(self) -> RequestUsage:
        return NO_USAGE

    def count_tokens(
        self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()
    ) -> int:
        return 0

    def remaining_tokens(
        self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()
    ) -> int:
        return 1_000_000

    @property
    def capabilities(self) -> ModelInfo:
        return TEXT_ONLY

    @property
    def model_info(self) -> ModelInfo:
        return TEXT_ONLY
