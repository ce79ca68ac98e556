"""The desk as rows of data: who sits at it, what each is asked, who listens to whom, and how far
they may go.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from finagent_model.domain.approval import Approval
from finagent_model.domain.bounds import Limits, Memory, RiskLimits, Spending, Traffic
from finagent_model.domain.gate_rules import GateRules
from finagent_model.domain.model_row import ModelRow, Price, Sampling
from finagent_model.domain.policy import Policy
from finagent_model.domain.roster import AgentRow, Occasion, in_rounds, without
from finagent_model.errors import ConfigError

Mode = Literal["cached", "live", "replay"]
UPSTREAM, UPSTREAM_WEIGHT = "upstream", 0.5
"""What a signal calls it; the weight of its opinion, beside the technical score's 1, before any
training.
"""


class DeskConfig(ModelRow):
    """Everything that says how a decision is made, apart from what training fitted. Its own keys
    `client`, `model` and so on are the model of every agent that names no other.
    """

    models: dict[str, ModelRow] = Field(default_factory=dict)
    """Others, by the name that an agent's row uses."""
    agents: tuple[AgentRow, ...] = Field(min_length=1)
    debate_rounds: int = Field(1, ge=1, le=10)
    """Times that each debater speaks."""
    prompts: dict[str, str] = Field(default_factory=dict)
    """Templates of this desk's own, by name; in a file, a value that ends in .md names one beside
    it.
    """
    limits: Limits = Limits()
    spending: Spending = Spending()
    traffic: Traffic = Traffic()
    risk: RiskLimits = RiskLimits()
    policy: dict[str, float] = Field(default_factory=dict)
    """Parameters of the policy that training leaves alone, such as `threshold`."""
    memory: Memory = Memory()
    approval: Approval = Approval()
    """Decides about which trades leave, not about what the desk says."""
    prices: dict[str, Price] = Field(default_factory=dict)
    gate: GateRules = GateRules()
    """Decides about versions, not about trades."""

    @field_validator("agents")
    @classmethod
    def _sampled(cls, rows: tuple[AgentRow, ...]) -> tuple[AgentRow, ...]:
        for row in rows:
            Sampling.model_validate(row.sampling)
        return rows

    @field_validator("policy")
    @classmethod
    def _parameters(cls, value: dict[str, float]) -> dict[str, float]:
        Policy.model_validate(value)
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
        for row in self.agents:
            if row.upstream and row.role != "analyst":
                raise ValueError(f"{row.name} is no analyst: upstream's report is for analysts")
            if row.model and row.model not in self.models and self.client in ("rules", "component"):
                known = ", ".join(self.models) or "none"
                raise ValueError(f"{row.name} names model {row.model!r}; 'models' has: {known}")
        return self

    @property
    def roster(self) -> tuple[AgentRow, ...]:
        """All that may speak, each debater once a round."""
        return in_rounds(self.agents, self.debate_rounds)

    @property
    def hears_upstream(self) -> bool:
        """Whether an agent reads the upstream project's report."""
        return any(row.upstream for row in self.agents)

    @property
    def only_upstream(self) -> bool:
        """Whether no other analyst has an opinion."""
        return all(row.upstream for row in self.agents if row.role == "analyst")

    @property
    def first_policy(self) -> Policy:
        """Before any training."""
        weight = {"upstream_weight": UPSTREAM_WEIGHT} if self.hears_upstream else {}
        return Policy.model_validate({**weight, **self.policy})

    @property
    def models_used(self) -> tuple[ModelRow, ...]:
        """Each once, in the order of the agents."""
        rows = [self.model_of(row) for row in self.agents]
        return tuple(row for i, row in enumerate(rows) if row not in rows[:i])

    @property
    def model_used(self) -> str:
        """What a signal names as its author: the models by name, joined where several speak, and
        upstream where it is heard.
        """
        heard = [UPSTREAM] if self.hears_upstream else []
        return "+".join([*dict.fromkeys(row.author for row in self.models_used), *heard])

    @property
    def only_rules(self) -> bool:
        """Whether no chat model is asked at all."""
        return all(row.client == "rules" for row in self.models_used)

    def model_of(self, row: AgentRow) -> ModelRow:
        """The model that an agent speaks by."""
        if row.model in self.models:
            chosen = self.models[row.model]
        else:
            own = {name: getattr(self, name) for name in ModelRow.model_fields}
            chosen = ModelRow(**own | ({"model": row.model} if row.model else {}))
        if not row.sampling:
            return chosen
        sampling = Sampling.model_validate({**chosen.sampling.model_dump(), **row.sampling})
        return chosen.model_copy(update={"sampling": sampling})

    def seated(self, occasions: Collection[Occasion]) -> tuple[AgentRow, ...]:
        """The agents that take part in one decision, those for whom there is nothing left out."""
        absent = {row.name for row in self.roster if row.when not in ("always", *occasions)}
        return without(self.roster, absent)


def read_desk_config(text: str, defaults: dict[str, Any], where: str) -> DeskConfig:
    """A desk from YAML `text`; keys it leaves out come from `defaults`. Raises ConfigError naming
    `where`.
    """
    return desk_config(parse_yaml(text, where), defaults, where)


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """The keys of a desk's YAML. Raises ConfigError naming `where`."""
    try:
        given = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(given, dict):
        raise ConfigError(f"{where}: expected keys such as 'client:', got {type(given).__name__}")
    return given


def desk_config(given: dict[str, Any], defaults: dict[str, Any], where: str) -> DeskConfig:
    """A desk from parsed keys over defaults, block by block. Raises ConfigError naming `where`."""
    blocks = {
        key: {**defaults[key], **value}
        for key, value in given.items()
        if isinstance(value, dict) and isinstance(defaults.get(key), dict)
    }
    try:
        return DeskConfig.model_validate({**defaults, **given, **blocks})
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
