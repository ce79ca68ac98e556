"""The client without AutoGen's extension: the same requests, keys and results as the default."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import yaml
from autogen_core import CancellationToken, FunctionCall
from autogen_core.models import (
    AssistantMessage,
    CreateResult,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    LLMMessage,
    SystemMessage,
    UserMessage,
)
from ollama._client import _parse_host

from finagent_model.agents._http_ollama import ollama_url
from finagent_model.agents._provider_rows import PROVIDERS
from finagent_model.agents._replies import schema_model
from finagent_model.agents.completion import Chart
from finagent_model.agents.providers import identity_of, make_client, with_address
from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import load_preset, preset_text, read_desk_config
from finagent_model.config.roster import ModelConfig
from finagent_model.data.market import Market
from finagent_model.desk.desk import Desk
from finagent_model.errors import ConfigError
from finagent_model.market.bars import parse_as_of
from finagent_model.settings import Settings
from finagent_model.testing import FinishReason, ScriptedReply, ScriptedToolCall
from support.chat_model import KEY
from support.fake_llm import FakeProvider, Fault, Protocol
from support.fake_llm.requests import ProviderRequest

KEYS = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "ANTHROPIC_API_KEY")
SETTINGS = Settings.load(dict.fromkeys(KEYS, KEY))
TRANSPORTS = ("autogen", "http")
PROTOCOLS = pytest.mark.parametrize("protocol", Protocol)
PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f"
    b"\x15\xc4\x89\x00\x00\x00\rIDATx\x9cc\xf8\xff\xff\xff\x7f\x00\t\xfb\x03\xfd\x05CE\xca\x00\x00"
    b"\x00\x00IEND\xaeB`\x82"
)
TOOL = {
    "name": "bars",
    "description": "The last bars.",
    "parameters": {"type": "object", "properties": {"last": {"type": "integer"}}},
}
PARAMETERS = {
    "type": "object",
    "properties": {"score": {"type": "number"}},
    "required": ["score"],
    "additionalProperties": False,
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "analyst", "schema": PARAMETERS, "strict": True},
}
CONVERSATION: list[LLMMessage] = [
    SystemMessage(content="You are the TechnicalAnalyst of a trading desk. Use JSON."),
    UserMessage(content="What now? \u00e9\u4e2d", source="desk"),
    UserMessage(content=["Look:", Chart(PNG, "d")], source="desk"),
    AssistantMessage(content="Wait.", source="TechnicalAnalyst"),
    AssistantMessage(content=[FunctionCall("a", '{"last": 2}', "bars")], source="A", thought="Hm"),
    AssistantMessage(content=[FunctionCall("b", "{}", "bars")], source="A"),
    FunctionExecutionResultMessage(
        content=[
            FunctionExecutionResult(content="[1]", name="bars", call_id=each, is_error=False)
            for each in ("a", "b")
        ]
    ),
]


def row(llm: FakeProvider, protocol: Protocol, transport: str, **keys: Any) -> ModelConfig:
    given = {"client": protocol.value, "model": "stub-1", "base_url": llm.address(protocol)}
    return ModelConfig.model_validate({**given, "transport": transport, "vision": True, **keys})


def ask(
    model: ModelConfig,
    messages: Sequence[LLMMessage],
    *,
    streamed: bool = False,
    settings: Settings = SETTINGS,
    **options: Any,
) -> CreateResult:
    async def run() -> CreateResult:
        client = make_client(model, settings, 30.0)
        try:
            if not streamed:
                return await client.create(messages, **options)
            parts = [part async for part in client.create_stream(messages, **options)]
            assert isinstance(parts[-1], CreateResult)
            return parts[-1]
        finally:
            await PROVIDERS[model.client].close(client)

    return asyncio.run(run())


def as_sent(request: ProviderRequest) -> tuple[Any, ...]:
    """Return all of a request that its provider reads."""
    version = request.headers.get("anthropic-version")
    # Some clients write out that there is no stream, or no tool.
    body = {key: value for key, value in request.body.items() if value not in (False, [])}
    return request.path, request.query, request.api_key, version, request.stream, body


def comparable(result: CreateResult) -> CreateResult:
    """Return a result without what AutoGen's clients of several protocols do in several ways."""
    calls = [] if isinstance(result.content, str) else result.content
    # Ollama's calls have no ids: AutoGen's are numbers, which a desk makes its own of.
    content = [replace(call, id="") for call in calls] if calls else result.content
    changes: dict[str, Any] = {"content": content, "thought": result.thought or None}
    if calls:  # some keep the server's reason, which may be `stop`
        changes["finish_reason"] = "function_calls"
    return result.model_copy(update=changes)


