"""What differs between providers of chat models: one row of `PROVIDERS` for each.

A row holds key, address, how a client is made, asked for JSON and closed, how its replies are
written, and what identifies them. So adding a provider touches its row and maker here, the name in
`config.roster.Client`, its fields of `Settings`, and its test double. `component` takes any other
AutoGen client by its component JSON, from an allow list.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from autogen_core.models import ChatCompletionClient, ModelFamily, ModelInfo
from pydantic import SecretStr

from finagent_model.agents._http_anthropic import ANTHROPIC_HTTP, API_VERSION
from finagent_model.agents._http_client import (
    Endpoint,
    HttpChatClient,
    HttpProtocol,
    find_http,
)
from finagent_model.agents._http_ollama import OLLAMA_HTTP, ollama_url
from finagent_model.agents._http_openai import OPENAI_HTTP
from finagent_model.agents._replies import ReplySize, reply_schema, schema_model
from finagent_model.agents._wire_formats import ANTHROPIC, OLLAMA, OPENAI, WireFormat
from finagent_model.agents.local_model import find_model_file, require_local_model
from finagent_model.agents.local_server import find_server, route_to_server
from finagent_model.config.roster import Client, ModelConfig, Role
from finagent_model.errors import ConfigError
from finagent_model.settings import Settings

NO_KEY = "not needed"
"""Sent as a key to a server that asks for none."""
LOCAL_PLACEHOLDER = "http://127.0.0.1:9/v1"
"""Where a local client would send without a server: `route_to_server` sets host and port."""
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


async def close_client(client: ChatCompletionClient) -> None:
    """Close a client by its own method."""
    await client.close()


class ReplyRequest(NamedTuple):
    """The reply that one call asks for."""

    role: Role
    cuts: int = 0
    """How often it was cut off before."""

    def size(self, model: ModelConfig) -> ReplySize | None:
        """Return the bounds of its schema; None where the server takes none."""
        rules = model.request_rules
        if not rules.schema_bounds:
            return None
        return ReplySize.within(model.sampling.max_tokens, self.cuts, brief=rules.brief)


def _json_mode(
    request: ReplyRequest, model: ModelConfig, client: ChatCompletionClient
) -> dict[str, Any]:
    """Return AutoGen's own argument for JSON: the reply's schema where it is sent, else a flag."""
    sent = sends_schema(model)
    return {"json_output": schema_model(request.role, request.size(model)) if sent else True}


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
    reply_options: Callable[[ReplyRequest, ModelConfig, ChatCompletionClient], dict[str, Any]] = (
        _json_mode
    )
    """Returns the arguments of `client.create` that ask for a reply in JSON."""
    wire_format: WireFormat | None = None
    """How its replies are written; None: its client's replies are not rebuilt."""
    close: Callable[[ChatCompletionClient], Awaitable[None]] = close_client
    """Closes a client's connections."""


