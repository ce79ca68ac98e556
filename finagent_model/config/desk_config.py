"""The desk's configuration: agents, models, limits, risk, memory, approvals and gate.

A desk is read from YAML or from one of the presets that ship with the package; keys that a file
leaves out come from its preset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from finagent_model._base import first_error_message, show_value
from finagent_model._documents import load_yaml
from finagent_model.config.analyst_registry import EXTERNAL_ANALYSTS, read_analyst_knowledge
from finagent_model.config.knowledge import Knowledge, select_latest
from finagent_model.config.roster import (
    AgentRow,
    Client,
    ModelConfig,
    OptionalInput,
    Price,
    Sampling,
    expand_debate_rounds,
    remove_agents,
)
from finagent_model.config.rules import (
    ApprovalRules,
    DecisionLimits,
    GateRules,
    MaskKind,
    MemoryConfig,
    RateLimits,
    RiskLimits,
    SpendingLimits,
)
from finagent_model.errors import BadInputError, ConfigError
from finagent_model.market.bars import parse_symbol
from finagent_model.market.news import sanitize_text
from finagent_model.policy.policy import EXTERNAL_WEIGHT_KEY, Policy

DEFAULT_PRESET = "default"
NAMELESS: tuple[Client, ...] = ("rules", "component", "local")
"""Clients of which a name alone makes no other model: an agent's must be one of `models`."""
INITIAL_EXTERNAL_WEIGHT = 0.5
"""Weight of an external analyst's score beside the technical score's 1, before any training."""

MIN_MASK_WORD_CHARS, MAX_MASK_WORD_CHARS, MAX_MASK_WORDS = 2, 60, 50


