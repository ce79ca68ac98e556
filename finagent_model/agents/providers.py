"""AutoGen's chat clients from a model's row: four providers, and any other by component JSON from a
list of those allowed. Each is told not to retry by itself; that is done in one place for all.

A desk's chat clients behind one seam: AutoGen's `ChatCompletionClient`, one for each model.

A client is made when it is first needed: replaying a recorded decision needs no key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from autogen_core.models import ChatCompletionClient, ModelFamily, ModelInfo
from pydantic import SecretStr

from finagent_model._redact import make_redactor
from finagent_model.agents.policy_client import VERSION, RulesClient
from finagent_model.cassette.cassette import fingerprint
from finagent_model.config.desk_config import DeskConfig
from finagent_model.config.roster import AgentRow, Client, ModelConfig
from finagent_model.errors import ConfigError
from finagent_model.settings import Settings

UNSET = "not needed"
"""Sent as a key to a server that asks for none."""
ALLOWED = tuple(
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
"""Component providers that may be loaded; FINAGENT_COMPONENTS adds to them. Loading a component
imports the class that its JSON names, so the JSON alone may not choose.
"""


@dataclass(frozen=True)
class Provider:
    """Where a client's key and address are in the environment, and how it is made."""

    key: str | None
    """Field of Settings; None: it takes no key."""
    address: str | None
    """Field of Settings; None: only from its row."""
    default: str | None
    """Address where neither says any; None: it has to be given."""
    module: str | None
    """Of the client's class, which is imported when it is first made; None: the row names it."""
    make: Callable[[ModelConfig, str, float], ChatCompletionClient]
    """From a row whose address is settled, the key, and the seconds that one call may take."""


def provider_of(row: ModelConfig) -> Provider:
    """Raises KeyError for `rules`, which has none."""
    return PROVIDERS[row.client]


def with_address(row: ModelConfig, settings: Settings) -> ModelConfig:
    """The row with its address settled, which is part of what replies are keyed by."""
    provider = PROVIDERS.get(row.client)
    if provider is None or row.base_url or provider.address is None:
        return row
    address = getattr(settings, provider.address)
    return row.model_copy(update={"base_url": address}) if address else row


def require_usable(row: ModelConfig, settings: Settings) -> None:
    """Raise ConfigError now if calls could not be made: no key, no address, or not allowed."""
    provider = PROVIDERS.get(row.client)
    if provider is None:
        return
    if row.client == "component":
        _require_allowed(row, settings)
    elif provider.key is not None and getattr(settings, provider.key) is None:
        variable = Settings.model_fields[provider.key].alias
        raise ConfigError(
            f"client {row.client!r} needs a key: set {variable} (any value for a local server), "
            "or use mode 'replay'"
        )
    elif provider.default is None and not row.base_url:
        variable = Settings.model_fields[provider.address or ""].alias
        raise ConfigError(
            f"client {row.client!r} needs an address: give base_url or set {variable}"
        )


def make_client(row: ModelConfig, settings: Settings, timeout_s: float) -> ChatCompletionClient:
    """A client that can be called. Raises ConfigError."""
    require_usable(row, settings)
    provider = provider_of(row)
    key: SecretStr | None = getattr(settings, provider.key) if provider.key else None
    settled = row.model_copy(update={"base_url": row.base_url or provider.default})
    return provider.make(settled, key.get_secret_value() if key else UNSET, timeout_s)


def preload(row: ModelConfig, settings: Settings) -> None:
    """Import what a client is made of where one can be made, so that no decision waits for it: half
    a second, and many from a cold disk.
    """
    with suppress(ConfigError):
        require_usable(row, settings)
        provider = PROVIDERS.get(row.client)
        if provider is not None and provider.module is not None:
            import_module(provider.module)


def info(row: ModelConfig) -> ModelInfo:
    """What AutoGen is told that the model can do."""
    return ModelInfo(
        vision=row.vision,
        function_calling=True,
        json_output=True,
        family=ModelFamily.UNKNOWN,
        structured_output=row.sends_schema,
    )


