"""Which chat model answers, through which client, and how it is asked."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from finagent_model.domain.row import Row

Client = Literal["rules", "openai", "azure", "anthropic", "ollama", "component"]
CLIENTS: tuple[Client, ...] = get_args(Client)
KEYS = ("api_key", "api_token", "azure_ad_token", "auth_token", "password", "default_headers")
"""What a component's configuration may not hold: secrets live in the environment."""


class Sampling(Row):
    """How a chat model is asked. What a provider has no word for is not sent (Anthropic's seed)."""

    temperature: float = Field(0.0, ge=0, le=2)
    seed: int | None = 7
    max_tokens: int = Field(800, ge=16, le=32_000)
    """Of one reply."""


class Price(Row):
    """US dollars for a million tokens, as published on `as_of`."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)
    as_of: date

    def usd(self, prompt: float, completion: float) -> float:
        """Of so many tokens."""
        return (prompt * self.prompt + completion * self.completion) / 1e6


class ModelRow(Row):
    """One model behind one client. Keys and, unless given here, addresses come from the
    environment.
    """

    client: Client = "rules"
    model: str = ""
    """Its name at the provider (Azure: the deployment); must be empty for `rules`."""
    base_url: str | None = None
    """Where it answers; part of what a recorded reply is keyed by."""
    api_version: str = "2024-10-21"
    """Azure's alone."""
    sampling: Sampling = Sampling()
    structured: bool | None = None
    """Whether the provider is sent the reply's JSON schema; None: where it is known to take one."""
    vision: bool = False
    """Whether it can be shown a chart."""
    stream: bool = False
    component: dict[str, Any] | None = None
    """AutoGen's component JSON (`provider`, `config`) of any other chat client, without keys."""

    @field_validator("client", mode="before")
    @classmethod
    def _known_client(cls, value: object) -> object:
        if value not in CLIENTS:
            raise ValueError(f"unknown client {value!r}; use one of: {', '.join(CLIENTS)}")
        return value

    @field_validator("base_url")
    @classmethod
    def _no_credentials(cls, value: str | None) -> str | None:
        if value and "@" in value.partition("://")[2].partition("/")[0]:
            raise ValueError("must not carry a user or password; keys come from the environment")
        return value

    @field_validator("component")
    @classmethod
    def _no_secrets(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is None:
            return None
        if not isinstance(value.get("provider"), str) or not isinstance(value.get("config"), dict):
            raise ValueError("must have 'provider' (a dotted class name) and 'config' (its fields)")
        held = sorted(key for key in value["config"] if key in KEYS)
        if held:
            raise ValueError(f"must not hold {held[0]!r}; set FINAGENT_COMPONENT_API_KEY instead")
        return value

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.client == "rules" and self.model:
            raise ValueError(f"client 'rules' is no model; remove model {self.model!r}")
        if self.client != "rules" and not self.model:
            raise ValueError(f"client {self.client!r} needs a model, such as model: gpt-4o-mini")
        if (self.client == "component") != (self.component is not None):
            raise ValueError("client 'component' and the block 'component' belong together")
        return self

    @property
    def sends_schema(self) -> bool:
        """Whether the provider holds the reply to the schema itself: OpenAI's own address, Azure
        and Ollama do; other OpenAI-compatible servers may not, Anthropic's client can't.
        """
        if self.structured is not None:
            return self.structured
        return self.client in ("azure", "ollama") or (
            self.client == "openai" and self.base_url is None
        )

    @property
    def author(self) -> str:
        """What a signal names: a model, or 'rules', which is none."""
        return self.model or "rules"
