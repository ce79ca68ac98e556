"""Chat clients behind one seam: AutoGen's `ChatCompletionClient`, made from a desk's configuration.

`rules` answers by the fitted policy, from the same messages that a model would get. `openai` is any
server that speaks that protocol. A client is made when it is first needed: replaying a recorded
decision needs no key.
"""

from __future__ import annotations

import asyncio
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
from finagent_model.agents.leak import without_keys
from finagent_model.agents.prompts import prompt
from finagent_model.agents.replies import Reply, ReplyError, parse_reply
from finagent_model.domain.desk_config import DeskConfig
from finagent_model.errors import ConfigError
from finagent_model.settings import Settings

TEXT_ONLY = ModelInfo(
    vision=False,
    function_calling=False,
    json_output=True,
    family="unknown",
    structured_output=False,
)
OPENAI = "https://api.openai.com/v1"
NO_USAGE = RequestUsage(prompt_tokens=0, completion_tokens=0)


def estimated_tokens(messages: Sequence[LLMMessage]) -> int:
    """Four characters a token: exact counters fetch their tables over the network."""
    return sum(len(str(message.content)) for message in messages) // 4


class RulesConfig(BaseModel):
    """Seats by name, and the rule that each answers by; for AutoGen's component export."""

    seats: dict[str, str]


class RulesClient(ChatCompletionClient):
    """The fitted policy as a chat client. Uses no tokens, since no model is asked."""

    component_type = "model"
    component_config_schema = RulesConfig
    component_provider_override = "finagent_model.agents.clients.RulesClient"

    def __init__(self, config: DeskConfig) -> None:
        self._roles = {row.name: row.role for row in config.agents}
        self._seats = {row.name: row.prompt for row in config.agents}
        without = sorted(set(self._seats.values()) - set(rules.RULES))
        if without:
            raise ConfigError(
                f"client 'rules' has no rule for prompt {without[0]!r}; it has: "
                f"{', '.join(rules.RULES)}; use a chat model for other agents"
            )
        self._prompts = {prompt(name): name for name in self._seats.values()}

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
            if (reply := self._reply(m))
        ]
        content = rules.answer(self._prompts[system], str(said[0].content), heard)
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
        return estimated_tokens(messages)

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


class ClientPool:
    """One client a model, made on the loop that uses it and remade when that loop is another (after
    a fork).
    """

    def __init__(self, config: DeskConfig, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self._clients: dict[tuple[int, str], ChatCompletionClient] = {}
        if config.client == "rules":
            RulesClient(
                config
            )  # a roster that it can't play is refused now, not at the first decision

    def identity(self, model: str) -> dict[str, Any]:
        """What tells this client's replies from another's: part of every fingerprint."""
        if self._config.client == "rules":
            return {"client": "rules", "version": rules.VERSION}
        return {
            "client": self._config.client,
            "base_url": self._config.base_url,
            "model": model,
            "sampling": self._config.sampling.model_dump(),
        }

    def client(self, model: str) -> ChatCompletionClient:
        """The client for `model`; call it on the loop. Raises ConfigError without a key."""
        key = (id(asyncio.get_running_loop()), model)
        if key not in self._clients:
            self._clients[key] = self._make(model)
        return self._clients[key]

    def require_key(self) -> None:
        """Raise ConfigError now if calls to the model could not be made."""
        if self._config.client == "openai" and self._settings.openai_api_key is None:
            raise ConfigError(
                "client 'openai' needs a key: set OPENAI_API_KEY (any value for a local server), "
                "or use mode 'replay'"
            )

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no record and no signal may hold."""
        key = self._settings.openai_api_key
        return () if key is None else (key.get_secret_value(),)

    def redact(self, text: str) -> str:
        """`text` without our key, should a server have echoed it."""
        return without_keys(text, self.secrets)

    def exported(self, model: str) -> ChatCompletionClient:
        """A client to be written down, never to be called: it holds no key."""
        if self._config.client == "rules":
            return RulesClient(self._config)
        return self._openai(model, key="set OPENAI_API_KEY")

    def _make(self, model: str) -> ChatCompletionClient:
        if self._config.client == "rules":
            return RulesClient(self._config)
        self.require_key()
        assert self._settings.openai_api_key is not None
        return self._openai(model, self._settings.openai_api_key.get_secret_value())

    def _openai(self, model: str, key: str) -> ChatCompletionClient:
        from autogen_ext.models.openai import OpenAIChatCompletionClient

        sampling = self._config.sampling
        options: dict[str, Any] = {} if sampling.seed is None else {"seed": sampling.seed}
        return OpenAIChatCompletionClient(
            model=model,
            api_key=key,
            base_url=self._config.base_url or OPENAI,
            model_info=TEXT_ONLY,
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            timeout=self._config.limits.call_timeout_s,
            max_retries=2,
            **options,
        )
