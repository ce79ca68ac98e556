"""The last stage of a training: what was decided becomes a package, the gate judges it, and the
registry gets a version.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finagent_model import registry
from finagent_model.artifacts.figures import SymbolPage
from finagent_model.artifacts.ledger import Row, ledger_hash, write_ledger
from finagent_model.artifacts.page import report_page
from finagent_model.errors import GateRefusedError
from finagent_model.market import Market
from finagent_model.pipeline.begun import Begun
from finagent_model.pipeline.champion import WINDOW, beside, window_of
from finagent_model.pipeline.provenance import MODEL_ID
from finagent_model.pipeline.recorded import reading
from finagent_model.pipeline.registering import Judged, register_version, tell, told
from finagent_model.pipeline.training_record import TrainingRecord
from finagent_model.pipeline.verify import ask_again, proofs
from finagent_model.pipeline.watch import Watch, unwatched
from finagent_model.serving.logged import Logged, load_answering, log_package, manifest_of
from finagent_model.serving.package import write_package
from finagent_model.serving.wheel import code_hash
from finagent_model.settings import Settings
from finagent_model.tracking import RunLog
from finagent_model.training.evidence import Evidence
from finagent_model.training.gate import GateReport, judge_version
from finagent_model.training.out_of_sample import unseen_part
from finagent_model.upstream.wheel import source_at_hand


@dataclass(frozen=True)
class Trained:
    """A registered version."""

    run_id: str
    name: str
    version: str
    content_hash: str
    verdict: str
    report: str
    """Markdown; its first line grades the evidence."""


def finish_training(
    run_id: str, children: Sequence[str], settings: Settings, watch: Watch = unwatched
) -> Trained:
    """Calibrate, package, ask the gate, register. Raises GateRefusedError once the refused version
    is registered as candidate.

    A training registers once: asked again it gives the version that it made, tells of it what was
    not told, and moves what aliases were not moved yet.
    """
    run = RunLog(run_id)
    begun = Begun.read(run)
    name = begun.request.register_as
    if known := registry.of_run(name, run_id):
        if not told(run):
            tell(run, _judged_before(run, begun, children, known.version), known.version)
        registry.settle(name, known.version)
        run.end("FINISHED")
        return _trained(run, name, known)
    made = _judge_and_register(run, begun, children, settings, watch)
    return _trained(run, name, registry.find(name, made))


def _judge_and_register(
    run: RunLog, begun: Begun, children: Sequence[str], settings: Settings, watch: Watch
) -> str:
    """Gives the version's number."""
    done = watch("packaging and registering", 4)
    record = TrainingRecord.read(begun, children)
    ours = window_of([each.facts for each in record.tested])
    name = begun.request.register_as
    done()
    with run.active(), tempfile.TemporaryDirectory() as folder:
        ledgers = record.ledgers
        manifest, logged = _package(run, record, ledgers, Path(folder) / "package", settings)
        (Path(folder) / "ledgers").mkdir()
        for symbol, given in record.signals.items():
            write_ledger(given, Path(folder) / "ledgers" / f"{symbol}.parquet")
        run.files(Path(folder) / "ledgers", "ledgers")
        done()
        champion = registry.champion(name)
        answering = load_answering(logged.uri)
        answering.market = market = Market.of(settings, begun.bars)
        gate = judge_version(
            record.metrics,
            ledgers,
            ask_again(answering, ledgers),
            record.evidence,
            begun.config.gate,
            beside(champion, ours),
            proofs(answering),
        )
        said = {"verdict": gate.verdict, "refusals": gate.refusals}
        run.json("gate.json", {**said, **gate.model_dump(mode="json")})
        run.text(WINDOW, ours.model_dump_json())
        run.text("report.md", record.report)
        run.text("report.html", _page(f"{name}, run {run.run_id}", record, gate, market))
        run.describe(record.report)
        run.log(metrics=_means(record.metrics) | _of_evidence(record.evidence))
        done()
        version = register_version(run, record.judged(logged, manifest, gate), champion)
        done()
    return version


def _judged_before(run: RunLog, begun: Begun, children: Sequence[str], version: str) -> Judged:
    """What was registered as `version`, from what the training left."""
    record = TrainingRecord.read(begun, children)
    uri = f"models:/{begun.request.register_as}/{version}"
    with reading(run.run_id):
        said = run.read_json("gate.json")
        gate = GateReport.model_validate({name: said[name] for name in GateReport.model_fields})
    return record.judged(Logged(uri, str(run.tag(MODEL_ID))), manifest_of(uri), gate)


def _trained(run: RunLog, name: str, made: registry.Version) -> Trained:
    """What a training hands out, once its version is registered. Raises GateRefusedError."""
    with reading(run.run_id):
        gate = run.read_json("gate.json")
        verdict, refusals = gate["verdict"], gate["refusals"]
        text = run.read("report.md").decode()
    if verdict != "passed":
        raise GateRefusedError(
            f"the gate refused version {made.version} of {name}: {refusals}; "
            f"it stays candidate, see gate.json of run {run.run_id}"
        )
    return Trained(
        run_id=run.run_id,
        name=name,
        version=made.version,
        content_hash=made.content_hash or "",
        verdict=verdict,
        report=text,
    )


def _package(
    run: RunLog,
    record: TrainingRecord,
    ledgers: Mapping[str, Sequence[Row]],
    folder: Path,
    settings: Settings,
) -> tuple[dict[str, Any], Logged]:
    """Write and log the package; its manifest, and the logged model."""
    begun = record.begun
    upstream = source_at_hand(settings.home) if begun.config.hears_upstream else None
    manifest = write_package(
        folder,
        config=begun.config,
        learned=record.learned,
        replies={key: reply for each in record.tested for key, reply in each.replies.items()},
        agent_graph=run.read_json("agent_graph.json"),
        backtest={
            "request": begun.request.model_dump(mode="json", exclude={"mode", "register_as"}),
            "metrics": {each.symbol: each.metrics for each in record.tested},
            "evidence": record.evidence.model_dump(mode="json"),
            "ledgers": {symbol: ledger_hash(rows) for symbol, rows in ledgers.items()},
        },
        code_hash=code_hash(),
        upstream=upstream,
    )
    return manifest, log_package(folder, manifest, begun.config, record.example)


def _page(title: str, record: TrainingRecord, gate: GateReport, market: Market) -> str:
    """The report that people look at."""
    policies, symbols = record.begun.policies, []
    for each in record.tested:
        bars = market.bars(each.symbol)
        unseen, metrics = bars[unseen_part(bars, policies)], record.metrics[each.symbol]
        symbols.append(SymbolPage(unseen, policies, each.facts, each.trades, metrics))
    return report_page(
        title,
        symbols,
        gate,
        record.begun.config.model_used,
        record.confidence,
        record.calibrations.fits[-1],
    )


def _of_evidence(evidence: Evidence) -> dict[str, float]:
    """Its numbers under names that MLflow shows as a group; undefined ones are left out."""
    return {
        f"evidence/{name}": value for name, value in evidence.numbers.items() if value is not None
    }


def _means(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Over symbols, of what is defined for all of them."""
    first = next(iter(metrics.values()))
    return {name: math.fsum(m[name] for m in metrics.values()) / len(metrics) for name in first}
