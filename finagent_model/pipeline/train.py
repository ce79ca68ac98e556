"""Whose opinions a training's search weighs: the technical score, and an external analyst's where
an agent of the desk reads it.

Training in three stages that hand each other ids alone, so that each may be a task on another
machine: `start_training` fits, `backtest_symbol` lets the desk decide on what no fit has seen (a
run of its own), `finish_training` packages, asks the gate and registers. `train` is the three in
turn.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from finagent_model._base import Progress, no_progress
from finagent_model.agents.providers import ClientPool, with_addresses
from finagent_model.agents.team import export_component
from finagent_model.cassette.jsonl import dump_replies
from finagent_model.config.desk_config import DeskConfig, load_config
from finagent_model.data.market import Market
from finagent_model.decision.decision import NO_EXECUTION, Execution
from finagent_model.desk.desk import Desk, config_hash
from finagent_model.errors import BadInputError, ExternalAnalystError
from finagent_model.market.bars import BarSeries
from finagent_model.model.predictor import open_cassette
from finagent_model.model.wheel import code_hash
from finagent_model.pipeline.backtest import TranscriptWriter, decide_and_reflect, log_outcome
from finagent_model.pipeline.datasets import bar_snapshots, log_bar_snapshots, training_datasets
from finagent_model.pipeline.finalize import Trained, finish_training
from finagent_model.pipeline.run_metadata import (
    SYMBOL,
    TRAINING,
    TrainingState,
    desk_tags,
    open_tagged_run,
)
from finagent_model.settings import Settings
from finagent_model.tracking.runs import REQUEST, RunLog, find_child_runs
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import ScoreSources
from finagent_model.training.walk_forward import fit_policies

log = logging.getLogger(__name__)


def score_external(desk: Desk, histories: Mapping[str, BarSeries], watch: Progress) -> ScoreSources:
    """Ask the desk's external analyst, if it has one, about each bar. Raises ExternalAnalystError
    where it never had an opinion.
    """
    config = desk.config
    technical = any(row.prompt == "technical" for row in config.agents)
    scores = {}
    analyst = config.external_analyst
    for symbol, bars in histories.items() if analyst else ():
        found = desk.external_scores(bars, watch(f"asking {analyst} about {symbol}", len(bars)))
        if found.failed:
            day, reason = next(iter(found.failed.items()))
            said = f"{analyst} failed on {len(found.failed)} of {len(bars)} bars of {symbol}"
            if np.isnan(found.scores).all():
                raise ExternalAnalystError(
                    str(analyst), "never", f"{said}, first on {day}: {reason}"
                )
            log.warning("%s; they count as no opinion. First on %s: %s", said, day, reason)
        scores[symbol] = found.scores
    desk.close()
    return ScoreSources(config.initial_policy, config.policy, technical or not scores, scores)


def require_schedule(request: TrainRequest, config: DeskConfig) -> None:
    """Raises BadInputError where the schedule would follow half of what the desk hears."""
    if request.schedule == "change" and config.external_analyst:
        raise BadInputError(
            "schedule 'change' follows the technical score alone, and this desk hears "
            f"{config.external_analyst} too; give a number of bars"
        )


FITTED = "finagent.fitted"
"""Tag of a training's run, once all that its first stage leaves is there."""


def train(
    request: TrainRequest, settings: Settings, watch: Progress = no_progress, jobs: int = 1
) -> Trained:
    """Fit, backtest, package, register, and move the aliases if the gate lets the version pass;
    `jobs` fits and symbols at a time.

    Raises BadInputError and DataError before anything is written, GateRefusedError at the end.
    """
    run_id = start_training(request, settings, watch, jobs, alone=True)
    with RunLog(run_id).failed_on_error():
        children = _backtest_all(run_id, request.symbols, settings, watch, jobs)
        return finish_training(run_id, children, settings, watch)


