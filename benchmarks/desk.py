"""What a decision takes beside waiting for its models, and how long the waiting is.

`python benchmarks/desk.py`: the wall time at a model latency of a second beside a pipeline of
twelve calls in a row; 64 decisions at once. A server in a process of its own that speaks OpenAI's
protocol stands for the model. (`run.py` has our own time beside a bare AutoGen team.)
"""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import yaml
from autogen_core.models import SystemMessage, UserMessage
from run import shown

from finagent_model._event_loop import EVENT_LOOP
from finagent_model.agents.providers import make_client
from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import DeskConfig, preset_text, read_desk_config
from finagent_model.data.market import Market
from finagent_model.desk.desk import Desk
from finagent_model.market.bars import parse_as_of
from finagent_model.market.news import NewsItem
from finagent_model.market.view import MarketView
from finagent_model.settings import Settings
from support.fake_llm import FakeProvider, Protocol

LATENCY_S = 1.0
SEQUENTIAL_CALLS = 12
"""As many as public desks make in a row for one decision."""
AT_ONCE = 64
SETTINGS = Settings.load({"OPENAI_API_KEY": "sk-of-a-local-server"})


def config(address: str, preset: str = "default") -> DeskConfig:
    given = {"client": "openai", "model": "stub-1", "base_url": address}
    defaults = {**yaml.safe_load(preset_text("default")), **yaml.safe_load(preset_text(preset))}
    return read_desk_config(yaml.safe_dump(given), defaults, "benchmark")


def views(count: int) -> list[MarketView]:
    """One day with different news, so that every analyst speaks and no question is asked twice."""
    as_of = parse_as_of("2012-06-29")
    market = Market.from_settings(SETTINGS)
    items = [
        NewsItem(published_at=parse_as_of("2012-06-28"), headline=f"Google shows {i} tablets")
        for i in range(count)
    ]
    return [market.view("GOOG", as_of, news=((item,), 0)) for item in items]


def one_after_another(address: str) -> float:
    """Seconds of a pipeline in which each call waits for the one before."""
    messages = [
        SystemMessage(content="You are the TechnicalAnalyst of a trading desk. Answer in JSON."),
        UserMessage(content="What now?", source="desk"),
    ]
    client = make_client(config(address), SETTINGS, 30)

    async def run() -> None:
        for _ in range(SEQUENTIAL_CALLS):
            await client.create(messages)
        await client.close()

    started = time.perf_counter()
    EVENT_LOOP.run(run())
    return time.perf_counter() - started


def serve(pipe: Connection) -> None:
    """Answer after a second until the other end is closed; tell the most that were in flight."""
    with FakeProvider() as llm:
        llm.delay_s = LATENCY_S
        pipe.send(llm.address(Protocol.OPENAI))
        pipe.recv()
        pipe.send(llm.max_in_flight)


def main() -> None:
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    server.start()
    address = ours.recv()
    desk = Desk(config(address), None, SETTINGS, Cassette(), mode="live")
    first, *many = views(1 + AT_ONCE)
    desk.decide(first)  # warm

    started = time.perf_counter()
    decision = desk.decide(first)
    wall = time.perf_counter() - started
    assert decision.signal.status == "ok", decision.signal.reasoning
    label = f"decision at {LATENCY_S:g} s, and {SEQUENTIAL_CALLS} calls in a row"
    shown(label, wall, one_after_another(address))

    started = time.perf_counter()
    decisions = desk.decide_all(many)
    together = time.perf_counter() - started
    assert all(each.signal.status == "ok" for each in decisions)
    shown(f"{AT_ONCE} decisions at once, and one after another", together, wall * AT_ONCE)
    loops = sum(thread.name == "desk" for thread in threading.enumerate())
    ours.send("enough")
    print(f"{'threads of the desk':42} {loops:12d}")
    print(f"{'requests in flight at most':42} {ours.recv():12d}")
    desk.close()
    server.join()


if __name__ == "__main__":
    main()
