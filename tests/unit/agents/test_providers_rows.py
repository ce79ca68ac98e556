"""The rows of providers: one for each client, with all that differs between them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from autogen_core.models import ChatCompletionClient

from finagent_model.agents._provider_rows import PROVIDERS, Provider
from finagent_model.agents.providers import ClientPool, identity_of, make_client
from finagent_model.config.desk_config import DeskConfig, load_preset
from finagent_model.config.roster import CLIENTS, Client, ModelConfig
from finagent_model.settings import Settings

SAMPLING = {"temperature": 0.0, "seed": 7, "max_tokens": 800}
INFO = {
    "vision": False,
    "function_calling": True,
    "json_output": True,
    "family": "unknown",
    "structured_output": True,
}
COMPONENT = {
    "provider": "autogen_ext.models.ollama.OllamaChatCompletionClient",
    "config": {"model": "m", "host": "http://127.0.0.1:9", "model_info": INFO},
}
ENVIRON = {
    str(Settings.model_fields[p.key_setting].alias): "sk-any-key-of-a-provider"
    for p in PROVIDERS.values()
    if p.key_setting
}


def model(client: str, **row: Any) -> ModelConfig:
    return ModelConfig.model_validate({"client": client, "model": "m", **row})


def config(client: str, **row: Any) -> DeskConfig:
    preset = load_preset("lean")
    return DeskConfig.model_validate({**preset.model_dump(), "client": client, "model": "m", **row})


def test_providers_have_a_row_for_each_client_but_rules() -> None:
    assert set(PROVIDERS) == set(CLIENTS) - {"rules"}
    assert get_args(Client) == CLIENTS


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=list(PROVIDERS))
def test_provider_settings_are_fields_of_settings(provider: Provider) -> None:
    for setting in (provider.key_setting, provider.address_setting):
        assert setting is None or setting in Settings.model_fields


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=list(PROVIDERS))
def test_provider_key_is_a_secret(provider: Provider) -> None:
    if provider.key_setting is None:
        return
    variable = str(Settings.model_fields[provider.key_setting].alias)
    assert "sk-any" in Settings.load({variable: "sk-any"}).secrets


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=list(PROVIDERS))
def test_provider_identity_fields_are_fields_of_a_model(provider: Provider) -> None:
    assert set(provider.identity_fields) <= set(ModelConfig.model_fields)


@pytest.mark.parametrize(
    ("chosen", "structured", "further"),
    [
        (model("openai"), True, {}),
        (model("openai", base_url="http://127.0.0.1:9/v1"), False, {}),
        (model("azure", base_url="http://127.0.0.1:9"), True, {"api_version": "2024-10-21"}),
        (model("anthropic"), False, {}),
        (model("ollama"), True, {}),
        (model("component", component=COMPONENT), False, {"component": COMPONENT}),
    ],
)
def test_provider_identity_is_what_recordings_were_keyed_by(
    chosen: ModelConfig, structured: bool, further: dict[str, Any]
) -> None:
    assert identity_of(chosen) == {
        "client": chosen.client,
        "base_url": chosen.base_url,
        "model": "m",
        "sampling": SAMPLING,
        "structured": structured,
        **further,
    }


def test_provider_identity_of_rules_is_their_version() -> None:
    assert identity_of(ModelConfig()) == {"client": "rules", "version": "2"}


@pytest.fixture
def settings() -> Settings:
    return Settings.load(ENVIRON | {"AZURE_OPENAI_ENDPOINT": "http://127.0.0.1:9"})


def reply_options(desk: DeskConfig, settings: Settings) -> dict[str, Any]:
    async def options() -> dict[str, Any]:
        pool = ClientPool(desk, settings)
        try:
            return pool.reply_options(pool.roster[0])
        finally:
            await pool.close()

    return asyncio.run(options())


def test_provider_openai_sends_schema_as_response_format(settings: Settings) -> None:
    options = reply_options(config("openai"), settings)
    schema = options["extra_create_args"]["response_format"]["json_schema"]
    assert (schema["name"], schema["strict"]) == ("analyst", True)
    assert "json_output" not in options


def test_provider_openai_compatible_server_gets_json_mode(settings: Settings) -> None:
    options = reply_options(config("openai", base_url="http://127.0.0.1:9/v1"), settings)
    assert options == {"json_output": True}


def test_provider_openai_stream_asks_for_usage(settings: Settings) -> None:
    options = reply_options(config("openai", stream=True), settings)
    assert options["include_usage"] is True


def test_provider_anthropic_is_asked_by_prompt_alone(settings: Settings) -> None:
    assert reply_options(config("anthropic"), settings) == {}


def test_provider_ollama_sends_schema_as_model(settings: Settings) -> None:
    sent = reply_options(config("ollama"), settings)["json_output"].model_json_schema()
    assert sent["required"] == ["trend", "score", "key_factors", "summary"]


def test_provider_component_is_asked_as_its_class(settings: Settings) -> None:
    component = {
        "provider": "autogen_ext.models.openai.OpenAIChatCompletionClient",
        "config": {"model": "gpt-4o-mini"},
    }
    desk = config("component", component=component, stream=True)
    assert reply_options(desk, settings) == {"json_output": True, "include_usage": True}


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The HTTP clients of Ollama that were closed."""
    from ollama import AsyncClient

    names: list[str] = []

    async def close(self: Any) -> None:
        names.append(type(self).__name__)

    monkeypatch.setattr(AsyncClient, "close", close, raising=False)
    yield names


@pytest.mark.parametrize(
    "chosen", [model("ollama"), model("component", component=COMPONENT)], ids=lambda m: m.client
)
def test_provider_closes_ollama_whichever_row_named_it(
    chosen: ModelConfig, settings: Settings, closed: list[str]
) -> None:
    client: ChatCompletionClient = make_client(chosen, settings, 1.0)
    asyncio.run(PROVIDERS[chosen.client].close(client))
    assert closed == ["AsyncClient"]
