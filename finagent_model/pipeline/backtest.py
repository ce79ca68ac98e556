"""Decide on one symbol's out-of-sample bars, log the outcome in a run, and read it again.

Two walks: a training lets the desk learn fold by fold (`decide_and_reflect`); a finished model
decides with what was valid on each day (`decide_out_of_sample`). `backtest` runs a packaged desk
again and compares its signals with the registered ones. Transcripts go to files while the walk
runs, so that memory does not grow with their length.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from finagent_model._base import Mode
from finagent_model._documents import split_json_lines
from finagent_model._local_files import ScratchFolder
from finagent_model._progress import Progress, no_progress
from finagent_model.audit.chain import AUDIT_FILE as AUDIT
from finagent_model.audit.chain import CONVERSATION_FILE as CONVERSATION
from finagent_model.audit.chain import HEAD, ChainWriter, collect_versions, dump_turns
from finagent_model.backtesting.metrics import closed_pnl, explain_undefined, nan_to_none
from finagent_model.backtesting.portfolio import PooledAccount, pool_metrics
from finagent_model.cassette.jsonl import load_replies
from finagent_model.cassette.records import RecordedReply
from finagent_model.config.desk_config import DeskConfig
from finagent_model.config.knowledge import Knowledge
from finagent_model.data.market import Market
from finagent_model.decision.decision import (
    Decider,
    Decision,
    from_ledger_row,
    hash_ledger,
    read_ledger,
    to_ledger_row,
    write_ledger,
)
from finagent_model.decision.signal import TradingSignal
from finagent_model.desk.desk import Desk
from finagent_model.evaluation.calibrate import select_lessons
from finagent_model.evaluation.evidence import SymbolFacts, pool_returns
from finagent_model.evaluation.out_of_sample import (
    FirstCheck,
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
    bars_params,
    desk_params,
    open_tagged_run,
    predictor_tags,
    read_request,
    schema_errors_as_tracking_error,
)
from finagent_model.policy.policy import PolicyBook
from finagent_model.policy.trained_state import (
    TradeOutcome,
    TrainedState,
    dump_outcomes,
    load_outcomes,
)
from finagent_model.reports.charts import drawdown, write_equity_charts
from finagent_model.reports.wording import verdict_sentence
from finagent_model.settings import Settings
from finagent_model.tracking.runs import RunLog
from finagent_model.training.request import TrainRequest
from finagent_model.training.walk_forward import bars_to_decide, out_of_sample_part, policy_periods

CALLS = "closed_calls.jsonl"
"""Artifact of a symbol's run: each call to act that has ended, and what it would have earned."""


class TranscriptWriter:
    """Writes conversation and audit of each decision to temporary files, as a context manager.

    `content_hash` names the package that decides; None while a training has no package yet.
    """

    def __init__(self, content_hash: str | None = None) -> None:
        # Unnamed files: a process that dies leaves no conversation behind.
        self._open = ExitStack()
        self._conversation = self._open.enter_context(
            tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        )
        self._audit = self._open.enter_context(
            tempfile.TemporaryFile("w+", encoding="ascii")  # noqa: SIM115
        )
        self._chain = ChainWriter(self._audit, collect_versions(code_hash(), content_hash))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def write(self, decisions: Sequence[Decision]) -> list[Decision]:
        """Append the transcripts of `decisions`; return the decisions without turns and events."""
        # The order counts: each entry of the audit is chained to the one before it by hash.
        for decision in decisions:
            self._conversation.write(dump_turns([decision]))
            self._chain.add(decision.signal, decision.events)
        return [replace(decision, turns=(), events=()) for decision in decisions]

    def close(self, folder: Path) -> str:
        """End the audit, copy both files into `folder`, and return the head of the hash chain."""
        head = self._chain.close()
        for file, name in ((self._conversation, CONVERSATION), (self._audit, AUDIT)):
            file.seek(0)
            with (folder / name).open("w", encoding="utf-8") as target:
                shutil.copyfileobj(file, target)
        return head


