"""A whole training, read again from the runs that its stages left: what is packaged, judged and
registered.

A new version beside the present champion, on the days that both decided unseen.

A judged package becomes a version: its verdict comes with it, then prompts, card and the run's
tags are told, and aliases move last. A process that dies leaves no alias; what it did not tell is
told when the training is asked again.

The last stage of a training: what was decided becomes a package, the gate judges it, and the
registry gets a version.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from finagent_model._base import Check, Progress, no_progress
from finagent_model.agents.external import load_external
from finagent_model.cassette.jsonl import load_replies
from finagent_model.cassette.records import RecordedReply
from finagent_model.config.desk_config import DeskConfig, Prompts
from finagent_model.data.market import Market
from finagent_model.decision.decision import (
    LedgerRow,
    from_ledger_row,
    hash_ledger,
    read_ledger,
    to_ledger_row,
    write_ledger,
)
from finagent_model.decision.signal import TradingSignal
from finagent_model.errors import GateRefusedError
from finagent_model.evaluation.calibrate import (
    ConfidenceRecord,
    build_confidence_record,
    calibrate,
    select_lessons,
)
from finagent_model.evaluation.evidence import Evidence, SymbolFacts, grade_evidence, pool_returns
from finagent_model.evaluation.gate import (
    CHAMPION_CHECK,
    GateReport,
    GateWindow,
    check_against_champion,
    judge_version,
)
from finagent_model.market.bars import symbol_file_name
from finagent_model.model.loading import LoggedModel, load_manifest, load_predictor, log_package
from finagent_model.model.package import write_package
from finagent_model.model.wheel import code_hash
from finagent_model.pipeline.backtest import CALLS
from finagent_model.pipeline.run_metadata import (
    CODE,
    CONFIG,
    DIRTY,
    MODEL_ID,
    MODEL_URI,
    MODEL_VERSION,
    PACKAGE,
    TrainingState,
    schema_errors_as_tracking_error,
)
from finagent_model.pipeline.verify import ask_again, proofs
from finagent_model.policy.trained_state import (
    CalibrationBook,
    TradeOutcome,
    TrainedState,
    calibrate_signal,
    load_outcomes,
)
from finagent_model.reports.model_card import CARD_FILE, MODEL_DESCRIPTION, ModelCard
from finagent_model.reports.report import SymbolPage, render_report, render_report_page
from finagent_model.settings import Settings
from finagent_model.tracking import registry
from finagent_model.tracking.prompt_registry import PromptVersion, register_prompts
from finagent_model.tracking.queries import read_run
from finagent_model.tracking.registry import Version
from finagent_model.tracking.runs import COMMIT, RunLog
from finagent_model.training.request import TrainRequest
from finagent_model.training.walk_forward import unseen_part


@dataclass(frozen=True)
class Backtested:
    """What the run of one symbol's unseen part left."""

    symbol: str
    metrics: dict[str, float | None]
    signals: tuple[TradingSignal, ...]
    """As decided, before calibration."""
    replies: dict[str, RecordedReply]
    facts: SymbolFacts
    calls: tuple[TradeOutcome, ...]
    trades: pd.DataFrame

    @classmethod
    def read(cls, run: RunLog) -> Self:
        """Raises TrackingError for what another version wrote."""
        with schema_errors_as_tracking_error(run.run_id):
            outcome = run.read_json("outcome.json")
            rows = read_ledger(pa.BufferReader(run.read_artifact("ledger.parquet")))
            return cls(
                symbol=outcome["symbol"],
                metrics=outcome["metrics"],
                signals=tuple(from_ledger_row(row) for row in rows),
                replies=load_replies(run.read_artifact("cassette.jsonl").decode().splitlines()),
                facts=SymbolFacts.model_validate_json(run.read_artifact("facts.json")),
                calls=load_outcomes(run.read_artifact(CALLS).decode()),
                trades=pq.read_table(
                    pa.BufferReader(run.read_artifact("trades.parquet"))
                ).to_pandas(),
            )


