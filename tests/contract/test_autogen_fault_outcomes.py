"""What AutoGen's clients make of each fault: the ground that a desk stands on.

This is what they do, not what they should: a page of HTML is an AttributeError or an empty answer,
a refusal may be `stop` without text, and half a stream that ends in good order is no error at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import warnings
from collections.abc import Iterator

import pytest
from autogen_core.models import ChatCompletionClient

from support.fake_llm import FakeProvider, Fault, Protocol
from support.fake_llm.autogen_clients import QUESTION, ask, client, outcome
from support.loop_clock import moved

# Of each: OpenAI and Azure whole, streamed; Anthropic whole, streamed; Ollama whole, streamed.
pytestmark = [
    pytest.mark.slow,
    # OpenAI's client leaves an answer that breaks off to the collector, which may find it at work.
    pytest.mark.filterwarnings(
        "ignore:.*Response.aiter_raw:pytest.PytestUnraisableExceptionWarning"
    ),
]
OUTCOMES: dict[Fault, tuple[str, ...]] = {
    Fault.BAD_REQUEST: (*["BadRequestError 400"] * 4, *["ResponseError 400"] * 2),
    Fault.BAD_KEY: (*["AuthenticationError 401"] * 4, *["ResponseError 401"] * 2),
    Fault.MODEL_NOT_FOUND: (*["NotFoundError 404"] * 4, *["ResponseError 404"] * 2),
    Fault.CONTEXT_TOO_LONG: (*["BadRequestError 400"] * 4, *["ResponseError 400"] * 2),
    Fault.CONTENT_FILTER: (*["BadRequestError 400"] * 4, *["ResponseError 400"] * 2),
    Fault.RATE_LIMITED: (*["RateLimitError 429"] * 4, *["ResponseError 429"] * 2),
    Fault.RATE_LIMITED_SECONDS: (*["RateLimitError 429"] * 4, *["ResponseError 429"] * 2),
    Fault.RATE_LIMITED_MS: (*["RateLimitError 429"] * 4, *["ResponseError 429"] * 2),
    Fault.NO_CREDIT: (
        *["RateLimitError 429"] * 2,
        *["BadRequestError 400"] * 2,
        *["ResponseError 402"] * 2,
    ),
    Fault.SERVER_ERROR: (*["InternalServerError 500"] * 4, *["ResponseError 500"] * 2),
    Fault.OVERLOADED: (
        *["InternalServerError 503"] * 2,
        *["OverloadedError 529"] * 2,
        *["ResponseError 503"] * 2,
    ),
    Fault.HANG: (*["APITimeoutError"] * 4, *["TimeoutError"] * 2),
    Fault.DRIP: ("TimeoutError",) * 6,
    Fault.CUT: (
        *["APIConnectionError"] * 3,
        "RemoteProtocolError",
        *["RemoteProtocolError"] * 2,
    ),
    Fault.ENDED_EARLY: ("JSONDecodeError", "unknown: half") * 3,
    Fault.BROKEN_STREAM: (
        *("InternalServerError 500", "APIError"),
        *("InternalServerError 500", "APIStatusError 200"),
        *("ResponseError 500", "ResponseError -1"),
    ),
    Fault.GARBAGE: (
        *("AttributeError", "unknown: nothing"),
        *("AttributeError", "unknown: nothing"),
        *["JSONDecodeError"] * 2,
    ),
    # They follow it: a desk's wire does not let them.
    Fault.REDIRECT: (*["NotFoundError 404"] * 4, *["ResponseError 404"] * 2),
    Fault.EMPTY: (*["stop: nothing"] * 5, "stop: []"),
    Fault.WRONG_SCHEMA: ("stop: other",) * 6,
    Fault.TRUNCATED: (*["length: half"] * 4, *["unknown: half"] * 2),
    Fault.REFUSAL: (*["stop: nothing"] * 2, *["unknown: other"] * 2, *["stop: other"] * 2),
    Fault.FILTERED: (
        *["content_filter: half"] * 2,
        *["unknown: half"] * 2,
        *["stop: half"] * 2,
    ),
    Fault.NOBODY_LISTENS: (*["APIConnectionError"] * 4, "ConnectionError", "ConnectError"),
    Fault.UNTRUSTED: (*["APIConnectionError"] * 4, "ConnectionError", "ConnectError"),
}
COLUMN = {Protocol.OPENAI: 0, Protocol.AZURE: 0, Protocol.ANTHROPIC: 2, Protocol.OLLAMA: 4}


CONNECTION = [Fault.HANG, Fault.NOBODY_LISTENS, Fault.UNTRUSTED]
EVERY = pytest.mark.parametrize("protocol", Protocol)
WAYS = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


@contextlib.contextmanager
def empty_stream_is_no_warning() -> Iterator[None]:
    """OpenAI's client warns of a stream without text, besides answering."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No text content or tool calls")
        yield


async def met(asker: ChatCompletionClient, streamed: bool, limit: float = 60.0) -> str:
    """How a call ends."""
    try:
        call = ask(asker, QUESTION, streamed=streamed)
        return outcome(await asyncio.wait_for(call, limit))
    except Exception as error:
        return outcome(error)


@EVERY
@WAYS
def test_autogen_client_outcome_of_bad_answer(protocol: Protocol, streamed: bool) -> None:
    faults = [fault for fault in Fault if fault not in CONNECTION]

    async def meet(llm: FakeProvider) -> dict[Fault, str]:
        found = {}
        with moved(asyncio.get_running_loop()) as clock:
            async with client(protocol, llm.address(protocol)) as asker:
                for number, fault in enumerate(faults, start=1):
                    llm.recover()
                    llm.fail(fault)
                    # Nobody waits for drips: the clock moves on once the request has arrived.
                    drips = fault is Fault.DRIP
                    arrivals = [functools.partial(llm.wait_for_requests, number)] * drips
                    with clock.advanced_after(*arrivals, seconds=5.0):
                        found[fault] = await met(asker, streamed, 5.0 if drips else 60.0)
        return found

    with FakeProvider() as llm, empty_stream_is_no_warning():
        llm.byte_pause_s = 0.1
        known = {fault: OUTCOMES[fault][COLUMN[protocol] + streamed] for fault in faults}
        assert asyncio.run(meet(llm)) == known
        assert len(llm.requests) == len(faults)


@EVERY
@WAYS
@pytest.mark.parametrize("fault", CONNECTION)
def test_autogen_client_outcome_of_bad_connection(
    protocol: Protocol, streamed: bool, fault: Fault
) -> None:
    """Ollama's client has no time limit of its own, so ours must come first."""
    patience = 0.3 if fault is Fault.HANG and protocol is Protocol.OLLAMA else 10.0

    async def meet(llm: FakeProvider) -> str:
        limit = 0.3 if fault is Fault.HANG else 10.0
        async with client(protocol, llm.address(protocol), timeout=limit) as asker:
            return await met(asker, streamed, patience)

    with FakeProvider() as llm:
        llm.fail(fault)
        assert asyncio.run(meet(llm)) == OUTCOMES[fault][COLUMN[protocol] + streamed]