def decide_out_of_sample(
    desk: Desk,
    market: Market,
    symbol: str,
    policies: PolicyBook,
    request: TrainRequest,
    progress: Progress,
    transcripts: TranscriptWriter | None = None,
) -> OutOfSampleBacktest:
    """Decide on the out-of-sample bars of `symbol` with a trained desk; trade and measure that.

    Each day uses only the policy and the lessons that were valid on it. `progress` counts
    decisions. Conversations go to `transcripts`; None drops them. Raises DataError.
    """
    # Inline, without AutoGen's runtime: the record is equal, and a desk of rules is much faster.
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
    check_first: FirstCheck | None = None,
) -> OutOfSampleBacktest:
    """Decide on the out-of-sample bars of `symbol` while the desk learns, fold by fold.

    In each fold the desk remembers the calls that had closed before the fold began. `check_first`
    may end it after the first decisions. Other arguments and errors are those of
    `decide_out_of_sample`.
    """
    bars = market.bars(symbol)
    first = out_of_sample_part(bars, policies).start
    periods = [period for _, period in policy_periods(bars, policies)]
    positions = bars_to_decide(bars, policies, request)

    def desk_of(number: int, past: Sequence[Decision]) -> Desk:
        start = periods[number].start
        decided = [i - first for i in positions if i < start]
        lessons: tuple[TradeOutcome, ...] = ()
        if decided:  # the first fold of a symbol has no past decisions
            # No look-ahead: an outcome that closes after the fold's first bar is not known yet.
            lessons = select_lessons(
                label_decision_outcomes(bars[first:start], decided, past, request.rules)
            )
        state = TrainedState(policies, lessons=lessons)
        return desk.with_options(trained_state=state, inline_rules=True)

    return _decide(market, symbol, policies, request, progress, desk_of, transcripts, check_first)


def _decide(
    market: Market,
    symbol: str,
    policies: PolicyBook,
    request: TrainRequest,
    progress: Progress,
    decider_of: Callable[[int, Sequence[Decision]], Decider],
    transcripts: TranscriptWriter | None,
    check_first: FirstCheck | None = None,
) -> OutOfSampleBacktest:
    """Walk forward over the out-of-sample bars; `decider_of` is given a fold's number and the past
    decisions.
    """
    bars = market.bars(symbol)
    positions = bars_to_decide(bars, policies, request)
    decisions = decide_walk_forward(
        market,
        symbol,
        [period for _, period in policy_periods(bars, policies)],
        positions,
        decider_of,
        progress(f"deciding on {symbol}", len(positions)),
        transcripts.write if transcripts else None,
        check_first,
    )
    part = out_of_sample_part(bars, policies)
    return judge_out_of_sample(bars[part], [i - part.start for i in positions], decisions, request)


def backtest_params(config: DeskConfig, market: Market, symbol: str, mode: Mode) -> dict[str, str]:
    """Return the params of a backtest's run: what is decided, by whom and on which bars."""
    bars = bars_params(market, market.bars(symbol))
    return {"symbol": symbol, "mode": mode, **desk_params(config), **bars}


def log_outcome(
    run: RunLog,
    outcome: OutOfSampleBacktest,
    seed: int,
    transcripts: TranscriptWriter,
    knowledge: Knowledge | None = None,
) -> dict[str, float]:
    """Log one symbol's out-of-sample outcome in `run`, close `transcripts`, return the metrics.

    Logged are metrics, curves, charts, ledger, trades, conversation and audit. `BacktestRecord`
    reads them again. `knowledge` is what the desk's models may remember; what is to be graded
    depends on it. Raises TrackingError.
    """
    metrics, bars = outcome.metrics(), outcome.bars
    # MLflow dates a metric's steps in milliseconds since 1970.
    stamps = [int(bars.close_time(i).timestamp() * 1000) for i in range(len(bars))]
    curves = {
        "equity": outcome.result.equity,
        "benchmark_equity": outcome.benchmark.equity,
        "drawdown": drawdown(outcome.result.equity),
    }
    for name, curve in curves.items():
        run.log_series(name, curve.tolist(), stamps)
    run.log_text(CALLS, dump_outcomes(outcome.trade_outcomes()))
    run.log_text("facts.json", collect_symbol_facts(outcome, seed, knowledge).model_dump_json())
    facts = {"metrics": nan_to_none(metrics), "undefined": explain_undefined(metrics)}
    outcome_json = {"symbol": bars.symbol, "first_closed_at": stamps[0], **facts}
    run.log_json("outcome.json", outcome_json)
    with ScratchFolder() as folder:
        write_equity_charts(outcome, folder)
        write_ledger((decision.signal for decision in outcome.decisions), folder / "ledger.parquet")
        outcome.result.trades.to_parquet(folder / "trades.parquet")
        run.log(metrics=metrics, tags={HEAD: transcripts.close(folder)})
        run.log_files(folder)
    return metrics


