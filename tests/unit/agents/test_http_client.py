"""The client without AutoGen's extension: the same requests, keys and results as the default."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
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

from finagent_model.agents.completion import Chart
from finagent_model.agents.providers import identity_of, make_client
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

SETTINGS = Settings.load({"OPENAI_API_KEY": KEY})
TRANSPORTS = ("autogen", "http")
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


def row(llm: FakeProvider, transport: str, **keys: Any) -> ModelConfig:
    given = {"client": "openai", "model": "stub-1", "base_url": llm.address(Protocol.OPENAI)}
    return ModelConfig.model_validate({**given, "transport": transport, "vision": True, **keys})


def ask(
    model: ModelConfig, messages: Sequence[LLMMessage], *, streamed: bool = False, **options: Any
) -> CreateResult:
    async def run() -> CreateResult:
        client = make_client(model, SETTINGS, 30.0)
        try:
            if not streamed:
                return await client.create(messages, **options)
            parts = [part async for part in client.create_stream(messages, **options)]
            assert isinstance(parts[-1], CreateResult)
            return parts[-1]
        finally:
            await client.close()

    return asyncio.run(run())


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    "options",
    [
        {"json_output": True},
        {"json_output": True, "tools": [TOOL], "tool_choice": "auto"},
        {"tools": [TOOL], "tool_choice": "none"},
        {"extra_create_args": {"response_format": SCHEMA}},
    ],
    ids=["json", "tools", "no choice", "schema"],
)
def test_http_client_sends_the_requests_of_autogens(
    options: dict[str, Any], streamed: bool
) -> None:
    usage = {"include_usage": True} if streamed else {}
    with FakeProvider() as llm:
        results = [
            ask(row(llm, transport), CONVERSATION, streamed=streamed, **options, **usage)
            for transport in TRANSPORTS
        ]
        first, second = (request.body for request in llm.requests)
    assert first == second
    assert results[0] == results[1]


@pytest.mark.filterwarnings("ignore:Finish reason mismatch")  # AutoGen's
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    "reply",
    [
        ScriptedReply("Yes."),
        ScriptedReply("Too lo", finish_reason=FinishReason.LENGTH),
        ScriptedReply(
            "I look.",
            tool_calls=(ScriptedToolCall("bars", {"last": 2}), ScriptedToolCall("bars", {})),
        ),
    ],
    ids=["text", "cut", "calls"],
)
def test_http_client_reads_replies_as_autogens_does(reply: ScriptedReply, streamed: bool) -> None:
    with FakeProvider() as llm:
        llm.replies["TechnicalAnalyst"] = [reply, reply]
        first, second = (
            ask(row(llm, transport), CONVERSATION[:2], streamed=streamed, tools=[TOOL])
            for transport in TRANSPORTS
        )
    assert second == first


def test_replies_of_one_transport_are_replayed_by_the_other() -> None:
    view = Market.from_settings(SETTINGS).view("GOOG", parse_as_of("2012-06-29"))
    cassette = Cassette()
    with FakeProvider() as llm:

        def desk(transport: str) -> Desk:
            keys = {"client": "openai", "model": "stub-1", "transport": transport}
            text = yaml.safe_dump(keys | {"base_url": llm.address(Protocol.OPENAI)})
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


@pytest.mark.parametrize("client", ["azure", "anthropic", "ollama"])
def test_transport_http_of_another_protocol_is_refused(client: str) -> None:
    text = f"client: {client}\nmodel: m\ntransport: http"
    with pytest.raises(ConfigError, match="transport 'http' is for client 'openai'"):
        read_desk_config(text, load_preset().model_dump(), "desk")


def test_http_client_is_cancelled_by_its_token() -> None:
    async def run(llm: FakeProvider) -> None:
        client, token = make_client(row(llm, "http"), SETTINGS, 30.0), CancellationToken()
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
settings = Settings.load({"OPENAI_API_KEY": "sk-test"})
model = ModelConfig(client="openai", model="m", base_url=sys.argv[1], transport="http")
preload(model, settings)
async def run():
    client = make_client(model, settings, 30.0)
    await client.create([UserMessage(content="?", source="desk")])
    await client.close()
asyncio.run(run())
print(json.dumps([n for n in ("autogen_ext", "openai", "anthropic", "ollama") if n in sys.modules]))
"""


def test_http_client_needs_no_extension_and_no_sdk() -> None:
    with FakeProvider() as llm:
        command = [sys.executable, "-c", IMPORTS, llm.address(Protocol.OPENAI)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
