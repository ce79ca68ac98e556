"""Measure what is promised to be fast, each beside a peer in the same run.

`python benchmarks/run.py`: decisions, the backtest kernel, and commands with their peak memory;
`python benchmarks/run.py start`: the start of commands alone, in a store with a trained version.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
MAX_TRAIN_S, MAX_TRAIN_MB = 25.0, 1536.0
MAX_REPLAY_S = 5.0
RUNS = 5
HELP_S, PARSE_S, LOAD_S, PREDICT_S = 0.3, 0.2, 3.0, 4.5
"""Aims of the start, in seconds on free cores; parsing is over an empty DAG."""


def seconds(work: Callable[[], object], times: int = 3) -> float:
    """Return the shortest wall time of a few runs, in seconds."""
    # The shortest, not the mean: other processes only ever add time.
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def print_comparison(label: str, ours: float, peer: float) -> None:
    """Print a line with both times, in seconds, and their ratio."""
    print(f"{label:42} {ours * 1e3:12.2f} ms   peer {peer * 1e3:12.2f} ms   x {ours / peer:8.2f}")


def run_command(*words: str, **extra: str) -> None:
    """Run a command with a fresh home; raise if it fails."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **extra}
    with tempfile.TemporaryDirectory() as folder:
        home = {"FINAGENT_HOME": f"{folder}/home"}
        subprocess.run(words, cwd=folder, env={**env, **home}, check=True, capture_output=True)


