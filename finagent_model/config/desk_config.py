"""The desk as rows of data: who sits at it, what each is asked, who listens to whom, and how far
they may go.

Other desks made of the same rows, to find out what each row is good for.

Desks that ship with the package: a YAML file each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from finagent_model._base import explain
from finagent_model.config.approval_rules import ApprovalRules
from finagent_model.config.external import EXTERNAL_ANALYSTS
from finagent_model.config.roster import (
    AgentRow,
    ModelConfig,
    Occasion,
    Price,
    Sampling,
    in_rounds,
    without,
)
from finagent_model.config.rules import GateRules, Limits, Memory, RateLimits, RiskLimits, Spending
from finagent_model.errors import ConfigError
from finagent_model.policy.policy import EXTERNAL_WEIGHT_KEY, Policy

FIRST_EXTERNAL_WEIGHT = 0.5
"""Weight of an external analyst's opinion, beside the technical score's 1, before any training."""


class DeskConfig(ModelConfig):
    """Everything that says how a decision is made, apart from what training fitted. Its own keys
    `client`, `model` and so on are the model of every agent that names no other.
    """

    models: dict[str, ModelConfig] = Field(default_factory=dict)
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
    traffic: RateLimits = RateLimits()
    risk: RiskLimits = RiskLimits()
    policy: dict[str, float] = Field(default_factory=dict)
    """Parameters of the policy that training leaves alone, such as `threshold`."""
    memory: Memory = Memory()
    approval: ApprovalRules = ApprovalRules()
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
            if row.external_analyst and row.role != "analyst":
                raise ValueError(
                    f"{row.name} is no analyst: {row.external_analyst}'s report is for analysts"
                )
            if row.model and row.model not in self.models and self.client in ("rules", "component"):
                known = ", ".join(self.models) or "none"
                raise ValueError(f"{row.name} names model {row.model!r}; 'models' has: {known}")
        external = {row.external_analyst: None for row in self.agents if row.external_analyst}
        for name in external:
            if name not in EXTERNAL_ANALYSTS:
                known = ", ".join(EXTERNAL_ANALYSTS)
                raise ValueError(f"unknown external analyst {name!r}; there is: {known}")
        if len(external) > 1:
            raise ValueError(f"a desk hears one external analyst, not {' and '.join(external)}")
        return self

    @property
    def roster(self) -> tuple[AgentRow, ...]:
        """All that may speak, each debater once a round."""
        return in_rounds(self.agents, self.debate_rounds)

    @property
    def external_analyst(self) -> str | None:
        """Name of the external analyst whose report an agent reads; None: nobody reads one."""
        return next((row.external_analyst for row in self.agents if row.external_analyst), None)

    @property
    def only_external(self) -> bool:
        """Whether no other analyst has an opinion."""
        return all(row.external_analyst for row in self.agents if row.role == "analyst")

    @property
    def first_policy(self) -> Policy:
        """Before any training."""
        weight = {EXTERNAL_WEIGHT_KEY: FIRST_EXTERNAL_WEIGHT} if self.external_analyst else {}
        return Policy.model_validate({**weight, **self.policy})

    @property
    def models_used(self) -> tuple[ModelConfig, ...]:
        """Each once, in the order of the agents."""
        rows = [self.model_of(row) for row in self.agents]
        return tuple(row for i, row in enumerate(rows) if row not in rows[:i])

    @property
    def model_used(self) -> str:
        """What a signal names as its author: the models by name, joined where several speak, and
        the external analyst where one is heard.
        """
        heard = [self.external_analyst] if self.external_analyst else []
        return "+".join([*dict.fromkeys(row.author for row in self.models_used), *heard])

    @property
    def only_rules(self) -> bool:
        """Whether no chat model is asked at all."""
        return all(row.client == "rules" for row in self.models_used)

    def model_of(self, row: AgentRow) -> ModelConfig:
        """The model that an agent speaks by."""
        if row.model in self.models:
            chosen = self.models[row.model]
        else:
            own = {name: getattr(self, name) for name in ModelConfig.model_fields}
            chosen = ModelConfig(**own | ({"model": row.model} if row.model else {}))
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
    return build_desk_config(parse_yaml(text, where), defaults, where)


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """The keys of a desk's YAML. Raises ConfigError naming `where`."""
    try:
        given = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(given, dict):
        raise ConfigError(f"{where}: expected keys such as 'client:', got {type(given).__name__}")
    return given


