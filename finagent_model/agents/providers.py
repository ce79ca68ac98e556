"""A desk's pool of AutoGen clients, made from the rows of `PROVIDERS`.

Clients are told not to retry: `_retry` does that for all of them. They are made when first needed,
so that replaying a recorded decision takes no key.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

from autogen_core.models import ChatCompletionClient
from pydantic import SecretStr

from finagent_model._redact import make_redactor
from finagent_model.agents._provider_rows import (
    NO_KEY,
    PROVIDERS,
    Provider,
    ReplyRequest,
    close_client,
    find_provider,
    sends_schema,
)
from finagent_model.agents._request_edits import edit_request
from finagent_model.agents._retry import share_limits
from finagent_model.agents._wire import guard
from finagent_model.agents.local_model import with_file_hash
from finagent_model.agents.policy_client import VERSION, Colleague, RulesClient, RulesConfig
from finagent_model.cassette.fingerprint import fingerprint
from finagent_model.config.desk_config import DeskConfig, Prompts
from finagent_model.config.request_rules import RequestRules
from finagent_model.config.roster import (
    REWORDED,
    AgentRow,
    ModelConfig,
    check_address,
)
from finagent_model.errors import ConfigError
from finagent_model.settings import Settings


def identity_of(model: ModelConfig) -> dict[str, Any]:
    """Return what tells this model's replies from another's: part of every request's fingerprint.

    Recorded replies are found by it, so a change here makes every recording unusable.
    """
    if model.client == "rules":
        return {"client": "rules", "version": VERSION}
    return {
        "client": model.client,
        "base_url": model.base_url,
        "model": model.author,
        "sampling": model.sampling.model_dump(),
        "structured": sends_schema(model),
        **{name: getattr(model, name) for name in PROVIDERS[model.client].identity_fields},
        # What the table of servers and families sets is no part: it may be corrected without a
        # loss of recordings.
        **({"request": model.request} if model.request else {}),
    }


def provider_of(model: ModelConfig) -> str:
    """Return what models share whose calls share a rate limiter and a circuit breaker."""
    return f"{model.client} {model.base_url or ''}"


def with_address(model: ModelConfig, settings: Settings) -> ModelConfig:
    """Return the row with its address resolved, or its file: part of its identity.

    Raises ConfigError for an address of the environment that is none, or a file that is missing.
    """
    provider = PROVIDERS.get(model.client)
    if model.client == "local":
        return with_file_hash(model)
    if provider is None or model.base_url or provider.address_setting is None:
        return model
    address = getattr(settings, provider.address_setting)
    if not address:
        return model
    try:
        check_address(model.client, address, _variable(provider.address_setting))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return model.model_copy(update={"base_url": address})


def with_addresses(config: DeskConfig, settings: Settings) -> DeskConfig:
    """Return the desk with every model's address resolved. Raises ConfigError."""
    own = with_address(config, settings)
    models = {name: with_address(model, settings) for name, model in config.models.items()}
    settled = {"base_url": own.base_url, "sha256": own.sha256, "models": models}
    return config.model_copy(update=settled)


def require_usable(model: ModelConfig, settings: Settings) -> None:
    """Raise ConfigError if calls could not be made: no key, no address, or not allowed."""
    provider = PROVIDERS.get(model.client)
    if provider is None:
        return
    key, address = provider.key_setting, provider.address_setting
    if key and provider.key_required and getattr(settings, key) is None:
        raise ConfigError(
            f"client {model.client!r} needs a key: set {_variable(key)} "
            "(any value for a local server), or use mode 'replay'"
        )
    if address and provider.default_address is None and not model.base_url:
        raise ConfigError(
            f"client {model.client!r} needs an address: give base_url or set {_variable(address)}"
        )
    provider.check(model, settings)


def make_client(model: ModelConfig, settings: Settings, timeout_s: float) -> ChatCompletionClient:
    """Return a client whose calls take at most `timeout_s` seconds. Raises ConfigError."""
    require_usable(model, settings)
    provider = PROVIDERS[model.client]
    key: SecretStr | None = (
        getattr(settings, provider.key_setting) if provider.key_setting else None
    )
    resolved = model.model_copy(update={"base_url": model.base_url or provider.default_address})
    client = provider.make(resolved, key.get_secret_value() if key else NO_KEY, timeout_s)
    # A component of one of AutoGen's own classes answers on the same wire.
    protocol = provider if provider.wire_format else find_provider(client)
    if protocol is not None and protocol.wire_format is not None:
        rules = model.request_rules
        if model.sampling.temperature is None:
            # AutoGen's Anthropic client sends one of its own otherwise.
            rules = rules.model_copy(update={"temperature": False})
        if model.client not in REWORDED:
            rules = RequestRules()  # a component's own JSON words its requests
        guard(client, protocol.wire_format, partial(edit_request, rules=rules))
    return client