JSON_MODE = {"json_output": True}
TOOLS = {"tools": [TOOL], "tool_choice": "auto"}
NO_CHOICE = {"tools": [TOOL], "tool_choice": "none"}
REQUIRED = {"tools": [TOOL], "tool_choice": "required"}
OPENAI_OPTIONS = [
    JSON_MODE,
    JSON_MODE | TOOLS,
    NO_CHOICE,
    {"extra_create_args": {"response_format": SCHEMA}},
]
OPTIONS: dict[Protocol, list[dict[str, Any]]] = {
    Protocol.OPENAI: OPENAI_OPTIONS,
    Protocol.AZURE: OPENAI_OPTIONS,
    Protocol.ANTHROPIC: [TOOLS, NO_CHOICE, REQUIRED],
    Protocol.OLLAMA: [
        {},
        JSON_MODE,
        JSON_MODE | TOOLS,
        NO_CHOICE,
        REQUIRED,
        {"json_output": schema_model("analyst")},
    ],
}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@PROTOCOLS
def test_http_client_sends_the_requests_of_autogens(protocol: Protocol, streamed: bool) -> None:
    counts = streamed and protocol in (Protocol.OPENAI, Protocol.AZURE)
    usage = {"include_usage": True} if counts else {}
    with FakeProvider() as llm:
        for options in OPTIONS[protocol]:
            llm.requests.clear()
            results = [
                ask(
                    row(llm, protocol, transport),
                    CONVERSATION,
                    streamed=streamed,
                    **options,
                    **usage,
                )
                for transport in TRANSPORTS
            ]
            first, second = map(as_sent, llm.requests)
            assert second == first
            assert comparable(results[1]) == comparable(results[0])


@PROTOCOLS
def test_http_client_leaves_out_the_sampling_that_autogens_does(protocol: Protocol) -> None:
    sampling = {"temperature": None, "seed": None, "max_tokens": 99}
    with FakeProvider() as llm:
        for transport in TRANSPORTS:
            ask(row(llm, protocol, transport, sampling=sampling), CONVERSATION[:2])
        first, second = map(as_sent, llm.requests)
    assert second == first
    assert "temperature" not in json.dumps(second) and "99" in json.dumps(second)


@pytest.mark.filterwarnings("ignore:Finish reason mismatch")  # AutoGen's
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    "reply",
    [
        ScriptedReply("Yes."),
        ScriptedReply("Too lo", finish_reason=FinishReason.LENGTH),
        ScriptedReply(
            "I look.",
            tool_calls=(ScriptedToolCall("bars", {"last": 2}), ScriptedToolCall("bars", {}, "b")),
        ),
    ],
    ids=["text", "cut", "calls"],
)
@PROTOCOLS
def test_http_client_reads_replies_as_autogens_does(
    protocol: Protocol, reply: ScriptedReply, streamed: bool
) -> None:
    with FakeProvider() as llm:
        llm.replies["TechnicalAnalyst"] = [reply, reply]
        first, second = (
            ask(row(llm, protocol, transport), CONVERSATION[:2], streamed=streamed, tools=[TOOL])
            for transport in TRANSPORTS
        )
    if protocol is Protocol.OLLAMA and reply.finish_reason is FinishReason.LENGTH:
        # AutoGen's client calls it unknown; the wire notes it for both (`ReplyFacts.was_cut`).
        assert (first.finish_reason, second.finish_reason) == ("unknown", "length")
        first.finish_reason = "length"
    assert comparable(second) == comparable(first)


@PROTOCOLS
def test_http_client_gives_a_stream_in_pieces(protocol: Protocol) -> None:
    async def run(llm: FakeProvider) -> list[Any]:
        client = make_client(row(llm, protocol, "http"), SETTINGS, 30.0)
        parts = [part async for part in client.create_stream(CONVERSATION[:2])]
        await client.close()
        return parts

    with FakeProvider() as llm:
        llm.replies["TechnicalAnalyst"] = ["a long enough text that comes in several pieces " * 9]
        *texts, result = asyncio.run(run(llm))
    assert len(texts) > 1
    assert "".join(texts) == result.content


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_ollama_key_is_sent_where_there_is_one(transport: str) -> None:
    settings = Settings.load({"OLLAMA_API_KEY": KEY})
    with FakeProvider() as llm:
        model = row(llm, Protocol.OLLAMA, transport)
        ask(model, CONVERSATION[:2])
        ask(model, CONVERSATION[:2], settings=settings)
        keys = [request.api_key for request in llm.requests]
    assert keys == ["", KEY]
    assert KEY in settings.secrets


