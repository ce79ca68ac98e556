"""Chat clients: one row of `PROVIDERS` for each provider, and a desk's pool of AutoGen clients.

A row holds all that differs between providers: key, address, how a client is made, asked for JSON
and closed, and what identifies its replies. So adding a provider touches its row and maker here,
the name in `config.roster.Client`, its fields of `Settings`, and its test double. `component` takes
any other AutoGen client by its component JSON, from an allow list.

Clients are told not to retry: `_retry` does that for all of them. They are made when first needed,
so that replaying a recorded decision takes no key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from autogen_core.models import ChatCompletionClient, ModelFamily, ModelInfo
from pydantic import SecretStr

from finagent_model._redact import make_redactor
from finagent_model.agents._replies import reply_schema, schema_model
from finagent_model.agents.policy_client import VERSION, RulesClient
from finagent_model.cassette.fingerprint import fingerprint
from finagent_model.config.desk_config import DeskConfig
from finagent_model.config.roster import AgentRow, Client, ModelConfig, Role
from finagent_model.errors import ConfigError
from finagent_model.settings import Settings

NO_KEY = "not needed"
"""Sent as a key to a server that asks for none."""
# Loading a component imports the class that its JSON names, so the JSON alone may not choose.
ALLOWED_COMPONENTS = tuple(
    f"autogen_ext.models.{name}"
    for name in (
        "openai.OpenAIChatCompletionClient",
        "openai.AzureOpenAIChatCompletionClient",
        "anthropic.AnthropicChatCompletionClient",
        "anthropic.AnthropicBedrockChatCompletionClient",
        "azure.AzureAIChatCompletionClient",
        "ollama.OllamaChatCompletionClient",
        "llama_cpp.LlamaCppChatCompletionClient",
        "replay.ReplayChatCompletionClient",
    )
)
"""Component providers that may be loaded; FINAGENT_COMPONENTS adds to them."""


async def _close(client: ChatCompletionClient) -> None:
    await client.close()


def _json_mode(role: Role, model: ModelConfig, client: ChatCompletionClient) -> dict[str, Any]:
    """Return AutoGen's own argument for JSON: the reply's schema where it is sent, else a flag."""
    return {"json_output": schema_model(role) if sends_schema(model) else True}


def _accept_any(model: ModelConfig, settings: Settings) -> None:
    """Accept a model's row without a further check."""


@dataclass(frozen=True)
class Provider:
    """All that differs between providers of chat models."""

    make: Callable[[ModelConfig, str, float], ChatCompletionClient]
    """Makes a client from a row whose address is resolved, the key, and a call's time limit in
    seconds. Raises ConfigError.
    """
    module: str | None = None
    """Module of the client's class, imported when a client is made; None: the row names it."""
    key_setting: str | None = None
    """Field of Settings with the key; None: the provider takes no key."""
    key_required: bool = True
    """Whether no client is made without that key."""
    address_setting: str | None = None
    """Field of Settings with the address; None: only the model's row can give one."""
    default_address: str | None = None
    """Address where neither gives one; None beside an `address_setting`: one has to be given."""
    check: Callable[[ModelConfig, Settings], None] = _accept_any
    """Raises ConfigError for a row that may not be used."""
    identity_fields: tuple[str, ...] = ()
    """Fields of ModelConfig that change its replies, beyond those that every provider has."""
    takes_schema: Literal["always", "at its default address", "never"] = "never"
    """Where it is known to enforce a JSON schema itself; a row's `structured` overrides it."""
    reply_options: Callable[[Role, ModelConfig, ChatCompletionClient], dict[str, Any]] = _json_mode
    """Returns the arguments of `client.create` that ask for a role's reply in JSON."""
    close: Callable[[ChatCompletionClient], Awaitable[None]] = _close
    """Closes a client's connections."""


def sends_schema(model: ModelConfig) -> bool:
    """Return whether the provider is sent the reply's JSON schema and holds the reply to it."""
    if model.structured is not None:
        return model.structured
    where = PROVIDERS[model.client].takes_schema
    # Another server that speaks OpenAI's protocol may not know schemas.
    return where == "always" or (where == "at its default address" and model.base_url is None)


def identity_of(model: ModelConfig) -> dict[str, Any]:
    """Return what tells this model's replies from another's: part of every request's fingerprint.

    Recorded replies are found by it, so a change here makes every recording unusable.
    """
    if model.client == "rules":
        return {"client": "rules", "version": VERSION}
    return {
        "client": model.client,
        "base_url": model.base_url,
        "model": model.model,
        "sampling": model.sampling.model_dump(),
        "structured": sends_schema(model),
        **{name: getattr(model, name) for name in PROVIDERS[model.client].identity_fields},
    }


def with_address(model: ModelConfig, settings: Settings) -> ModelConfig:
    """Return the row with its address resolved, which is part of its identity."""
    provider = PROVIDERS.get(model.client)
    if provider is None or model.base_url or provider.address_setting is None:
        return model
    address = getattr(settings, provider.address_setting)
    return model.model_copy(update={"base_url": address}) if address else model


