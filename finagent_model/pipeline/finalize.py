"""Package, judge and register a training: its last stage.

The record of a training is read again from the runs that its stages left, so that this stage may
run on another machine, or again. The gate judges the package as it will be served, and compares it
with the present champion on the days that are out of sample for both. Then prompts, model card and
tags are published, and aliases move last: a process that dies leaves no alias, and a repeated call
goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from finagent_model._base import Check
from finagent_model._local_files import ScratchFolder
from finagent_model._progress import Progress, no_progress
from finagent_model.agents.external import load_external
from finagent_model.config.desk_config import Prompts
from finagent_model.data.market import Market
from finagent_model.decision.decision import (
    LedgerRow,
    hash_ledger,
    write_ledger,
)
from finagent_model.errors import GateRefusedError
from finagent_model.evaluation.evidence import Evidence
from finagent_model.evaluation.gate import (
    CHAMPION_CHECK,
    GateReport,
    GateWindow,
    check_against_champion,
    judge_version,
)
from finagent_model.market.bars import symbol_file_name
from finagent_model.market.timeframe import parse_timeframe
from finagent_model.model.anchor import Anchor, build_anchor_tags
from finagent_model.model.loading import LoggedModel, load_checked, load_predictor, log_package
from finagent_model.model.package import Manifest, write_package
from finagent_model.model.wheel import code_hash
from finagent_model.pipeline.backtest import pool_backtests
from finagent_model.pipeline.run_metadata import (
    CODE,
    CONFIG,
    DIRTY,
    MODEL_ID,
    MODEL_URI,
    MODEL_VERSION,
    PACKAGE,
    TrainingState,
    count_earlier_trainings,
    find_memory_report,
    schema_errors_as_tracking_error,
)
from finagent_model.pipeline.training_record import TrainingRecord
from finagent_model.pipeline.verify import decide_again, run_proofs
from finagent_model.reports.model_card import CARD_FILE, MODEL_DESCRIPTION, ModelCard
from finagent_model.reports.report import render_report_page
from finagent_model.reports.tearsheet import RETURNS_FILE, DailyReturns, SymbolPage, fold_spans
from finagent_model.settings import Settings
from finagent_model.tracking import registry
from finagent_model.tracking.prompt_registry import PromptVersion, register_prompts
from finagent_model.tracking.queries import read_run
from finagent_model.tracking.registry import Version
from finagent_model.tracking.runs import COMMIT, RunLog
from finagent_model.training.walk_forward import out_of_sample_part

WINDOW = "window.json"
"""Artifact of a training: its out-of-sample returns by day, for a later version's comparison."""


@dataclass(frozen=True)
class TrainingResult:
    """A registered version."""

    run_id: str
    name: str
    version: str
    content_hash: str
    verdict: str
    report: str
    """Markdown; its first line grades the evidence."""


@dataclass(frozen=True)
class JudgedPackage:
    """A logged package, the training behind it, and the gate's report."""

    logged: LoggedModel
    manifest: Manifest
    record: TrainingRecord
    gate: GateReport

    @property
    def name(self) -> str:
        """Name of the registered model."""
        return self.record.state.request.register_as


def finish_training(
    run_id: str, children: Sequence[str], settings: Settings, progress: Progress = no_progress
) -> TrainingResult:
    """Package a training, ask the gate, and register the version; `children` are the symbols' runs.

    Idempotent: a training registers once. Asked again it returns the same version, publishes what
    is missing and moves aliases that were not moved yet. Raises GateRefusedError once the refused
    version is registered as candidate, and TrackingError.
    """
    run = RunLog(run_id)
    state = TrainingState.read(run)
    name = state.request.register_as
    if registered := registry.find_version_by_run(name, run_id):
        # An earlier process registered the version and died, or this is a repeated call.
        if not is_published(run):
            judged = _read_judged(run, state, children, registered.version)
            publish_metadata(run, judged, registered.version)
        registry.apply_aliases(name, registered.version)
        run.end("FINISHED")
        return _read_result(run, name, registered)
    version = _judge_and_register(run, state, children, settings, progress)
    return _read_result(run, name, registry.find_version(name, version))


def compare_with_champion(champion: Version | None, ours: GateWindow) -> Check | None:
    """Compare a new version with the champion on the days that are out of sample for both.

    None: there is no champion, no window of it, or too few days in common. A window that this code
    can't read is a failed check. Raises TrackingError where the store can't tell.
    """
    if champion is None or champion.run_id is None:
        return None
    if (content := RunLog(champion.run_id).find_artifact(WINDOW)) is None:
        return None
    try:
        theirs = GateWindow.model_validate_json(content)
    except ValidationError:
        # Failed, not skipped: a gate that requires evidence must not pass without the comparison.
        message = f"{WINDOW} of version {champion.version} has another schema: no comparison"
        return Check(name=CHAMPION_CHECK, passed=False, found=message)
    return check_against_champion(ours, theirs.model_copy(update={"version": champion.version}))


