"""The agents of a desk, one row each, and the chat models that they use.

`expand_debate_rounds` and `remove_agents` rewrite the rows for one decision and keep their graph
(`after`) connected.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date
from pathlib import PurePosixPath
from typing import Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from finagent_model._base import FrozenModel, show_value
from finagent_model._secrets import may_carry_key
from finagent_model.config.analyst_registry import DEFAULT_EXTERNAL
from finagent_model.config.knowledge import (
    DEFAULT_MARGIN_DAYS,
    MAX_MARGIN_DAYS,
    MAX_REASON_CHARS,
    UNKNOWN,
    Cutoff,
    Knowledge,
    find_earlier_declaration,
    parse_cutoff,
    stated_cutoff,
)
from finagent_model.config.request_rules import (
    RequestRules,
    check_changes,
    family_row,
    known_rows,
    merge_rules,
    server_row,
)

Client = Literal["rules", "openai", "azure", "anthropic", "ollama", "local", "component"]
Transport = Literal["autogen", "http"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
CLIENTS: tuple[Client, ...] = get_args(Client)
ADDRESSED: tuple[Client, ...] = ("openai", "azure", "anthropic", "ollama")
"""Clients whose address is a URL; Ollama takes a bare host and port, too."""
REWORDED: tuple[Client, ...] = ("openai", "azure", "anthropic", "local")
"""Clients whose requests can be worded otherwise."""
OVER_HTTP: tuple[Client, ...] = (*REWORDED, "ollama")
"""Clients that a row may choose without AutoGen's extension."""
PACKAGED_MODEL = "SmolLM2-135M-Instruct"
"""The model of a client `local` whose row names no file."""
SERVER_OF_CLIENT: Mapping[Client, str] = {"azure": "azure", "local": "llama.cpp"}
"""Row of `model_families.yaml` of a client that has one server."""
SECRET_KEYS = (
    "api_key",
    "api_token",
    "azure_ad_token",
    "auth_token",
    "password",
    "default_headers",
)
"""Keys that a component's configuration may not have: secrets live in the environment."""
AZURE_API_VERSION = "2024-10-21"
EXAMPLE_MODELS = {
    "anthropic": "claude-sonnet-4-5",
    "ollama": "llama3.2",
    "azure": "NAME_OF_YOUR_DEPLOYMENT",
}
"""For messages."""


class Sampling(FrozenModel):
    """Sampling parameters of a chat model; what a provider does not support is not sent."""

    # The defaults are as repeatable as providers allow.
    temperature: float | None = Field(0.0, ge=0, le=2)
    """Sampling temperature; None: not sent."""
    seed: int | None = 7
    """Seed of the provider's sampling; None: not sent. Anthropic has no seed."""
    max_tokens: int = Field(800, ge=16, le=32_000)
    """Limit of one reply; a reasoning model's thoughts count as well."""
    # Left out of a dump where it is None: fingerprints of recorded replies have no such key.
    reasoning_effort: Effort | None = Field(None, exclude_if=lambda effort: effort is None)
    """How long a reasoning model thinks; None: not sent. For `openai` and `azure`."""


