"""The upstream worker over the stand-in's code."""

from __future__ import annotations

from finagent_model.contrib.upstream.analyst import window_of
from finagent_model.contrib.upstream.worker_process import WorkerProcess, WorkerReply
from support.upstream_repository import FILES, bars_of

CODE = FILES / "src" / "backend"


def ask(resident: WorkerProcess, symbol: str) -> WorkerReply:
    window = window_of(bars_of(symbol))
    return resident.ask(symbol, window.clock_day, window.rows)
