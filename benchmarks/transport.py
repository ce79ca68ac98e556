"""Measure the CPU of a decision through AutoGen's clients and through ours, in one run.

`python benchmarks/transport.py [PROTOCOL ...]`: the default desk asks a fake LLM on this machine
that answers at once, in a process of its own, so that what is measured is this side's work alone.
Both transports take turns, so that other work on the machine hits both.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import yaml
from run import print_comparison

from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import preset_text, read_desk_config
from finagent_model.data.market import Market
from finagent_model.desk.desk import Desk
from finagent_model.market.bars import parse_as_of
from finagent_model.settings import Settings
from support.fake_llm import FakeProvider, Protocol

ROUNDS, DECISIONS = 5, 20
KEYS = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "ANTHROPIC_API_KEY")
SETTINGS = Settings.load(dict.fromkeys(KEYS, "sk-of-a-local-server"))


def serve(pipe: Connection) -> None:
    """Answer at once until a message comes."""
    with FakeProvider() as llm:
        pipe.send({protocol: llm.address(protocol) for protocol in Protocol})
        pipe.recv()


def make_desk(protocol: Protocol, address: str, transport: str) -> Desk:
    """Return the default desk on the server at `address`."""
    keys = {"client": protocol.value, "model": "stub-1", "base_url": address}
    keys["transport"] = transport
    defaults = yaml.safe_load(preset_text("default"))
    config = read_desk_config(yaml.safe_dump(keys), defaults, "benchmark")
    return Desk(config, None, SETTINGS, Cassette(), mode="live")


def measure(desk: Desk) -> float:
    """Return the CPU seconds of one decision, of this process alone."""
    view = Market.from_settings(SETTINGS).view("GOOG", parse_as_of("2012-06-29"))
    started = time.process_time()
    for _ in range(DECISIONS):
        assert desk.decide(view).calls == 3
    return (time.process_time() - started) / DECISIONS


def main() -> None:
    """Print the CPU of a decision by either transport, for each protocol."""
    protocols = [Protocol(name) for name in sys.argv[1:]] or list(Protocol)
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    server.start()
    addresses = ours.recv()
    for protocol in protocols:
        desks = {
            transport: make_desk(protocol, addresses[protocol], transport)
            for transport in ("http", "autogen")
        }
        for desk in desks.values():
            measure(desk)  # imports and connections
        best = dict.fromkeys(desks, float("inf"))
        for _ in range(ROUNDS):
            for transport, desk in desks.items():
                best[transport] = min(best[transport], measure(desk))
        title = f"CPU of a decision by {protocol} over http, AutoGen's"
        print_comparison(title, best["http"], best["autogen"])
    ours.send("end")
    server.join()


if __name__ == "__main__":
    main()
