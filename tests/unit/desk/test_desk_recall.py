"""Decisions on record, which wait for nothing: made on the caller's thread, without a loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finagent_model._event_loop import EVENT_LOOP, LoopThread
from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import load_preset
from finagent_model.data.market import MAX_VIEWS, Market
from finagent_model.desk.desk import Desk
from finagent_model.errors import DeadlineError, ShutdownError
from finagent_model.market.bars import parse_as_of
from finagent_model.market.view import MarketView
from finagent_model.policy.policy import Policy
from finagent_model.settings import Settings
from finagent_model.testing import FakeLLM
from support.chat_model import KEY, config
from support.packages import book, trained_state

DAYS = ("2012-06-28", "2012-06-29")


@pytest.fixture
def market() -> Market:
    return Market.from_settings(Settings.load({}))


@pytest.fixture
def views(market: Market) -> list[MarketView]:
    return [market.view("GOOG", parse_as_of(day)) for day in DAYS]


@pytest.fixture
def desk(views: list[MarketView]) -> Desk:
    desk = Desk(load_preset(), None, Settings.load({}), Cassette())
    desk.decide_all(views)
    return desk


@pytest.fixture
def no_loop(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: LoopThread, coroutine: Any, timeout_s: float | None = None) -> Any:
        coroutine.close()
        raise AssertionError("the event loop was asked")

    monkeypatch.setattr(LoopThread, "run", run)


@pytest.mark.usefixtures("no_loop")
@pytest.mark.parametrize("mode", ["cached", "replay"])
def test_desk_recalls_decision_without_event_loop(
    desk: Desk, views: list[MarketView], mode: Any
) -> None:
    signals = [decision.signal for decision in desk.with_options(mode=mode).decide_all(views)]
    assert [str(signal.as_of.date()) for signal in signals] == list(DAYS)
    assert {signal.status for signal in signals} == {"ok"}


def test_desk_recalled_decision_equals_that_of_the_team(
    desk: Desk, views: list[MarketView]
) -> None:
    recalled = desk.with_options(mode="replay").decide_all(views)
    by_team = desk.with_options(mode="replay", always_team=True).decide_all(views)
    for ours, theirs in zip(recalled, by_team, strict=True):
        generated_at = theirs.signal.generated_at
        assert ours.signal.model_copy(update={"generated_at": generated_at}) == theirs.signal
        assert [turn.message_content for turn in ours.turns] == [
            turn.message_content for turn in theirs.turns
        ]


def test_desk_decides_what_is_not_on_record_in_order(
    desk: Desk, market: Market, views: list[MarketView]
) -> None:
    new = market.view("GOOG", parse_as_of("2012-06-27"))
    decisions = desk.decide_all([views[0], new, views[1]])
    assert [decision.signal.as_of for decision in decisions] == [
        view.as_of for view in (views[0], new, views[1])
    ]
    assert [decision.turns[-1].cached for decision in decisions] == [True, False, True]


def test_desk_recall_ends_at_shutdown(desk: Desk, views: list[MarketView]) -> None:
    with pytest.raises(ShutdownError):
        desk.decide_all(views, EVENT_LOOP.stop)


def test_desk_recall_ends_at_deadline(desk: Desk, views: list[MarketView]) -> None:
    with pytest.raises(DeadlineError):
        desk.decide_all(views, timeout_s=0.0)


def test_desk_with_other_training_asks_its_own_question(views: list[MarketView]) -> None:
    desk = Desk(load_preset(), trained_state(book()), Settings.load({}), Cassette())
    before, other = desk.decide(views[1]), trained_state(book(atr=20))
    after = desk.with_options(trained_state=other).decide(views[1])
    policies = [decision.events[0].body["text"] for decision in (before, after)]
    assert policies[0] != policies[1]
    assert f'"atr": {Policy().atr}' in policies[0]
    assert '"atr": 20' in policies[1]


def test_market_gives_one_view_of_a_moment(market: Market) -> None:
    moment = parse_as_of(DAYS[0])
    view = market.view("GOOG", moment)
    assert market.view("GOOG", moment) is view
    market._bars["GOOG"] = replace(market._bars["GOOG"])  # as a vendor's that were read anew
    assert market.view("GOOG", moment) is not view


def test_market_keeps_a_bounded_number_of_views(market: Market) -> None:
    bars = market.bars("GOOG")
    for i in range(300, 302 + MAX_VIEWS):
        market.view("GOOG", bars.decision_time(i))
    assert len(market._views) == MAX_VIEWS


def test_view_copy_has_no_memo(views: list[MarketView]) -> None:
    assert views[0].memo is not None
    assert replace(views[0], news=()).memo is None


def test_market_keeps_nothing_of_bars_that_a_question_brings(market: Market) -> None:
    bars = market.bars("GOOG")
    assert market.view("GOOG", parse_as_of(DAYS[0]), bars).memo is None


def test_desk_finds_reply_of_equal_question_of_the_batch(
    views: list[MarketView], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finagent_model.desk.desk.MAX_CONCURRENCY", 1)
    with FakeLLM() as llm:
        desk = Desk(config(llm), None, Settings.load({"OPENAI_API_KEY": KEY}), Cassette())
        first, second = desk.decide_all([views[0]] * 2)
        desk.close()
        assert len(llm.requests) == first.calls
    assert (first.calls > 0, second.calls) == (True, 0)
    generated_at = first.signal.generated_at
    assert second.signal.model_copy(update={"generated_at": generated_at}) == first.signal