@dataclass(frozen=True)
class TrainingRecord:
    """A whole training, ready to be packaged and judged."""

    begun: TrainingState
    tested: tuple[Backtested, ...]
    trained_state: TrainedState
    calibrations: CalibrationBook
    confidence: ConfidenceRecord
    evidence: Evidence

    @classmethod
    def of(cls, begun: TrainingState, tested: Sequence[Backtested]) -> Self:
        calls = [call for each in tested for call in each.calls]
        calibrations = calibrate(calls, begun.policies.start_times)
        lessons = [lesson for each in tested for lesson in select_lessons(each.calls)]
        confidence = build_confidence_record(calls, calibrations)
        facts = [each.facts for each in tested]
        rules, seed = begun.config.gate, begun.request.seed
        return cls(
            begun=begun,
            tested=tuple(tested),
            trained_state=TrainedState(begun.policies, calibrations, tuple(lessons)),
            calibrations=calibrations,
            confidence=confidence,
            evidence=grade_evidence(facts, begun.trials, rules, confidence, seed=seed),
        )

    @classmethod
    def read(cls, begun: TrainingState, children: Sequence[str]) -> Self:
        """From the runs of the symbols. Raises TrackingError for what another version wrote."""
        return cls.of(begun, [Backtested.read(RunLog(child)) for child in children])

    @property
    def signals(self) -> dict[str, list[TradingSignal]]:
        """By symbol, as the package will give them."""
        return {
            each.symbol: [calibrate_signal(signal, self.calibrations) for signal in each.signals]
            for each in self.tested
        }

    @property
    def ledgers(self) -> dict[str, list[LedgerRow]]:
        """By symbol, a row a signal."""
        return {symbol: [to_ledger_row(s) for s in given] for symbol, given in self.signals.items()}

    @property
    def example(self) -> dict[str, str]:
        """A question that was decided on, and so is answered from recorded replies."""
        last = next(iter(self.ledgers.values()))[-1]
        return {"symbol": last["symbol"], "as_of": last["as_of"]}

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """By symbol; nan where undefined."""
        return {
            each.symbol: {k: math.nan if v is None else v for k, v in each.metrics.items()}
            for each in self.tested
        }

    @property
    def report(self) -> str:
        last = self.calibrations.fits[-1]
        return render_report(self.metrics, self.begun.config.model_used, self.evidence, last)

    def judged(self, logged: LoggedModel, manifest: Mapping[str, Any], gate: GateReport) -> Judged:
        return Judged(
            logged=logged,
            manifest=manifest,
            request=self.begun.request,
            config=self.begun.config,
            trained_state=self.trained_state,
            gate=gate,
            metrics=self.metrics,
            answers=self.example,
        )


WINDOW = "window.json"
"""The artifact that each training leaves for the next."""


def window_of(facts: Sequence[SymbolFacts]) -> GateWindow:
    """The portfolio's unseen returns by day."""
    calendar, returns, _ = pool_returns(facts)
    found = dict(zip(calendar.tolist(), returns.tolist(), strict=True))
    return GateWindow(version=None, returns=found)


def compare_with_champion(champion: Version | None, ours: GateWindow) -> Check | None:
    """The comparison; None where the champion left no window of days in common. A window that this
    code can't read is a failed one: that counts where evidence is required. Raises TrackingError
    where the store can't tell.
    """
    if champion is None or champion.run_id is None:
        return None
    if (left := RunLog(champion.run_id).find_artifact(WINDOW)) is None:
        return None
    try:
        theirs = GateWindow.model_validate_json(left)
    except ValidationError:
        found = f"{WINDOW} of version {champion.version} has another schema: no comparison"
        return Check(name=CHAMPION_CHECK, passed=False, found=found)
    return check_against_champion(ours, theirs.model_copy(update={"version": champion.version}))


