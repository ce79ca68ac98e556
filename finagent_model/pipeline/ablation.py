"""What each agent is good for: a packaged desk with one left out, one alone, with and without a
debate, on the days that no fit had seen. Replies are recorded like any others, so that a second
ablation costs nothing.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finagent_model._base import Mode, Progress, no_progress
from finagent_model.backtesting.metrics import sharpe, simple_returns
from finagent_model.config.desk_config import WHOLE_DESK, DeskConfig, desk_variants, load_preset
from finagent_model.decision.signal import Status
from finagent_model.desk.desk import Desk
from finagent_model.evaluation.out_of_sample import OutOfSampleBacktest
from finagent_model.market.bars import Floats
from finagent_model.model.loading import load_predictor
from finagent_model.model.predictor import Predictor, open_cassette
from finagent_model.pipeline.backtest import decide_out_of_sample
from finagent_model.pipeline.datasets import market_of_training, training_datasets
from finagent_model.pipeline.run_metadata import (
    MODEL_ID,
    open_tagged_run,
    predictor_tags,
    read_request,
)
from finagent_model.reports.charts import render_ablation_table, write_ablation_chart
from finagent_model.settings import Settings
from finagent_model.statistics.resampling import (
    annual_return_difference,
    return_difference_interval,
)
from finagent_model.training.request import TrainRequest


@dataclass(frozen=True)
class Row:
    """One variant beside the whole desk; None is undefined."""

    variant: str
    annual_return_difference: float | None
    """Of mean daily returns after trading costs, times 252."""
    low: float | None
    high: float | None
    """Its 95 % interval by a bootstrap of the paired days."""
    sharpe: float | None
    same_action: float
    """Share of decisions with the whole desk's action."""
    hold_share: float
    statuses: dict[str, float]
    """Share of each status that occurred."""
    tokens: int
    cost_usd: float | None
    """At list price, of the whole backtest."""
    calls: int
    """To a model, this time; recorded replies are not counted."""
    seconds_a_decision: float
    """Measured here: it is not repeatable, and near zero where all was recorded."""


@dataclass(frozen=True)
class Ablation:
    """All variants, the whole desk first."""

    run_id: str
    model_uri: str
    decisions: int
    rows: tuple[Row, ...]

    def row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**vars(self), "rows": [vars(row) for row in self.rows]}


@dataclass(frozen=True)
class _Tried:
    unseen: tuple[OutOfSampleBacktest, ...]
    seconds: float


def ablate(
    model_uri: str,
    symbols: Sequence[str],
    settings: Settings,
    mode: Mode = "cached",
    watch: Progress = no_progress,
) -> Ablation:
    """No symbols: those that the model was trained on, and of these the bars that its training saw.
    Raises ModelLoadError, DataError, and ConfigError where a model would have to be asked and can't
    be.
    """
    predictor = load_predictor(model_uri)
    predictor.market = market_of_training(predictor)
    request = read_request(predictor.package)
    chosen = tuple(symbols) or request.symbols
    debaters = tuple(row for row in load_preset("debate").agents if row.role == "debater")
    desks = desk_variants(predictor.package.config, debaters)
    made_by = predictor_tags(predictor, model_uri)
    datasets = [each for symbol in chosen for each in training_datasets(predictor.market, symbol)]
    run = open_tagged_run("ablate", f"ablate {' '.join(chosen)}", made_by, alone=True)
    with run.failed_on_error():
        run.log(params={"model": model_uri, "symbols": ",".join(chosen), "mode": mode})
        run.log_inputs(datasets, "backtest", made_by.get(MODEL_ID))
        tried = {
            name: _try(predictor, desk, chosen, request, settings, mode, watch)
            for name, desk in desks.items()
        }
        rows = tuple(
            _row(name, each, tried[WHOLE_DESK], request.seed) for name, each in tried.items()
        )
        decisions = sum(len(each.decisions) for each in tried[WHOLE_DESK].unseen)
        found = Ablation(run.run_id, model_uri, decisions, rows)
        run.log_json("ablation.json", found.row())
        run.log_text("ablation.md", render_ablation_table(found.row()["rows"]))
        run.set_description(render_ablation_table(found.row()["rows"]))
        with tempfile.TemporaryDirectory() as folder:
            write_ablation_chart(found.row()["rows"], Path(folder))
            run.log_files(Path(folder))
        run.end("FINISHED")
    return found


def _try(
    predictor: Predictor,
    config: DeskConfig,
    symbols: Sequence[str],
    request: TrainRequest,
    settings: Settings,
    mode: Mode,
    watch: Progress,
) -> _Tried:
    package = predictor.package
    cassette = open_cassette(settings, package)
    desk = Desk(
        config, package.trained_state, settings, cassette, mode=mode, external=package.external
    )
    if mode != "replay":
        desk.require_key()
    started = time.perf_counter()
    unseen = tuple(
        decide_out_of_sample(
            desk, predictor.market, s, package.trained_state.policies, request, watch
        )
        for s in symbols
    )
    return _Tried(unseen, time.perf_counter() - started)


def _row(name: str, tried: _Tried, whole: _Tried, seed: int) -> Row:
    ours, theirs = _returns(tried), _returns(whole)
    decisions = [d for each in tried.unseen for d in each.decisions]
    beside = [d for each in whole.unseen for d in each.decisions]
    signals = [d.signal for d in decisions]
    costs = [s.cost_usd for s in signals]
    interval = return_difference_interval(ours, theirs, seed=seed)
    same = [a.signal.action == b.signal.action for a, b in zip(decisions, beside, strict=True)]
    shares = {s.value: sum(x.status is s for x in signals) / len(signals) for s in Status}
    return Row(
        variant=name,
        annual_return_difference=_stored(annual_return_difference(ours, theirs)),
        low=_stored(interval.low),
        high=_stored(interval.high),
        sharpe=_stored(sharpe(ours)),
        same_action=float(np.mean(same)),
        hold_share=float(np.mean([s.action == "HOLD" for s in signals])),
        statuses={status: share for status, share in shares.items() if share},
        tokens=sum(s.tokens for s in signals),
        cost_usd=None if None in costs else math.fsum(c for c in costs if c is not None),
        calls=sum(d.calls for d in decisions),
        seconds_a_decision=tried.seconds / len(decisions),
    )


def _returns(tried: _Tried) -> Floats:
    """Daily returns of an equal-weighted portfolio of the symbols that have a bar that day."""
    days = [each.bars.closed_at[1:] for each in tried.unseen]
    calendar = np.unique(np.concatenate(days))
    total, count = np.zeros(len(calendar)), np.zeros(len(calendar))
    for each, own in zip(tried.unseen, days, strict=True):
        at = np.searchsorted(calendar, own)
        total[at] += simple_returns(each.result.equity)
        count[at] += 1
    found: Floats = total / count
    return found


def _stored(value: float) -> float | None:
    return value if math.isfinite(value) else None
