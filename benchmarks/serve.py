"""Compare `finagent serve` with stock `mlflow models serve`: one model, one load, in one run.

`python benchmarks/serve.py` serves the default desk with a chat client, whose model is a fake on
this machine that takes half a second, and asks each server in turns. It prints requests a second,
the latency's quantiles, the statuses and the server's own CPU (user and system, all processes) a
request: for live decisions, for replayed ones, and for the first moment after a start. Options:
`python benchmarks/serve.py --help`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import numpy as np
import psutil
import yaml

from finagent_model.data.bundled import BundledBars
from finagent_model.testing import ChatRequest, ScriptedReply, completion, default_reply
from support.packages import book, trained_state
from support.places import ROOT, free_port

LATENCY_S = 0.5
REPLIES_DEEP = 3
"""Replies of the default desk that wait for one another."""
AGENT = re.compile(rb"You are the (\w+) of a trading desk")
CLOSE = re.compile(rb'last_close\\?": ([0-9.]+)')
LEVELS = {
    "RiskManager": {"stop_loss": 0.95, "take_profit": 1.1},
    "Executor": {
        "support_level": 0.97,
        "suggested_entry_price": 1.0,
        "suggested_stop_loss": 0.95,
        "suggested_take_profit": 1.1,
    },
}
"""Prices of a reply, as a multiple of the last close."""
START_TIMEOUT_S = 180
SAVE = """
import mlflow.pyfunc
from pathlib import Path
from finagent_model.model.anchor import build_metadata
from finagent_model.model.package import Manifest, read_package
from finagent_model.model.pyfunc import make_signature
import finagent_model.model
package = Path("package")
mlflow.pyfunc.save_model(
    "model",
    python_model=str(Path(finagent_model.model.__file__).with_name("model_code.py")),
    artifacts={"package": "package"},
    signature=make_signature(read_package(package).config),
    pip_requirements=[],
    metadata=build_metadata(Manifest.read(package)),
)
"""


def answer_as_llm(pipe: Connection, latency_s: float) -> None:
    """Answer chat completions after `latency_s` until a message comes, with little CPU."""

    def reply_to(body: bytes) -> bytes:
        agent, close = AGENT.search(body), CLOSE.search(body)
        name = agent[1].decode() if agent else ""
        prices = LEVELS.get(name, {}) if close else {}
        levels = {key: round(factor * float(close[1]), 2) for key, factor in prices.items()}
        reply = json.dumps({**json.loads(default_reply(name).text), **levels})
        request = ChatRequest("", {}, {}, {"model": "stub-1"}, 0.0)
        text = json.dumps(completion(request, ScriptedReply(reply))).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(text)}"
        return head.encode() + b"\r\n\r\n" + text

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: *(\d+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                await asyncio.sleep(latency_s)
                writer.write(reply_to(body))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=2**20, backlog=512)
        pipe.send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        await asyncio.to_thread(pipe.recv)

    asyncio.run(run())


def save_model(folder: Path, address: str, transport: str) -> None:
    """Write the model of a small trained package, whose desk asks the chat model at `address`."""
    from finagent_model.config.desk_config import preset_text, read_desk_config
    from finagent_model.model.package import write_package
    from finagent_model.model.wheel import code_hash

    keys = {"client": "openai", "model": "stub-1", "base_url": address, "transport": transport}
    config = read_desk_config(
        yaml.safe_dump(keys), yaml.safe_load(preset_text("default")), "benchmark"
    )
    (folder / "package").mkdir()
    write_package(
        folder / "package",
        config=config,
        trained_state=trained_state(book()),
        replies={},
        backtest={"evidence": {"grade": "none"}},
        code_hash=code_hash(),
    )
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SAVE],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )


def server_env(folder: Path, name: str) -> dict[str, str]:
    """Return the environment of a server with a home of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FINAGENT_", "OPENAI_"))}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "FINAGENT_HOME": str(folder / f"home-{name}"),
        "OPENAI_API_KEY": "sk-of-a-local-server",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


@dataclass
class Server:
    """A running server, and what it has used so far."""

    name: str
    port: int
    process: subprocess.Popen[bytes]

    def cpu_s(self) -> float:
        """Return user and system seconds of all its processes so far."""
        root = psutil.Process(self.process.pid)
        times = [each.cpu_times() for each in (root, *root.children(recursive=True))]
        return sum(each.user + each.system for each in times)

    def wait_until_up(self) -> None:
        """Wait until it answers /ping. Raises SystemExit."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=5).close()
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
            else:
                return
        raise SystemExit(f"{self.name} did not start; see its log")


@contextmanager
def serving(name: str, command: list[str], folder: Path) -> Iterator[Server]:
    """Run a server for the time of the block; it may not be up yet."""
    port = free_port()
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            [word.format(port=port) for word in command],
            cwd=folder,
            env=server_env(folder, name),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield Server(name, port, process)
        finally:
            os.killpg(process.pid, 15)
            process.wait(60)


@dataclass
class Load:
    """What clients saw of one load, and what the server used for it."""

    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def add(self, other: Load) -> None:
        """Add a further round of the same load."""
        self.latencies_s += other.latencies_s
        self.statuses += other.statuses
        self.wall_s += other.wall_s
        self.cpu_s += other.cpu_s

    @property
    def per_second(self) -> float:
        """Decisions a second; refusals and failures are none."""
        return self.statuses["ok"] / self.wall_s

    def describe(self) -> str:
        """Return the line of a table."""
        p50, p99 = np.quantile(self.latencies_s, [0.5, 0.99]) * 1e3
        count = len(self.latencies_s)
        words = ", ".join(f"{status} {n}" for status, n in sorted(self.statuses.items()))
        return (
            f"{self.per_second:8.1f}/s   p50 {p50:7.0f} ms   p99 {p99:7.0f} ms   "
            f"x {p99 / p50:4.2f}   own CPU {self.cpu_s / count * 1e3:6.2f} ms   {words}"
        )


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> str:
    """Send one request and return the signal's status, or the HTTP status of a refusal."""
    head = (
        "POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    answer_head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", answer_head)
    answer = await reader.readexactly(int(length[1]) if length else 0)
    if not answer_head.startswith(b"HTTP/1.1 200"):
        return answer_head[9:12].decode()
    return str(json.loads(answer)["predictions"][0]["status"])


