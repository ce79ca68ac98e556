"""What is recorded of a reply: its tokens, its tool calls, and what may be sent back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from autogen_core import FunctionCall
from autogen_core.models import AssistantMessage, CreateResult, RequestUsage, UserMessage

from finagent_model.agents import _retry
from finagent_model.agents.completion import UNCOUNTED, read_facts, sendable, usable_calls
from finagent_model.cassette.cassette import Cassette
from finagent_model.cassette.records import RecordedReply
from finagent_model.data.market import Market
from finagent_model.decision.decision import Decision
from finagent_model.desk.desk import Desk
from finagent_model.market.bars import parse_as_of
from finagent_model.market.view import MarketView
from finagent_model.settings import Settings
from finagent_model.testing import DECISION, FakeLLM, ScriptedReply
from support.chat_model import KEY, config
from support.fake_llm import FakeProvider, Fault, Protocol
from support.raw_replies import BODIES, STREAMS, RawProvider, as_stream, on_provider

PRICES = {"stub-1": {"prompt": 1.0, "completion": 10.0, "as_of": "2026-01-01"}}
SENT_BACK = [UserMessage(content="?", source="desk")]


@pytest.fixture(scope="module")
def view() -> MarketView:
    return Market.from_settings(Settings.load({})).view("GOOG", parse_as_of("2012-06-29"))


def call(**changes: Any) -> FunctionCall:
    given: Any = {"id": "a", "name": "bars", "arguments": '{"last": 2}', **changes}
    return FunctionCall(**given)


@pytest.mark.parametrize("identity", [None, "", 7, "\ud800", "x" * 500])
def test_usable_calls_makes_up_an_unusable_id(identity: Any) -> None:
    assert [c.id for c in usable_calls([call(id=identity)], SENT_BACK)] == ["call00000"]


def test_usable_calls_ids_differ_from_earlier_ones() -> None:
    earlier = AssistantMessage(content=[call(id="call00000")], source="A")
    ids = [c.id for c in usable_calls([call(id=None), call(id=None)], [earlier])]
    assert ids == ["call00001", "call00002"]


def test_usable_calls_keeps_one_of_two_equal_ids() -> None:
    assert [c.id for c in usable_calls([call(), call()], SENT_BACK)] == ["a", "call00001"]


@pytest.mark.parametrize(
    ("arguments", "usable"),
    [(None, "{}"), ("", "{}"), ({"last": 2}, '{"last": 2}'), (3, "{}"), ("not JSON", "not JSON")],
)
def test_usable_calls_arguments_are_text(arguments: Any, usable: str) -> None:
    assert usable_calls([call(arguments=arguments)], SENT_BACK)[0].arguments == usable


@pytest.mark.parametrize(("name", "usable"), [(None, "unnamed"), ("", "unnamed"), ("a b", "a_b")])
def test_usable_calls_name_can_be_sent_back(name: Any, usable: str) -> None:
    assert usable_calls([call(name=name)], SENT_BACK)[0].name == usable


@pytest.mark.parametrize("arguments", ["not JSON", "[1]", "null", '{"a": 1}'])
def test_sendable_arguments_are_an_object(arguments: str) -> None:
    message = sendable([AssistantMessage(content=[call(arguments=arguments)], source="A")])[0]
    assert isinstance(message.content, list) and isinstance(message.content[0], FunctionCall)
    assert isinstance(json.loads(message.content[0].arguments), dict)


@pytest.mark.parametrize("usage", [(0, 0), (0, 5), (None, None), (-1, 1), ("7", 1), (10**30, 1)])
def test_usage_that_counts_nothing_is_unknown(usage: tuple[Any, Any]) -> None:
    result = CreateResult.model_construct(
        content="{}", finish_reason="stop", usage=RequestUsage(*usage), cached=False
    )
    assert read_facts(result).usage is None


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": None}])
def test_uncounted_reply_settles_at_its_reservation(usage: Any) -> None:
    body = {**BODIES["openai text"], "usage": usage}

    async def story(provider: RawProvider) -> tuple[Any, Any]:
        provider.answer(json.dumps(body).encode())
        session = provider.new_session()
        return await provider.ask(session=session), session

    reply, session = on_provider("openai", story)
    reserved, settled = (e.body for e in session.events if e.kind == "budget")
    assert reserved["reserved"] == settled["settled"]
    assert not reply.usage_known
    assert reply.prompt_tokens + reply.completion_tokens == reserved["reserved"]["tokens"]
    assert (session.cost_usd, session.warnings) == (None, [UNCOUNTED])


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 2041}, (32, 2009)),
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 41}, (32, 9)),
        # A total that is too small, or no number that a reply can have, says nothing.
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 7}, (32, 9)),
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 10**12}, (32, 9)),
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": None}, (32, 9)),
        ({"prompt_tokens": 32, "total_tokens": 41}, (32, 9)),
        (
            {
                "prompt_tokens": 32,
                "completion_tokens": 9,
                "completion_tokens_details": {"reasoning_tokens": 2000},
            },
            (32, 2009),
        ),
        (
            {
                "prompt_tokens": 32,
                "completion_tokens": 2009,
                "total_tokens": 2041,
                "completion_tokens_details": {"reasoning_tokens": 2000},
            },
            (32, 2009),
        ),
    ],
)
def test_usage_counts_thoughts_beside_the_completion(
    usage: dict[str, Any], counted: tuple[int, int], streamed: bool
) -> None:
    reply, settled = settled_by(usage, streamed)
    assert (reply.prompt_tokens, reply.completion_tokens) == counted
    assert reply.usage_known and settled["tokens"] == sum(counted)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_usage_of_a_total_alone_counts_at_least_that(streamed: bool) -> None:
    reply, settled = settled_by({"total_tokens": 50_000}, streamed)
    assert reply.prompt_tokens + reply.completion_tokens == settled["tokens"] == 50_000
    assert not reply.usage_known  # how it divides, and so its price, is not said


def settled_by(usage: dict[str, Any], streamed: bool) -> tuple[RecordedReply, dict[str, Any]]:
    """Return the reply to a request whose answer has this usage, and what it was settled at."""
    frames = [*STREAMS["openai text"][:-1], {**STREAMS["openai text"][-1], "usage": usage}]
    body = json.dumps({**BODIES["openai text"], "usage": usage}).encode()

    async def story(provider: RawProvider) -> tuple[RecordedReply, dict[str, Any]]:
        kind = "text/event-stream" if streamed else "application/json"
        provider.answer(as_stream("openai", frames) if streamed else body, kind=kind)
        session = provider.new_session()
        reply = await provider.ask(session=session)
        return reply, next(e.body["settled"] for e in session.events if "settled" in e.body)

    answered: tuple[RecordedReply, dict[str, Any]] = on_provider("openai", story, stream=streamed)
    return answered


def test_uncounted_replies_use_up_a_budget_in_money(view: MarketView) -> None:
    with FakeLLM() as llm:
        uncounted = ScriptedReply("no", prompt_tokens=0, completion_tokens=0)
        llm.replies["TechnicalAnalyst"] = uncounted
        # One call is reserved at 8 tenths of a cent and some, so five of them fit.
        chosen = config(llm, prices=PRICES, spending={"run_usd": 0.05}, limits={"repairs": 2})
        desk = Desk(chosen, None, Settings.load({"OPENAI_API_KEY": KEY}), Cassette(), mode="live")
        statuses = [desk.decide(view).signal.status for _ in range(8)]
        desk.close()
    assert len(llm.requests) == 5
    assert statuses[-1] == "budget_exceeded"


def test_uncounted_reply_replays_to_an_equal_signal(view: MarketView) -> None:
    with FakeLLM() as llm:
        llm.replies["Executor"] = ScriptedReply(
            json.dumps(DECISION), prompt_tokens=0, completion_tokens=0
        )
        chosen, cassette = config(llm, prices=PRICES), Cassette()
        desk = Desk(chosen, None, Settings.load({"OPENAI_API_KEY": KEY}), cassette)
        first = desk.decide(view).signal
        desk.close()
    again = Desk(chosen, None, Settings.load({}), cassette, mode="replay").decide(view).signal
    assert first.status == "ok" and first.cost_usd is None and UNCOUNTED in first.warnings
    assert again == first.model_copy(update={"generated_at": again.generated_at})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between retries are short."""
    monkeypatch.setattr(_retry, "_backoff", lambda state: 0.001)


