"""Measure what is promised to be fast, each beside a peer in the same run.

`python benchmarks/run.py`: decisions, the backtest kernel, and commands with their peak memory.
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
MAX_TRAIN_S, MAX_TRAIN_MB = 40.0, 1536.0
MAX_REPLAY_S = 5.0


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


def measure_commands() -> None:
    """Compare commands with their unavoidable imports, and training with its limits."""
    python = sys.executable
    help_s = seconds(lambda: run_command(python, "-m", "finagent_model.cli", "--help"))
    print_comparison(
        "finagent --help / import typer",
        help_s,
        seconds(lambda: run_command(python, "-c", "import typer")),
    )
    empty = "from airflow.sdk import DAG\nwith DAG('empty', schedule=None): pass"
    parse = f"import runpy; runpy.run_path({str(ROOT / 'dags/finagent_autogen_pipeline.py')!r})"
    print_comparison(
        "DAG parse / empty DAG",
        seconds(lambda: run_command(python, "-c", parse)),
        seconds(lambda: run_command(python, "-c", empty)),
    )
    train = [python, "-m", "finagent_model.cli", "train"]
    store = {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    print_comparison(
        "train GOOG / aim", seconds(lambda: run_command(*train, **store), times=1), MAX_TRAIN_S
    )
    peak = peak_mb(*train, **store)
    print(f"{'train GOOG, peak memory / bound':42} {peak:12.0f} MB   peer {MAX_TRAIN_MB:12.0f} MB")


if __name__ == "__main__":
    measure_decisions()
    measure_kernel()
    measure_commands()