@dataclass(frozen=True)
class Judged:
    """A package that was logged, and what the gate said of it."""

    logged: LoggedModel
    manifest: Mapping[str, Any]
    request: TrainRequest
    config: DeskConfig
    trained_state: TrainedState
    gate: GateReport
    metrics: Mapping[str, Mapping[str, float]]
    answers: Mapping[str, str]
    """A question that the package answers from its record."""


def register_version(run: RunLog, judged: Judged, champion: registry.Version | None) -> str:
    """The version's number. It is candidate, and champion where the gate let it pass. Raises
    GateRefusedError where another one became champion meanwhile.
    """
    name, logged, gate = judged.request.register_as, judged.logged, judged.gate
    content = str(judged.manifest["content_hash"])
    run.set_tags({MODEL_ID: logged.model_id, PACKAGE: content})
    tags = {
        registry.VERDICT: gate.verdict,
        registry.CONTENT: content,
        registry.EVIDENCE: gate.evidence.grade,
        registry.COMPARED_WITH: champion.version if champion else "",
    }
    version = registry.create_version(
        name, logged.uri, run.run_id, tags, model_id=logged.model_id, family=MODEL_DESCRIPTION
    )
    publish_metadata(run, judged, version)
    registry.apply_aliases(name, version)
    return version


def is_published(run: RunLog) -> bool:
    """Whether all was told of the version that the run made."""
    return run.get_tag(MODEL_URI) is not None


def publish_metadata(run: RunLog, judged: Judged, version: str) -> None:
    """Prompts, card and, once these are there, the run's tags of the version; told again, nothing
    is there twice.
    """
    name = judged.request.register_as
    card = _card(run.run_id, version, judged, _prompts(judged, run.run_id))
    run.log_text(CARD_FILE, card.to_markdown())
    registry.set_description(name, version, card.description())
    run.set_tags({MODEL_URI: f"models:/{name}/{version}", MODEL_VERSION: version})


def _prompts(judged: Judged, run_id: str) -> list[PromptVersion]:
    """Of the desk's agents, each once."""
    texts, config = Prompts(judged.config.prompts), judged.config
    used = {row.prompt: texts.text(row.prompt) for row in config.agents}
    return register_prompts(judged.request.register_as, used, run_id, judged.logged.model_id)


def _card(run_id: str, version: str, judged: Judged, prompts: Sequence[PromptVersion]) -> ModelCard:
    calibrations, run = judged.trained_state.calibrations, read_run(run_id)
    assert calibrations is not None  # a package was written
    known = {"code": CODE, "configuration": CONFIG, "git commit": COMMIT}
    hashes = {name: run.tags[tag] for name, tag in known.items() if tag in run.tags}
    if run.tags.get(DIRTY) == "true":
        hashes["git commit"] += " with changes"
    return ModelCard(
        name=judged.request.register_as,
        version=version,
        run_id=run_id,
        config=judged.config,
        request=judged.request,
        gate=judged.gate,
        metrics=judged.metrics,
        calibration=calibrations.fits[-1],
        example=judged.answers,
        first_day=f"{judged.trained_state.policies.start_times[0]:%Y-%m-%d}",
        datasets=run.datasets,
        prompts=[f"{each.name} version {each.version}" for each in prompts],
        hashes={"package": str(judged.manifest["content_hash"]), **hashes},
    )


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
    run_id: str, children: Sequence[str], settings: Settings, watch: Progress = no_progress
) -> Trained:
    """Calibrate, package, ask the gate, register. Raises GateRefusedError once the refused version
    is registered as candidate.

    A training registers once: asked again it gives the version that it made, tells of it what was
    not told, and moves what aliases were not moved yet.
    """
    run = RunLog(run_id)
    begun = TrainingState.read(run)
    name = begun.request.register_as
    if known := registry.find_version_by_run(name, run_id):
        if not is_published(run):
            publish_metadata(
                run, _judged_before(run, begun, children, known.version), known.version
            )
        registry.apply_aliases(name, known.version)
        run.end("FINISHED")
        return _trained(run, name, known)
    made = _judge_and_register(run, begun, children, settings, watch)
    return _trained(run, name, registry.find_version(name, made))


