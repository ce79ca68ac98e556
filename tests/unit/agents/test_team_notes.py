"""A note on a cut decision steers a replay under the same limits, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from finagent_model.agents.budget import Amount
from finagent_model.agents.completion import UNCOUNTED
from finagent_model.agents.team import (
    ReplayNote,
    limits_that_cut,
    replay_note_key,
    write_replay_note,
)
from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import DeskConfig, load_preset
from finagent_model.data.market import Market
from finagent_model.decision.signal import TradingSignal
from finagent_model.desk.desk import Desk
from finagent_model.market.bars import parse_as_of
from finagent_model.market.news import NewsItem
from finagent_model.market.view import MarketView
from finagent_model.settings import Settings
from finagent_model.testing import FakeLLM
from support.chat_model import KEY, config

NARROW, WIDE = {"max_tokens": 8000}, {"max_tokens": 40_000}
CHAT = DeskConfig.model_validate(
    {**load_preset().model_dump(), "client": "openai", "model": "stub-1"}
)
STAMP = {"generated_at"}


@pytest.fixture(scope="module")
def view() -> MarketView:
    market = Market.from_settings(Settings.load({}))
    news = (NewsItem(published_at=parse_as_of("2012-06-20"), headline="Google shows a tablet"),)
    return market.view("GOOG", parse_as_of("2012-06-29"), news=(news, 0))


def decide(chosen: DeskConfig, view: MarketView, cassette: Cassette, mode: Any) -> TradingSignal:
    desk = Desk(chosen, None, Settings.load({"OPENAI_API_KEY": KEY}), cassette, mode=mode)
    try:
        return desk.decide(view).signal
    finally:
        desk.close()


def left_out(signal: TradingSignal) -> bool:
    return "left out for want of budget: news" in signal.warnings


def test_replay_note_of_narrow_limits_does_not_steer_a_wide_replay(view: MarketView) -> None:
    cassette = Cassette()
    with FakeLLM() as llm:
        narrow, wide = config(llm, limits=NARROW), config(llm, limits=WIDE)
        assert left_out(decide(narrow, view, cassette, "cached"))
        whole = decide(wide, view, cassette, "cached")
    assert not left_out(whole)
    replayed = decide(wide, view, cassette, "replay")
    assert replayed.model_dump(exclude=STAMP) == whole.model_dump(exclude=STAMP)
    assert left_out(decide(narrow, view, cassette, "replay"))


def test_replay_note_is_taken_back_by_a_whole_decision(view: MarketView) -> None:
    cassette = Cassette()
    with FakeLLM() as llm:
        chosen = config(llm, spending={"run_tokens": 9500})
        desk = Desk(chosen, None, Settings.load({"OPENAI_API_KEY": KEY}), cassette, mode="live")
        desk._run_budget.reserve(Amount(1000, None))  # an earlier decision's, not yet settled
        cut = desk.decide(view).signal
        desk._run_budget.settle(Amount(1000 + cut.tokens, None), Amount(0, None))
        whole = desk.decide(view).signal
        desk.close()
    assert (left_out(cut), left_out(whole)) == (True, False)
    assert not left_out(decide(chosen, view, cassette, "replay"))


def test_replay_note_key_differs_by_limits_of_a_cut() -> None:
    desk = load_preset()
    keys = {
        replay_note_key("roster", "question", limits_that_cut(desk.model_copy(update=changes)))
        for changes in (
            {},
            {"limits": desk.limits.model_copy(update={"max_tokens": 1})},
            {"limits": desk.limits.model_copy(update={"wall_clock_s": 1.0})},
            {"spending": desk.spending.model_copy(update={"run_usd": 1.0})},
        )
    }
    assert len(keys) == 4


def test_replay_note_from_before_limits_counted_is_read(view: MarketView) -> None:
    cassette = Cassette()
    with FakeLLM() as llm:
        chosen = config(llm)
        desk = Desk(chosen, None, Settings.load({"OPENAI_API_KEY": KEY}), cassette)
        decision = desk.decide(view)
        desk.close()
    question = next(e.body["text"] for e in decision.events if e.kind == "question")
    digest = desk._chat_service.pool.roster_digest
    write_replay_note(cassette, replay_note_key(digest, question, None), ReplayNote(("news",)))
    assert left_out(decide(chosen, view, cassette, "replay"))


def test_replay_note_of_an_abort_repeats_its_warning(view: MarketView) -> None:
    cassette = Cassette()
    desk = Desk(CHAT, None, Settings.load({}), cassette, mode="replay")
    question = next(e.body["text"] for e in desk.decide(view).events if e.kind == "question")
    digest = desk._chat_service.pool.roster_digest
    note = ReplayNote((), "no decision within 1 s", 10, None, uncounted=True)
    key = replay_note_key(digest, question, limits_that_cut(CHAT))
    write_replay_note(cassette, key, note)
    signal = desk.decide(view).signal
    assert "no decision within 1 s" in signal.reasoning
    assert UNCOUNTED in signal.warnings
