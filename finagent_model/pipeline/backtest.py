"""What was said in a backtest, written down while it is said: conversation and audit of each
decision go to files at once, and memory does not grow by them.

One symbol's unseen part: the desk decides on it, and a run keeps what came of it.

A packaged desk's backtest run again, and held against the one it was registered with.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from finagent_model._base import Mode, Progress, no_progress
from finagent_model.audit.chain import AUDIT_FILE as AUDIT
from finagent_model.audit.chain import CONVERSATION_FILE as CONVERSATION
from finagent_model.audit.chain import HEAD, ChainWriter, collect_versions, dump_turns
from finagent_model.backtesting.metrics import explain_undefined, nan_to_none
from finagent_model.data.market import Market
from finagent_model.decision.decision import (
    Decider,
    Decision,
    hash_ledger,
    to_ledger_row,
    write_ledger,
)
from finagent_model.desk.desk import Desk
from finagent_model.evaluation.calibrate import select_lessons
from finagent_model.evaluation.out_of_sample import (
    OutOfSampleBacktest,
    collect_symbol_facts,
    decide_walk_forward,
    judge_out_of_sample,
    label_decision_outcomes,
)
from finagent_model.model.loading import load_predictor
from finagent_model.model.predictor import Predictor
from finagent_model.model.wheel import code_hash
from finagent_model.pipeline.datasets import (
    bar_snapshots,
    log_bar_snapshots,
    market_of_training,
    training_datasets,
)
from finagent_model.pipeline.run_metadata import (
    MODEL_ID,
    SYMBOL,
    open_tagged_run,
    predictor_tags,
    read_request,
)
from finagent_model.policy.policy import PolicyBook
from finagent_model.policy.trained_state import TradeOutcome, TrainedState, dump_outcomes
from finagent_model.reports.charts import drawdown, write_equity_charts
from finagent_model.reports.report import verdict_sentence
from finagent_model.settings import Settings
from finagent_model.tracking.runs import RunLog
from finagent_model.training.request import TrainRequest
from finagent_model.training.walk_forward import bars_to_decide, policy_periods, unseen_part


class TranscriptWriter:
    """A context manager; `content_hash` names the package that decides, None: one to be."""

    def __init__(self, content_hash: str | None = None) -> None:
        self._open = ExitStack()
        self._said = self._open.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))  # noqa: SIM115
        self._done = self._open.enter_context(tempfile.TemporaryFile("w+", encoding="ascii"))  # noqa: SIM115
        self._chain = ChainWriter(self._done, collect_versions(code_hash(), content_hash))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def take(self, decisions: Sequence[Decision]) -> list[Decision]:
        """Write them down, in order; the same without what was said on the way."""
        for decision in decisions:
            self._said.write(dump_turns([decision]))
            self._chain.add(decision.signal, decision.events)
        return [replace(decision, turns=(), events=()) for decision in decisions]

    def close(self, folder: Path) -> str:
        """End the audit, put both files into `folder`, and return the audit's head."""
        head = self._chain.close()
        for file, name in ((self._said, CONVERSATION), (self._done, AUDIT)):
            file.seek(0)
            with (folder / name).open("w", encoding="utf-8") as whole:
                shutil.copyfileobj(file, whole)
        return head


CALLS = "closed_calls.jsonl"
"""Artifact of a symbol's run: each call to act that has ended, and what it would have earned."""


def decide_out_of_sample(
    desk: Desk,
    market: Market,
    symbol: str,
    policies: PolicyBook,
    request: TrainRequest,
    progress: Progress,
    transcripts: TranscriptWriter | None = None,
) -> OutOfSampleBacktest:
    """Decide every out-of-sample bar of `symbol` with a trained desk, and judge what came of it.

    The desk has learned all that it will; each day uses only the policy and the lessons that were
    known on it. What was said on the way goes into `transcripts`, and is dropped without.
    """
    inline = desk.with_options(inline_rules=True)
    return _decide(market, symbol, policies, request, progress, lambda *_: inline, transcripts)


def decide_and_reflect(
    desk: Desk,
    market: Market,
    symbol: str,
    policies: PolicyBook,
    request: TrainRequest,
    progress: Progress,
    transcripts: TranscriptWriter | None = None,
) -> OutOfSampleBacktest:
    """Decide every out-of-sample bar of `symbol` while the desk learns, fold by fold.

    A desk that speaks in a fold remembers the calls that had closed before the fold began.
    """
    bars = market.bars(symbol)
    first = unseen_part(bars, policies).start
    periods = [period for _, period in policy_periods(bars, policies)]
    positions = bars_to_decide(bars, policies, request)

    def desk_of(number: int, past: Sequence[Decision]) -> Desk:
        start = periods[number].start
        decided = [i - first for i in positions if i < start]
        lessons: tuple[TradeOutcome, ...] = ()
        if number:
            # Only bars up to the fold's first: an outcome that closes later is not known yet.
            lessons = select_lessons(
                label_decision_outcomes(bars[first:start], decided, past, request.rules)
            )
        state = TrainedState(policies, lessons=lessons)
        return desk.with_options(trained_state=state, inline_rules=True)

    return _decide(market, symbol, policies, request, progress, desk_of, transcripts)