def register_version(run: RunLog, judged: JudgedPackage, champion: Version | None) -> str:
    """Register a judged package as candidate, and as champion if it passed; return its number.

    Raises GateRefusedError where another version became champion meanwhile.
    """
    name, logged, gate = judged.name, judged.logged, judged.gate
    content = judged.manifest.content_hash
    run.set_tags({MODEL_ID: logged.model_id, PACKAGE: content})
    tags = {
        **build_anchor_tags(judged.manifest, logged.anchor.files or {}),
        registry.VERDICT: gate.verdict,
        registry.EVIDENCE: gate.evidence.grade,
        registry.COMPARED_WITH: champion.version if champion else "",
    }
    version = registry.create_version(
        name, logged.uri, run.run_id, tags, model_id=logged.model_id, family=MODEL_DESCRIPTION
    )
    publish_metadata(run, judged, version)
    # Aliases last: a process that dies before leaves a version that nobody is served.
    registry.apply_aliases(name, version)
    return version


def is_published(run: RunLog) -> bool:
    """Return whether `publish_metadata` has ended for the version that the run made."""
    return run.get_tag(MODEL_URI) is not None


def publish_metadata(run: RunLog, judged: JudgedPackage, version: str) -> None:
    """Register the version's prompts, write its model card, and tag the run with the version.

    Idempotent: a repeated call adds nothing twice. Raises TrackingError.
    """
    name = judged.name
    card = _build_card(run.run_id, version, judged, _register_prompts(judged, run.run_id))
    run.log_text(CARD_FILE, card.to_markdown())
    registry.set_description(name, version, card.description())
    # The tags come last: `is_published` takes them for the sign that the rest is there.
    run.set_tags({MODEL_URI: f"models:/{name}/{version}", MODEL_VERSION: version})


def _register_prompts(judged: JudgedPackage, run_id: str) -> list[PromptVersion]:
    """Register the prompts of the desk's agents, each once, and return their versions."""
    config = judged.record.state.config
    texts = Prompts(config.prompts)
    used = {row.prompt: texts.text(row.prompt) for row in config.agents}
    return register_prompts(judged.name, used, run_id, judged.logged.model_id)


def _build_card(
    run_id: str, version: str, judged: JudgedPackage, prompts: Sequence[PromptVersion]
) -> ModelCard:
    record, run = judged.record, read_run(run_id)
    tag_of = {"code": CODE, "configuration": CONFIG, "git commit": COMMIT}
    hashes = {name: run.tags[tag] for name, tag in tag_of.items() if tag in run.tags}
    if run.tags.get(DIRTY) == "true":
        hashes["git commit"] += " with changes"
    return ModelCard(
        name=judged.name,
        version=version,
        run_id=run_id,
        config=record.state.config,
        request=record.state.request,
        gate=judged.gate,
        metrics=record.metrics,
        calibration=record.calibrations.fits[-1],
        example=record.example,
        decided={
            each.symbol: (each.signals[0].as_of.date(), each.signals[-1].as_of.date())
            for each in record.backtests
        },
        first_day=f"{record.state.policies.start_times[0]:%Y-%m-%d}",
        datasets=run.datasets,
        prompts=[f"{each.name} version {each.version}" for each in prompts],
        bar_length=parse_timeframe(record.state.policies.timeframe).label,
        hashes={"package": judged.manifest.content_hash, **hashes},
    )


def _judge_and_register(
    run: RunLog,
    state: TrainingState,
    children: Sequence[str],
    settings: Settings,
    progress: Progress,
) -> str:
    """Package a training, judge and register it; return the version's number."""
    done = progress("packaging and registering", 4)
    probes = find_memory_report(run.run_id) if state.config.latest_knowledge else None
    earlier = count_earlier_trainings(run.run_id)
    record = TrainingRecord.read(state, children, earlier, probes)
    facts = [each.facts for each in record.backtests]
    ours = GateWindow.build(facts, state.config.latest_knowledge)
    name = state.request.register_as
    done()
    with run.active(), ScratchFolder() as folder:
        ledgers = record.ledgers
        # MLflow links a logged model to the active run.
        manifest, logged = _log_package(run, record, ledgers, folder / "package", settings)
        (folder / "ledgers").mkdir()
        for symbol, signals in record.signals.items():
            write_ledger(signals, folder / "ledgers" / f"{symbol_file_name(symbol)}.parquet")
        run.log_files(folder / "ledgers", "ledgers")
        done()
        # Read before the judgement: promotion is refused if the champion changes in between.
        champion = registry.find_champion(name)
        # The gate judges the package as it will be served: loaded from the store, not from memory.
        predictor = load_predictor(logged.uri, logged.anchor)
        predictor.market = market = Market.from_settings(settings, state.bars)
        gate = judge_version(
            record.metrics,
            ledgers,
            decide_again(predictor, ledgers),
            record.judged_evidence,
            state.config.gate,
            compare_with_champion(champion, ours),
            run_proofs(predictor, progress, deep=state.config.gate.proves_training),
        )
        # Computed from the report's fields; written out for whoever reads the JSON.
        outcome = {"verdict": gate.verdict, "refusals": gate.refusals}
        run.log_json("gate.json", {**outcome, **gate.model_dump(mode="json")})
        run.log_text(WINDOW, ours.model_dump_json())
        report = record.render_report(gate.team_sentence)
        run.log_text("report.md", report)
        pool = DailyReturns.pool(facts)
        run.log_text(RETURNS_FILE, pool.to_csv())
        run.log_text("report.html", _render_page(f"{name}, run {run.run_id}", record, gate, market))
        run.set_description(report)
        pooled = pool_backtests(record.backtests, state.request.cash)
        run.log(metrics=pooled | _evidence_metrics(record.judged_evidence))
        done()
        version = register_version(run, JudgedPackage(logged, manifest, record, gate), champion)
        done()
    return version


