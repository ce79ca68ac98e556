"""What a desk makes of every way in which a provider can fail, by each provider's real client.

The table of it is docs/faults.md, written from what happened here: `FINAGENT_WRITE_FAULTS=1 pytest
tests/contract/test_provider_faults.py -m slow`.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml

from finagent_model._event_loop import EVENT_LOOP
from finagent_model.agents import _retry
from finagent_model.audit.chain import dump_turns
from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import DeskConfig, preset_text, read_desk_config
from finagent_model.data.market import Market
from finagent_model.decision.decision import Decision
from finagent_model.desk.desk import Desk
from finagent_model.market.bars import parse_as_of
from finagent_model.market.view import MarketView
from finagent_model.settings import Settings
from finagent_model.testing import ANALYSIS, ScriptedReply, ScriptedToolCall
from support.fake_llm import FakeProvider, Fault, Protocol
from support.faults_page import local_part, provider_part, write_page
from support.loop_clock import desk_clock

pytestmark = [
    # OpenAI's client warns of a stream without text, besides answering.
    pytest.mark.filterwarnings("ignore:.*[Ss]tream.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*empty.*:UserWarning"),
]
KEY = "sk-test-very-secret-0123456789"
KEYS = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "ANTHROPIC_API_KEY")
RETRIED = {
    Fault.RATE_LIMITED,
    Fault.RATE_LIMITED_SECONDS,
    Fault.RATE_LIMITED_MS,
    Fault.SERVER_ERROR,
    Fault.OVERLOADED,
    Fault.CUT,
    Fault.HANG,
    Fault.DRIP,
    Fault.NOBODY_LISTENS,
    Fault.BROKEN_STREAM,
}
"""Those that may pass."""
FINAL = {
    Fault.BAD_REQUEST,
    Fault.BAD_KEY,
    Fault.MODEL_NOT_FOUND,
    Fault.CONTEXT_TOO_LONG,
    Fault.CONTENT_FILTER,
    Fault.NO_CREDIT,
    Fault.REDIRECT,
}
"""Those that would be refused again."""
CALL_S = 30.0
WIRES = [
    *(pytest.param(protocol, "autogen", id=protocol.value) for protocol in Protocol),
    *(pytest.param(protocol, "http", id=f"{protocol.value} over http") for protocol in Protocol),
]
"""AutoGen's client of each provider, and ours: `transport` of a model's row."""
MENDED = {Fault.EMPTY, Fault.WRONG_SCHEMA, Fault.TRUNCATED}
"""Those that the agent is told of, so that it may answer better."""


@pytest.fixture(scope="module")
def view() -> MarketView:
    return Market.from_settings(Settings.load({})).view("GOOG", parse_as_of("2012-06-29"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between retries are short."""
    monkeypatch.setattr(_retry, "_backoff", lambda state: 0.001)


def config(
    llm: FakeProvider, protocol: Protocol, transport: str = "autogen", **changes: Any
) -> DeskConfig:
    given = {
        "transport": transport,
        "client": protocol.value,
        "model": "stub-1",
        "base_url": llm.address(protocol),
        "traffic": {"break_after": 0},
        **changes,
    }
    given["limits"] = {"retries": 1, "call_timeout_s": CALL_S, **changes.get("limits", {})}
    return read_desk_config(yaml.safe_dump(given), yaml.safe_load(preset_text("lean")), "test")


@contextmanager
def desk(
    llm: FakeProvider, protocol: Protocol, cassette: Cassette | None = None, **changes: Any
) -> Iterator[Desk]:
    settings = Settings.load(dict.fromkeys(KEYS, KEY))
    held = Desk(config(llm, protocol, **changes), None, settings, cassette or Cassette())
    try:
        yield held
    finally:
        held.close()


async def tasks_beside_this() -> int:
    return len(asyncio.all_tasks()) - 1


def said(decision: Decision) -> str:
    return decision.signal.model_dump_json() + dump_turns([decision])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("protocol", "transport"), WIRES)
