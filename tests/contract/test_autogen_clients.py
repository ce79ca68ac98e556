"""AutoGen's clients and the double: answers, tools, pictures, cancelling, words sent and logged."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
from typing import Any

import pytest
from autogen_core import CancellationToken, FunctionCall, Image
from autogen_core.logging import LLMCallEvent
from autogen_core.models import (
    AssistantMessage,
    CreateResult,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    LLMMessage,
    UserMessage,
)
from autogen_core.tools import FunctionTool
from PIL import Image as Picture

from finagent_model.testing import DECISION, ScriptedReply, ScriptedToolCall
from support.fake_llm import FakeProvider, Fault, Protocol
from support.fake_llm.autogen_clients import PROMPT, QUESTION, ask, client, outcome
from support.fake_llm.http_calls import KEY

pytestmark = pytest.mark.slow
EVERY = pytest.mark.parametrize("protocol", Protocol)
WAYS = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
SDKS = [protocol for protocol in Protocol if protocol is not Protocol.OLLAMA]


@EVERY
@WAYS
def test_autogen_client_gets_whole_answer_with_tokens(protocol: Protocol, streamed: bool) -> None:
    """In a stream, OpenAI tells tokens only when it is asked to."""
    telling = streamed and protocol in (Protocol.OPENAI, Protocol.AZURE)
    options = {"include_usage": True} if telling else {}

    async def meet(llm: FakeProvider) -> CreateResult:
        async with client(protocol, llm.address(protocol)) as asker:
            return await ask(asker, QUESTION, streamed=streamed, **options)

    with FakeProvider() as llm:
        result = asyncio.run(meet(llm))
        llm.wait_until_disconnected()
        (seen,) = llm.requests
    assert outcome(result) == "stop: whole"
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (1000, 100)
    assert (seen.agent, seen.stream) == ("Executor", streamed)
    assert seen.api_key == ("" if protocol is Protocol.OLLAMA else KEY)


@EVERY
@WAYS
def test_autogen_client_sends_tool_result_back(protocol: Protocol, streamed: bool) -> None:
    def price(symbol: str) -> float:
        return 580.0

    tool = FunctionTool(price, "The last close of a symbol.")

    async def meet(llm: FakeProvider) -> CreateResult:
        async with client(protocol, llm.address(protocol)) as asker:
            first = await ask(asker, QUESTION, streamed=streamed, tools=[tool])
            assert first.finish_reason in ("function_calls", "stop")
            assert isinstance(first.content, list)
            (call,) = first.content
            assert (call.name, json.loads(call.arguments)) == ("price", {"symbol": "GOOG"})
            return await ask(asker, [*QUESTION, *told(call)], streamed=streamed, tools=[tool])

    def told(call: FunctionCall) -> list[LLMMessage]:
        found = FunctionExecutionResult(
            content="580.0", name="price", call_id=call.id, is_error=False
        )
        return [
            AssistantMessage(content=[call], source="Executor"),
            FunctionExecutionResultMessage(content=[found]),
        ]

    with FakeProvider() as llm:
        llm.replies["Executor"] = [
            ScriptedReply(tool_calls=(ScriptedToolCall("price", {"symbol": "GOOG"}),)),
            DECISION,
        ]
        assert outcome(asyncio.run(meet(llm))) == "stop: whole"
        assert [seen.tool_results for seen in llm.requests] == [[], ["580.0"]]
        assert "price" in json.dumps(llm.requests[0].body["tools"])


@EVERY
def test_autogen_client_sends_picture(protocol: Protocol) -> None:
    picture = Picture.new("RGB", (2, 2), "red")
    data = io.BytesIO()
    picture.save(data, "PNG")
    chart = UserMessage(content=["The chart:", Image.from_pil(picture)], source="desk")

    async def meet(llm: FakeProvider) -> None:
        async with client(protocol, llm.address(protocol)) as asker:
            await asker.create([PROMPT, chart])

    with FakeProvider() as llm:
        asyncio.run(meet(llm))
        assert llm.requests[0].images == [data.getvalue()]
        assert llm.requests[0].texts("user") == ["The chart:"]


@pytest.mark.parametrize("protocol", SDKS)
def test_autogen_client_with_retries_gets_through(protocol: Protocol) -> None:
    async def meet(llm: FakeProvider) -> CreateResult:
        async with client(protocol, llm.address(protocol), max_retries=2) as asker:
            return await asker.create(QUESTION)

    with FakeProvider() as llm:
        llm.fail(Fault.RATE_LIMITED_MS, first=2)
        assert outcome(asyncio.run(meet(llm))) == "stop: whole"
        assert len(llm.requests) == 3


@EVERY
@WAYS
@pytest.mark.parametrize("fault", [Fault.HANG, Fault.DRIP])
def test_autogen_client_cancelled_call_leaves_nothing_open(
    protocol: Protocol, streamed: bool, fault: Fault
) -> None:
    async def meet(llm: FakeProvider) -> None:
        async with client(protocol, llm.address(protocol)) as asker:
            before = asyncio.all_tasks()
            call = asyncio.ensure_future(ask(asker, QUESTION, streamed=streamed))
            await asyncio.to_thread(llm.wait_for_requests, 1)
            # AutoGen loses a stream that begins at the very moment of the cancelling.
            await asyncio.sleep(0.2)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            gc.collect()  # an SDK's stream is closed when it is thrown away
            await asyncio.to_thread(llm.wait_until_disconnected)
            assert asyncio.all_tasks() == before

    with FakeProvider() as llm:
        llm.fail(fault)
        asyncio.run(meet(llm))


@EVERY
def test_autogen_client_token_cancels_hanging_call(protocol: Protocol) -> None:
    async def meet(llm: FakeProvider) -> None:
        token = CancellationToken()
        async with client(protocol, llm.address(protocol)) as asker:
            call = asyncio.ensure_future(asker.create(QUESTION, cancellation_token=token))
            await asyncio.to_thread(llm.wait_for_requests, 1)
            token.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.to_thread(llm.wait_until_disconnected)

    with FakeProvider() as llm:
        llm.fail(Fault.HANG)
        asyncio.run(meet(llm))


def schema_sent(body: dict[str, Any]) -> Any:
    return body.get("response_format") or body.get("format")


@pytest.mark.parametrize(
    ("protocol", "sent"),
    [
        (Protocol.OPENAI, {"type": "json_object"}),
        (Protocol.AZURE, {"type": "json_object"}),
        (Protocol.ANTHROPIC, None),
        (Protocol.OLLAMA, "json"),
    ],
)
def test_autogen_client_json_output_is_sent_but_by_anthropic(protocol: Protocol, sent: Any) -> None:
    async def meet(llm: FakeProvider) -> None:
        async with client(protocol, llm.address(protocol)) as asker:
            await asker.create(QUESTION, json_output=True)

    with FakeProvider() as llm:
        asyncio.run(meet(llm))
        assert schema_sent(llm.requests[0].body) == sent


SCHEMA = {
    "type": "object",
    "properties": {"action": {"type": "string"}},
    "required": ["action"],
    "additionalProperties": False,
}
STRICT = {"type": "json_schema", "json_schema": {"name": "r", "strict": True, "schema": SCHEMA}}


@WAYS
@pytest.mark.parametrize(
    ("protocol", "extra"),
    [
        (Protocol.OPENAI, {"response_format": STRICT}),
        (Protocol.AZURE, {"response_format": STRICT}),
        (Protocol.OLLAMA, {"format": SCHEMA}),
    ],
)
def test_autogen_client_schema_as_extra_argument_is_not_parsed(
    protocol: Protocol, extra: dict[str, Any], streamed: bool
) -> None:
    async def meet(llm: FakeProvider) -> CreateResult:
        async with client(protocol, llm.address(protocol)) as asker:
            return await ask(asker, QUESTION, streamed=streamed, extra_create_args=extra)

    with FakeProvider() as llm:
        assert outcome(asyncio.run(meet(llm))) == "stop: whole"
        assert schema_sent(llm.requests[0].body) == next(iter(extra.values()))


@EVERY
def test_autogen_client_event_holds_providers_response(
    protocol: Protocol, caplog: pytest.LogCaptureFixture
) -> None:
    async def meet(llm: FakeProvider) -> None:
        async with client(protocol, llm.address(protocol)) as asker:
            await asker.create(QUESTION)

    with FakeProvider() as llm, caplog.at_level(logging.INFO, "autogen_core.events"):
        llm.fail(Fault.REFUSAL)
        asyncio.run(meet(llm))
    (event,) = (r.msg for r in caplog.records if isinstance(r.msg, LLMCallEvent))
    said = event.kwargs["response"]
    match protocol:
        case Protocol.ANTHROPIC:
            assert said["stop_reason"] == "refusal"
        case Protocol.OLLAMA:
            assert said["done_reason"] == "stop"
        case _:
            assert "can't help" in said["choices"][0]["message"]["refusal"]
