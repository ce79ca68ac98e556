"""Measure what each agent contributes: a packaged desk's backtest with agents left out or added.

Variants have one agent left out, one analyst only, rules in place of models, or a debate more or
less. Each decides on the same out-of-sample bars as the whole desk and is compared with it day by
day. A variant that could show nothing is left out with its reason. Replies are recorded like any
others, so that a second ablation costs nothing; `AblationPlan.estimate` says what the first takes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from finagent_model._base import Mode
from finagent_model._local_files import ScratchFolder
from finagent_model._progress import Progress, no_progress
from finagent_model.backtesting.metrics import sharpe, simple_returns
from finagent_model.backtesting.portfolio import Times, pool_returns
from finagent_model.config.desk_config import DeskConfig, load_preset
from finagent_model.config.desk_variants import ALL_INPUTS, WHOLE_DESK, desk_variants
from finagent_model.config.roster import OptionalInput
from finagent_model.decision.decision import Decision
from finagent_model.decision.signal import Status
from finagent_model.desk.desk import Desk
from finagent_model.errors import ConfigError
from finagent_model.evaluation.out_of_sample import MAX_VIEWS, OutOfSampleBacktest
from finagent_model.market.bars import Floats
from finagent_model.market.timeframe import bars_per_year
from finagent_model.model.loading import load_predictor
from finagent_model.model.predictor import Predictor, open_cassette
from finagent_model.pipeline.backtest import decide_out_of_sample
from finagent_model.pipeline.datasets import market_of_training, training_datasets
from finagent_model.pipeline.estimate import (
    CHARACTERS_PER_TOKEN,
    Estimate,
    measure_calls,
    price_tokens,
    sample_positions,
)
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
from finagent_model.training.walk_forward import bars_to_decide


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
    left_out: dict[str, str]
    """Reason by variant that has no result."""


@dataclass(frozen=True)
class _VariantRun:
    """One variant's outcomes, one a symbol, and the wall time that they took."""

    outcomes: tuple[OutOfSampleBacktest, ...]
    seconds: float

    @property
    def decisions(self) -> list[Decision]:
        """All decisions, symbol by symbol."""
        return [decision for each in self.outcomes for decision in each.decisions]


@dataclass(frozen=True)
class AblationPlan:
    """The variants of a packaged desk that can show something, before any of them decides."""

    predictor: Predictor
    model_uri: str
    symbols: tuple[str, ...]
    settings: Settings
    mode: Mode
    desks: dict[str, DeskConfig]
    """By variant, the whole desk first."""
    left_out: dict[str, str]
    """Reason by variant that has no result."""
    positions: dict[str, list[int]]
    """By symbol, the bars that each variant decides on."""

    @property
    def asks_models(self) -> bool:
        """Whether any variant may call a chat model."""
        return self.mode != "replay" and not all(d.uses_only_rules for d in self.desks.values())

    def estimate(self) -> Estimate:
        """Return what all variants together would take; asks no model.

        A request that an earlier variant sends as well is asked once, and in mode `cached` those of
        the whole desk are on record already. Otherwise the assumptions are those of `estimate`.
        """
        config, calls = self.predictor.config, 0.0
        tokens: dict[str, npt.NDArray[np.float64]] = {}
        has_memory = bool(self.predictor.package.trained_state.lessons)
        for symbol, positions in self.positions.items():
            sample = sample_positions(positions) if positions and self.asks_models else []
            for view in self.predictor.market.bar_views(symbol, sample):
                known = set[str]()
                for name, desk in self.desks.items():
                    needs = measure_calls(
                        desk, view, has_memory, None if self.mode == "live" else known
                    )
                    if name == WHOLE_DESK and self.mode != "live":
                        continue
                    share = len(positions) / len(sample)
                    calls += share * len(needs)
                    for model, characters, max_tokens in needs:
                        spent = np.array([characters / CHARACTERS_PER_TOKEN, max_tokens])
                        tokens[model] = tokens.get(model, np.zeros(2)) + share * spent
        totals = {model: (float(t[0]), float(t[1])) for model, t in tokens.items()}
        return Estimate(
            client=config.client,
            decisions=len(self.desks) * sum(map(len, self.positions.values())),
            calls=round(calls),
            prompt_tokens=round(sum(prompt for prompt, _ in totals.values())),
            completion_tokens=round(sum(completion for _, completion in totals.values())),
            cost_usd=price_tokens(config, totals),
        )


def prepare_ablation(
    model_uri: str, symbols: Sequence[str], settings: Settings, mode: Mode = "cached"
) -> AblationPlan:
    """Return the variants of a packaged desk; no symbols means those that it was trained on.

    Raises ModelLoadError, DataError, and ConfigError where a model can't be called but must be.
    """
    predictor = load_predictor(model_uri)
    # Pinned to the training's bars, which its registered results are of.
    predictor.market = market_of_training(predictor)
    request, package = read_request(predictor.package), predictor.package
    chosen = tuple(symbols) or request.symbols
    policies = package.trained_state.policies
    positions = {s: bars_to_decide(predictor.market.bars(s), policies, request) for s in chosen}
    debaters = tuple(row for row in load_preset("debate").agents if row.role == "debater")
    inputs = _find_inputs(predictor, positions)
    variants = desk_variants(package.config, debaters, inputs)
    desks, left_out = {}, dict(variants.left_out)
    for name, config in variants.desks.items():
        try:
            _make_desk(predictor, config, settings, mode)
        except ConfigError as error:
            if name == WHOLE_DESK:
                raise
            left_out[name] = str(error)  # such as a prompt that no rule answers
        else:
            desks[name] = config
    return AblationPlan(predictor, model_uri, chosen, settings, mode, desks, left_out, positions)


