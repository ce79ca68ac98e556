"""Measure decisions of the preset `local` by the real model: statuses, time, CPU seconds, tokens.

Needs `make .venv/.local`. The days are spread over three symbols of the embedded data. CPU seconds
are of the server's process, so that a loaded machine changes them little; wall seconds it does.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

from finagent_model.agents.local_model import find_model_file
from finagent_model.agents.local_server import LlamaServer, find_server, free_cores
from finagent_model.data.bundled import BundledBars
from finagent_model.decision.signal import Status
from finagent_model.market.bars import parse_as_of
from finagent_model.model.predictor import Predictor
from finagent_model.model.questions import Question
from finagent_model.settings import Settings

SYMBOLS = ("GOOG", "AAPL", "MSFT")
FIRST_BAR = 300
"""Enough bars before it for every indicator."""
UNUSABLE = (Status.PARSE_FAILED, Status.MODEL_ERROR)
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_seconds(server: LlamaServer) -> float:
    """Return what the server's process has used so far."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def make_questions(count: int) -> list[Question]:
    """Return questions on `count` days, spread evenly over the bars of each symbol."""
    questions = []
    for i in range(count):
        symbol = SYMBOLS[i % len(SYMBOLS)]
        bars = BundledBars().bars(symbol)
        index = FIRST_BAR + i * (len(bars) - FIRST_BAR - 1) // count
        day = bars[: index + 1].show_time(-1)
        questions.append(Question(symbol, parse_as_of(day)))
    return questions


def main(count: int) -> None:
    predictor = Predictor.from_config("local", Settings.load(), "live")
    [model] = predictor.config.distinct_models
    started = time.perf_counter()
    server = find_server(find_model_file(model))
    print(f"threads {free_cores()}, load {os.getloadavg()[0]:.1f}")
    server.ensure_running()
    print(f"loaded in {time.perf_counter() - started:.1f} s, {cpu_seconds(server):.1f} CPU s")
    statuses, actions = Counter[str](), Counter[str]()
    walls, cpus, tokens = list[float](), list[float](), list[int]()
    for question in make_questions(count):
        view = predictor.view(question)
        used, start = cpu_seconds(server), time.perf_counter()
        [decision] = predictor.decide_views([view], "live")
        walls.append(time.perf_counter() - start)
        cpus.append(cpu_seconds(server) - used)
        signal = decision.signal
        tokens.append(signal.tokens)
        statuses[str(signal.status)] += 1
        actions[signal.action] += 1
        print(f"{question.symbol} {walls[-1]:6.1f} s {cpus[-1]:6.1f} CPU s  {signal.status}")
    usable = count - sum(statuses[str(status)] for status in UNUSABLE)
    print(f"usable                {usable} of {count}   (aim 95 of 100)")
    print(f"statuses              {dict(statuses)}, actions {dict(actions)}")
    print(f"a decision, median    {statistics.median(walls):6.1f} s   (aim 20 s on two free cores)")
    print(f"CPU seconds, median   {statistics.median(cpus):6.1f}, most {max(cpus):.1f}")
    print(f"tokens, median        {statistics.median(tokens):6.0f}")
    print(f"load at the end       {os.getloadavg()[0]:6.1f}")
    server.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