def sends_schema(model: ModelConfig) -> bool:
    """Return whether the provider is sent the reply's JSON schema and holds the reply to it."""
    if model.structured is not None:
        return model.structured
    if "structured" in model.server_defaults:
        return bool(model.server_defaults["structured"])
    where = PROVIDERS[model.client].takes_schema
    # Another server that speaks OpenAI's protocol may not know schemas.
    return where == "always" or (where == "at its default address" and model.base_url is None)


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
    names = ("temperature", "max_tokens", "seed", "reasoning_effort")
    values = {name: getattr(model.sampling, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _openai_options(
    request: ReplyRequest, model: ModelConfig, client: ChatCompletionClient
) -> dict[str, Any]:
    # Without this, OpenAI counts no tokens in a stream.
    usage = {"include_usage": True} if model.stream else {}
    if not sends_schema(model):
        return {"json_output": True, **usage}
    # Not as `json_output`: the SDK would parse the reply itself, and raise for what we repair.
    body = reply_schema(request.role, request.size(model))
    schema = {"name": request.role, "schema": body, "strict": True}
    response_format = {"type": "json_schema", "json_schema": schema}
    return {"extra_create_args": {"response_format": response_format}, **usage}


def _make_http(
    protocol: HttpProtocol,
    endpoint: Endpoint,
    model: ModelConfig,
    timeout_s: float,
    sampling: dict[str, Any],
) -> ChatCompletionClient:
    """Return our own client for a row with `transport: http`."""
    info = _model_info(model)
    return HttpChatClient(protocol, endpoint, model.author, info, timeout_s, sampling)


def _openai_endpoint(base_url: str, key: str, *, trust_env: bool = True) -> Endpoint:
    url = f"{base_url.rstrip('/')}/chat/completions"
    return Endpoint(url, ("Authorization", SecretStr(f"Bearer {key}")), trust_env=trust_env)


def _make_openai(model: ModelConfig, key: str, timeout_s: float) -> ChatCompletionClient:
    if model.transport == "http":
        endpoint = _openai_endpoint(model.base_url or "", key)
        return _make_http(OPENAI_HTTP, endpoint, model, timeout_s, _openai_sampling(model))
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


def _make_local(model: ModelConfig, key: str, timeout_s: float) -> ChatCompletionClient:
    server = find_server(find_model_file(model))
    # A proxy of the environment is for others than this machine.
    if model.transport == "http":
        endpoint = _openai_endpoint(LOCAL_PLACEHOLDER, key, trust_env=False)
        ours = _make_http(OPENAI_HTTP, endpoint, model, timeout_s, _openai_sampling(model))
        route_to_server(ours, server)
        return ours
    from autogen_ext.models.openai import OpenAIChatCompletionClient
    from openai import DefaultAsyncHttpxClient

    further: dict[str, Any] = {"http_client": DefaultAsyncHttpxClient(trust_env=False)}
    client = OpenAIChatCompletionClient(
        model=model.author,
        api_key=key,
        base_url=LOCAL_PLACEHOLDER,
        model_info=_model_info(model),
        timeout=timeout_s,
        max_retries=0,
        **_openai_sampling(model),
        **further,
    )
    route_to_server(client, server)
    return client


def _check_local(model: ModelConfig, settings: Settings) -> None:
    require_local_model(model)


def _make_azure(model: ModelConfig, key: str, timeout_s: float) -> ChatCompletionClient:
    if model.transport == "http":
        # https://learn.microsoft.com/azure/ai-services/openai/reference#chat-completions
        deployment, version = quote(model.model, safe=""), quote(model.api_version, safe="")
        url = (
            f"{(model.base_url or '').rstrip('/')}/openai/deployments/{deployment}"
            f"/chat/completions?api-version={version}"
        )
        endpoint = Endpoint(url, ("api-key", SecretStr(key)))
        return _make_http(OPENAI_HTTP, endpoint, model, timeout_s, _openai_sampling(model))
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
    if model.transport == "http":
        url = f"{(model.base_url or '').rstrip('/')}/v1/messages"
        endpoint = Endpoint(url, ("x-api-key", SecretStr(key)), API_VERSION)
        names = {"temperature", "max_tokens"}
        sampling = model.sampling.model_dump(include=names, exclude_none=True)
        return _make_http(ANTHROPIC_HTTP, endpoint, model, timeout_s, sampling)
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


def _no_options(
    request: ReplyRequest, model: ModelConfig, client: ChatCompletionClient
) -> dict[str, Any]:
    """Return nothing: AutoGen's Anthropic client has no JSON mode, so the prompt alone asks."""
    return {}


def _make_ollama(model: ModelConfig, key: str, timeout_s: float) -> ChatCompletionClient:
    sampling = model.sampling
    values = {
        "temperature": sampling.temperature,
        "num_predict": sampling.max_tokens,
        "seed": sampling.seed,
    }
    options = {name: value for name, value in values.items() if value is not None}
    has_key, bearer = key != NO_KEY, f"Bearer {key}"
    if model.transport == "http":
        sent_key = ("Authorization", SecretStr(bearer)) if has_key else None
        endpoint = Endpoint(ollama_url(model.base_url or ""), sent_key)
        return _make_http(OLLAMA_HTTP, endpoint, model, timeout_s, {"options": options})
    from autogen_ext.models.ollama import OllamaChatCompletionClient

    client = OllamaChatCompletionClient(
        model=model.model, host=model.base_url, model_info=_model_info(model), options=options
    )
    if has_key:
        # AutoGen's client takes no key; Ollama's own reads it from the environment alone.
        find_http(client).headers["Authorization"] = bearer
    return client


async def _close_ollama(client: ChatCompletionClient) -> None:
    await client.close()
    if not isinstance(client, HttpChatClient):
        await client._client.close()  # type: ignore[attr-defined]  # AutoGen's does nothing


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


def find_provider(client: ChatCompletionClient) -> Provider | None:
    """Return the row of the provider whose own client this is; None for any other class."""
    module = type(client).__module__
    rows = (row for row in PROVIDERS.values() if row.module and module.startswith(row.module))
    return next(rows, None)


def _component_options(
    request: ReplyRequest, model: ModelConfig, client: ChatCompletionClient
) -> dict[str, Any]:
    provider = find_provider(client)
    return (provider.reply_options if provider else _json_mode)(request, model, client)


async def _close_component(client: ChatCompletionClient) -> None:
    provider = find_provider(client)
    await (provider.close if provider else close_client)(client)


PROVIDERS: dict[Client, Provider] = {
    "openai": Provider(
        make=_make_openai,
        module="autogen_ext.models.openai",
        key_setting="openai_api_key",
        address_setting="openai_base_url",
        default_address="https://api.openai.com/v1",
        takes_schema="at its default address",
        reply_options=_openai_options,
        wire_format=OPENAI,
    ),
    "azure": Provider(
        make=_make_azure,
        module="autogen_ext.models.openai",
        key_setting="azure_openai_api_key",
        address_setting="azure_openai_endpoint",
        identity_fields=("api_version",),
        takes_schema="always",
        reply_options=_openai_options,
        wire_format=OPENAI,
    ),
    "anthropic": Provider(
        make=_make_anthropic,
        module="autogen_ext.models.anthropic",
        key_setting="anthropic_api_key",
        address_setting="anthropic_base_url",
        default_address="https://api.anthropic.com",
        reply_options=_no_options,
        wire_format=ANTHROPIC,
    ),
    "ollama": Provider(
        make=_make_ollama,
        module="autogen_ext.models.ollama",
        key_setting="ollama_api_key",
        key_required=False,
        address_setting="ollama_host",
        default_address="http://127.0.0.1:11434",
        takes_schema="always",
        wire_format=OLLAMA,
        close=_close_ollama,
    ),
    "local": Provider(
        make=_make_local,
        module="autogen_ext.models.openai",
        check=_check_local,
        identity_fields=("sha256",),
        takes_schema="always",
        reply_options=_openai_options,
        wire_format=OPENAI,
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