def _openai(row: ModelConfig, key: str, timeout_s: float) -> ChatCompletionClient:
    from autogen_ext.models.openai import OpenAIChatCompletionClient

    return OpenAIChatCompletionClient(
        model=row.model,
        api_key=key,
        base_url=row.base_url or "",
        model_info=info(row),
        timeout=timeout_s,
        max_retries=0,
        **_sampling(row),
    )


def _azure(row: ModelConfig, key: str, timeout_s: float) -> ChatCompletionClient:
    from autogen_ext.models.openai import AzureOpenAIChatCompletionClient

    return AzureOpenAIChatCompletionClient(
        model=row.model,
        azure_deployment=row.model,
        azure_endpoint=row.base_url or "",
        api_version=row.api_version,
        api_key=key,
        model_info=info(row),
        timeout=timeout_s,
        max_retries=0,
        **_sampling(row),
    )


def _anthropic(row: ModelConfig, key: str, timeout_s: float) -> ChatCompletionClient:
    from autogen_ext.models.anthropic import AnthropicChatCompletionClient

    return AnthropicChatCompletionClient(
        model=row.model,
        api_key=key,
        base_url=row.base_url,
        model_info=info(row),
        timeout=timeout_s,
        max_retries=0,
        temperature=row.sampling.temperature,
        max_tokens=row.sampling.max_tokens,
    )


def _ollama(row: ModelConfig, key: str, timeout_s: float) -> ChatCompletionClient:
    from autogen_ext.models.ollama import OllamaChatCompletionClient

    options: dict[str, Any] = {
        "temperature": row.sampling.temperature,
        "num_predict": row.sampling.max_tokens,
    }
    if row.sampling.seed is not None:
        options["seed"] = row.sampling.seed
    return OllamaChatCompletionClient(
        model=row.model, host=row.base_url, model_info=info(row), options=options
    )


def _component(row: ModelConfig, key: str, timeout_s: float) -> ChatCompletionClient:
    assert row.component is not None
    given = {"component_type": "model", **row.component}
    if key != UNSET:
        given["config"] = {**given["config"], "api_key": key}
    try:
        return ChatCompletionClient.load_component(given)
    except Exception as error:  # whatever a foreign class raises, it can't be used
        said = str(error).replace(key, "[key]")
        raise ConfigError(f"component {row.component['provider']}: {said}") from None


def _require_allowed(row: ModelConfig, settings: Settings) -> None:
    assert row.component is not None
    named, allowed = row.component["provider"], (*ALLOWED, *settings.components)
    if named not in allowed:
        raise ConfigError(
            f"component {named!r} is not allowed; allowed are {', '.join(allowed)}; "
            "add it to FINAGENT_COMPONENTS if you trust it"
        )


def _sampling(row: ModelConfig) -> dict[str, Any]:
    """As OpenAI names it."""
    seed = {} if row.sampling.seed is None else {"seed": row.sampling.seed}
    return {
        "temperature": row.sampling.temperature,
        "max_tokens": row.sampling.max_tokens,
        **seed,
    }


_MODELS = "autogen_ext.models"
PROVIDERS: dict[Client, Provider] = {
    "openai": Provider(
        "openai_api_key",
        "openai_base_url",
        "https://api.openai.com/v1",
        f"{_MODELS}.openai",
        _openai,
    ),
    "azure": Provider(
        "azure_openai_api_key", "azure_openai_endpoint", None, f"{_MODELS}.openai", _azure
    ),
    "anthropic": Provider(
        "anthropic_api_key",
        "anthropic_base_url",
        "https://api.anthropic.com",
        f"{_MODELS}.anthropic",
        _anthropic,
    ),
    "ollama": Provider(None, "ollama_host", "http://127.0.0.1:11434", f"{_MODELS}.ollama", _ollama),
    "component": Provider("component_api_key", None, "", None, _component),
}