def peak_mb(*words: str, **extra: str) -> float:
    """Return the peak resident memory of a command, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "FINAGENT_HOME": f"{folder}/home", **extra}
        quiet = subprocess.DEVNULL
        child = subprocess.Popen(words, cwd=folder, env=env, stdout=quiet, stderr=quiet)
        # wait4 counts this child alone; `resource` would give the largest of all children.
        _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)} failed")
    return usage.ru_maxrss / 1024


def measure_decisions() -> None:
    """Compare a decision with a bare AutoGen team, and replays with live ones."""
    from autogen_agentchat.agents import BaseChatAgent
    from autogen_agentchat.base import Response
    from autogen_agentchat.conditions import MaxMessageTermination
    from autogen_agentchat.messages import TextMessage
    from autogen_agentchat.teams import DiGraphBuilder, GraphFlow

    from finagent_model.cassette.cassette import Cassette
    from finagent_model.config.desk_config import load_preset
    from finagent_model.data.market import Market
    from finagent_model.desk.desk import Desk
    from finagent_model.settings import Settings

    class Echo(BaseChatAgent):
        produced_message_types = (TextMessage,)

        async def on_reset(self, cancellation_token: object) -> None:
            pass

        async def on_messages(self, messages: object, cancellation_token: object) -> Response:
            return Response(chat_message=TextMessage(content="ok", source=self.name))

    async def bare(count: int) -> None:
        graph = DiGraphBuilder()
        agents = [Echo(f"a{i}", description="echo") for i in range(count)]
        for agent in agents:
            graph.add_node(agent)
        for one, two in itertools.pairwise(agents):
            graph.add_edge(one, two)
        participants = graph.get_participants()
        stop = MaxMessageTermination(11)
        await GraphFlow(participants, graph=graph.build(), termination_condition=stop).run(task="?")

    async def bare_many() -> None:
        for _ in range(50):
            await bare(3)

    settings = Settings.load({})
    views = Market.from_settings(settings).bar_views("GOOG", range(1000, 1050))
    # In memory: a cassette on disk has a benchmark of its own.
    desk = Desk(load_preset(), None, settings, Cassette())
    desk.decide_all(views)
    live = seconds(lambda: desk.with_options(mode="live").decide_all(views)) / len(views)
    replayed = seconds(lambda: desk.with_options(mode="replay").decide_all(views)) / len(views)
    peer = seconds(lambda: asyncio.run(bare_many())) / 50
    print_comparison("decision / bare AutoGen team", live, peer)
    print_comparison("decision replayed / made anew", replayed, live)
    all_views = Market.from_settings(settings).bar_views("GOOG", range(2148))
    desk.decide_all(all_views)
    replay = desk.with_options(mode="replay")
    print_comparison(
        "2,148 days replayed / aim", seconds(lambda: replay.decide_all(all_views)), MAX_REPLAY_S
    )


def measure_kernel() -> None:
    """Compare the backtest kernel with a plain Python loop."""
    from finagent_model.backtesting.engine import Costs, Orders, simulate_equity
    from finagent_model.data.bundled import BundledBars

    growth = BundledBars().bars("GOOG").adjust_to_first_bar()
    n = len(growth)
    action = np.random.default_rng(7).integers(-1, 2, n).astype(np.int8)
    none = np.full(n, np.nan)
    orders = Orders(action, np.ones(n), none, none)

    def thousand() -> None:
        for _ in range(1000):
            simulate_equity(growth, orders, Costs(), 1.0, False)

    def plain() -> None:
        cash, units = 1.0, 0.0
        for t in range(1, n):
            if action[t - 1] > 0 and units == 0:
                units, cash = cash / growth.open[t] * 0.999, 0.0
            elif action[t - 1] < 0 and units > 0:
                cash, units = units * growth.open[t] * 0.999, 0.0

    thousand()  # compiles the kernel
    print_comparison(
        "kernel x 1,000 / plain Python x 1,000", seconds(thousand), 1000 * seconds(plain)
    )


def print_start(label: str, words: list[str], aim: float, folder: Path) -> None:
    """Print the least CPU and wall time of a command in `folder`, beside its aim in seconds."""
    # Bytecode is written, as it is on a user's machine; the first run is not counted for it.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env |= {"PYTHONPATH": str(ROOT), "FINAGENT_HOME": str(folder / "home")}
    env |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    cpu_s, wall_s = [], []
    quiet = subprocess.DEVNULL
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        child = subprocess.Popen(words, cwd=folder, env=env, stdout=quiet, stderr=quiet)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(words)} failed")
        cpu_s.append(usage.ru_utime + usage.ru_stime)
        wall_s.append(time.perf_counter() - start)
    cpu, wall = min(cpu_s[1:]), min(wall_s[1:])
    print(f"{label:42} CPU {cpu:6.2f} s   wall {wall:6.2f} s   aim {aim:5.1f} s")


def measure_start() -> None:
    """Print what commands take to start, beside their aims, in a store with a trained version."""
    python = sys.executable
    finagent = [python, "-m", "finagent_model.cli"]
    load = "import mlflow.pyfunc; mlflow.pyfunc.load_model('models:/finagent@champion')"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        subprocess.run(
            [*finagent, "train"],
            cwd=folder,
            env={**os.environ, **store, "FINAGENT_HOME": f"{folder}/home"},
            check=True,
            capture_output=True,
        )
        print_start("finagent --help", [*finagent, "--help"], HELP_S, folder)
        print_start("load_model by alias", [python, "-c", load], LOAD_S, folder)
        predict = [*finagent, "predict", "GOOG", "--as-of", "2012-08-15"]
        print_start("finagent predict", predict, PREDICT_S, folder)


def measure_parse() -> None:
    """Print what the DAG file takes to parse, in an interpreter that has parsed an empty one."""
    # In one process: the difference of two starts of Airflow would be noise alone.
    dag = str(ROOT / "dags/finagent_autogen_pipeline.py")
    script = (
        "import runpy, time\nfrom airflow.sdk import DAG\nwith DAG('empty', schedule=None): pass\n"
        f"start = time.process_time()\nrunpy.run_path({dag!r})\n"
        "print(time.process_time() - start)"
    )
    best = float("inf")
    for _ in range(RUNS):
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        best = min(best, float(done.stdout.splitlines()[-1]))
    print(f"{'DAG parse, over an empty DAG':42} CPU {best:6.2f} s   aim {PARSE_S:5.1f} s")


def measure_commands() -> None:
    """Compare training with its limits."""
    python = sys.executable
    train = [python, "-m", "finagent_model.cli", "train"]
    store = {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    print_comparison(
        "train GOOG / aim", seconds(lambda: run_command(*train, **store), times=1), MAX_TRAIN_S
    )
    peak = peak_mb(*train, **store)
    print(f"{'train GOOG, peak memory / bound':42} {peak:12.0f} MB   peer {MAX_TRAIN_MB:12.0f} MB")


if __name__ == "__main__":
    if sys.argv[1:] != ["start"]:
        measure_decisions()
        measure_kernel()
        measure_commands()
    measure_parse()
    measure_start()