class DeskConfig(ModelConfig):
    """How a decision is made, apart from what training fitted.

    Its own keys `client`, `model` and so on are the model of every agent that names no other.
    """

    models: dict[str, ModelConfig] = Field(default_factory=dict)
    """Further models, by the name that an agent's row uses."""
    agents: tuple[AgentRow, ...] = Field(min_length=1)
    """The agents, in the order in which they may speak; the last one is the executor."""
    debate_rounds: int = Field(1, ge=1, le=10)
    """Rounds of the debate: each debater speaks once a round."""
    prompts: dict[str, str] = Field(default_factory=dict)
    """The desk's own prompt templates, by name.

    In a YAML file, a value that ends in .md is the path of a template relative to the file.
    """
    limits: DecisionLimits = DecisionLimits()
    """Limits of one decision."""
    spending: SpendingLimits = SpendingLimits()
    """Budgets of a run and of a day."""
    traffic: RateLimits = RateLimits()
    """Rate limits and circuit breaker of a provider."""
    risk: RiskLimits = RiskLimits()
    """Bounds of entry, stop and target, which code enforces."""
    # These two are left out of a dump where they are not given: recorded desks have no such keys.
    mask: MaskKind = Field("none", exclude_if=lambda kind: kind == "none")
    """Facts hidden from the models, in training and in serving: `names` hides the symbol,
    `levels` also how high prices and volumes are.
    """
    mask_words: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, exclude_if=lambda words: not words
    )
    """By symbol, further words that name the company and are redacted in its news."""
    policy: dict[str, float] = Field(default_factory=dict)
    """Parameters of the policy that training does not fit, such as `threshold`."""
    memory: MemoryConfig = MemoryConfig()
    """How many past outcomes the prompts contain."""
    approval: ApprovalRules = ApprovalRules()
    """Decides which signals wait for a human, not what the desk decides."""
    prices: dict[str, Price] = Field(default_factory=dict)
    """List prices by model name; a model without a row has the built-in table's price, if any. With
    a limit in US dollars a model without a price is not called.
    """
    gate: GateRules = GateRules()
    """Decides about versions, not about trades."""

    @field_validator("agents")
    @classmethod
    def _check_sampling(cls, rows: tuple[AgentRow, ...]) -> tuple[AgentRow, ...]:
        for row in rows:
            # Overrides are merged when a model is called; a wrong one should fail at load.
            Sampling.model_validate(row.sampling)
        return rows

    @field_validator("mask_words")
    @classmethod
    def _check_mask_words(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        checked = {}
        for symbol, words in value.items():
            try:
                parse_symbol(symbol)
            except BadInputError as error:
                raise ValueError(str(error)) from None
            # News is compared in its sanitized form, and so are the words.
            plain = tuple(sanitize_text(word, MAX_MASK_WORD_CHARS + 1) for word in words)
            for word, given in zip(plain, words, strict=True):
                if not MIN_MASK_WORD_CHARS <= len(word) <= MAX_MASK_WORD_CHARS:
                    raise ValueError(
                        f"{symbol}: {given!r:.80} is not a word of {MIN_MASK_WORD_CHARS} to "
                        f"{MAX_MASK_WORD_CHARS} characters"
                    )
            if not 1 <= len(plain) <= MAX_MASK_WORDS:
                raise ValueError(f"{symbol}: give 1 to {MAX_MASK_WORDS} words, not {len(plain)}")
            checked[symbol] = plain
        return checked

    @model_validator(mode="after")
    def _check_mask(self) -> Self:
        if self.mask_words and self.mask == "none":
            raise ValueError("mask_words without a mask hide nothing; add mask: names, or levels")
        if self.mask != "none" and self.external_analyst:
            [reader, *_] = [row.name for row in self.agents if row.external_analyst]
            raise ValueError(
                f"mask {self.mask!r} can't hide the symbol from {self.external_analyst}, which is "
                f"asked with the real bars; remove the mask or {reader}"
            )
        return self

    @field_validator("policy")
    @classmethod
    def _check_policy(cls, value: dict[str, float]) -> dict[str, float]:
        # Training fits the rest, so only these values can be wrong in a file.
        Policy.model_validate(value)
        return value

    @model_validator(mode="after")
    def _check_agents(self) -> Self:
        names = [row.name for row in self.agents]
        if len(set(names)) != len(names):
            raise ValueError(
                f"agents share a name: {sorted(n for n in names if names.count(n) > 1)}"
            )
        # Waiting only for agents listed before keeps the graph free of cycles.
        listed: set[str] = set()
        for row in self.agents:
            unlisted = [name for name in row.after if name not in listed]
            if unlisted:
                raise ValueError(
                    f"{row.name} waits for {unlisted[0]!r}, which is not listed before it"
                )
            listed.add(row.name)
        # The executor's reply is the decision: a second one would leave open which counts.
        if (
            sum(row.role == "executor" for row in self.agents) != 1
            or self.agents[-1].role != "executor"
        ):
            raise ValueError("exactly one executor must be listed, as the last agent")
        # Otherwise a view without news would leave the others nothing to read.
        if not any(row.role == "analyst" and row.when == "always" for row in self.agents):
            raise ValueError("at least one analyst must run always")
        for row in self.agents:
            if row.external_analyst and row.role != "analyst":
                raise ValueError(
                    f"{row.name} is not an analyst: {row.external_analyst}'s report is for analysts"
                )
            if row.model and row.model not in self.models and self.client in NAMELESS:
                names_of_models = ", ".join(self.models) or "none"
                raise ValueError(
                    f"{row.name} names model {row.model!r}; 'models' has: {names_of_models}"
                )
        external = {row.external_analyst: None for row in self.agents if row.external_analyst}
        for name in external:
            if name not in EXTERNAL_ANALYSTS:
                analysts = ", ".join(EXTERNAL_ANALYSTS)
                raise ValueError(f"unknown external analyst {name!r}; there is: {analysts}")
        if len(external) > 1:
            raise ValueError(f"a desk hears one external analyst, not {' and '.join(external)}")
        return self

    @property
    def roster(self) -> tuple[AgentRow, ...]:
        """All agents that may speak, each debater once a round."""
        return expand_debate_rounds(self.agents, self.debate_rounds)

    @property
    def external_analyst(self) -> str | None:
        """Name of the external analyst whose report an agent reads; None: no agent reads one."""
        return next((row.external_analyst for row in self.agents if row.external_analyst), None)

    @property
    def uses_only_external(self) -> bool:
        """Whether every analyst reads the external analyst's report."""
        return all(row.external_analyst for row in self.agents if row.role == "analyst")

    @property
    def uses_only_rules(self) -> bool:
        """Whether no agent calls a chat model."""
        return all(row.client == "rules" for row in self.distinct_models)

    @property
    def latest_knowledge(self) -> Knowledge | None:
        """What reaches furthest of all that models and external analyst may remember.

        None: rules alone decide. Imports the analyst's plug-in.
        """
        external = self.external_analyst
        return select_latest(
            [
                *(model.knowledge for model in self.distinct_models),
                read_analyst_knowledge(external) if external else None,
            ]
        )

    @property
    def initial_policy(self) -> Policy:
        """The policy before any training."""
        weight = {EXTERNAL_WEIGHT_KEY: INITIAL_EXTERNAL_WEIGHT} if self.external_analyst else {}
        return Policy.model_validate({**weight, **self.policy})

    @property
    def distinct_models(self) -> tuple[ModelConfig, ...]:
        """The models of the agents, each once, in the order of the agents."""
        rows = [self.model_for(row) for row in self.agents]
        return tuple(row for i, row in enumerate(rows) if row not in rows[:i])

    @property
    def model_used(self) -> str:
        """What a signal names as its author: the names of the models and of the external analyst.

        They are joined by `+`.
        """
        external = [self.external_analyst] if self.external_analyst else []
        return "+".join([*dict.fromkeys(row.author for row in self.distinct_models), *external])

    def with_max_rounds(self, max_rounds: int | None) -> Self:
        """Return the desk with at most `max_rounds` messages of a conversation; None: as it is."""
        if max_rounds is None or max_rounds >= self.limits.max_rounds:
            return self
        limits = self.limits.model_copy(update={"max_rounds": max_rounds})
        return self.model_copy(update={"limits": limits})

    def model_for(self, row: AgentRow) -> ModelConfig:
        """Return the model that an agent uses, with the agent's own sampling."""
        # Any other name is a model of the client that the desk itself uses.
        if row.model in self.models:
            model = self.models[row.model]
        else:
            desk_model = {name: getattr(self, name) for name in ModelConfig.model_fields}
            # The desk's family and cut-off are of its own model.
            other = {"model": row.model, "family": None, "knowledge_cutoff": None}
            other |= {"knowledge_cutoff_reason": None}
            other = other if row.model else {}
            model = ModelConfig(**desk_model | other)
        if not row.sampling:
            return model
        sampling = Sampling.model_validate({**model.sampling.model_dump(), **row.sampling})
        return model.model_copy(update={"sampling": sampling})

    def select_agents(self, inputs: Collection[OptionalInput]) -> tuple[AgentRow, ...]:
        """Return the agents of one decision: those whose `when` is among `inputs`, or always."""
        absent = {row.name for row in self.roster if row.when not in ("always", *inputs)}
        return remove_agents(self.roster, absent)


def preset_text(name: str) -> str:
    """Return the YAML of a shipped preset. Raises ConfigError naming the presets."""
    if name not in (names := preset_names()):
        raise ConfigError(f"unknown preset {name!r}; there is: {', '.join(names)}")
    return (files(__package__) / "presets" / f"{name}.yaml").read_text()


def preset_names() -> list[str]:
    """Return the names of the presets that ship, sorted."""
    folder = files(__package__) / "presets"
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def load_preset(name: str = DEFAULT_PRESET) -> DeskConfig:
    """Return a shipped desk; keys that its file leaves out are the default's.

    Raises ConfigError naming the presets.
    """
    defaults: dict[str, Any] = yaml.safe_load(preset_text(DEFAULT_PRESET))
    return read_desk_config(preset_text(name), defaults, f"preset {name}")


def find_preset(config: DeskConfig) -> str | None:
    """Return the preset that the desk is, or whose agents it has; None where they are its own."""
    presets = _load_presets()
    agents = (config.agents, config.debate_rounds)
    alike = [n for n, p in presets.items() if (p.agents, p.debate_rounds) == agents]
    # Presets that share their agents differ in the gate.
    same_gate = [name for name in alike if presets[name].gate == config.gate]
    return next(iter(same_gate or alike), None)


@cache
def _load_presets() -> dict[str, DeskConfig]:
    return {name: load_preset(name) for name in preset_names()}


def load_config(path_or_preset: str) -> DeskConfig:
    """Return a desk from a YAML file, or a preset by name.

    Keys that a file leaves out come from the preset that its key `preset` names, else from the
    default. Raises ConfigError.

        >>> import finagent_model
        >>> finagent_model.load_config("lean").model_used
        'rules'
    """
    path = Path(path_or_preset)
    if path.suffix not in (".yaml", ".yml"):
        return load_preset(path_or_preset)
    label = f"config {path}"
    keys = parse_yaml(_read_text(path, "config"), label)
    preset = keys.pop("preset", DEFAULT_PRESET)
    if not isinstance(preset, str):
        names = ", ".join(preset_names())
        raise ConfigError(f"{label}: preset must be one of {names}, not {show_value(preset)}")
    base = load_preset(preset)
    config = build_desk_config(keys, base.model_dump(), label)
    # The text is kept, not the path: a package must not depend on files outside it.
    prompts = {
        name: _read_text(path.parent / text, f"prompt {name!r} of {label}:")
        if text.endswith(".md") and "\n" not in text
        else text
        for name, text in config.prompts.items()
    }
    return config.model_copy(update={"prompts": prompts})


def read_desk_config(text: str, defaults: dict[str, Any], label: str) -> DeskConfig:
    """Return a desk from YAML `text`; keys that it leaves out come from `defaults`.

    Raises ConfigError naming `label`.
    """
    return build_desk_config(parse_yaml(text, label), defaults, label)


def parse_yaml(text: str, label: str) -> dict[str, Any]:
    """Return the keys of a desk's YAML. Raises ConfigError naming `label`."""
    try:
        keys = load_yaml(text) or {}
    except ValueError as error:
        raise ConfigError(f"{label}: not YAML: {error}") from None
    if not isinstance(keys, dict):
        raise ConfigError(f"{label}: expected keys such as 'client:', got {type(keys).__name__}")
    return keys


def build_desk_config(keys: dict[str, Any], defaults: dict[str, Any], label: str) -> DeskConfig:
    """Return a desk from parsed `keys` over `defaults`. Raises ConfigError naming `label`."""
    # Blocks are merged key by key: a file that sets one limit keeps the preset's others.
    blocks = {
        key: {**defaults[key], **value}
        for key, value in keys.items()
        if isinstance(value, dict) and isinstance(defaults.get(key), dict)
    }
    try:
        config = DeskConfig.model_validate({**defaults, **keys, **blocks})
    except ValidationError as error:
        raise ConfigError(f"{label}: {first_error_message(error, DeskConfig)}") from None
    # Not a rule of the class: a package must load though the table has gained a row since.
    models = {"knowledge_cutoff": config} | {
        f"models.{name}.knowledge_cutoff": model for name, model in config.models.items()
    }
    for key, model in models.items():
        if model.earlier_cutoff and model.knowledge_cutoff_reason is None:
            raise ConfigError(f"{label}: {key}: {model.earlier_cutoff}")
    return config


def _read_text(path: Path, label: str) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(f"{label} {path}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{label} {path}: can't be read: not UTF-8 text") from None


class Prompts:
    """System messages by name; a desk's own take precedence over those that ship."""

    def __init__(self, own: Mapping[str, str]) -> None:
        self.own = {name: text.strip() for name, text in own.items()}
        """The desk's own system messages, by name."""

    def text(self, name: str) -> str:
        """Return the prompt called `name`. Raises ConfigError that lists the names there are."""
        if name in self.own:
            return self.own[name]
        shipped = _shipped_prompts()
        if name not in shipped:
            names = ", ".join([*self.own, *shipped])
            raise ConfigError(f"unknown prompt {name!r}; there is: {names}")
        return shipped[name]


@cache
def _shipped_prompts() -> dict[str, str]:
    folder = files(__package__) / "prompts"
    paths = sorted((f for f in folder.iterdir() if f.name.endswith(".md")), key=lambda f: f.name)
    return {path.name.removesuffix(".md"): path.read_text().strip() for path in paths}


def config_hash(config: DeskConfig) -> str:
    """Return the SHA-256 of a desk's configuration."""
    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()