def preload(model: ModelConfig, settings: Settings) -> None:
    """Import the module of a client that can be made, so that no decision waits for it."""
    # It takes half a second, and many from a cold disk.
    with suppress(ConfigError):
        require_usable(model, settings)
        provider = PROVIDERS.get(model.client)
        if provider is not None and provider.module is not None and model.transport == "autogen":
            import_module(provider.module)


class ClientPool:
    """A desk's chat clients, one for each model and event loop."""

    def __init__(
        self, config: DeskConfig, settings: Settings, rules: RulesClient | None = None
    ) -> None:
        """`rules` is the client of that name; None makes it from the roster and its prompts.

        Raises ConfigError for a roster that it has no rule for.
        """
        self._config = config
        self._settings = settings
        self.secrets = settings.secrets
        """Texts that no record and no signal may hold."""
        self.redact = make_redactor(self.secrets)
        # By loop: an HTTP client is bound to the loop that it was made on, and a fork has another.
        self._clients: dict[tuple[int, str], tuple[Provider | None, ChatCompletionClient]] = {}
        self.roster = config.roster
        self.roster_digest = fingerprint(
            {
                "agents": [row.model_dump(mode="json") for row in self.roster],
                "model": config.sha256 or config.model,  # a file's path says nothing of it
            }
        )
        """Hash of the agents and of the desk's own model."""
        self._models = {row.name: config.model_for(row) for row in self.roster}
        self.uses_only_rules = all(model.client == "rules" for model in self._models.values())
        """Whether no agent calls a chat model."""
        self._identities = {name: identity_of(model) for name, model in self._models.items()}
        self._keys = {
            name: fingerprint(model.model_dump(mode="json")) for name, model in self._models.items()
        }
        self._rules = rules
        by_rules = [row for row in self.roster if self._models[row.name].client == "rules"]
        if by_rules and rules is None:  # fails now, not at a decision
            prompts = Prompts(config.prompts)
            texts = {row.prompt: prompts.text(row.prompt) for row in by_rules}
            colleagues = map(Colleague.from_row, self.roster)
            self._rules = RulesClient(RulesConfig.build(texts, colleagues, config.external_analyst))

    def model_of(self, row: AgentRow) -> ModelConfig:
        """Return the model that an agent of the roster speaks by."""
        return self._models[row.name]

    def identity(self, row: AgentRow) -> dict[str, Any]:
        """Return what tells an agent's replies from another model's (`identity_of`)."""
        return self._identities[row.name]

    def client(self, row: AgentRow) -> ChatCompletionClient:
        """Return the client that an agent asks. Call it on the event loop. Raises ConfigError."""
        key, model = (id(asyncio.get_running_loop()), self._keys[row.name]), self.model_of(row)
        if key not in self._clients:
            timeout_s = self._config.limits.call_timeout_s
            client = (
                self._rules
                if model.client == "rules" and self._rules
                else make_client(model, self._settings, timeout_s)
            )
            self._clients[key] = PROVIDERS.get(model.client), client
        return self._clients[key][1]

    def reply_options(self, row: AgentRow, cuts: int = 0) -> dict[str, Any]:
        """Return the arguments of `create` by which an agent's client answers in JSON.

        `cuts` is how often the reply was cut off. Call it on the event loop. Raises ConfigError.
        """
        model = self.model_of(row)
        request = ReplyRequest(row.role, cuts)
        return PROVIDERS[model.client].reply_options(request, model, self.client(row))

    def returns_reasoning(self, row: AgentRow) -> bool:
        """Return whether an agent's server wants its thoughts back with the results of tools."""
        return self.model_of(row).request_rules.reasoning_content

    async def close(self) -> None:
        """Close the clients of this event loop."""
        loop_id = id(asyncio.get_running_loop())
        for key in [key for key in self._clients if key[0] == loop_id]:
            provider, client = self._clients.pop(key)
            await (provider.close if provider else close_client)(client)

    def require_key(self) -> None:
        """Raise ConfigError if calls to one of the models could not be made."""
        for model in self._config.distinct_models:
            require_usable(model, self._settings)

    def share_limits(self, processes: int) -> None:
        """Share rate limits and circuit breakers among so many processes, about to be forked.

        Raises ConfigError where that can't be done.
        """
        for model in self._models.values():
            if model.client == "local":
                # Its server is this machine's own: more of them would share the same cores.
                raise ConfigError("a desk with a local model has one worker; leave --workers out")
            if model.client != "rules":
                share_limits(provider_of(model), self._config.traffic, processes)

    def preload(self) -> None:
        """Import what calls will need, for models that can be called."""
        for model in self._config.distinct_models:
            preload(model, self._settings)


def _variable(setting: str) -> str:
    """Return the environment variable of a field of Settings."""
    return str(Settings.model_fields[setting].alias)
