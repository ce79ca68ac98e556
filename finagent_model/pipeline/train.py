"""Training in three stages that hand each other ids alone, so that each may be a task on another
machine: `start_training` fits, `backtest_symbol` lets the desk decide on what no fit has seen (a
run of its own), `finish_training` packages, asks the gate and registers. `train` is the three in
turn.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from finagent_model.agents.clients import ClientPool, with_addresses
from finagent_model.agents.graph import export_component
from finagent_model.cassette.cassette import dump_replies
from finagent_model.desk import Desk, config_hash
from finagent_model.domain.execution import NOBODYS, Execution
from finagent_model.market import Market
from finagent_model.pipeline.bars_seen import log_seen, seen_by
from finagent_model.pipeline.begun import Begun
from finagent_model.pipeline.finish import Trained, finish_training
from finagent_model.pipeline.inputs import given
from finagent_model.pipeline.minutes import Minutes
from finagent_model.pipeline.outcome import decide_and_reflect, log_outcome
from finagent_model.pipeline.provenance import SYMBOL, TRAINING, begin, by_desk
from finagent_model.pipeline.voices import hear, require_schedule
from finagent_model.pipeline.watch import Watch, unwatched
from finagent_model.presets import load_config
from finagent_model.serving.answering import open_cassette
from finagent_model.serving.wheel import code_hash
from finagent_model.settings import Settings
from finagent_model.tracking import REQUEST, RunLog, runs_below
from finagent_model.training.request import TrainRequest
from finagent_model.training.walk_forward import fit_policies

FITTED = "finagent.fitted"
"""Tag of a training's run, once all that its first stage leaves is there."""


def train(
    request: TrainRequest, settings: Settings, watch: Watch = unwatched, jobs: int = 1
) -> Trained:
    """Fit, backtest, package, register, and move the aliases if the gate lets the version pass;
    `jobs` fits and symbols at a time.

    Raises BadInputError and DataError before anything is written, GateRefusedError at the end.
    """
    run_id = start_training(request, settings, watch, jobs, alone=True)
    with RunLog(run_id).failing():
        children = _backtest_all(run_id, request.symbols, settings, watch, jobs)
        return finish_training(run_id, children, settings, watch)


def start_training(
    request: TrainRequest,
    settings: Settings,
    watch: Watch = unwatched,
    jobs: int = 1,
    *,
    alone: bool = False,
    execution: Execution = NOBODYS,
) -> str:
    """Fit the policies on every symbol of the request, for `execution`; returns the id of the
    training's run.

    `alone` says that this process does the whole training, and that nobody goes on if it dies.
    Below the execution's run the same request is fitted once: asked again, it is that training.
    """
    market = Market.of(settings)
    histories = {symbol: market.bars(symbol) for symbol in request.symbols}
    config = with_addresses(load_config(request.config), settings)
    desk = Desk(config, None, settings, open_cassette(settings), mode=request.mode)
    if request.mode != "replay":
        desk.require_key()
    desk.require_upstream()  # the package will carry it
    require_schedule(request, config)
    facts = [market.digest(symbol) for symbol in request.symbols]
    digest = request.digest(config_hash(config), code_hash(), *facts)
    above = execution.parent_run_id
    if above and (known := runs_below(above, {REQUEST: digest, FITTED: "yes"})):
        return known[0].run_id
    tags, name = {REQUEST: digest, **by_desk(config)}, f"train {' '.join(request.symbols)}"
    run = begin("train", name, tags, execution=execution, alone=alone)
    with run.failing():
        run.inputs([each for s in request.symbols for each in given(market, s)], "training")
        run.log(
            params=request.model_dump()
            | {
                "symbols": ",".join(request.symbols),
                "client": config.client,
                "bars": market.source.name,
            }
        )
        voices = hear(desk, histories, watch)
        fitted = fit_policies(
            histories, request, lambda n: watch("fitting policies", n), jobs, voices
        )
        seen = seen_by(market, request.symbols)
        Begun(request, config, fitted.policies, fitted.trials, seen).write(run)
        run.json("agent_graph.json", export_component(config, ClientPool(config, settings)))
        run.tags({FITTED: "yes"})
    return run.run_id


def backtest_symbol(
    run_id: str,
    symbol: str,
    settings: Settings,
    watch: Watch = unwatched,
    execution: Execution = NOBODYS,
) -> str:
    """Let the trained desk decide on the symbol's unseen bars, for `execution`; returns the id of
    its own run, a child of the training's.
    """
    begun = Begun.read(RunLog(run_id))
    request, policies = begun.request, begun.policies
    market = Market.of(settings, begun.bars)
    cassette = open_cassette(settings)
    desk = Desk(begun.config, None, settings, cassette, mode=request.mode)
    with Minutes() as minutes:
        unseen = decide_and_reflect(desk, market, symbol, policies, request, watch, minutes)
        tags = {SYMBOL: symbol, TRAINING: run_id, **by_desk(begun.config)}
        name = f"backtest {symbol}"
        run = begin("backtest", name, tags, execution=execution, parent=run_id, alone=True)
        with run.failing():
            run.inputs(given(market, symbol), "backtest")
            log_outcome(run, unseen, request.seed, minutes)
            log_seen(run, seen_by(market, [symbol]))
            run.text("cassette.jsonl", dump_replies(cassette.used))
            run.end("FINISHED")
    return run.run_id


def _backtest_all(
    run_id: str, symbols: Sequence[str], settings: Settings, watch: Watch, jobs: int
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