def _find_inputs(
    predictor: Predictor, positions: Mapping[str, Sequence[int]]
) -> frozenset[OptionalInput]:
    """Return the inputs that any decision of the ablation has."""
    found: set[OptionalInput] = {"memory"} if predictor.package.trained_state.lessons else set()
    for symbol, bars in positions.items():
        # In parts: each view holds a copy of the history by then.
        for first in range(0, len(bars), MAX_VIEWS):
            for view in predictor.market.bar_views(symbol, bars[first : first + MAX_VIEWS]):
                found |= {"news"} if view.news else set()
                found |= {"fundamentals"} if view.fundamentals else set()
            if len(found) == len(ALL_INPUTS):
                return frozenset(found)
    return frozenset(found)


def ablate(
    model_uri: str,
    symbols: Sequence[str],
    settings: Settings,
    mode: Mode = "cached",
    progress: Progress = no_progress,
) -> Ablation:
    """Run every variant of a packaged desk over its out-of-sample bars, and log the comparison.

    Arguments and errors are those of `prepare_ablation`, and TrackingError.
    """
    return run_ablation(prepare_ablation(model_uri, symbols, settings, mode), progress)


def run_ablation(plan: AblationPlan, progress: Progress = no_progress) -> Ablation:
    """Let every variant of `plan` decide, and log the comparison in a run of its own.

    Raises DataError, ConfigError and TrackingError.
    """
    predictor, chosen = plan.predictor, plan.symbols
    tags = predictor_tags(predictor, plan.model_uri)
    datasets = [each for symbol in chosen for each in training_datasets(predictor.market, symbol)]
    run = open_tagged_run("ablate", f"ablate {' '.join(chosen)}", tags, single_process=True)
    with run.failed_on_error():
        run.log(
            params={
                "model_uri": plan.model_uri,
                "symbols": ",".join(chosen),
                "mode": plan.mode,
                **desk_params(predictor.config),
                **bars_params(predictor.market, None),
            }
        )
        run.log_inputs(datasets, "backtest", tags.get(MODEL_ID))
        runs, left_out = {}, dict(plan.left_out)
        for number, name in enumerate(plan.desks, 1):
            count = f"{name} ({number} of {len(plan.desks)})"
            variant = _run_variant(plan, name, _with_prefix(progress, count))
            statuses = {decision.signal.status for decision in variant.decisions}
            if name != WHOLE_DESK and Status.OK not in statuses:
                failures = ", ".join(sorted(status.value for status in statuses))
                left_out[name] = f"none of its decisions came about: {failures}"
            else:
                runs[name] = variant
        whole = runs[WHOLE_DESK]
        seed = read_request(predictor.package).seed
        ablation = Ablation(
            run_id=run.run_id,
            model_uri=plan.model_uri,
            decisions=len(whole.decisions),
            rows=tuple(_compare(name, each, whole, seed) for name, each in runs.items()),
            left_out=left_out,
        )
        report = asdict(ablation)
        table = render_ablation_table(report["rows"], left_out)
        run.log_json("ablation.json", report)
        run.log_text("ablation.md", table)
        run.set_description(table)
        with ScratchFolder() as folder:
            write_ablation_chart(report["rows"], folder)
            run.log_files(folder)
        run.end("FINISHED")
    return ablation


def _with_prefix(progress: Progress, prefix: str) -> Progress:
    """Return `progress` with each of its names behind the prefix."""
    return lambda name, steps: progress(f"{prefix}, {name}", steps)


def _make_desk(predictor: Predictor, config: DeskConfig, settings: Settings, mode: Mode) -> Desk:
    """Return the desk of a variant, with the trained state. Raises ConfigError."""
    package = predictor.package
    # A cassette of its own: the package's replies come first, new ones are recorded at home.
    cassette = open_cassette(settings, package)
    state, external = package.trained_state, package.external
    desk = Desk(config, state, settings, cassette, mode=mode, external=external)
    if mode != "replay":
        # Fail before hours of decisions, not at the first reply that is not recorded.
        desk.require_key()
    return desk


def _run_variant(plan: AblationPlan, name: str, progress: Progress) -> _VariantRun:
    """Let the desk of a variant decide on all symbols' out-of-sample bars."""
    predictor = plan.predictor
    desk = _make_desk(predictor, plan.desks[name], plan.settings, plan.mode)
    policies = predictor.package.trained_state.policies
    request = read_request(predictor.package)
    started = time.perf_counter()
    outcomes = tuple(
        decide_out_of_sample(desk, predictor.market, symbol, policies, request, progress)
        for symbol in plan.symbols
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
    decisions, whole_decisions = variant.decisions, whole.decisions
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
