"""One symbol's unseen part: the desk decides on it, and a run keeps what came of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from finagent_model.artifacts.chart import drawdown, write_charts
from finagent_model.artifacts.conversation import FILE as CONVERSATION
from finagent_model.artifacts.conversation import conversation_lines
from finagent_model.artifacts.ledger import (
    write_ledger,
)
from finagent_model.backtest.metrics import storable
from finagent_model.desk import Desk
from finagent_model.domain.policy import PolicyBook
from finagent_model.market import Market
from finagent_model.pipeline.watch import Watch
from finagent_model.tracking import RunLog
from finagent_model.training.out_of_sample import OutOfSample, facts_of, judge, unseen_part
from finagent_model.training.request import TrainRequest


def decide_unseen(
    desk: Desk,
    market: Market,
    symbol: str,
    policies: PolicyBook,
    request: TrainRequest,
    watch: Watch,
) -> OutOfSample:
    bars = market.bars(symbol)
    part = unseen_part(bars, policies)
    views = market.daily_views(symbol, part)
    done = watch(f"deciding on {symbol}", len(views))
    decisions = desk.decide_all(views, done, rules_at_once=True)
    return judge(bars[part], decisions, request)


def log_outcome(run: RunLog, unseen: OutOfSample, seed: int) -> dict[str, float]:
    """Metrics, curves, charts, ledger and conversation of one symbol's unseen part."""
    metrics = unseen.metrics()
    run.metrics(metrics)
    stamps = [int(unseen.bars.closed(i).timestamp() * 1000) for i in range(len(unseen.bars))]
    curves = {
        "equity": unseen.result.equity,
        "benchmark_equity": unseen.benchmark.equity,
        "drawdown": drawdown(unseen.result.equity),
    }
    for name, curve in curves.items():
        run.curve(name, curve.tolist(), stamps)
    run.text("facts.json", facts_of(unseen, seed).model_dump_json())
    run.json("outcome.json", {"symbol": unseen.bars.symbol, "metrics": storable(metrics)})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_charts(unseen, folder)
        write_ledger((decision.signal for decision in unseen.decisions), folder / "ledger.parquet")
        unseen.result.trades.to_parquet(folder / "trades.parquet")
        (folder / CONVERSATION).write_text(conversation_lines(unseen.decisions))
        run.files(folder)
    return metrics