def start_training(
    request: TrainRequest,
    settings: Settings,
    watch: Progress = no_progress,
    jobs: int = 1,
    *,
    alone: bool = False,
    execution: Execution = NO_EXECUTION,
) -> str:
    """Fit the policies on every symbol of the request, for `execution`; returns the id of the
    training's run.

    `alone` says that this process does the whole training, and that nobody goes on if it dies.
    Below the execution's run the same request is fitted once: asked again, it is that training.
    """
    market = Market.from_settings(settings)
    histories = {symbol: market.bars(symbol) for symbol in request.symbols}
    config = with_addresses(load_config(request.config), settings)
    desk = Desk(config, None, settings, open_cassette(settings), mode=request.mode)
    if request.mode != "replay":
        desk.require_key()
    desk.require_external()  # the package will carry it
    require_schedule(request, config)
    facts = [market.digest(symbol) for symbol in request.symbols]
    digest = request.digest(config_hash(config), code_hash(), *facts)
    above = execution.parent_run_id
    if above and (known := find_child_runs(above, {REQUEST: digest, FITTED: "yes"})):
        return known[0].run_id
    tags, name = {REQUEST: digest, **desk_tags(config)}, f"train {' '.join(request.symbols)}"
    run = open_tagged_run("train", name, tags, execution=execution, alone=alone)
    with run.failed_on_error():
        run.log_inputs(
            [each for s in request.symbols for each in training_datasets(market, s)], "training"
        )
        run.log(
            params=request.model_dump()
            | {
                "symbols": ",".join(request.symbols),
                "client": config.client,
                "bars": market.source.name,
            }
        )
        voices = score_external(desk, histories, watch)
        fitted = fit_policies(
            histories, request, lambda n: watch("fitting policies", n), jobs, voices
        )
        seen = bar_snapshots(market, request.symbols)
        TrainingState(request, config, fitted.policies, fitted.trials, seen).write(run)
        run.log_json("agent_graph.json", export_component(config, ClientPool(config, settings)))
        run.set_tags({FITTED: "yes"})
    return run.run_id


def backtest_symbol(
    run_id: str,
    symbol: str,
    settings: Settings,
    watch: Progress = no_progress,
    execution: Execution = NO_EXECUTION,
) -> str:
    """Let the trained desk decide on the symbol's unseen bars, for `execution`; returns the id of
    its own run, a child of the training's.
    """
    begun = TrainingState.read(RunLog(run_id))
    request, policies = begun.request, begun.policies
    market = Market.from_settings(settings, begun.bars)
    cassette = open_cassette(settings)
    desk = Desk(begun.config, None, settings, cassette, mode=request.mode)
    with TranscriptWriter() as minutes:
        unseen = decide_and_reflect(desk, market, symbol, policies, request, watch, minutes)
        tags = {SYMBOL: symbol, TRAINING: run_id, **desk_tags(begun.config)}
        name = f"backtest {symbol}"
        run = open_tagged_run(
            "backtest", name, tags, execution=execution, parent=run_id, alone=True
        )
        with run.failed_on_error():
            run.log_inputs(training_datasets(market, symbol), "backtest")
            log_outcome(run, unseen, request.seed, minutes)
            log_bar_snapshots(run, bar_snapshots(market, [symbol]))
            run.log_text("cassette.jsonl", dump_replies(cassette.used_replies))
            run.end("FINISHED")
    return run.run_id


def _backtest_all(
    run_id: str, symbols: Sequence[str], settings: Settings, watch: Progress, jobs: int
) -> list[str]:
    """One after the other, or in processes of their own."""
    workers = min(jobs, len(symbols))
    if workers == 1:
        return [backtest_symbol(run_id, symbol, settings, watch) for symbol in symbols]
    done = watch("backtesting symbols", len(symbols))
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(backtest_symbol, run_id, symbol, settings) for symbol in symbols]
        for future in futures:
            future.add_done_callback(lambda _: done())
        return [future.result() for future in futures]
