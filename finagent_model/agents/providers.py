"""AutoGen's chat clients from a model's row: four providers, and any other by component JSON from a
list of those allowed. Each is told not to retry by itself; that is done in one place for all.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from autogen_core.models import ChatCompletionClient, ModelFamily, ModelInfo
from pydantic import SecretStr

from finagent_model.domain.model_row import Client, ModelRow
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
    make: Callable[[ModelRow, str, float], ChatCompletionClient]
    """From a row whose address is settled, the key, and the seconds that one call may take."""


def provider_of(row: ModelRow) -> Provider:
    """Raises KeyError for `rules`, which has none."""
    return PROVIDERS[row.client]


def with_address(row: ModelRow, settings: Settings) -> ModelRow:
    """The row with its address settled, which is part of what replies are keyed by."""
    provider = PROVIDERS.get(row.client)
    if provider is None or row.base_url or provider.address is None:
        return row
    address = getattr(settings, provider.address)
    return row.model_copy(update={"base_url": address}) if address else row


def require_usable(row: ModelRow, settings: Settings) -> None:
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


def make_client(row: ModelRow, settings: Settings, timeout_s: float) -> ChatCompletionClient:
    """A client that can be called. Raises ConfigError."""
    require_usable(row, settings)
    provider = provider_of(row)
    key: SecretStr | None = getattr(settings, provider.key) if provider.key else None
    settled = row.model_copy(update={"base_url": row.base_url or provider.default})
    return provider.make(settled, key.get_secret_value() if key else UNSET, timeout_s)


def preload(row: ModelRow, settings: Settings) -> None:
    """Import what a client is made of where one can be made, so that no decision waits for it: half
    a second, and many from a cold disk.
    """
    with suppress(ConfigError):
        require_usable(row, settings)
        provider = PROVIDERS.get(row.client)
        if provider is not None and provider.module is not None:
            import_module(provider.module)


def info(row: ModelRow) -> ModelInfo:
    """What AutoGen is told that the model can do."""
    return ModelInfo(
        vision=row.vision,
        function_calling=True,
        json_output=True,
        family=ModelFamily.UNKNOWN,
        structured_output=row.sends_schema,
    )


def _openai(row: ModelRow, key: str, timeout_s: float) -> ChatCompletionClient:
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


def _azure(row: ModelRow, key: str, timeout_s: float) -> ChatCompletionClient:
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


def _anthropic(row: ModelRow, key: str, timeout_s: float) -> ChatCompletionClient:
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


def _ollama(row: ModelRow, key: str, timeout_s: float) -> ChatCompletionClient:
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


def _component(row: ModelRow, key: str, timeout_s: float) -> ChatCompletionClient:
    assert row.component is not None
    given = {"component_type": "model", **row.component}
    if key != UNSET:
        given["config"] = {**given["config"], "api_key": key}
    try:
        return ChatCompletionClient.load_component(given)
    except Exception as error:  # whatever a foreign class raises, it can't be used
        said = str(error).replace(key, "[key]")
        raise ConfigError(f"component {row.component['provider']}: {said}") from None


def _require_allowed(row: ModelRow, settings: Settings) -> None:
    assert row.component is not None
    named, allowed = row.component["provider"], (*ALLOWED, *settings.components)
    if named not in allowed:
        raise ConfigError(
            f"component {named!r} is not allowed; allowed are {', '.join(allowed)}; "
            "add it to FINAGENT_COMPONENTS if you trust it"
        )


def _sampling(row: ModelRow) -> dict[str, Any]:
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
