"""Measure a decision's wall time when its model is slow, and the concurrency of many decisions.

`python benchmarks/desk.py`: the wall time at a model latency of a second beside a pipeline of
twelve calls in a row; 64 concurrent decisions. The model is a fake LLM: a server in a process of
its own that speaks OpenAI's protocol. (`run.py` has our own time beside a bare AutoGen team.)
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
from run import print_comparison

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
"""Calls that well-known trading desks make in a row for one decision."""
CONCURRENT_DECISIONS = 64
SETTINGS = Settings.load({"OPENAI_API_KEY": "sk-of-a-local-server"})


def make_config(address: str, preset: str = "default") -> DeskConfig:
    keys = {"client": "openai", "model": "stub-1", "base_url": address}
    defaults = {**yaml.safe_load(preset_text("default")), **yaml.safe_load(preset_text(preset))}
    return read_desk_config(yaml.safe_dump(keys), defaults, "benchmark")


def make_views(count: int) -> list[MarketView]:
    """Return views of one day with different news."""
    # With news every analyst speaks, and different news make every question another.
    as_of = parse_as_of("2012-06-29")
    market = Market.from_settings(SETTINGS)
    items = [
        NewsItem(published_at=parse_as_of("2012-06-28"), headline=f"Google shows {i} tablets")
        for i in range(count)
    ]
    return [market.view("GOOG", as_of, news=((item,), 0)) for item in items]


def measure_sequential_calls(address: str) -> float:
    """Return the seconds of a pipeline in which each call waits for the one before."""
    messages = [
        SystemMessage(content="You are the TechnicalAnalyst of a trading desk. Answer in JSON."),
        UserMessage(content="What now?", source="desk"),
    ]
    client = make_client(make_config(address), SETTINGS, 30)

    async def run() -> None:
        for _ in range(SEQUENTIAL_CALLS):
            await client.create(messages)
        await client.close()

    started = time.perf_counter()
    EVENT_LOOP.run(run())
    return time.perf_counter() - started


def serve(pipe: Connection) -> None:
    """Answer with `LATENCY_S` until a message comes; send the most requests that were in flight."""
    with FakeProvider() as llm:
        llm.delay_s = LATENCY_S
        pipe.send(llm.address(Protocol.OPENAI))
        pipe.recv()
        pipe.send(llm.max_in_flight)


def main() -> None:
    pipe, server_pipe = multiprocessing.Pipe()
    # A process of its own: its work must not count as ours.
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(server_pipe,))
    server.start()
    address = pipe.recv()
    desk = Desk(make_config(address), None, SETTINGS, Cassette(), mode="live")
    first, *many = make_views(1 + CONCURRENT_DECISIONS)
    # The first decision imports the client and opens the connection.
    desk.decide(first)

    started = time.perf_counter()
    decision = desk.decide(first)
    wall = time.perf_counter() - started
    assert decision.signal.status == "ok", decision.signal.reasoning
    label = f"decision at {LATENCY_S:g} s, and {SEQUENTIAL_CALLS} calls in a row"
    print_comparison(label, wall, measure_sequential_calls(address))

    started = time.perf_counter()
    decisions = desk.decide_all(many)
    concurrent_s = time.perf_counter() - started
    assert all(each.signal.status == "ok" for each in decisions)
    print_comparison(
        f"{CONCURRENT_DECISIONS} decisions at once, and one after another",
        concurrent_s,
        wall * CONCURRENT_DECISIONS,
    )
    loops = sum(thread.name == "desk" for thread in threading.enumerate())
    pipe.send("stop")
    print(f"{'threads of the desk':42} {loops:12d}")
    print(f"{'requests in flight at most':42} {pipe.recv():12d}")
    desk.close()
    server.join()


if __name__ == "__main__":
    main()