def broken_twice(
    llm: FakeProvider, view: MarketView, then: Fault | None = None, **changes: Any
) -> tuple[Decision, Decision, list[dict[str, Any]]]:
    """Return a decision whose first agent gets two broken streams, its replay, and its budgets."""
    llm.fail(Fault.BROKEN_STREAM, agent="TechnicalAnalyst", first=2)
    if then:
        llm.fail(then, agent="TechnicalAnalyst")
    keys = {"prices": PRICES, "stream": True, "limits": {"retries": 2}, **changes}
    cassette = Cassette()
    desk = Desk(config(llm, **keys), None, Settings.load({"OPENAI_API_KEY": KEY}), cassette)
    first = desk.decide(view)
    replayed = desk.with_options(mode="replay").decide(view)
    desk.close()
    events = [e for e in first.events if e.kind == "budget" and e.agent == "TechnicalAnalyst"]
    return first, replayed, [event.body for event in events]


@pytest.mark.parametrize("transport", ["autogen", "http"])
@pytest.mark.parametrize("then", [None, Fault.BAD_REQUEST])
@pytest.mark.usefixtures("quick")
def test_failed_attempts_count_at_their_reservations(
    then: Fault | None, transport: str, view: MarketView
) -> None:
    with FakeProvider() as llm:
        first, replayed, budget = broken_twice(llm, view, then, transport=transport)
    reserved = [body["reserved"] for body in budget if "reserved" in body]
    settled = [body["settled"] for body in budget if "settled" in body]
    assert len(reserved) == len(settled) == 3
    assert settled[:2] == reserved[:2] == [reserved[2]] * 2
    assert settled[2]["tokens"] == (0 if then else 1100)
    counted = sum(turn.prompt_tokens + turn.completion_tokens for turn in first.turns)
    failed = 2 * reserved[0]["tokens"]
    assert first.signal.tokens == counted + (failed if then else 0) >= failed
    assert first.signal.cost_usd is None and UNCOUNTED in first.signal.warnings
    stamp = {"generated_at"}
    assert replayed.signal.model_dump(exclude=stamp) == first.signal.model_dump(exclude=stamp)