def with_addresses(config: DeskConfig, settings: Settings) -> DeskConfig:
    """Return the desk with every model's address resolved."""
    own = with_address(config, settings)
    models = {name: with_address(model, settings) for name, model in config.models.items()}
    return config.model_copy(update={"base_url": own.base_url, "models": models})


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
    return provider.make(resolved, key.get_secret_value() if key else NO_KEY, timeout_s)


def preload(model: ModelConfig, settings: Settings) -> None:
    """Import the module of a client that can be made, so that no decision waits for it."""
    # It takes half a second, and many from a cold disk.
    with suppress(ConfigError):
        require_usable(model, settings)
        provider = PROVIDERS.get(model.client)
        if provider is not None and provider.module is not None:
            import_module(provider.module)


class ClientPool:
    """A desk's chat clients, one for each model and event loop."""

    def __init__(self, config: DeskConfig, settings: Settings) -> None:
        """Raises ConfigError for a roster that the client `rules` has no rule for."""
        self._config = config
        self._settings = settings
        self.secrets = settings.secrets
        """Texts that no record and no signal may hold."""
        self.redact = make_redactor(self.secrets)
        # By loop: an HTTP client is bound to the loop that it was made on, and a fork has another.
        self._clients: dict[tuple[int, str], tuple[Provider | None, ChatCompletionClient]] = {}
        self.roster = config.roster
        self.roster_digest = fingerprint(
            {"agents": [row.model_dump(mode="json") for row in self.roster], "model": config.model}
        )
        """Hash of the agents and of the desk's own model."""
        self._models = {row.name: config.model_for(row) for row in self.roster}
        self._identities = {name: identity_of(model) for name, model in self._models.items()}
        self._keys = {
            name: fingerprint(model.model_dump(mode="json")) for name, model in self._models.items()
        }
        if any(model.client == "rules" for model in self._models.values()):
            RulesClient(config)  # fails now, not at a decision

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
            client = (
                RulesClient(self._config)
                if model.client == "rules"
                else make_client(model, self._settings, self._config.limits.call_timeout_s)
            )
            self._clients[key] = PROVIDERS.get(model.client), client
        return self._clients[key][1]

    def reply_options(self, row: AgentRow) -> dict[str, Any]:
        """Return the arguments of `create` by which an agent's client answers in JSON.

        Call it on the event loop. Raises ConfigError.
        """
        model = self.model_of(row)
        return PROVIDERS[model.client].reply_options(row.role, model, self.client(row))

    async def close(self) -> None:
        """Close the clients of this event loop."""
        loop_id = id(asyncio.get_running_loop())
        for key in [key for key in self._clients if key[0] == loop_id]:
            provider, client = self._clients.pop(key)
            await (provider.close if provider else _close)(client)

    def require_key(self) -> None:
        """Raise ConfigError if calls to one of the models could not be made."""
        for model in self._config.distinct_models:
            require_usable(model, self._settings)

    def preload(self) -> None:
        """Import what calls will need, for models that can be called."""
        for model in self._config.distinct_models:
            preload(model, self._settings)

    def export_client(self, row: AgentRow) -> ChatCompletionClient:
        """Return a client for AutoGen's component export: it holds no key and is never called."""
        model = self.model_of(row)
        if model.client == "rules":
            return RulesClient(self._config)
        # A client is not made without a required key, so the export gets a text in its place.
        required = {p.key_setting for p in PROVIDERS.values() if p.key_setting and p.key_required}
        keyless = Settings.model_validate(
            {_variable(name): "set in the environment" for name in required}
            | {"FINAGENT_COMPONENTS": ",".join(self._settings.components)}
        )
        return make_client(model, keyless, self._config.limits.call_timeout_s)


def _variable(setting: str) -> str:
    """Return the environment variable of a field of Settings."""
    return str(Settings.model_fields[setting].alias)


def _model_info(model: ModelConfig) -> ModelInfo:
    """Return what AutoGen is told that the model can do."""
    return ModelInfo(
        vision=model.vision,
        function_calling=True,
        json_output=True,
        family=ModelFamily.UNKNOWN,
        structured_output=sends_schema(model),
    )


def _openai_sampling(model: ModelConfig) -> dict[str, Any]:
    """Return the sampling under OpenAI's names."""
    seed = {} if model.sampling.seed is None else {"seed": model.sampling.seed}
    return {
        "temperature": model.sampling.temperature,
        "max_tokens": model.sampling.max_tokens,
        **seed,
    }


def _openai_options(role: Role, model: ModelConfig, client: ChatCompletionClient) -> dict[str, Any]:
    # Without this, OpenAI counts no tokens in a stream.
    usage = {"include_usage": True} if model.stream else {}
    if not sends_schema(model):
        return {"json_output": True, **usage}
    # Not as `json_output`: the SDK would parse the reply itself, and raise for what we repair.
    schema = {"name": role, "schema": reply_schema(role), "strict": True}
    response_format = {"type": "json_schema", "json_schema": schema}
    return {"extra_create_args": {"response_format": response_format}, **usage}