def _judge_and_register(
    run: RunLog, begun: TrainingState, children: Sequence[str], settings: Settings, watch: Progress
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
            write_ledger(given, Path(folder) / "ledgers" / f"{symbol_file_name(symbol)}.parquet")
        run.log_files(Path(folder) / "ledgers", "ledgers")
        done()
        champion = registry.find_champion(name)
        predictor = load_predictor(logged.uri)
        predictor.market = market = Market.from_settings(settings, begun.bars)
        gate = judge_version(
            record.metrics,
            ledgers,
            ask_again(predictor, ledgers),
            record.evidence,
            begun.config.gate,
            compare_with_champion(champion, ours),
            proofs(predictor),
        )
        said = {"verdict": gate.verdict, "refusals": gate.refusals}
        run.log_json("gate.json", {**said, **gate.model_dump(mode="json")})
        run.log_text(WINDOW, ours.model_dump_json())
        run.log_text("report.md", record.report)
        run.log_text("report.html", _page(f"{name}, run {run.run_id}", record, gate, market))
        run.set_description(record.report)
        run.log(metrics=_means(record.metrics) | _of_evidence(record.evidence))
        done()
        version = register_version(run, record.judged(logged, manifest, gate), champion)
        done()
    return version


def _judged_before(
    run: RunLog, begun: TrainingState, children: Sequence[str], version: str
) -> Judged:
    """What was registered as `version`, from what the training left."""
    record = TrainingRecord.read(begun, children)
    uri = f"models:/{begun.request.register_as}/{version}"
    with schema_errors_as_tracking_error(run.run_id):
        said = run.read_json("gate.json")
        gate = GateReport.model_validate({name: said[name] for name in GateReport.model_fields})
    return record.judged(LoggedModel(uri, str(run.get_tag(MODEL_ID))), load_manifest(uri), gate)


def _trained(run: RunLog, name: str, made: registry.Version) -> Trained:
    """What a training hands out, once its version is registered. Raises GateRefusedError."""
    with schema_errors_as_tracking_error(run.run_id):
        gate = run.read_json("gate.json")
        verdict, refusals = gate["verdict"], gate["refusals"]
        text = run.read_artifact("report.md").decode()
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
    ledgers: Mapping[str, Sequence[LedgerRow]],
    folder: Path,
    settings: Settings,
) -> tuple[dict[str, Any], LoggedModel]:
    """Write and log the package; its manifest, and the logged model."""
    begun = record.begun
    analyst = begun.config.external_analyst
    external = load_external(analyst).find_source(settings) if analyst else None
    manifest = write_package(
        folder,
        config=begun.config,
        trained_state=record.trained_state,
        replies={key: reply for each in record.tested for key, reply in each.replies.items()},
        agent_graph=run.read_json("agent_graph.json"),
        backtest={
            "request": begun.request.model_dump(mode="json", exclude={"mode", "register_as"}),
            "metrics": {each.symbol: each.metrics for each in record.tested},
            "evidence": record.evidence.model_dump(mode="json"),
            "ledgers": {symbol: hash_ledger(rows) for symbol, rows in ledgers.items()},
        },
        code_hash=code_hash(),
        external=external,
    )
    return manifest, log_package(folder, manifest, begun.config, record.example)


def _page(title: str, record: TrainingRecord, gate: GateReport, market: Market) -> str:
    """The report that people look at."""
    policies, symbols = record.begun.policies, []
    for each in record.tested:
        bars = market.bars(each.symbol)
        unseen, metrics = bars[unseen_part(bars, policies)], record.metrics[each.symbol]
        symbols.append(SymbolPage(unseen, policies, each.facts, each.trades, metrics))
    return render_report_page(
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