class Price(FrozenModel):
    """US dollars per million tokens: as published on `as_of`, or from the table `source`."""

    prompt: float = Field(ge=0)
    """US dollars per million prompt tokens."""
    completion: float = Field(ge=0)
    """US dollars per million reply tokens."""
    as_of: date | None = None
    """Day on which these prices were read; None: see `source`."""
    # Left out of a dump where it is not given: hashes of recorded desks have no such key.
    source: str | None = Field(None, max_length=200, exclude_if=lambda source: source is None)
    """Table and version that it was read from; None: typed by whoever wrote the configuration."""

    @model_validator(mode="after")
    def _check_origin(self) -> Self:
        if self.as_of is None and self.source is None:
            raise ValueError("a price needs as_of, the day on which it was published")
        return self

    def cost_usd(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return what so many tokens cost, in US dollars."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class ModelConfig(FrozenModel):
    """A model and the client that reaches it.

    API keys come from the environment, and so do addresses that are not given here.
    """

    client: Client = "rules"
    """How the model is reached; `rules` is the trained policy, which needs no model and no key."""
    model: str = ""
    """The model's name at the provider (Azure: the deployment); must be empty for `rules`. For
    `local` the path of a GGUF file; empty: SmolLM2-135M-Instruct.
    """
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", exclude_if=lambda digest: digest is None
    )
    """Hash of the model file of a client `local`; another file is refused."""
    base_url: str | None = None
    """Address of the provider; part of a recorded reply's fingerprint."""
    api_version: str = Field(AZURE_API_VERSION, min_length=1)
    """Used by Azure alone."""
    sampling: Sampling = Sampling()
    """Sampling parameters of the model."""
    structured: bool | None = None
    """Whether the provider is sent the reply's JSON schema; None: where the server is known to take
    one.
    """
    vision: bool = False
    """Whether the model accepts images (charts)."""
    stream: bool = False
    """Whether replies are streamed."""
    # These are left out of a dump where they are not given: recorded desks have no such keys.
    transport: Transport = Field("autogen", exclude_if=lambda transport: transport == "autogen")
    """How requests are sent: by AutoGen's client, or over plain HTTP by ours (not for `rules` and
    `component`). Not part of a recorded reply's cache key, since the requests are the same.
    """
    server: str | None = Field(None, exclude_if=lambda name: name is None)
    """Name of a server in `model_families.yaml`; None: found by the address."""
    family: str | None = Field(None, exclude_if=lambda name: name is None)
    """Name of a family in `model_families.yaml`; None: found by the model's name."""
    request: dict[str, bool | str | None] = Field(
        default_factory=dict, exclude_if=lambda changes: not changes
    )
    """Fields of a request that differ from what server and family want."""
    knowledge_cutoff: Cutoff | None = Field(None, exclude_if=lambda cutoff: cutoff is None)
    """Last day that the model has read about, or `unknown`; None: what `knowledge_cutoffs.yaml`
    states for the model.
    """
    knowledge_cutoff_reason: str | None = Field(
        None, min_length=1, max_length=MAX_REASON_CHARS, exclude_if=lambda reason: reason is None
    )
    """Why the declared cut-off is earlier than the maker's; the report shows it."""
    cutoff_margin_days: int = Field(
        DEFAULT_MARGIN_DAYS,
        ge=0,
        le=MAX_MARGIN_DAYS,
        exclude_if=lambda days: days == DEFAULT_MARGIN_DAYS,
    )
    """Calendar days after the cut-off that count as read, too."""
    component: dict[str, Any] | None = None
    """AutoGen's component JSON (`provider`, `config`) of any other chat client, without keys."""

    @field_validator("client", mode="before")
    @classmethod
    def _check_client(cls, value: object) -> object:
        if value not in CLIENTS:
            raise ValueError(
                f"unknown client {show_value(value)}; use one of: {', '.join(CLIENTS)}"
            )
        return value

    @field_validator("base_url")
    @classmethod
    def _reject_credentials(cls, value: str | None) -> str | None:
        if value and may_carry_key(value):
            raise ValueError(
                "must not carry a user or password, nor a query; keys come from the environment"
            )
        return value

    @field_validator("server", "family")
    @classmethod
    def _check_known(cls, value: str | None, info: ValidationInfo) -> str | None:
        known = known_rows("servers" if info.field_name == "server" else "families")
        if value is not None and value not in known:
            raise ValueError(f"unknown {info.field_name} {value!r}; there is: {', '.join(known)}")
        return value

    @field_validator("request")
    @classmethod
    def _check_request(cls, value: dict[str, bool | str | None]) -> dict[str, bool | str | None]:
        check_changes(value)
        return value

    @field_validator("knowledge_cutoff", mode="before")
    @classmethod
    def _parse_cutoff(cls, value: object) -> Cutoff | None:
        return parse_cutoff(value)

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
            raise ValueError(f"client 'rules' is not a model; remove model {self.model!r}")
        if self.client == "rules" and self.knowledge_cutoff is not None:
            raise ValueError("client 'rules' has read nothing; remove knowledge_cutoff")
        if self.knowledge_cutoff_reason is not None and self.knowledge_cutoff is None:
            raise ValueError("knowledge_cutoff_reason without a knowledge_cutoff explains nothing")
        if self.client not in ("rules", "local") and not self.model:
            example = EXAMPLE_MODELS.get(self.client, "gpt-4o-mini")
            raise ValueError(f"client {self.client!r} needs a model, such as model: {example}")
        if self.client != "azure" and self.api_version != AZURE_API_VERSION:
            raise ValueError(
                f"api_version {self.api_version!r} is of client 'azure' alone, not of "
                f"{self.client!r}; remove it"
            )
        if (self.client == "component") != (self.component is not None):
            raise ValueError("client 'component' and the block 'component' belong together")
        if self.base_url is not None:
            check_address(self.client, self.base_url, "base_url")
        if self.client == "local":
            # A relative path would be another file in another folder.
            if self.model and not self.model.startswith(("/", "~/")):
                raise ValueError(
                    f"client 'local' needs the whole path of a .gguf file, not {self.model!r}; "
                    f"without `model` it is {PACKAGED_MODEL}"
                )
            if self.base_url is not None:
                raise ValueError(
                    "client 'local' starts its own server; remove base_url, or use client "
                    "'openai' for a server that runs"
                )
        elif self.sha256 is not None:
            raise ValueError("sha256 is of a model file, for client 'local'; remove it")
        if self.transport == "http" and self.client not in OVER_HTTP:
            raise ValueError(
                f"client {self.client!r} has no transport 'http'; it is for {', '.join(OVER_HTTP)}"
            )
        if self.request and self.client not in REWORDED:
            raise ValueError(
                f"client {self.client!r} takes no 'request'; it is for {', '.join(REWORDED)}"
            )
        return self

    @property
    def server_defaults(self) -> Mapping[str, Any]:
        """What is known of the server; empty where it is unknown."""
        server = self.server or SERVER_OF_CLIENT.get(self.client)
        return server_row(server, self.base_url)

    @property
    def request_rules(self) -> RequestRules:
        """How requests to this model are worded."""
        return merge_rules(self.server_defaults, family_row(self.family, self.author), self.request)

    @property
    def knowledge(self) -> Knowledge | None:
        """What the model may remember, as declared, else as the table says; None for `rules`."""
        if self.client == "rules":
            return None
        # The name of an Azure deployment, or of a file, says nothing of the model behind it.
        is_stated = self.client not in ("azure", "local")
        stated = stated_cutoff(self.model) if is_stated else UNKNOWN
        return Knowledge(
            author=self.author,
            cutoff=self.knowledge_cutoff or stated,
            margin_days=self.cutoff_margin_days,
            override=self.knowledge_cutoff_reason if self.earlier_cutoff else None,
        )

    @property
    def earlier_cutoff(self) -> str | None:
        """What is wrong with a declared cut-off that is earlier than the maker's; None: it isn't.

        A reason makes it no better, but allowed.
        """
        if self.client in ("rules", "azure", "local"):
            return None
        return find_earlier_declaration(self.model, self.knowledge_cutoff)

    @property
    def author(self) -> str:
        """What a signal names as its author: the model, or 'rules' for the client of that name.

        A local model is named by its file, without folder and suffix.
        """
        if self.client == "local":
            return PurePosixPath(self.model).name.removesuffix(".gguf") or PACKAGED_MODEL
        return self.model or "rules"

    @property
    def is_free(self) -> bool:
        """Whether a call costs no money: no provider is asked."""
        return self.client in ("rules", "local")