@pytest.mark.parametrize(
    "host",
    [
        *("1.2.3.4", "1.2.3.4:56789", "http://1.2.3.4:80", "https://example.com:443", ":56789"),
        *("example.com/", "example.com:56789/path/", "[0001:002:003:0004::1]"),
        "https://[0001:002:003:0004::1]:56789/path",
    ],
)
def test_ollama_url_is_that_of_its_own_client(host: str) -> None:
    assert ollama_url(host) == f"{_parse_host(host)}/api/chat"
    row = ModelConfig(client="ollama", model="m", base_url=host)
    assert row.base_url == host


@pytest.mark.parametrize("host", ["here:port", "ftp://here", "a b", "höst", "http://", "[::1"])
def test_ollama_address_that_is_none_is_refused(host: str) -> None:
    reason = re.escape(f"OLLAMA_HOST {host!r} must begin with http://")
    with pytest.raises(ConfigError, match=reason):
        with_address(ModelConfig(client="ollama", model="m"), Settings.load({"OLLAMA_HOST": host}))


def test_anthropic_schema_is_refused_rather_than_left_out() -> None:
    with FakeProvider() as llm, pytest.raises(ValueError, match="asked for no schema"):
        model = row(llm, Protocol.ANTHROPIC, "http")
        ask(model, CONVERSATION[:2], json_output=schema_model("analyst"))


@PROTOCOLS
def test_replies_of_one_transport_are_replayed_by_the_other(protocol: Protocol) -> None:
    view = Market.from_settings(SETTINGS).view("GOOG", parse_as_of("2012-06-29"))
    cassette = Cassette()
    with FakeProvider() as llm:

        def desk(transport: str) -> Desk:
            keys = {"client": protocol.value, "model": "stub-1", "transport": transport}
            text = yaml.safe_dump(keys | {"base_url": llm.address(protocol)})
            defaults = yaml.safe_load(preset_text("default"))
            return Desk(read_desk_config(text, defaults, "test"), None, SETTINGS, cassette)

        with closing(desk("autogen")) as default, closing(desk("http")) as other:
            first, second = default.decide(view), other.decide(view)
    assert (first.calls, second.calls) == (3, 0)
    stamp = {"generated_at", "conversation_id"}  # the latter is the untrained desk's own
    assert first.signal.model_dump(exclude=stamp) == second.signal.model_dump(exclude=stamp)
    assert first.signal.status == "ok"


def test_transport_is_no_part_of_identity_or_default_dump() -> None:
    keys = {"client": "openai", "model": "m"}
    default = ModelConfig.model_validate(keys)
    other = ModelConfig.model_validate({**keys, "transport": "http"})
    assert identity_of(default) == identity_of(other)
    assert "transport" not in default.model_dump()
    assert "transport" not in load_preset().model_dump()
    assert ModelConfig.model_validate(other.model_dump(mode="json")) == other


def test_transport_http_of_a_client_without_requests_is_refused() -> None:
    with pytest.raises(ConfigError, match="client 'rules' has no transport 'http'; it is for op"):
        read_desk_config("transport: http", load_preset().model_dump(), "desk")


def test_http_client_is_cancelled_by_its_token() -> None:
    async def run(llm: FakeProvider) -> None:
        model, token = row(llm, Protocol.OPENAI, "http"), CancellationToken()
        client = make_client(model, SETTINGS, 30.0)
        asked = asyncio.ensure_future(client.create(CONVERSATION[:2], cancellation_token=token))
        await asyncio.to_thread(llm.wait_for_requests, 1)
        token.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await client.close()

    with FakeProvider() as llm:
        llm.fail(Fault.HANG)
        asyncio.run(run(llm))
        llm.wait_until_disconnected()


IMPORTS = """
import asyncio, json, sys
from autogen_core.models import UserMessage
from finagent_model.agents.providers import make_client, preload
from finagent_model.config.roster import ModelConfig
from finagent_model.settings import Settings
keys = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "ANTHROPIC_API_KEY")
settings = Settings.load(dict.fromkeys(keys, "sk-test"))
async def run(name, url):
    model = ModelConfig(client=name, model="m", base_url=url, transport="http")
    preload(model, settings)
    client = make_client(model, settings, 30.0)
    await client.create([UserMessage(content="?", source="desk")])
    await client.close()
for argument in sys.argv[1:]:
    asyncio.run(run(*argument.split("=", 1)))
print(json.dumps([n for n in ("autogen_ext", "openai", "anthropic", "ollama") if n in sys.modules]))
"""


def test_http_client_needs_no_extension_and_no_sdk() -> None:
    with FakeProvider() as llm:
        addresses = [f"{protocol}={llm.address(protocol)}" for protocol in Protocol]
        command = [sys.executable, "-c", IMPORTS, *addresses]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [request.protocol for request in llm.requests] == list(Protocol)
    assert json.loads(done.stdout) == []
