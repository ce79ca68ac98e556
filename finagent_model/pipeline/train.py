"""Train a desk in three stages that hand each other ids only.

`start_training` fits the policies, `backtest_symbol` lets the desk decide on one symbol's
out-of-sample bars in a run of its own, `finish_training` (see `finalize`) packages, asks the gate
and registers. Each may be a task on another machine; `train` runs all three here. What a stage
leaves in its run is all that the next one reads.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from finagent_model._progress import Progress, no_progress
from finagent_model.agents.components import AgentGraph
from finagent_model.agents.list_prices import settle_models
from finagent_model.cassette.jsonl import dump_replies
from finagent_model.config.desk_config import DeskConfig, config_hash, load_config
from finagent_model.data.market import Market
from finagent_model.decision.decision import NO_EXECUTION, Execution
from finagent_model.desk.desk import Desk
from finagent_model.errors import BadInputError
from finagent_model.model.predictor import open_cassette
from finagent_model.model.wheel import code_hash
from finagent_model.pipeline.backtest import (
    TranscriptWriter,
    backtest_params,
    decide_and_reflect,
    log_outcome,
)
from finagent_model.pipeline.datasets import bar_snapshots, log_bar_snapshots, training_datasets
from finagent_model.pipeline.early_checks import ReplayCheck, require_sound_inputs
from finagent_model.pipeline.finalize import TrainingResult, finish_training
from finagent_model.pipeline.run_metadata import (
    FITTED,
    SYMBOL,
    TRAINING,
    TrainingState,
    bars_params,
    desk_params,
    desk_tags,
    open_tagged_run,
)
from finagent_model.settings import Settings
from finagent_model.tracking.runs import REQUEST, RunLog, find_child_runs
from finagent_model.training.external_scores import score_external
from finagent_model.training.request import TrainRequest
from finagent_model.training.walk_forward import fit_policies

log = logging.getLogger(__name__)


def train(
    request: TrainRequest, settings: Settings, progress: Progress = no_progress, jobs: int = 1
) -> TrainingResult:
    """Fit, backtest, package and register a desk; move the aliases if the gate lets it pass.

    `jobs` is the number of fits, and of symbols, at a time; it does not change the result. Raises
    BadInputError and DataError before anything is written, and GateRefusedError at the end.
    """
    run_id = start_training(request, settings, progress, jobs, single_process=True)
    with RunLog(run_id).failed_on_error():
        children = _backtest_all(run_id, request.symbols, settings, progress, jobs)
        return finish_training(run_id, children, settings, progress)


def start_training(
    request: TrainRequest,
    settings: Settings,
    progress: Progress = no_progress,
    jobs: int = 1,
    *,
    single_process: bool = False,
    execution: Execution = NO_EXECUTION,
) -> str:
    """Fit the policies on every symbol of the request; return the id of the training's run.

    `single_process` says that this process does the whole training, so that no other goes on if it
    dies. Idempotent below the run of `execution`: an equal request returns the same run. Raises
    BadInputError, DataError, ConfigError and ExternalAnalystError.
    """
    market = Market.from_settings(settings)
    histories = {symbol: market.bars(symbol) for symbol in request.symbols}
    config = load_config(request.config).with_max_rounds(settings.autogen_max_rounds)
    config = settle_models(config, settings)
    desk = Desk(config, None, settings, open_cassette(settings), mode=request.mode)
    # Whatever would fail later fails here, before a run is opened.
    if request.mode != "replay":
        desk.require_key()
    desk.require_external()  # the package will contain its source
    require_schedule(request, config)
    facts = [market.digest(symbol) for symbol in request.symbols]
    # With the code's hash: after a change of code the same request is another training.
    digest = request.digest(config_hash(config), code_hash(), *facts)
    parent = execution.parent_run_id
    # A retried task goes on with the run that its first try completed; `FITTED` is set last.
    if parent and (runs := find_child_runs(parent, {REQUEST: digest, FITTED: "yes"})):
        return runs[0].run_id
    tags, name = {REQUEST: digest, **desk_tags(config)}, f"train {' '.join(request.symbols)}"
    run = open_tagged_run("train", name, tags, execution=execution, single_process=single_process)
    with run.failed_on_error():
        run.log_inputs(
            [each for s in request.symbols for each in training_datasets(market, s)], "training"
        )
        run.log(
            params=request.model_dump()
            | {
                "symbols": ",".join(request.symbols),
                **desk_params(config),
                **bars_params(market, None),
            }
        )
        score_sources = score_external(desk, histories, progress)
        fitted = fit_policies(
            histories, request, lambda n: progress("fitting policies", n), jobs, score_sources
        )
        snapshots = bar_snapshots(market, request.symbols)
        TrainingState(request, config, fitted.policies, fitted.trials, snapshots).write(run)
        run.log_json("agent_graph.json", AgentGraph.from_config(config).to_component())
        run.set_tags({FITTED: "yes"})
    return run.run_id


def backtest_symbol(
    run_id: str,
    symbol: str,
    settings: Settings,
    progress: Progress = no_progress,
    execution: Execution = NO_EXECUTION,
) -> str:
    """Let the desk decide on the symbol's out-of-sample bars; return the id of a new child run.

    `run_id` is the training's run. Raises DataError, ConfigError, TrackingError, and
    EarlyCheckError where the first decisions are not replayed as they were made.
    """
    state = TrainingState.read(RunLog(run_id))
    request, policies = state.request, state.policies
    market = Market.from_settings(settings, state.bars)
    cassette = open_cassette(settings)
    desk = Desk(state.config, None, settings, cassette, mode=request.mode)
    # Only a training that pays for its decisions has something to lose before the gate.
    check_first = None
    if request.mode != "replay" and not state.config.uses_only_rules:
        require_sound_inputs(market, symbol, policies, state.config)
        check_first = ReplayCheck(cassette)
    with TranscriptWriter() as transcripts:
        # The run is opened after the decisions: a failed try leaves no run, only recorded replies.
        outcome = decide_and_reflect(
            desk, market, symbol, policies, request, progress, transcripts, check_first
        )
        tags = {SYMBOL: symbol, TRAINING: run_id, **desk_tags(state.config)}
        name = f"backtest {symbol}"
        run = open_tagged_run(
            "backtest", name, tags, execution=execution, parent=run_id, single_process=True
        )
        with run.failed_on_error():
            run.log(params=backtest_params(state.config, market, symbol, request.mode))
            run.log_inputs(training_datasets(market, symbol), "backtest")
            knowledge = state.config.latest_knowledge
            log_outcome(run, outcome, request.seed, transcripts, knowledge)
            log_bar_snapshots(run, bar_snapshots(market, [symbol]))
            # Only replies of these decisions: they become part of the package.
            run.log_text("cassette.jsonl", dump_replies(cassette.used_replies))
            run.end("FINISHED")
    return run.run_id


def require_schedule(request: TrainRequest, config: DeskConfig) -> None:
    """Raise BadInputError for a schedule that would ignore one of the desk's score sources."""
    if request.schedule == "change" and config.external_analyst:
        raise BadInputError(
            "schedule 'change' follows the technical score alone, and this desk hears "
            f"{config.external_analyst} too; give a number of bars"
        )


def _backtest_all(
    run_id: str, symbols: Sequence[str], settings: Settings, progress: Progress, jobs: int
) -> list[str]:
    """Backtest each symbol, up to `jobs` processes at a time; return the runs in their order."""
    workers = min(jobs, len(symbols))
    if workers == 1:
        return [backtest_symbol(run_id, symbol, settings, progress) for symbol in symbols]
    done = progress("backtesting symbols", len(symbols))
    # Not fork: MLflow and pyarrow have threads, whose locks a forked child would inherit.
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(backtest_symbol, run_id, symbol, settings) for symbol in symbols]
        for future in futures:
            future.add_done_callback(lambda _: done())
        return [future.result() for future in futures]