def test_provider_client_decides(
    protocol: Protocol, transport: str, stream: bool, view: MarketView
) -> None:
    with FakeProvider() as llm, desk(llm, protocol, transport=transport, stream=stream) as held:
        decision = held.decide(view)
        signal = decision.signal
        assert (signal.status, signal.action) == ("ok", "BUY"), signal.reasoning
        assert (signal.model_used, decision.calls) == ("stub-1", 3)
        assert signal.tokens == 3300
        assert [asked.protocol for asked in llm.requests] == [protocol] * 3
        assert KEY not in said(decision)


@pytest.mark.parametrize(("protocol", "transport"), WIRES)
def test_provider_tool_call_is_resolved(
    protocol: Protocol, transport: str, view: MarketView
) -> None:
    with FakeProvider() as llm:
        agents = yaml.safe_load(preset_text("lean"))["agents"]
        agents[0]["tools"] = ["bars", "levels"]
        call = ScriptedReply(tool_calls=(ScriptedToolCall("bars", {"last": 2}),))
        llm.replies["TechnicalAnalyst"] = [call, ANALYSIS]  # type: ignore[list-item]
        with desk(llm, protocol, transport=transport, agents=agents) as held:
            decision = held.decide(view)
        assert decision.signal.status == "ok", decision.signal.reasoning
        kinds = [event.kind for event in decision.events]
        assert kinds.count("tool_call") == kinds.count("tool_result") == 1
        assert [asked.agent for asked in llm.requests].count("TechnicalAnalyst") == 2


def outcome(
    fault: Fault, protocol: Protocol, transport: str, stream: bool, view: MarketView
) -> dict[str, Any]:
    """How a decision ends where every call fails so."""
    cassette, llm = Cassette(), FakeProvider()
    llm.retry_after = 0  # tests/unit/agents/test_retry.py holds that a pause is kept
    llm.fail(fault)
    # Who is kept waiting gives up at once: the clock moves on as soon as a request has arrived.
    calls = (1, 2) if fault in (Fault.HANG, Fault.DRIP) else ()
    arrivals = [functools.partial(llm.wait_for_requests, count) for count in calls]
    with desk(llm, protocol, cassette, transport=transport, stream=stream) as held:
        with llm, desk_clock() as clock, clock.advanced_after(*arrivals, seconds=CALL_S):
            first = held.decide(view)
        asked = len(llm.requests)
        # What never arrives was sent, too: to an address where nobody can be reached.
        assert first.calls == (2 if fault is Fault.NOBODY_LISTENS else asked or 1)
        again = held.with_options(mode="replay").decide(view)  # with the server gone
    stamp = {"generated_at"}
    assert again.signal.model_dump(exclude=stamp) == first.signal.model_dump(exclude=stamp)
    assert (first.signal.action, first.signal.confidence_score) == ("HOLD", 0)
    assert KEY not in said(first) + repr(cassette.used_replies)
    reason = re.sub(r"127\.0\.0\.1:\d+", "SERVER", first.signal.reasoning)
    return {"status": first.signal.status.value, "calls": asked, "reason": reason}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("protocol", "transport"), WIRES)
@pytest.mark.parametrize("fault", Fault)
@pytest.mark.slow
def test_provider_fault_has_its_status(
    fault: Fault,
    protocol: Protocol,
    transport: str,
    stream: bool,
    view: MarketView,
    rows: dict[Any, Any],
) -> None:
    found = outcome(fault, protocol, transport, stream, view)
    if transport == "autogen":  # the page has a column for each provider's own client
        rows[fault, protocol, stream] = found
    elif (fault, protocol, stream) in rows:  # it was run before, as in a whole run
        kept = ("status", "calls")
        theirs = rows[fault, protocol, stream]
        assert [found[name] for name in kept] == [theirs[name] for name in kept]
    assert found["status"] in ("model_error", "parse_failed")
    if fault in FINAL:
        assert (found["status"], found["calls"]) == ("model_error", 1)
    if fault in RETRIED:
        assert found["status"] == "model_error"
        assert found["calls"] == (0 if fault.changes_address else 2)
    if fault in MENDED:
        assert found["calls"] >= 2
    if fault is Fault.REDIRECT:
        assert "it redirects to" in found["reason"]
    if fault is Fault.REFUSAL and protocol is Protocol.OPENAI and not stream:
        assert found["status"] == "model_error" and "refused" in found["reason"]