@dataclass(frozen=True)
class BacktestRecord:
    """What the run of one symbol's out-of-sample part holds."""

    symbol: str
    metrics: dict[str, float | None]
    """None: undefined."""
    signals: tuple[TradingSignal, ...]
    """Before calibration, oldest first."""
    replies: dict[str, RecordedReply]
    facts: SymbolFacts
    calls: tuple[TradeOutcome, ...]
    trades: pd.DataFrame
    first_closed_at: int
    """Close of the first bar, in milliseconds since 1970."""

    @classmethod
    def read(cls, run: RunLog) -> Self:
        """Read what a training logged in `run`. Raises TrackingError for another schema."""
        with schema_errors_as_tracking_error(run.run_id):
            outcome = run.read_json("outcome.json")
            rows = read_ledger(pa.BufferReader(run.read_artifact("ledger.parquet")))
            trades = pq.read_table(pa.BufferReader(run.read_artifact("trades.parquet")))
            return cls(
                symbol=outcome["symbol"],
                metrics=outcome["metrics"],
                signals=tuple(from_ledger_row(row) for row in rows),
                replies=load_replies(
                    split_json_lines(run.read_artifact("cassette.jsonl").decode())
                ),
                facts=SymbolFacts.model_validate_json(run.read_artifact("facts.json")),
                calls=load_outcomes(run.read_artifact(CALLS).decode()),
                trades=trades.to_pandas(),
                first_closed_at=outcome["first_closed_at"],
            )


def pool_backtests(records: Sequence[BacktestRecord], cash: float) -> dict[str, float]:
    """Return the metrics of an equal-weighted pool of the symbols; each started with `cash`.

    The curve is that of the evidence and of the pages, so that they show the same numbers.
    """
    calendar, desk, benchmark = pool_returns([each.facts for each in records])
    first = min(each.first_closed_at for each in records)
    accounts = [
        PooledAccount(
            {name: math.nan if v is None else v for name, v in each.metrics.items()},
            closed_pnl(each.trades, cash),
            cash,
            len(each.signals),
        )
        for each in records
    ]
    closed_at = np.append(first, calendar).astype("datetime64[ms]")
    return pool_metrics(accounts, closed_at, desk, benchmark)


@dataclass(frozen=True)
class BacktestRerun:
    """A repeated backtest of a packaged desk, compared with the registered one."""

    run_id: str
    symbol: str
    metrics: dict[str, float]
    report: str
    same_as_registered: bool | None
    """Whether all signals equal the registered ones; None for a symbol it was not trained on."""
    notes: tuple[str, ...] = ()
    """What kept the desk from deciding, or from trading as it decided, in words."""

    @property
    def has_failed(self) -> bool:
        """Whether every decision failed, so that there is no result."""
        return self.metrics["failed_share"] == 1

    def row(self) -> dict[str, Any]:
        """Return the rerun as a JSON-ready dict; an undefined metric is None, with its reason."""
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

    No symbols means those that it was trained on, with the bars that its training saw. Mode
    `replay` asks no model. Raises ModelLoadError, DataError and TrackingError.
    """
    predictor = load_predictor(model) if isinstance(model, str) else model
    market, package = market_of_training(predictor), predictor.package
    request = read_request(package)
    tags = predictor_tags(predictor, model if isinstance(model, str) else "")
    reruns = []
    for symbol in symbols or request.symbols:
        market.bars(symbol)  # an unknown symbol raises before a run is opened
        run = open_tagged_run(
            "backtest", f"backtest {symbol}", {**tags, SYMBOL: symbol}, single_process=True
        )
        with run.failed_on_error(), TranscriptWriter(package.content_hash) as transcripts:
            run.log(params=backtest_params(predictor.config, market, symbol, mode))
            run.log_inputs(training_datasets(market, symbol), "backtest", tags.get(MODEL_ID))
            outcome = decide_out_of_sample(
                predictor.desk.with_options(mode=mode),
                market,
                symbol,
                package.trained_state.policies,
                request,
                progress,
                transcripts,
            )
            metrics = log_outcome(run, outcome, request.seed, transcripts)
            log_bar_snapshots(run, bar_snapshots(market, [symbol]))
            rows = [to_ledger_row(decision.signal) for decision in outcome.decisions]
            # By hash: a package holds the hash of its ledger, not the rows.
            registered = package.backtest["ledgers"].get(symbol)
            same = None if registered is None else hash_ledger(rows) == registered
            run.set_tags({"finagent.same_as_registered": str(same)})
            run.end("FINISHED")
        report, notes = verdict_sentence(symbol, metrics), tuple(outcome.notes())
        if same is None and mode == "replay" and metrics["failed_share"] > 0:
            notes += ("a symbol without a training has no recorded replies: --mode cached asks",)
        reruns.append(BacktestRerun(run.run_id, symbol, metrics, report, same, notes))
    return reruns
