"""Measure what each agent contributes: a packaged desk's backtest with agents left out or added.

Variants have one agent left out, one analyst only, rules in place of models, or a debate more or
less. Each decides on the same out-of-sample bars as the whole desk and is compared with it day by
day. Replies are recorded like any others, so that a second ablation costs nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from finagent_model._base import Mode, Progress, no_progress
from finagent_model._local_files import ScratchFolder
from finagent_model.backtesting.metrics import sharpe, simple_returns
from finagent_model.backtesting.portfolio import Times, pool_returns
from finagent_model.config.desk_config import WHOLE_DESK, DeskConfig, desk_variants, load_preset
from finagent_model.decision.signal import Status
from finagent_model.desk.desk import Desk
from finagent_model.evaluation.out_of_sample import OutOfSampleBacktest
from finagent_model.market.bars import Floats
from finagent_model.market.timeframe import bars_per_year
from finagent_model.model.loading import load_predictor
from finagent_model.model.predictor import Predictor, open_cassette
from finagent_model.pipeline.backtest import decide_out_of_sample
from finagent_model.pipeline.datasets import market_of_training, training_datasets
from finagent_model.pipeline.run_metadata import (
    MODEL_ID,
    bars_params,
    desk_params,
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
class AblationVariant:
    """One variant compared with the whole desk; None is undefined."""

    variant: str
    annual_return_difference: float | None
    """Difference of mean returns a bar after trading costs, a year, as a fraction."""
    low: float | None
    high: float | None
    """Ends of its 95 % interval, by a bootstrap of the paired days."""
    sharpe: float | None
    same_action: float
    """Share of decisions with the whole desk's action."""
    hold_share: float
    statuses: dict[str, float]
    """Share of each status that occurred."""
    tokens: int
    cost_usd: float | None
    """Cost of the whole backtest's conversations at list price, whether recorded or not."""
    calls: int
    """Calls to a model in this ablation; replies from the cassette are not counted."""
    seconds_a_decision: float
    """Wall time on this machine: not repeatable, and near zero where all was recorded."""


@dataclass(frozen=True)
class Ablation:
    """All variants, the whole desk first. `asdict` of it is `ablation.json`."""

    run_id: str
    model_uri: str
    decisions: int
    """Decisions of each variant."""
    rows: tuple[AblationVariant, ...]


@dataclass(frozen=True)
class _VariantRun:
    """One variant's outcomes, one a symbol, and the wall time that they took."""

    outcomes: tuple[OutOfSampleBacktest, ...]
    seconds: float


def ablate(
    model_uri: str,
    symbols: Sequence[str],
    settings: Settings,
    mode: Mode = "cached",
    progress: Progress = no_progress,
) -> Ablation:
    """Run every variant of a packaged desk over its out-of-sample bars, and log the comparison.

    No symbols means those that the model was trained on, with the bars that its training saw.
    Raises ModelLoadError, DataError, and ConfigError where a model can't be called but must be.
    """
    predictor = load_predictor(model_uri)
    # Pinned to the training's bars, which its registered results are of.
    predictor.market = market_of_training(predictor)
    request = read_request(predictor.package)
    chosen = tuple(symbols) or request.symbols
    debaters = tuple(row for row in load_preset("debate").agents if row.role == "debater")
    desks = desk_variants(predictor.package.config, debaters)
    tags = predictor_tags(predictor, model_uri)
    datasets = [each for symbol in chosen for each in training_datasets(predictor.market, symbol)]
    run = open_tagged_run("ablate", f"ablate {' '.join(chosen)}", tags, single_process=True)
    with run.failed_on_error():
        run.log(
            params={
                "model_uri": model_uri,
                "symbols": ",".join(chosen),
                "mode": mode,
                **desk_params(predictor.config),
                **bars_params(predictor.market, None),
            }
        )
        run.log_inputs(datasets, "backtest", tags.get(MODEL_ID))
        runs = {
            name: _run_variant(predictor, desk, chosen, request, settings, mode, progress)
            for name, desk in desks.items()
        }
        whole = runs[WHOLE_DESK]
        ablation = Ablation(
            run_id=run.run_id,
            model_uri=model_uri,
            decisions=sum(len(each.decisions) for each in whole.outcomes),
            rows=tuple(_compare(name, each, whole, request.seed) for name, each in runs.items()),
        )
        report = asdict(ablation)
        run.log_json("ablation.json", report)
        run.log_text("ablation.md", render_ablation_table(report["rows"]))
        run.set_description(render_ablation_table(report["rows"]))
        with ScratchFolder() as folder:
            write_ablation_chart(report["rows"], folder)
            run.log_files(folder)
        run.end("FINISHED")
    return ablation


