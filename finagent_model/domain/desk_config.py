"""The desk as rows of data: who sits at it, what each is asked, who listens to whom, and how far
they may go.
"""

from __future__ import annotations

from datetime import date
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from finagent_model.domain.gate_rules import GateRules
from finagent_model.errors import ConfigError

Role = Literal["analyst", "risk", "executor"]
Mode = Literal["cached", "live", "replay"]
CLIENTS = ("rules", "openai")


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AgentRow(_Row):
    """One seat at the desk."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    role: Role
    """Which reply is expected: a report, risk terms, or the decision."""
    prompt: str
    """Name of the prompt template; also the rule that the client `rules` answers by."""
    after: tuple[str, ...] = ()
    """The agents whose messages it waits for; none: it speaks at once."""
    when: Literal["always", "news"] = "always"
    """`news`: only if the view has any; otherwise skipped, and the record says so."""
    model: str | None = None
    """Overrides the desk's model for this agent."""


class Sampling(_Row):
    """How a chat model is asked."""

    temperature: float = Field(0.0, ge=0, le=2)
    seed: int | None = 7
    max_tokens: int = Field(800, ge=16, le=32_000)


class Limits(_Row):
    """Bounds of one decision. Reaching one is a status, never a crash."""

    max_rounds: int = Field(10, ge=1, le=100)
    """Messages that agents may exchange; without a decision by then the desk abstains."""
    max_tokens: int = Field(40_000, ge=0)
    """Prompt and reply together, over all agents; the client `rules` uses none."""
    wall_clock_s: float = Field(120.0, gt=0, le=3600)
    call_timeout_s: float = Field(45.0, gt=0, le=600)
    repairs: int = Field(2, ge=0, le=5)
    """Times that an agent is told what was wrong with its reply."""
    budget_usd: float = Field(0.0, ge=0)
    """0: no limit in money. Otherwise every model's price must be known."""


class RiskLimits(_Row):
    """What code allows, whatever a model says."""

    entry_atr: float = Field(1.0, ge=0, le=10)
    """An entry price may lie this many ATR from the last close."""
    max_stop_fraction: float = Field(0.5, gt=0, lt=1)
    """A stop may lie this fraction of the entry price away."""


class Memory(_Row):
    """What the desk is told of its own past calls."""

    lessons: int = Field(5, ge=0, le=50)
    """The latest ones, told in full; 0: nothing is remembered."""


class Price(_Row):
    """US dollars for a million tokens, as published on `as_of`."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)
    as_of: date


class DeskConfig(_Row):
    """Everything that says how a decision is made, apart from what training fitted."""

    client: Literal["rules", "openai"] = "rules"
    model: str = ""
    """Name of the chat model; must be empty for `rules`."""
    base_url: str | None = None
    """Where the model answers; part of what a recorded reply is keyed by."""
    sampling: Sampling = Sampling()
    agents: tuple[AgentRow, ...] = Field(min_length=1)
    limits: Limits = Limits()
    risk: RiskLimits = RiskLimits()
    memory: Memory = Memory()
    prices: dict[str, Price] = {}
    gate: GateRules = GateRules()
    """Decides about versions, not about trades."""

    @field_validator("client", mode="before")
    @classmethod
    def _known_client(cls, value: object) -> object:
        if value not in CLIENTS:
            raise ValueError(f"unknown client {value!r}; use one of: {', '.join(CLIENTS)}")
        return value

    @model_validator(mode="after")
    def _sits(self) -> Self:
        names = [row.name for row in self.agents]
        if len(set(names)) != len(names):
            raise ValueError(
                f"agents share a name: {sorted(n for n in names if names.count(n) > 1)}"
            )
        seen: set[str] = set()
        for row in self.agents:
            late = [name for name in row.after if name not in seen]
            if late:
                raise ValueError(f"{row.name} waits for {late[0]!r}, which is not listed before it")
            seen.add(row.name)
        if (
            sum(row.role == "executor" for row in self.agents) != 1
            or self.agents[-1].role != "executor"
        ):
            raise ValueError("exactly one executor must be listed, as the last agent")
        if not any(row.role == "analyst" and row.when == "always" for row in self.agents):
            raise ValueError("at least one analyst must run always")
        if self.client == "rules" and self.model:
            raise ValueError(f"client 'rules' is no model; remove model {self.model!r}")
        if self.client != "rules" and not self.model:
            raise ValueError(f"client {self.client!r} needs a model, such as model: gpt-4o-mini")
        return self

    @property
    def model_used(self) -> str:
        """What a signal names as its author."""
        return "rules" if self.client == "rules" else self.model

    def seated(self, has_news: bool) -> tuple[AgentRow, ...]:
        """The agents that take part in one decision, edges to absent ones removed."""
        present = [row for row in self.agents if row.when == "always" or has_news]
        names = {row.name for row in present}
        return tuple(
            row.model_copy(update={"after": tuple(a for a in row.after if a in names)})
            for row in present
        )


def read_desk_config(text: str, defaults: dict[str, Any], where: str) -> DeskConfig:
    """A desk from YAML `text`; keys it leaves out come from `defaults`. Raises ConfigError naming
    `where`.
    """
    try:
        given = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(given, dict):
        raise ConfigError(f"{where}: expected keys such as 'client:', got {type(given).__name__}")
    try:
        return DeskConfig.model_validate({**defaults, **given})
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """The first thing that is wrong, in one line: where, what was given, what is allowed."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {where!r}"
    given = first["input"]
    shown = f" (given: {given!r:.80})" if isinstance(given, str | int | float) else ""
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}{shown}" if where else message
