"""Training in three stages that hand each other ids alone, so that each may be a task on another
machine: `start_training` fits, `backtest_symbol` lets the desk decide on what no fit has seen (a
run of its own), `finish_training` packages, asks the gate and registers. `train` is the three in
turn.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from finagent_model import registry
from finagent_model.agents.cassette import RecordedReply, dump_replies, load_replies
from finagent_model.agents.clients import ClientPool
from finagent_model.agents.graph import export_component
from finagent_model.artifacts.ledger import (
    ledger_hash,
    read_ledger,
)
from finagent_model.artifacts.page import SymbolPage, report_page
from finagent_model.artifacts.report import report
from finagent_model.desk import Desk, config_hash
from finagent_model.domain.desk_config import DeskConfig
from finagent_model.domain.policy import PolicyBook
from finagent_model.errors import GateRefusedError
from finagent_model.market import Market
from finagent_model.pipeline.champion import WINDOW, beside, window_of
from finagent_model.pipeline.outcome import decide_unseen, log_outcome
from finagent_model.pipeline.verify import ask_again, proofs
from finagent_model.pipeline.watch import Watch, unwatched
from finagent_model.presets import load_config, with_address
from finagent_model.serving.answering import open_cassette
from finagent_model.serving.logged import load_answering, log_package
from finagent_model.serving.package import write_package
from finagent_model.serving.wheel import code_hash
from finagent_model.settings import Settings
from finagent_model.tracking import REQUEST, STAGE, RunLog, bury_dead_runs, open_run, process_tag
from finagent_model.training.evidence import SymbolFacts, Trials, assess
from finagent_model.training.gate import GateReport, judge_version
from finagent_model.training.out_of_sample import unseen_part
from finagent_model.training.request import TrainRequest
from finagent_model.training.walk_forward import fit_policies


@dataclass(frozen=True)
class Trained:
    """A registered version."""

    run_id: str
    name: str
    version: str
    content_hash: str
    verdict: str
    report: str
    """Markdown; its first line says what the desk earned."""


def train(request: TrainRequest, settings: Settings, watch: Watch = unwatched) -> Trained:
    """Fit, backtest, package, register, and move the aliases if the gate lets the version pass.

    Raises BadInputError and DataError before anything is written, GateRefusedError at the end.
    """
    run_id = start_training(request, settings, watch, alone=True)
    with RunLog(run_id).failing():
        children = [backtest_symbol(run_id, symbol, settings, watch) for symbol in request.symbols]
        return finish_training(run_id, children, settings, watch)


def start_training(
    request: TrainRequest, settings: Settings, watch: Watch = unwatched, *, alone: bool = False
) -> str:
    """Fit the policies on every symbol of the request; returns the id of the training's run.

    `alone` says that this process does the whole training, and that nobody goes on if it dies.
    """
    market = Market.of(settings)
    histories = {symbol: market.bars(symbol) for symbol in request.symbols}
    config = with_address(load_config(request.config), settings)
    pool = ClientPool(config, settings)
    if request.mode != "replay":
        pool.require_key()
    facts = [market.digest(symbol) for symbol in request.symbols]
    digest = request.digest(config_hash(config), code_hash(), *facts)
    bury_dead_runs(digest)
    process = process_tag() if alone else {}
    run = open_run(
        f"train {' '.join(request.symbols)}", {STAGE: "train", REQUEST: digest, **process}
    )
    with run.failing():
        run.params(
            request.model_dump()
            | {
                "symbols": ",".join(request.symbols),
                "client": config.client,
                "bars": market.source.name,
            }
        )
        fitted = fit_policies(histories, request, lambda folds: watch("fitting policies", folds))
        run.json("request.json", request.model_dump(mode="json"))
        run.text("config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        run.json("policy.json", fitted.policies.model_dump(mode="json"))
        run.json("trials.json", fitted.trials.model_dump(mode="json"))
        run.json("agent_graph.json", export_component(config, pool))
    return run.run_id


def backtest_symbol(run_id: str, symbol: str, settings: Settings, watch: Watch = unwatched) -> str:
    """Let the trained desk decide on the symbol's unseen bars; returns the id of its own run."""
    parent = RunLog(run_id)
    request, config, policies = _trained(parent)
    market = Market.of(settings)
    cassette = open_cassette(settings)
    desk = Desk(config, policies, settings, cassette, mode=request.mode)
    unseen = decide_unseen(desk, market, symbol, policies, request, watch)
    run = open_run(f"backtest {symbol}", {STAGE: "backtest"}, parent=run_id)
    with run.failing():
        log_outcome(run, unseen, request.seed)
        run.text("cassette.jsonl", dump_replies(cassette.used))
        run.end("FINISHED")
    return run.run_id


