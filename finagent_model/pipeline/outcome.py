"""One symbol's unseen part: the desk decides on it, and a run keeps what came of it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from finagent_model.artifacts.audit import HEAD
from finagent_model.artifacts.chart import drawdown, write_charts
from finagent_model.artifacts.ledger import write_ledger
from finagent_model.backtest.metrics import storable, undefined
from finagent_model.desk import Desk
from finagent_model.domain.bars import BarSeries
from finagent_model.domain.closed_call import ClosedCall, dump_calls
from finagent_model.domain.decision import Decision
from finagent_model.domain.learned import Learned
from finagent_model.domain.policy import PolicyBook
from finagent_model.market import Market
from finagent_model.pipeline.minutes import Minutes
from finagent_model.pipeline.watch import Watch
from finagent_model.tracking import RunLog
from finagent_model.training.out_of_sample import (
    OutOfSample,
    calls_of,
    facts_of,
    judge,
    unseen_part,
)
from finagent_model.training.reflect import reflect
from finagent_model.training.request import TrainRequest
from finagent_model.training.schedule import bars_to_decide, reigns

CALLS = "closed_calls.jsonl"
"""Artifact of a symbol's run: each call to act that has ended, and what it would have earned."""


def decide_unseen(
    desk: Desk,
    market: Market,
    symbol: str,
    policies: PolicyBook,
    request: TrainRequest,
    watch: Watch,
    minutes: Minutes | None = None,
) -> OutOfSample:
    """By a desk that has learned all that it will: each day uses what was known then. What was
    said on the way goes into `minutes`, and nowhere without: memory must not grow by it.
    """
    bars = market.bars(symbol)
    positions = bars_to_decide(bars, policies, request)
    done = watch(f"deciding on {symbol}", len(positions))
    decisions: list[Decision] = []
    for _, reign in reigns(bars, policies):
        here = [i for i in positions if reign.start <= i < reign.stop]
        views = market.daily_views(symbol, here)
        decisions += _heard(desk.decide_all(views, done, rules_at_once=True), minutes)
    return _judged(bars, policies, positions, decisions, request)


def decide_and_reflect(
    desk: Desk,
    market: Market,
    symbol: str,
    policies: PolicyBook,
    request: TrainRequest,
    watch: Watch,
    minutes: Minutes | None = None,
) -> OutOfSample:
    """Fold by fold: what had closed before a fit speaks is remembered while it does."""
    bars = market.bars(symbol)
    first = unseen_part(bars, policies).start
    positions = bars_to_decide(bars, policies, request)
    done = watch(f"deciding on {symbol}", len(positions))
    decisions: list[Decision] = []
    lessons: tuple[ClosedCall, ...] = ()
    for _, reign in reigns(bars, policies):
        here = [i for i in positions if reign.start <= i < reign.stop]
        desk = desk.under(learned=Learned(policies, lessons=lessons))
        views = market.daily_views(symbol, here)
        decisions += _heard(desk.decide_all(views, done, rules_at_once=True), minutes)
        past = [i - first for i in positions if i < reign.stop]
        lessons = reflect(calls_of(bars[first : reign.stop], past, decisions, request.rules))
    return _judged(bars, policies, positions, decisions, request)


def _heard(decisions: Sequence[Decision], minutes: Minutes | None) -> list[Decision]:
    """The decisions without what was said on the way to them."""
    if minutes is not None:
        return minutes.take(decisions)
    return [replace(decision, turns=(), events=()) for decision in decisions]


def _judged(
    bars: BarSeries,
    policies: PolicyBook,
    positions: list[int],
    decisions: list[Decision],
    request: TrainRequest,
) -> OutOfSample:
    part = unseen_part(bars, policies)
    return judge(bars[part], [i - part.start for i in positions], decisions, request)


def log_outcome(run: RunLog, unseen: OutOfSample, seed: int, minutes: Minutes) -> dict[str, float]:
    """Metrics, curves, charts, ledger, conversation and audit of one symbol's unseen part."""
    metrics = unseen.metrics()
    stamps = [int(unseen.bars.closed(i).timestamp() * 1000) for i in range(len(unseen.bars))]
    curves = {
        "equity": unseen.result.equity,
        "benchmark_equity": unseen.benchmark.equity,
        "drawdown": drawdown(unseen.result.equity),
    }
    for name, curve in curves.items():
        run.curve(name, curve.tolist(), stamps)
    run.text(CALLS, dump_calls(unseen.closed_calls()))
    run.text("facts.json", facts_of(unseen, seed).model_dump_json())
    facts = {"metrics": storable(metrics), "undefined": undefined(metrics)}
    run.json("outcome.json", {"symbol": unseen.bars.symbol, **facts})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_charts(unseen, folder)
        write_ledger((decision.signal for decision in unseen.decisions), folder / "ledger.parquet")
        unseen.result.trades.to_parquet(folder / "trades.parquet")
        run.log(metrics=metrics, tags={HEAD: minutes.close(folder)})
        run.files(folder)
    return metrics
