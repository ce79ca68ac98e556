"""The upstream worker over the stand-in's code."""

from __future__ import annotations

from finagent_model.contrib.upstream.upstream_report import build_window
from finagent_model.contrib.upstream.worker_process import WorkerProcess, WorkerReply
from support.upstream_repository import FILES, bars_of

CODE = FILES / "src" / "backend"


def ask(worker: WorkerProcess, symbol: str) -> WorkerReply:
    window = build_window(bars_of(symbol))
    return worker.ask(symbol, window.clock_day, window.rows)