def _read_judged(
    run: RunLog, state: TrainingState, children: Sequence[str], version: str
) -> JudgedPackage:
    """Return what was registered as `version`, from the training's runs. Raises TrackingError."""
    record = TrainingRecord.read(state, children)
    uri = f"models:/{state.request.register_as}/{version}"
    with schema_errors_as_tracking_error(run.run_id):
        row = run.read_json("gate.json")
        # gate.json also holds verdict and refusals, which are no fields of the report.
        gate = GateReport.model_validate({name: row[name] for name in GateReport.model_fields})
    manifest = load_checked(uri).manifest
    anchor = Anchor("the registry", manifest.content_hash, None)
    logged = LoggedModel(uri, str(run.get_tag(MODEL_ID)), anchor)
    return JudgedPackage(logged, manifest, record, gate)


def _read_result(run: RunLog, name: str, version: Version) -> TrainingResult:
    """Return the result of a training whose version is registered. Raises GateRefusedError."""
    with schema_errors_as_tracking_error(run.run_id):
        gate = run.read_json("gate.json")
        verdict, refusals = gate["verdict"], gate["refusals"]
        report = run.read_artifact("report.md").decode()
    # Raised only now: a refused version is registered too, so that its report can be read.
    if verdict != "passed":
        raise GateRefusedError(
            f"the gate refused version {version.version} of {name}: {refusals}; "
            f"it stays candidate, see gate.json of run {run.run_id}"
        )
    return TrainingResult(
        run_id=run.run_id,
        name=name,
        version=version.version,
        content_hash=version.content_hash or "",
        verdict=verdict,
        report=report,
    )


def _log_package(
    run: RunLog,
    record: TrainingRecord,
    ledgers: Mapping[str, Sequence[LedgerRow]],
    folder: Path,
    settings: Settings,
) -> tuple[Manifest, LoggedModel]:
    """Write the package into `folder` and log it; return its manifest and the logged model."""
    state = record.state
    analyst = state.config.external_analyst
    external = load_external(analyst).find_source(settings) if analyst else None
    # What changes no decision stays out of the hash, as does the configuration's path.
    request = state.request.model_dump(mode="json", exclude={"config", "mode", "register_as"})
    manifest = write_package(
        folder,
        config=state.config,
        trained_state=record.trained_state,
        replies={key: reply for each in record.backtests for key, reply in each.replies.items()},
        backtest={
            "request": request,
            # Undefined metrics are None here: JSON has no nan.
            "metrics": {each.symbol: each.metrics for each in record.backtests},
            "evidence": record.evidence.model_dump(mode="json"),
            "ledgers": {symbol: hash_ledger(rows) for symbol, rows in ledgers.items()},
        },
        code_hash=code_hash(),
        external=external,
        judged_grade=record.judged_evidence.grade,
    )
    return manifest, log_package(folder, manifest, state.config, record.example)


def _render_page(title: str, record: TrainingRecord, gate: GateReport, market: Market) -> str:
    """Return the training's report as an HTML page."""
    policies, pages = record.state.policies, []
    for each in record.backtests:
        bars = market.bars(each.symbol)
        part, metrics = bars[out_of_sample_part(bars, policies)], record.metrics[each.symbol]
        folds = fold_spans(part, policies)
        pages.append(SymbolPage(part, folds, each.facts, each.trades, metrics))
    return render_report_page(
        title,
        pages,
        gate,
        record.state.config.model_used,
        record.confidence,
        record.calibrations.fits[-1],
        record.bar_warnings,
        record.probes,
    )


def _evidence_metrics(evidence: Evidence) -> dict[str, float]:
    """Return the evidence's defined numbers under names that MLflow shows as one group."""
    return {
        f"evidence/{name}": value for name, value in evidence.numbers.items() if value is not None
    }