def finish_training(
    run_id: str, children: Sequence[str], settings: Settings, watch: Watch = unwatched
) -> Trained:
    """Package what was trained, ask the gate, register. Raises GateRefusedError once the refused
    version is registered as candidate.
    """
    run = RunLog(run_id)
    done = watch("packaging and registering", 4)
    request, config, policies = _trained(run)
    backtests = [RunLog(child) for child in children]
    outcomes = {o["symbol"]: o["metrics"] for o in (_json(c, "outcome.json") for c in backtests)}
    ledgers = {
        symbol: read_ledger(pa.BufferReader(child.read("ledger.parquet")))
        for symbol, child in zip(outcomes, backtests, strict=True)
    }
    replies: dict[str, RecordedReply] = {}
    for child in backtests:
        replies |= load_replies(child.read("cassette.jsonl").decode().splitlines())
    trials = Trials.model_validate(_json(run, "trials.json"))
    facts = [SymbolFacts.model_validate_json(child.read("facts.json")) for child in backtests]
    evidence = assess(facts, trials, config.gate, seed=request.seed)
    ours = window_of(facts)
    done()
    metrics = {symbol: _defined(values) for symbol, values in outcomes.items()}
    text = report(metrics, config.model_used, evidence)
    with run.active(), tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "package"
        record = {
            "request": request.model_dump(mode="json", exclude={"mode", "register_as"}),
            "metrics": outcomes,
            "evidence": evidence.model_dump(mode="json"),
            "ledgers": {symbol: ledger_hash(rows) for symbol, rows in ledgers.items()},
        }
        manifest = write_package(
            package,
            config=config,
            policies=policies,
            replies=replies,
            agent_graph=_json(run, "agent_graph.json"),
            backtest=record,
            code_hash=code_hash(),
        )
        last = next(iter(ledgers.values()))[-1]
        example = {"symbol": last["symbol"], "as_of": last["as_of"]}
        model_uri = log_package(package, manifest, config, example)
        done()
        answering = load_answering(model_uri)
        served = ask_again(answering, ledgers)
        champion = registry.champion(request.register_as)
        gate = judge_version(
            metrics,
            ledgers,
            served,
            evidence,
            config.gate.require_evidence,
            beside(champion, ours),
            proofs(answering),
        )
        run.json("gate.json", {"verdict": gate.verdict, **gate.model_dump(mode="json")})
        run.text(WINDOW, ours.model_dump_json())
        run.text("report.md", text)
        title = f"{request.register_as}, run {run_id}"
        pages = [
            _page_of(Market.of(settings), child, fact, metrics[fact.symbol], policies)
            for child, fact in zip(backtests, facts, strict=True)
        ]
        fits = [fit.valid_from for fit in policies.fits]
        run.text("report.html", report_page(title, pages, fits, gate, config.model_used))
        run.describe(text)
        run.metrics(_means(metrics))
        done()
        version = _register(request.register_as, model_uri, run_id, manifest, gate, champion)
        done()
    if gate.verdict != "passed":
        raise GateRefusedError(
            f"the gate refused version {version} of {request.register_as}: {gate.refusals}; "
            f"it stays candidate, see gate.json of run {run_id}"
        )
    return Trained(
        run_id=run_id,
        name=request.register_as,
        version=version,
        content_hash=manifest["content_hash"],
        verdict=gate.verdict,
        report=text,
    )


def _trained(run: RunLog) -> tuple[TrainRequest, DeskConfig, PolicyBook]:
    """What `start_training` left in its run."""
    return (
        TrainRequest.read(**_json(run, "request.json")),
        DeskConfig.model_validate(yaml.safe_load(run.read("config.yaml"))),
        PolicyBook.model_validate(_json(run, "policy.json")),
    )


def _register(
    name: str,
    model_uri: str,
    run_id: str,
    manifest: Mapping[str, Any],
    gate: GateReport,
    champion: registry.Version | None,
) -> str:
    """A version with its verdict first, aliases last: a process that dies leaves none behind."""
    tags = {
        registry.VERDICT: gate.verdict,
        registry.CONTENT: manifest["content_hash"],
        registry.EVIDENCE: gate.evidence.grade,
    }
    version = registry.register(name, model_uri, run_id, tags)
    registry.mark_candidate(name, version)
    if gate.verdict == "passed":
        registry.promote(name, version, instead_of=champion.version if champion else None)
    return version


def _page_of(
    market: Market,
    child: RunLog,
    facts: SymbolFacts,
    metrics: Mapping[str, float],
    policies: PolicyBook,
) -> SymbolPage:
    bars = market.bars(facts.symbol)
    trades = pq.read_table(pa.BufferReader(child.read("trades.parquet"))).to_pandas()
    return SymbolPage(bars[unseen_part(bars, policies)], facts, trades, metrics)


def _means(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Over symbols, of what is defined for all of them."""
    first = next(iter(metrics.values()))
    return {name: math.fsum(m[name] for m in metrics.values()) / len(metrics) for name in first}


def _defined(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in metrics.items()}


def _json(run: RunLog, name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(run.read(name))
    return value