async def _client(port: int, bodies: Iterator[bytes], until: float, load: Load) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    try:
        started = 0.0
        while started < until:
            started = time.perf_counter()
            load.statuses[await ask(reader, writer, next(bodies))] += 1
            load.latencies_s.append(time.perf_counter() - started)
    finally:
        writer.close()


def run_load(server: Server, bodies: Iterator[bytes], clients: int, seconds: float) -> Load:
    """Ask by that many clients, each one question after the other, and return what was seen.

    With 0 seconds each client asks once.
    """
    load = Load()

    async def run() -> None:
        until = time.perf_counter() + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(_client(server.port, bodies, until, load))

    cpu_s, started = server.cpu_s(), time.perf_counter()
    asyncio.run(run())
    load.wall_s, load.cpu_s = time.perf_counter() - started, server.cpu_s() - cpu_s
    return load


def questions(mode: str, days: int) -> Iterator[bytes]:
    """Yield request bodies about the bundled days of GOOG, over and over."""
    bars = BundledBars().bars("GOOG")
    bodies = [
        json.dumps(
            {
                "dataframe_records": [
                    {"symbol": "GOOG", "as_of": bars.close_time(i).date().isoformat()}
                ],
                "params": {"mode": mode},
            }
        ).encode()
        for i in range(len(bars) - days, len(bars))
    ]
    while True:
        yield from bodies


def commands(workers: int) -> dict[str, list[str]]:
    """Return the command of each server, by its name in the output."""
    ours = [sys.executable, "-m", "finagent_model.cli", "serve", "--model", "model"]
    stock = ["mlflow", "models", "serve", "-m", "model", "--env-manager", "local"]
    return {
        "finagent": [*ours, "--port", "{port}", *(["--workers", str(workers)] * (workers > 1))],
        "stock": [*stock, "-p", "{port}"],
    }


def measure_cold(folder: Path, name: str, command: list[str], clients: int) -> None:
    """Print how the first requests fare, all sent at once the moment the server is up."""
    started = time.perf_counter()
    with serving(f"{name}", command, folder) as server:
        server.wait_until_up()
        up_s = time.perf_counter() - started
        load = run_load(server, questions("live", 200), clients, 0)
    print(f"cold, {name:9} up after {up_s:5.1f} s   {load.describe()}", flush=True)


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64, help="of live decisions")
    parser.add_argument("--cached-clients", type=int, default=8, help="of replayed decisions")
    parser.add_argument("--seconds", type=float, default=15, help="of a round of live decisions")
    parser.add_argument("--rounds", type=int, default=2, help="of each server, in turns")
    parser.add_argument("--workers", type=int, default=1, help="of finagent serve")
    parser.add_argument("--latency", type=float, default=LATENCY_S, help="of the model, in seconds")
    parser.add_argument("--no-cold", action="store_true", help="leave the cold start out")
    parser.add_argument("--transport", choices=["autogen", "http"], default="autogen")
    parser.add_argument("--only", choices=["finagent", "stock"], help="measure this server alone")
    options = parser.parse_args()
    pipe, llm_pipe = multiprocessing.Pipe()
    llm = multiprocessing.get_context("spawn").Process(
        target=answer_as_llm, args=(llm_pipe, options.latency)
    )
    llm.start()
    chosen = {k: v for k, v in commands(options.workers).items() if options.only in (None, k)}
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            save_model(folder, pipe.recv(), options.transport)
            print(
                f"{options.clients} clients, a model of {options.latency:g} s: "
                f"at most {options.clients / (options.latency * REPLIES_DEEP):.1f} decisions/s"
            )
            for server_name, command in ({} if options.no_cold else chosen).items():
                measure_cold(folder, server_name, command, options.clients)
            _measure_warm(folder, chosen, options)
    finally:
        pipe.send("end")
        llm.join()


def _measure_warm(folder: Path, chosen: dict[str, list[str]], options: argparse.Namespace) -> None:
    """Print live and replayed decisions of each server, asked in turns."""
    live = {name: Load() for name in chosen}
    cached = {name: Load() for name in chosen}
    for _ in range(options.rounds):
        for name, command in chosen.items():
            # One server at a time: an idle one's threads would still take its share.
            with serving(name, command, folder) as server:
                server.wait_until_up()
                # Warm: each of the days is on record from here on.
                run_load(server, questions("cached", 40), options.clients, 6)
                live[name].add(
                    run_load(server, questions("live", 200), options.clients, options.seconds)
                )
                cached[name].add(
                    run_load(
                        server, questions("cached", 40), options.cached_clients, options.seconds / 2
                    )
                )
    for label, loads in (("live", live), ("cached", cached)):
        for name, load in loads.items():
            print(f"{label:6} {name:9} {load.describe()}")
        if len(loads) == 2:
            ratio = loads["finagent"].per_second / loads["stock"].per_second
            print(f"{label:6} finagent / stock: {ratio:.1f} times")


if __name__ == "__main__":
    main()