def _make_openai(model: ModelConfig, key: str, timeout_s: float) -> ChatCompletionClient:
    from autogen_ext.models.openai import OpenAIChatCompletionClient

    return OpenAIChatCompletionClient(
        model=model.model,
        api_key=key,
        base_url=model.base_url or "",
        model_info=_model_info(model),
        timeout=timeout_s,
        max_retries=0,
        **_openai_sampling(model),
    )


def _make_azure(model: ModelConfig, key: str, timeout_s: float) -> ChatCompletionClient:
    from autogen_ext.models.openai import AzureOpenAIChatCompletionClient

    return AzureOpenAIChatCompletionClient(
        model=model.model,
        azure_deployment=model.model,
        azure_endpoint=model.base_url or "",
        api_version=model.api_version,
        api_key=key,
        model_info=_model_info(model),
        timeout=timeout_s,
        max_retries=0,
        **_openai_sampling(model),
    )


def _make_anthropic(model: ModelConfig, key: str, timeout_s: float) -> ChatCompletionClient:
    from autogen_ext.models.anthropic import AnthropicChatCompletionClient

    return AnthropicChatCompletionClient(
        model=model.model,
        api_key=key,
        base_url=model.base_url,
        model_info=_model_info(model),
        timeout=timeout_s,
        max_retries=0,
        temperature=model.sampling.temperature,
        max_tokens=model.sampling.max_tokens,
    )


def _no_options(role: Role, model: ModelConfig, client: ChatCompletionClient) -> dict[str, Any]:
    """Return nothing: AutoGen's Anthropic client has no JSON mode, so the prompt alone asks."""
    return {}


def _make_ollama(model: ModelConfig, key: str, timeout_s: float) -> ChatCompletionClient:
    from autogen_ext.models.ollama import OllamaChatCompletionClient

    options: dict[str, Any] = {
        "temperature": model.sampling.temperature,
        "num_predict": model.sampling.max_tokens,
    }
    if model.sampling.seed is not None:
        options["seed"] = model.sampling.seed
    return OllamaChatCompletionClient(
        model=model.model, host=model.base_url, model_info=_model_info(model), options=options
    )


async def _close_ollama(client: ChatCompletionClient) -> None:
    await client.close()
    await client._client.close()  # type: ignore[attr-defined]  # AutoGen's own `close` does nothing


def _make_component(model: ModelConfig, key: str, timeout_s: float) -> ChatCompletionClient:
    assert model.component is not None
    component = {"component_type": "model", **model.component}
    if key != NO_KEY:
        component["config"] = {**component["config"], "api_key": key}
    try:
        return ChatCompletionClient.load_component(component)
    except Exception as error:  # a foreign class may raise anything
        message = str(error).replace(key, "[key]")
        raise ConfigError(f"component {model.component['provider']}: {message}") from None


def _require_allowed(model: ModelConfig, settings: Settings) -> None:
    assert model.component is not None
    name, allowed = model.component["provider"], (*ALLOWED_COMPONENTS, *settings.components)
    if name not in allowed:
        raise ConfigError(
            f"component {name!r} is not allowed; allowed are {', '.join(allowed)}; "
            "add it to FINAGENT_COMPONENTS if you trust it"
        )


def _provider_of_class(client: ChatCompletionClient) -> Provider | None:
    """Return the row of the provider whose own client this is; None for any other class."""
    module = type(client).__module__
    rows = (row for row in PROVIDERS.values() if row.module and module.startswith(row.module))
    return next(rows, None)


def _component_options(
    role: Role, model: ModelConfig, client: ChatCompletionClient
) -> dict[str, Any]:
    provider = _provider_of_class(client)
    return (provider.reply_options if provider else _json_mode)(role, model, client)


async def _close_component(client: ChatCompletionClient) -> None:
    provider = _provider_of_class(client)
    await (provider.close if provider else _close)(client)


PROVIDERS: dict[Client, Provider] = {
    "openai": Provider(
        make=_make_openai,
        module="autogen_ext.models.openai",
        key_setting="openai_api_key",
        address_setting="openai_base_url",
        default_address="https://api.openai.com/v1",
        takes_schema="at its default address",
        reply_options=_openai_options,
    ),
    "azure": Provider(
        make=_make_azure,
        module="autogen_ext.models.openai",
        key_setting="azure_openai_api_key",
        address_setting="azure_openai_endpoint",
        identity_fields=("api_version",),
        takes_schema="always",
        reply_options=_openai_options,
    ),
    "anthropic": Provider(
        make=_make_anthropic,
        module="autogen_ext.models.anthropic",
        key_setting="anthropic_api_key",
        address_setting="anthropic_base_url",
        default_address="https://api.anthropic.com",
        reply_options=_no_options,
    ),
    "ollama": Provider(
        make=_make_ollama,
        module="autogen_ext.models.ollama",
        address_setting="ollama_host",
        default_address="http://127.0.0.1:11434",
        takes_schema="always",
        close=_close_ollama,
    ),
    "component": Provider(
        make=_make_component,
        key_setting="component_api_key",
        key_required=False,
        check=_require_allowed,
        identity_fields=("component",),
        reply_options=_component_options,
        close=_close_component,
    ),
}
"""By `client` of a model's row; `rules` asks no provider, so it has none."""