@pytest.mark.usefixtures("quick")
def test_failed_attempts_leave_no_budget_for_another(view: MarketView) -> None:
    # One call is reserved at 8 tenths of a cent and some: the second attempt would be too much.
    with FakeProvider() as llm:
        first, replayed, budget = broken_twice(llm, view, spending={"run_usd": 0.015})
        asked = [request.agent for request in llm.requests]
    assert asked.count("TechnicalAnalyst") == 1
    assert [*map(list, budget)] == [["reserved"], ["settled"]]
    assert budget[0]["reserved"] == budget[1]["settled"]
    assert first.signal.status == replayed.signal.status == "budget_exceeded"
    assert first.signal.tokens == replayed.signal.tokens >= budget[0]["reserved"]["tokens"]


@pytest.mark.parametrize("transport", ["autogen", "http"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("fault", [Fault.CUT, Fault.NOBODY_LISTENS])
def test_broken_connection_counts_once_it_stood(
    fault: Fault, stream: bool, transport: str, view: MarketView
) -> None:
    llm = FakeProvider()
    llm.fail(fault)
    keys: dict[str, Any] = {"prices": PRICES, "stream": stream, "transport": transport}
    keys["base_url"] = llm.address(Protocol.OPENAI)
    desk = Desk(config(llm, **keys), None, Settings.load({"OPENAI_API_KEY": KEY}), Cassette())
    with llm:
        decision = desk.decide(view)
    desk.close()
    budget = [event.body for event in decision.events if event.kind == "budget"]
    if fault is Fault.CUT:
        assert budget[0]["reserved"] == budget[1]["settled"]
        assert decision.signal.tokens and decision.signal.cost_usd is None
        assert "the connection broke" in decision.signal.reasoning
    else:
        assert budget[1]["settled"] == {"tokens": 0, "usd": 0.0}
        assert (decision.signal.tokens, decision.signal.cost_usd) == (0, 0.0)
        assert "can't be reached" in decision.signal.reasoning