def check_address(client: Client, address: str, name: str) -> None:
    """Raise ValueError for an address that is no URL of HTTP; `name` says where it stands.

    Ollama's may lack its scheme or its host, as OLLAMA_HOST may: `:11434`.
    """
    if client not in ADDRESSED:
        return
    whole = address
    if client == "ollama":
        whole = address if "://" in address else f"http://{address}"
        whole = whole.replace("://:", "://localhost:", 1)
    try:
        url = urlsplit(whole)
        host = url.hostname or ""
        # Clients differ in how they write other letters, and some fail on them with a stack trace.
        is_host = host.isascii() and bool(host.encode("idna"))
        is_url = url.scheme in ("http", "https") and is_host and url.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address, or too long a name
        is_url = False
    if not is_url or not address.isprintable() or " " in address:
        raise ValueError(
            f"{name} {show_value(address)} must begin with http:// or https:// and a host "
            "in ASCII, and have no blanks, such as http://localhost:8000/v1"
        )


Role = Literal["analyst", "debater", "risk", "executor"]
OptionalInput = Literal["news", "fundamentals", "memory"]
"""An input that not every view has."""
AgentGroup = Literal["debate", "news"]
"""Agents that are left out together to stay within a budget: debaters; those that need news."""


class AgentRow(FrozenModel):
    """One agent of the desk."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the agent, unique in the desk."""
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


def ancestors(row: AgentRow, rows: Sequence[AgentRow]) -> list[AgentRow]:
    """Return the rows that `row` waits for, directly or through others, in roster order."""
    after = {other.name: other.after for other in rows}
    names, unvisited = set(row.after), list(row.after)
    while unvisited:
        new_names = set(after[unvisited.pop()]) - names
        names |= new_names
        unvisited.extend(new_names)
    return [other for other in rows if other.name in names]


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