def build_desk_config(given: dict[str, Any], defaults: dict[str, Any], where: str) -> DeskConfig:
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


WHOLE_DESK = "whole desk"


def desk_variants(desk: DeskConfig, debaters: tuple[AgentRow, ...]) -> dict[str, DeskConfig]:
    """By name: the whole desk; each agent left out; the debate left out, or `debaters` brought in
    where there is none; each analyst alone with risk and executor; rules in place of every model.
    What would be no desk, or the same one, is not there.
    """
    found: dict[str, DeskConfig] = {WHOLE_DESK: desk}
    for name, other in _made(desk, debaters):
        if other not in found.values():
            found[name] = other
    return found


def _made(desk: DeskConfig, debaters: tuple[AgentRow, ...]) -> Iterator[tuple[str, DeskConfig]]:
    rows = desk.agents
    arguing = {row.name for row in rows if row.role == "debater"}
    analysts = [row for row in rows if row.role == "analyst"]
    for row in rows[:-1]:
        if any(other.when == "always" for other in analysts if other is not row):
            yield f"without {row.name}", _seating(desk, without(rows, {row.name}))
    if arguing:
        yield "without debate", _seating(desk, without(rows, arguing))
    elif debaters:
        yield "with debate", _seating(desk, _with_debate(rows, debaters))
    for row in analysts:
        if row.when == "always" and len(rows) > 3:
            absent = {other.name for other in analysts if other is not row} | arguing
            yield f"{row.name} alone", _seating(desk, without(rows, absent))
    if not desk.only_rules:
        own = ModelConfig().model_dump()
        plain = tuple(row.model_copy(update={"model": None, "sampling": {}}) for row in rows)
        yield "rules only", desk.model_copy(update={**own, "models": {}, "agents": plain})


def _with_debate(
    rows: tuple[AgentRow, ...], debaters: tuple[AgentRow, ...]
) -> tuple[AgentRow, ...]:
    """The debaters between the analysts and everybody else."""
    analysts = tuple(row for row in rows if row.role == "analyst")
    heard, arguing = tuple(r.name for r in analysts), tuple(r.name for r in debaters)
    return (
        *analysts,
        *(row.model_copy(update={"after": heard, "tools": ()}) for row in debaters),
        *(
            row.model_copy(update={"after": arguing if set(row.after) & set(heard) else row.after})
            for row in rows
            if row.role != "analyst"
        ),
    )


def _seating(desk: DeskConfig, rows: tuple[AgentRow, ...]) -> DeskConfig:
    return DeskConfig.model_validate(
        {**desk.model_dump(), "agents": [r.model_dump() for r in rows]}
    )


DEFAULT = "default"


def preset_text(name: str) -> str:
    """The YAML of a shipped preset. Raises ConfigError naming what there is."""
    folder = files(__package__) / "presets"
    names = sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )
    if name not in names:
        raise ConfigError(f"unknown preset {name!r}; there is: {', '.join(names)}")
    return (folder / f"{name}.yaml").read_text()


def load_preset(name: str = DEFAULT) -> DeskConfig:
    """A shipped desk; keys that its file leaves out are the default's."""
    return read_desk_config(preset_text(name), _keys(DEFAULT), f"preset {name}")


def load_config(path_or_preset: str) -> DeskConfig:
    """A desk from a YAML file, or a preset by name. Keys that a file leaves out come from the
    preset that its key `preset` names, else from the default.
    """
    path = Path(path_or_preset)
    if path.suffix not in (".yaml", ".yml"):
        return load_preset(path_or_preset)
    where = f"config {path}"
    given = parse_yaml(_read(path, "config"), where)
    base = load_preset(str(given.pop("preset", DEFAULT)))
    config = build_desk_config(given, base.model_dump(), where)
    texts = {
        name: _read(path.parent / text, f"prompt {name!r} of {where}:")
        if text.endswith(".md") and "\n" not in text
        else text
        for name, text in config.prompts.items()
    }
    return config.model_copy(update={"prompts": texts})


def _keys(preset: str) -> dict[str, Any]:
    keys: dict[str, Any] = yaml.safe_load(preset_text(preset))
    return keys


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(f"{what} {path}: can't be read: {error.strerror}") from None
