"""The agents of a desk, one row each, and the chat models that they use.

`expand_debate_rounds` and `remove_agents` rewrite the rows for one decision and keep their graph
(`after`) connected.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date
from typing import Any, Literal, Self, get_args

from pydantic import ConfigDict, Field, field_validator, model_validator

from finagent_model._base import FrozenModel
from finagent_model._secrets import may_carry_key
from finagent_model.config.analyst_registry import DEFAULT_EXTERNAL

Client = Literal["rules", "openai", "azure", "anthropic", "ollama", "component"]
CLIENTS: tuple[Client, ...] = get_args(Client)
SECRET_KEYS = (
    "api_key",
    "api_token",
    "azure_ad_token",
    "auth_token",
    "password",
    "default_headers",
)
"""Keys that a component's configuration may not have: secrets live in the environment."""


class Sampling(FrozenModel):
    """Sampling parameters of a chat model; what a provider does not support is not sent."""

    # The defaults are as repeatable as providers allow.
    temperature: float = Field(0.0, ge=0, le=2)
    seed: int | None = 7
    """None: not sent. Anthropic has no seed."""
    max_tokens: int = Field(800, ge=16, le=32_000)
    """Limit of one reply."""


class Price(FrozenModel):
    """US dollars per million tokens, as published on `as_of`."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)
    as_of: date

    def cost_usd(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return what so many tokens cost, in US dollars."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class ModelConfig(FrozenModel):
    """A model and the client that reaches it.

    API keys come from the environment, and so do addresses that are not given here.
    """

    client: Client = "rules"
    model: str = ""
    """The model's name at the provider (Azure: the deployment); must be empty for `rules`."""
    base_url: str | None = None
    """Address of the provider; part of a recorded reply's fingerprint."""
    api_version: str = "2024-10-21"
    """Used by Azure alone."""
    sampling: Sampling = Sampling()
    structured: bool | None = None
    """Whether the provider is sent the reply's JSON schema; None: see `sends_schema`."""
    vision: bool = False
    """Whether the model accepts images (charts)."""
    stream: bool = False
    component: dict[str, Any] | None = None
    """AutoGen's component JSON (`provider`, `config`) of any other chat client, without keys."""

    @field_validator("client", mode="before")
    @classmethod
    def _check_client(cls, value: object) -> object:
        if value not in CLIENTS:
            raise ValueError(f"unknown client {value!r}; use one of: {', '.join(CLIENTS)}")
        return value

    @field_validator("base_url")
    @classmethod
    def _reject_credentials(cls, value: str | None) -> str | None:
        if value and may_carry_key(value):
            raise ValueError(
                "must not carry a user or password, nor a query; keys come from the environment"
            )
        return value

    @field_validator("component")
    @classmethod
    def _reject_secrets(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is None:
            return None
        if not isinstance(value.get("provider"), str) or not isinstance(value.get("config"), dict):
            raise ValueError("must have 'provider' (a dotted class name) and 'config' (its fields)")
        secret_keys = sorted(key for key in value["config"] if key in SECRET_KEYS)
        if secret_keys:
            # The configuration is packaged and logged: a key in it would be published.
            raise ValueError(
                f"must not hold {secret_keys[0]!r}; set FINAGENT_COMPONENT_API_KEY instead"
            )
        return value

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        if self.client == "rules" and self.model:
            raise ValueError(f"client 'rules' is no model; remove model {self.model!r}")
        if self.client != "rules" and not self.model:
            raise ValueError(f"client {self.client!r} needs a model, such as model: gpt-4o-mini")
        if (self.client == "component") != (self.component is not None):
            raise ValueError("client 'component' and the block 'component' belong together")
        return self

    @property
    def author(self) -> str:
        """What a signal names as its author: the model, or 'rules' for the client of that name."""
        return self.model or "rules"


Role = Literal["analyst", "debater", "risk", "executor"]
OptionalInput = Literal["news", "fundamentals", "memory"]
"""An input that not every view has."""
AgentGroup = Literal["debate", "news"]
"""Agents that are left out together to stay within a budget: debaters; those that need news."""


class AgentRow(FrozenModel):
    """One agent of the desk."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    role: Role
    """Sets the expected reply: a report (analyst, debater), risk terms, or the decision."""
    prompt: str
    """Name of the prompt template; also the rule that the client `rules` answers with."""
    after: tuple[str, ...] = ()
    """The agents whose messages it waits for; empty: it starts at once."""
    when: Literal["always"] | OptionalInput = "always"
    """An input that it needs: without one it is skipped, and the record says so."""
    model: str | None = None
    """A key of `models`, or another model of the desk's own client; None: the desk's own."""
    sampling: dict[str, Any] = Field(default_factory=dict)
    """Overrides of its model's sampling."""
    tools: tuple[str, ...] = ()
    """Names of the tools that it may call."""
    chart: bool = False
    """Whether it gets a chart, where its model accepts images."""
    # Left out of a dump where it is None: hashes of recorded desks have no such key.
    external: str | None = Field(None, exclude_if=lambda name: name is None)
    """Name of the external analyst whose report it gets."""
    default_external: bool = Field(False, alias=DEFAULT_EXTERNAL)
    """Whether it gets the report of the default external analyst."""

    @property
    def external_analyst(self) -> str | None:
        """Name of the external analyst whose report it gets; None: it gets none."""
        return DEFAULT_EXTERNAL if self.default_external else self.external

    @property
    def group(self) -> AgentGroup | None:
        """The group with which it may be left out; None: it is never left out."""
        if self.role == "debater":
            return "debate"
        return "news" if self.when == "news" else None


def expand_debate_rounds(rows: Sequence[AgentRow], rounds: int) -> tuple[AgentRow, ...]:
    """Return the rows with each debater repeated once a round.

    Debaters of a round run concurrently and wait for all of the round before. The name of a later
    round ends in its number; whoever waits for a debater waits for its last round.
    """
    debaters = [row for row in rows if row.role == "debater"]
    last_names = {row.name: _name_in_round(row.name, rounds) for row in debaters}
    expanded: list[AgentRow] = []
    for row in rows:
        if row.role != "debater":
            after = tuple(last_names.get(name, name) for name in row.after)
            expanded.append(row.model_copy(update={"after": after}))
            continue
        expanded.append(row)
        # Later rounds follow the last debater, since each waits for the whole round before.
        if row is debaters[-1]:
            for number in range(2, rounds + 1):
                previous = tuple(_name_in_round(other.name, number - 1) for other in debaters)
                expanded += [
                    other.model_copy(
                        update={"name": _name_in_round(other.name, number), "after": previous}
                    )
                    for other in debaters
                ]
    return tuple(expanded)


def remove_agents(rows: Sequence[AgentRow], names: Collection[str]) -> tuple[AgentRow, ...]:
    """Return the rows without the agents `names`.

    Whoever waited for a removed agent waits for the agents that it waited for.
    """
    after_of = {row.name: row.after for row in rows}

    def bridge(after: Sequence[str]) -> list[str]:
        remaining: list[str] = []
        for name in after:
            # Recursive: a removed agent may have waited for another removed one.
            remaining += bridge(after_of[name]) if name in names else [name]
        return remaining

    return tuple(
        # Two removed agents may have waited for the same one: fromkeys drops repeats in order.
        row.model_copy(update={"after": tuple(dict.fromkeys(bridge(row.after)))})
        for row in rows
        if row.name not in names
    )


def _name_in_round(name: str, number: int) -> str:
    return name if number == 1 else f"{name}_{number}"