@pytest.fixture(scope="module")
def rows() -> Iterator[dict[Any, Any]]:
    found: dict[Any, Any] = {}
    yield found
    if len(found) != len(Fault) * len(Protocol) * 2:
        return  # only some were run
    written = table(found)
    if os.environ.get("FINAGENT_WRITE_FAULTS"):
        write_page(written, local_part())
    assert provider_part() == written, "docs/faults.md is not what happens; write it anew"


HEAD = """\
# Faults and their results

## Provider failures and the status each one produces

This table is written by `tests/contract/test_provider_faults.py`. It runs each provider's real
client against a server that fails on every call in one way, with one retry and a time-out of 30
s. `model_error` and `parse_failed` are HOLD with confidence 0, and a replay gives the same
signal. The number counts calls. Two numbers: without and with streaming. If an answer can't be
used, the agent is told what was wrong and asked again, at most twice. With `transport: http` every
cell is the same.

"""


def table(found: dict[Any, Any]) -> str:
    """One row a fault, one column a provider."""
    lines = [f"| fault | {' | '.join(Protocol)} |", "|---" * (len(Protocol) + 1) + "|"]
    for fault in Fault:
        cells = []
        for protocol in Protocol:
            ways = [found[fault, protocol, stream] for stream in (False, True)]
            told = [f"{way['status']} {way['calls']}" for way in ways]
            cells.append(told[0] if told[0] == told[1] else ", ".join(told))
        lines.append(f"| {fault} | {' | '.join(cells)} |")
    return HEAD + "\n".join(lines) + "\n"


@pytest.mark.parametrize(("protocol", "transport"), WIRES)
def test_provider_that_recovers_is_retried(
    protocol: Protocol, transport: str, view: MarketView
) -> None:
    with FakeProvider() as llm:
        llm.fail(Fault.OVERLOADED, agent="RiskManager", first=1)
        llm.retry_after = 0
        with desk(llm, protocol, transport=transport) as held:
            decision = held.decide(view)
    assert decision.signal.status == "ok", decision.signal.reasoning
    assert [event.agent for event in decision.events if event.kind == "retry"] == ["RiskManager"]
    assert decision.calls == len(llm.requests) == 4


@pytest.mark.parametrize(("protocol", "transport"), WIRES)
def test_provider_that_hangs_is_aborted_in_time(
    protocol: Protocol, transport: str, view: MarketView
) -> None:
    limits = {"wall_clock_s": CALL_S / 2, "call_timeout_s": CALL_S, "retries": 0}
    cassette = Cassette()
    with FakeProvider() as llm:
        llm.fail(Fault.HANG)
        arrival = functools.partial(llm.wait_for_requests, 1)
        with desk(llm, protocol, cassette, transport=transport, limits=limits) as held:
            with desk_clock() as clock, clock.advanced_after(arrival, seconds=CALL_S / 2):
                first = held.decide(view)
            assert EVENT_LOOP.run(tasks_beside_this()) == 0
            again = held.with_options(mode="replay").decide(view)
        llm.wait_until_disconnected()
    assert first.signal.status == "model_error"
    assert "no decision within 15 s" in first.signal.reasoning
    # The request was sent: what was reserved for it counts.
    [settled] = (e.body["settled"] for e in first.events if "settled" in e.body)
    assert first.signal.tokens == settled["tokens"] > 0 and first.signal.cost_usd is None
    stamp = {"generated_at"}
    assert again.signal.model_dump(exclude=stamp) == first.signal.model_dump(exclude=stamp)
