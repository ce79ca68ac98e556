"""Who stops waiting stops the work: deadlines, and what is left running after them."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from finagent_model._event_loop import EVENT_LOOP, LoopThread, run_without_waiting
from finagent_model.cassette.cassette import Cassette
from finagent_model.cassette.records import RecordedReply
from finagent_model.config.desk_config import load_preset
from finagent_model.data.market import Market
from finagent_model.desk.desk import Desk
from finagent_model.errors import DeadlineError, LocalStateError, ShutdownError
from finagent_model.market.bars import parse_as_of
from finagent_model.market.view import MarketView
from finagent_model.settings import Settings
from finagent_model.testing import FakeLLM
from support.chat_model import config
from support.loop_clock import desk_clock

SAFETY_S = 60.0
"""Only a test that fails waits so long."""


@pytest.fixture
def slow() -> Iterator[FakeLLM]:
    """A chat model that answers after everybody has gone."""
    with FakeLLM(delay_s=600.0) as llm:
        yield llm


@pytest.fixture(scope="module")
def view() -> MarketView:
    return Market.from_settings(Settings.load({})).view("GOOG", parse_as_of("2012-06-29"))


def open_tasks() -> int:
    """Tasks on the desk's loop beside the one that counts, once they have had time to unwind."""

    async def count() -> int:
        return len(asyncio.all_tasks()) - 1

    until = time.monotonic() + SAFETY_S
    while (found := EVENT_LOOP.run(count())) and time.monotonic() < until:
        time.sleep(0.01)
    return found


def chat_desk(
    model: FakeLLM, cassette: Cassette | None = None, home: Path | None = None, **changes: object
) -> Desk:
    environ = {"OPENAI_API_KEY": "sk-any"} | ({"FINAGENT_HOME": str(home)} if home else {})
    chosen = config(model, **changes)
    return Desk(chosen, None, Settings.load(environ), cassette or Cassette(), mode="live")


def test_deadline_cancels_decisions_waiting_on_model(slow: FakeLLM, view: MarketView) -> None:
    slow.delay_s = 0.0
    cassette = Cassette()
    desk = chat_desk(slow, cassette)
    desk.decide(view)  # the first call of a process imports its client for a while
    slow.requests.clear()
    cassette.used_replies.clear()
    slow.delay_s = 600.0
    with (
        desk_clock() as clock,
        clock.advanced_after(lambda: slow.wait_for_requests(1), seconds=30),
        pytest.raises(DeadlineError, match="not done within 30 s"),
    ):
        desk.decide_all([view] * 3, timeout_s=30)
    assert open_tasks() == 0
    assert cassette.used_replies == {}, "a call that was given up is no reply"


def test_deadline_cancels_decisions_of_rules_between_rows(view: MarketView) -> None:
    desk = Desk(load_preset(), None, Settings.load({}), Cassette(), mode="live")
    decided: list[None] = []

    with desk_clock() as clock:

        def count() -> None:
            decided.append(None)
            if len(decided) == 3:
                clock.advance(600)

        with pytest.raises(DeadlineError):
            desk.decide_all([view] * 100, count, timeout_s=600)
    assert open_tasks() == 0
    so_far = len(decided)
    assert so_far < 100
    assert desk.decide(view).signal.status == "ok"
    assert len(decided) == so_far


def test_decide_all_first_error_stops_the_others(
    slow: FakeLLM, view: MarketView, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = chat_desk(slow, spending={"day_tokens": 1000})
    errors = iter([None, LocalStateError("no")])

    def shared_budgets() -> list[object]:
        if error := next(errors):
            raise error
        return []

    monkeypatch.setattr(desk, "_shared_budgets", shared_budgets)
    with pytest.raises(LocalStateError):
        desk.decide_all([view] * 2)
    assert open_tasks() == 0


def test_event_loop_stop_ends_running_decisions(slow: FakeLLM, view: MarketView) -> None:
    desk, met = chat_desk(slow), list[BaseException]()

    def ask() -> None:
        try:
            desk.decide(view)
        except ShutdownError as error:
            met.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    slow.wait_for_requests(1)
    EVENT_LOOP.stop()
    asking.join(SAFETY_S)
    assert len(met) == 1
    assert open_tasks() == 0


def test_event_loop_deadline_holds_while_loop_is_blocked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("finagent_model._event_loop.GRACE_S", 0.1)
    loop, release = LoopThread(), threading.Event()

    async def block() -> None:
        release.wait(SAFETY_S)

    with pytest.raises(DeadlineError):
        loop.run(block(), timeout_s=0.1)
    release.set()


def test_event_loop_passes_on_works_own_timeout() -> None:
    async def gives_up() -> None:
        raise TimeoutError("its own")

    for within_s in (None, 5.0):
        with pytest.raises(TimeoutError, match="its own"):
            LoopThread().run(gives_up(), within_s)


def test_daily_budget_failure_is_local_state_error_anywhere(
    slow: FakeLLM, view: MarketView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finagent_model.agents.budget.LOCK_TIMEOUT_S", 0.1)
    slow.delay_s = 0.0
    desk = chat_desk(slow, home=tmp_path, spending={"day_tokens": 10**9})
    assert desk.decide(view).signal.status == "ok"
    with sqlite3.connect(tmp_path / "spending.sqlite", isolation_level=None) as other:
        other.execute("begin exclusive")
        with pytest.raises(LocalStateError, match="can't be counted"):
            desk.decide(view)
        other.execute("rollback")
    # Among the agents, where AutoGen would make prose of it.
    budgets = desk._shared_budgets()
    monkeypatch.setattr(desk, "_shared_budgets", lambda: budgets)
    (tmp_path / "spending.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(LocalStateError, match="not a database"):
        desk.decide(view)
    assert open_tasks() == 0


def test_cassette_unwritable_reply_is_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("finagent_model.cassette._sqlite.WRITE_TIMEOUT_S", 0.1)
    cassette = Cassette(overlay=tmp_path / "replies.sqlite")
    reply = RecordedReply("yes", "stop", 1, 1)
    with sqlite3.connect(tmp_path / "replies.sqlite", isolation_level=None) as other:
        other.execute("begin immediate")
        cassette.put("key", reply)
        other.execute("rollback")
    assert "kept in memory only" in caplog.text
    assert cassette.get("key") == reply
    with sqlite3.connect(tmp_path / "replies.sqlite", isolation_level=None) as other:
        other.execute("drop table entry")
    with pytest.raises(LocalStateError, match="can't be read"):
        cassette.get("another")


def test_run_without_waiting_returns_result() -> None:
    async def add(one: int, two: int) -> int:
        return one + two

    async def work() -> int:
        return await add(1, 2) + 3

    assert run_without_waiting(work()) == 6


def test_run_without_waiting_refuses_work_that_waits() -> None:
    with pytest.raises(RuntimeError, match="run it on the event loop"):
        run_without_waiting(asyncio.sleep(0))
