"""Compare the cassette with a bare SQLite table of JSON texts: reads, writes and size on disk.

`python benchmarks/cassette.py` prints a line a measurement, in process time.
"""

from __future__ import annotations

import json
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from run import print_comparison

from finagent_model.cassette.cassette import Cassette
from finagent_model.cassette.fingerprint import Outline, fingerprint, make_outline
from finagent_model.cassette.jsonl import dump_replies, load_replies
from finagent_model.cassette.records import RecordedReply

COUNT, REPEATS = 5000, 5
KEYS = (
    *("symbol", "timeframe", "last_close", "atr", "support", "resistance", "features"),
    *("recent_closes", "year_low", "year_high", "policy", "news", "memory"),
)
PROSE = """the price rises above its slow average while momentum fades and news of the last weeks is
mixed so a stop below support with a small position seems sound until volume confirms"""


class BareTable:
    """A cassette without hashes, packing, outlines and redaction of keys."""

    def __init__(self, path: Path) -> None:
        self.store = sqlite3.connect(path, isolation_level=None)
        self.store.execute("pragma journal_mode = wal")
        # As the cassette does, so that both wait for the disk alike.
        self.store.execute("pragma synchronous = normal")
        self.store.execute("create table reply (key text primary key, body text) without rowid")

    def put(self, key: str, reply: RecordedReply) -> None:
        body = json.dumps(asdict(reply))
        self.store.execute("insert or replace into reply values (?, ?)", (key, body))

    def get(self, key: str) -> RecordedReply:
        row = self.store.execute("select body from reply where key = ?", (key,)).fetchone()
        return RecordedReply(**json.loads(row[0]))


def make_recordings(rng: random.Random) -> Iterator[tuple[dict[str, Any], RecordedReply]]:
    """Yield requests and replies as long as those of a chat model at the default desk."""
    words = PROSE.split()

    def prose(count: int) -> str:
        return " ".join(rng.choices(words, k=count))

    for day in range(COUNT):
        question = {key: rng.random() for key in KEYS} | {"news": prose(150)}
        report = {"trend": "bullish", "score": rng.random(), "summary": prose(20)}
        decision = {
            "action": "BUY",
            "confidence_score": rng.randrange(100),
            "reasoning": prose(45),
            "key_factors": [prose(4) for _ in range(4)],
            "suggested_entry_price": rng.random() * 600,
            "suggested_stop_loss": rng.random() * 500,
        }
        request = {
            "client": "openai",
            "base_url": None,
            "model": "some-model",
            "sampling": {"temperature": 0.0, "seed": 7, "max_tokens": 800},
            "tools": [],
            "response": "executor",
            "messages": [
                {"type": "SystemMessage", "content": "You decide. " * 100},
                {"type": "UserMessage", "source": "desk", "content": json.dumps(question)},
                {"type": "UserMessage", "source": "Analyst", "content": json.dumps(report)},
            ],
        }
        yield request, RecordedReply(json.dumps(decision), "stop", 1000 + day % 97, day % 203)


def cpu_seconds(work: Callable[[], object], times: int = REPEATS) -> float:
    """Return the shortest CPU time of a few runs, in seconds of this process."""
    times_s = []
    for _ in range(times):
        start = time.process_time()
        work()
        times_s.append(time.process_time() - start)
    return min(times_s)


def seconds_per_key(work: Callable[[str], object], keys: list[str], times: int = REPEATS) -> float:
    """Return the CPU time of `work` for one of the keys, in seconds."""
    return cpu_seconds(lambda: [work(key) for key in keys], times) / len(keys)


def main() -> None:
    pairs: dict[str, tuple[RecordedReply, Outline]] = {}
    for request, reply in make_recordings(random.Random(7)):
        outline = make_outline(request, "Executor")
        assert outline is not None
        pairs[fingerprint(request)] = reply, outline
    keys = list(pairs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bare = BareTable(folder / "bare.sqlite")
        put_s = seconds_per_key(lambda key: bare.put(key, pairs[key][0]), keys, times=1)
        get_s = seconds_per_key(bare.get, keys)
        bare.store.close()
        replies = _measure_files(folder, pairs, keys, put_s, get_s)
        text = dump_replies(replies)
        packaged = load_replies(text.splitlines())
        print_comparison(
            "look up packaged / bare table", seconds_per_key(Cassette(packaged).get, keys), get_s
        )
        outline = pairs[keys[0]][1]
        cassette = Cassette(packaged)
        cassette.describe_nearest(outline)  # warm
        print_comparison(
            f"nearest of {COUNT} / bare look up",
            cpu_seconds(lambda: cassette.describe_nearest(outline)),
            get_s,
        )
        load = cpu_seconds(lambda: load_replies(text.splitlines()), times=2)
        parse = cpu_seconds(lambda: [json.loads(line) for line in text.splitlines()], times=2)
        print_comparison(f"load {COUNT} packaged / parse their JSON", load, parse)
        for path in sorted(folder.glob("*.*")):
            print(f"{path.name}: {path.stat().st_size / COUNT:.0f} bytes a recording")


def _measure_files(
    folder: Path,
    pairs: dict[str, tuple[RecordedReply, Outline]],
    keys: list[str],
    put_s: float,
    get_s: float,
) -> dict[str, RecordedReply]:
    """Write and read both file formats, print the times, and return the replies."""
    for path in (folder / "r.sqlite", folder / "r.jsonl"):
        writer = Cassette(None, path)

        def record(key: str, writer: Cassette = writer) -> object:
            return writer.put(key, *pairs[key])

        print_comparison(
            f"record in {path.name} / bare table", seconds_per_key(record, keys, times=1), put_s
        )
        # A cassette of its own: the writer has its replies in memory.
        print_comparison(
            f"look up in {path.name} / bare table",
            seconds_per_key(Cassette(None, path).get, keys),
            get_s,
        )
    # The write-ahead log into the file, so that its size counts.
    with closing(sqlite3.connect(folder / "r.sqlite")) as store:
        store.execute("pragma wal_checkpoint(truncate)")
    return writer.used_replies


if __name__ == "__main__":
    main()