def with_addresses(config: DeskConfig, settings: Settings) -> DeskConfig:
    """The desk with every model's address settled, which is part of what replies are keyed by."""
    own = with_address(config, settings)
    models = {name: with_address(row, settings) for name, row in config.models.items()}
    return config.model_copy(update={"base_url": own.base_url, "models": models})


class ClientPool:
    """One client a model, made on the loop that uses it and remade when that loop is another (after
    a fork).
    """

    def __init__(self, config: DeskConfig, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self.secrets = settings.secrets
        """What no record and no signal may hold."""
        self.redact = make_redactor(self.secrets)
        self._clients: dict[tuple[int, str], ChatCompletionClient] = {}
        self.roster = config.roster
        self.roster_digest = fingerprint(
            {"agents": [row.model_dump(mode="json") for row in self.roster], "model": config.model}
        )
        """Of who sits at the desk."""
        self._rows: dict[str, ModelConfig] = {
            row.name: config.model_for(row) for row in self.roster
        }
        self._identities = {name: _identity(row) for name, row in self._rows.items()}
        self._keys = {
            name: fingerprint(row.model_dump(mode="json")) for name, row in self._rows.items()
        }
        if any(row.client == "rules" for row in self._rows.values()):
            RulesClient(config)  # a roster that it can't play is refused now, not at a decision

    def model_of(self, row: AgentRow) -> ModelConfig:
        """The model that an agent of the roster speaks by."""
        return self._rows[row.name]

    def identity(self, row: AgentRow) -> dict[str, Any]:
        """What tells an agent's replies from another model's: part of every fingerprint."""
        return self._identities[row.name]

    def client(self, row: AgentRow) -> ChatCompletionClient:
        """The client that an agent asks; call it on the loop. Raises ConfigError without a key."""
        key, model = (id(asyncio.get_running_loop()), self._keys[row.name]), self.model_of(row)
        if key not in self._clients:
            self._clients[key] = (
                RulesClient(self._config)
                if model.client == "rules"
                else make_client(model, self._settings, self._config.limits.call_timeout_s)
            )
        return self._clients[key]

    async def close(self) -> None:
        """Close what is open on this loop."""
        here = id(asyncio.get_running_loop())
        for key in [key for key in self._clients if key[0] == here]:
            client = self._clients.pop(key)
            await client.close()
            if type(client).__name__ == "OllamaChatCompletionClient":
                await client._client.close()  # type: ignore[attr-defined]  # its own does nothing

    def require_key(self) -> None:
        """Raise ConfigError now if calls to a model could not be made."""
        for model in self._config.distinct_models:
            require_usable(model, self._settings)

    def preload(self) -> None:
        """Import now what calls that can be made will need."""
        for model in self._config.distinct_models:
            preload(model, self._settings)

    def exported(self, row: AgentRow) -> ChatCompletionClient:
        """A client to be written down, never to be called: it holds no key."""
        model = self.model_of(row)
        if model.client == "rules":
            return RulesClient(self._config)
        names = {f: "set in the environment" for f in _KEYS}
        keyless = Settings.model_validate(
            {str(Settings.model_fields[f].alias): said for f, said in names.items()}
            | {"FINAGENT_COMPONENTS": ",".join(self._settings.components)}
        )
        return make_client(model, keyless, self._config.limits.call_timeout_s)


_KEYS = ("openai_api_key", "azure_openai_api_key", "anthropic_api_key")


def _identity(model: ModelConfig) -> dict[str, Any]:
    if model.client == "rules":
        return {"client": "rules", "version": VERSION}
    said: dict[str, Any] = {
        "client": model.client,
        "base_url": model.base_url,
        "model": model.model,
        "sampling": model.sampling.model_dump(),
        "structured": model.sends_schema,
    }
    if model.client == "azure":
        said["api_version"] = model.api_version
    if model.component is not None:
        said["component"] = model.component
    return said