def _run_variant(
    predictor: Predictor,
    config: DeskConfig,
    symbols: Sequence[str],
    request: TrainRequest,
    settings: Settings,
    mode: Mode,
    progress: Progress,
) -> _VariantRun:
    """Let a desk of `config` decide on all symbols' out-of-sample bars, with the trained state."""
    package, market = predictor.package, predictor.market
    # A cassette of its own: the package's replies come first, new ones are recorded at home.
    cassette = open_cassette(settings, package)
    desk = Desk(
        config, package.trained_state, settings, cassette, mode=mode, external=package.external
    )
    if mode != "replay":
        # Fail before hours of decisions, not at the first reply that is not recorded.
        desk.require_key()
    policies = package.trained_state.policies
    started = time.perf_counter()
    outcomes = tuple(
        decide_out_of_sample(desk, market, symbol, policies, request, progress)
        for symbol in symbols
    )
    return _VariantRun(outcomes, time.perf_counter() - started)


def _compare(name: str, variant: _VariantRun, whole: _VariantRun, seed: int) -> AblationVariant:
    """Return a variant's result beside the whole desk's, on the same days."""
    own_days, ours = _portfolio_returns(variant)
    periods = bars_per_year(own_days)
    whole_days, theirs = _portfolio_returns(whole)
    # A desk that a short has ruined has no returns from then on: on the days that both have.
    _, own_at, whole_at = np.intersect1d(own_days, whole_days, return_indices=True)
    ours, theirs = ours[own_at], theirs[whole_at]
    decisions = [decision for each in variant.outcomes for decision in each.decisions]
    whole_decisions = [decision for each in whole.outcomes for decision in each.decisions]
    signals = [decision.signal for decision in decisions]
    costs = [signal.cost_usd for signal in signals]
    # Paired: both desks hold the same days, so what the market did cancels out.
    interval = return_difference_interval(ours, theirs, seed=seed, periods=periods)
    same = [
        one.signal.action == other.signal.action
        for one, other in zip(decisions, whole_decisions, strict=True)
    ]
    shares = {s.value: sum(x.status is s for x in signals) / len(signals) for s in Status}
    return AblationVariant(
        variant=name,
        annual_return_difference=_none_if_undefined(
            annual_return_difference(ours, theirs, periods)
        ),
        low=_none_if_undefined(interval.low),
        high=_none_if_undefined(interval.high),
        sharpe=_none_if_undefined(sharpe(ours, periods)),
        same_action=float(np.mean(same)),
        hold_share=float(np.mean([s.action == "HOLD" for s in signals])),
        statuses={status: share for status, share in shares.items() if share},
        tokens=sum(s.tokens for s in signals),
        # One unknown price makes the sum unknown, not smaller.
        cost_usd=None if None in costs else math.fsum(c for c in costs if c is not None),
        calls=sum(d.calls for d in decisions),
        seconds_a_decision=variant.seconds / len(decisions),
    )


def _portfolio_returns(variant: _VariantRun) -> tuple[Times, Floats]:
    """Return the calendar of all symbols, and the returns of an equal-weighted pool on it."""
    return pool_returns(
        # The first bar of each symbol has no return.
        [each.bars.closed_at[1:] for each in variant.outcomes],
        [simple_returns(each.result.equity) for each in variant.outcomes],
    )


def _none_if_undefined(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no nan
