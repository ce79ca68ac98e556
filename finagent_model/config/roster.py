"""Which chat model answers, through which client, and how it is asked.

Who sits at the desk: one row an agent, and who of them takes part in one decision.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date
from typing import Any, Literal, Self, get_args

from pydantic import ConfigDict, Field, field_validator, model_validator

from finagent_model._base import FrozenModel
from finagent_model.config.external import DEFAULT_EXTERNAL

Client = Literal["rules", "openai", "azure", "anthropic", "ollama", "component"]
CLIENTS: tuple[Client, ...] = get_args(Client)
KEYS = ("api_key", "api_token", "azure_ad_token", "auth_token", "password", "default_headers")
"""What a component's configuration may not hold: secrets live in the environment."""


class Sampling(FrozenModel):
    """How a chat model is asked. What a provider has no word for is not sent (Anthropic's seed)."""

    temperature: float = Field(0.0, ge=0, le=2)
    seed: int | None = 7
    max_tokens: int = Field(800, ge=16, le=32_000)
    """Of one reply."""


class Price(FrozenModel):
    """US dollars for a million tokens, as published on `as_of`."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)
    as_of: date

    def usd(self, prompt: float, completion: float) -> float:
        """Of so many tokens."""
        return (prompt * self.prompt + completion * self.completion) / 1e6


class ModelConfig(FrozenModel):
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
    def author(self) -> str:
        """What a signal names: a model, or 'rules', which is none."""
        return self.model or "rules"


Role = Literal["analyst", "debater", "risk", "executor"]
Occasion = Literal["news", "fundamentals", "memory"]
"""Something that not every view has."""
Group = Literal["debate", "news"]
"""Those who may be left out together to save money: the debaters; whoever needs news."""


class AgentRow(FrozenModel):
    """One seat at the desk."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    role: Role
    """Which reply is expected: a report (analyst, debater), risk terms, or the decision."""
    prompt: str
    """Name of the prompt template; also the rule that the client `rules` answers by."""
    after: tuple[str, ...] = ()
    """The agents whose messages it waits for; none: it speaks at once."""
    when: Literal["always"] | Occasion = "always"
    """Otherwise it is skipped where the view has none, and the record says so."""
    model: str | None = None
    """A row of `models`, or another model of the desk's own client; None: the desk's own."""
    sampling: dict[str, Any] = Field(default_factory=dict)
    """What differs from its model's sampling."""
    tools: tuple[str, ...] = ()
    """What it may look up, by name."""
    chart: bool = False
    """Whether it is shown a chart, where its model can see one."""
    external: str | None = Field(None, exclude_if=lambda name: name is None)
    """Name of the external analyst whose report it is shown. Left out of a dump where it is None:
    hashes of recorded desks have no such key.
    """
    default_external: bool = Field(False, alias=DEFAULT_EXTERNAL)
    """Whether it is shown the report of the default external analyst."""

    @property
    def external_analyst(self) -> str | None:
        """Name of the external analyst that it hears; None: it hears none."""
        return DEFAULT_EXTERNAL if self.default_external else self.external

    @property
    def group(self) -> Group | None:
        """With whom it may be left out; None: never."""
        if self.role == "debater":
            return "debate"
        return "news" if self.when == "news" else None


def in_rounds(rows: Sequence[AgentRow], rounds: int) -> tuple[AgentRow, ...]:
    """Each debater once a round: side by side at first, afterwards in answer to the round before.

    A later round's name ends in its number; whoever waits for a debater waits for its last round.
    """
    debaters = [row for row in rows if row.role == "debater"]
    last = {row.name: _in_round(row.name, rounds) for row in debaters}
    unrolled: list[AgentRow] = []
    for row in rows:
        if row.role != "debater":
            after = tuple(last.get(name, name) for name in row.after)
            unrolled.append(row.model_copy(update={"after": after}))
            continue
        unrolled.append(row)
        if row is debaters[-1]:
            for number in range(2, rounds + 1):
                before = tuple(_in_round(other.name, number - 1) for other in debaters)
                unrolled += [
                    other.model_copy(
                        update={"name": _in_round(other.name, number), "after": before}
                    )
                    for other in debaters
                ]
    return tuple(unrolled)


def without(rows: Sequence[AgentRow], absent: Collection[str]) -> tuple[AgentRow, ...]:
    """The others; whoever waited for an absent one waits for those that it waited for."""
    waits = {row.name: row.after for row in rows}

    def present(names: Sequence[str]) -> list[str]:
        found: list[str] = []
        for name in names:
            found += present(waits[name]) if name in absent else [name]
        return found

    return tuple(
        row.model_copy(update={"after": tuple(dict.fromkeys(present(row.after)))})
        for row in rows
        if row.name not in absent
    )


def _in_round(name: str, number: int) -> str:
    return name if number == 1 else f"{name}_{number}"