def _decide(
    market: Market,
    symbol: str,
    policies: PolicyBook,
    request: TrainRequest,
    progress: Progress,
    decider_of: Callable[[int, Sequence[Decision]], Decider],
    transcripts: TranscriptWriter | None,
) -> OutOfSampleBacktest:
    bars = market.bars(symbol)
    positions = bars_to_decide(bars, policies, request)
    decisions = decide_walk_forward(
        market,
        symbol,
        [period for _, period in policy_periods(bars, policies)],
        positions,
        decider_of,
        progress(f"deciding on {symbol}", len(positions)),
        transcripts.take if transcripts else None,
    )
    part = unseen_part(bars, policies)
    return judge_out_of_sample(bars[part], [i - part.start for i in positions], decisions, request)


def log_outcome(
    run: RunLog, unseen: OutOfSampleBacktest, seed: int, minutes: TranscriptWriter
) -> dict[str, float]:
    """Metrics, curves, charts, ledger, conversation and audit of one symbol's unseen part."""
    metrics = unseen.metrics()
    stamps = [int(unseen.bars.close_time(i).timestamp() * 1000) for i in range(len(unseen.bars))]
    curves = {
        "equity": unseen.result.equity,
        "benchmark_equity": unseen.benchmark.equity,
        "drawdown": drawdown(unseen.result.equity),
    }
    for name, curve in curves.items():
        run.log_series(name, curve.tolist(), stamps)
    run.log_text(CALLS, dump_outcomes(unseen.trade_outcomes()))
    run.log_text("facts.json", collect_symbol_facts(unseen, seed).model_dump_json())
    facts = {"metrics": nan_to_none(metrics), "undefined": explain_undefined(metrics)}
    run.log_json("outcome.json", {"symbol": unseen.bars.symbol, **facts})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_equity_charts(unseen, folder)
        write_ledger((decision.signal for decision in unseen.decisions), folder / "ledger.parquet")
        unseen.result.trades.to_parquet(folder / "trades.parquet")
        run.log(metrics=metrics, tags={HEAD: minutes.close(folder)})
        run.log_files(folder)
    return metrics


@dataclass(frozen=True)
class BacktestRerun:
    """A packaged desk's backtest, held against the one it was registered with."""

    run_id: str
    symbol: str
    metrics: dict[str, float]
    report: str
    same_as_registered: bool | None
    """Whether every signal is the registered one; None for a symbol it was not trained on."""

    def row(self) -> dict[str, Any]:
        """JSON-ready; an undefined metric is None."""
        facts = {"metrics": nan_to_none(self.metrics), "undefined": explain_undefined(self.metrics)}
        return {**vars(self), **facts}


def backtest(
    model: str | Predictor,
    symbols: Sequence[str],
    settings: Settings,
    mode: Mode = "replay",
    progress: Progress = no_progress,
) -> list[BacktestRerun]:
    """Run a packaged desk over its out-of-sample bars again; return one result a symbol.

    No symbols means those that it was trained on, and of these the bars are those that its training
    saw. Mode `replay` asks no model. Raises ModelLoadError or DataError.
    """
    predictor = load_predictor(model) if isinstance(model, str) else model
    market, package = market_of_training(predictor), predictor.package
    request = read_request(package)
    tags = predictor_tags(predictor, model if isinstance(model, str) else "")
    reruns = []
    for symbol in symbols or request.symbols:
        market.bars(symbol)  # an unknown symbol raises before a run is opened
        run = open_tagged_run(
            "backtest", f"backtest {symbol}", {**tags, SYMBOL: symbol}, alone=True
        )
        with run.failed_on_error(), TranscriptWriter(package.content_hash) as transcripts:
            run.log_inputs(training_datasets(market, symbol), "backtest", tags.get(MODEL_ID))
            unseen = decide_out_of_sample(
                predictor.desk.with_options(mode=mode),
                market,
                symbol,
                package.trained_state.policies,
                request,
                progress,
                transcripts,
            )
            metrics = log_outcome(run, unseen, request.seed, transcripts)
            log_bar_snapshots(run, bar_snapshots(market, [symbol]))
            rows = [to_ledger_row(decision.signal) for decision in unseen.decisions]
            registered = package.backtest["ledgers"].get(symbol)
            same = None if registered is None else hash_ledger(rows) == registered
            run.set_tags({"finagent.same_as_registered": str(same)})
            run.end("FINISHED")
        reruns.append(
            BacktestRerun(run.run_id, symbol, metrics, verdict_sentence(symbol, metrics), same)
        )
    return reruns
