"""Training in three stages that hand each other ids alone, so that each may be a task on another
machine: `start_training` fits, `backtest_symbol` lets the desk decide on what no fit has seen (a
run of its own), `finish_training` packages, asks the gate and registers. `train` is the three in
turn.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from finagent_model.agents.cassette import dump_replies
from finagent_model.agents.clients import ClientPool, with_addresses
from finagent_model.agents.graph import export_component
from finagent_model.desk import Desk, config_hash
from finagent_model.market import Market
from finagent_model.pipeline.begun import Begun
from finagent_model.pipeline.finish import Trained, finish_training
from finagent_model.pipeline.minutes import Minutes
from finagent_model.pipeline.outcome import decide_and_reflect, log_outcome
from finagent_model.pipeline.voices import hear, require_schedule
from finagent_model.pipeline.watch import Watch, unwatched
from finagent_model.presets import load_config
from finagent_model.serving.answering import open_cassette
from finagent_model.serving.wheel import code_hash
from finagent_model.settings import Settings
from finagent_model.tracking import REQUEST, STAGE, RunLog, open_run
from finagent_model.training.request import TrainRequest
from finagent_model.training.walk_forward import fit_policies


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
) -> str:
    """Fit the policies on every symbol of the request; returns the id of the training's run.

    `alone` says that this process does the whole training, and that nobody goes on if it dies.
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
    tags = {STAGE: "train", REQUEST: digest}
    run = open_run(f"train {' '.join(request.symbols)}", tags, alone=alone)
    with run.failing():
        run.params(
            request.model_dump()
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
        Begun(request, config, fitted.policies, fitted.trials).write(run)
        run.json("agent_graph.json", export_component(config, ClientPool(config, settings)))
    return run.run_id


def backtest_symbol(run_id: str, symbol: str, settings: Settings, watch: Watch = unwatched) -> str:
    """Let the trained desk decide on the symbol's unseen bars; returns the id of its own run."""
    begun = Begun.read(RunLog(run_id))
    request, policies = begun.request, begun.policies
    market = Market.of(settings)
    cassette = open_cassette(settings)
    desk = Desk(begun.config, None, settings, cassette, mode=request.mode)
    with Minutes() as minutes:
        unseen = decide_and_reflect(desk, market, symbol, policies, request, watch, minutes)
        run = open_run(f"backtest {symbol}", {STAGE: "backtest"}, run_id, alone=True)
        with run.failing():
            log_outcome(run, unseen, request.seed, minutes)
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
