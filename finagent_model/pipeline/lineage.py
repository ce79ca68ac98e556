"""Where a version came from: the training that made it, what that was given, and whether what is
kept today is what was registered then.

From a signal to the version, the training and the data it came from, and back: read from MLflow
alone, and held on the way against what is at hand today.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from finagent_model._base import Check
from finagent_model.audit.chain import HEAD
from finagent_model.data.market import Market
from finagent_model.data.snapshots import DIGEST_LENGTH, Dataset
from finagent_model.decision.signal import TradingSignal
from finagent_model.errors import BadInputError, ModelLoadError, TrackingError
from finagent_model.model.loading import load_manifest
from finagent_model.model.package import hash_package
from finagent_model.pipeline.datasets import DatasetComparison, compare_datasets
from finagent_model.pipeline.record import verify_audit
from finagent_model.pipeline.run_metadata import (
    ACTION,
    AS_OF,
    CODE,
    CONFIG,
    DIRTY,
    MODEL_URI,
    PACKAGE,
    REQUESTED_BY,
    SIGNAL,
    STATUS,
    SYMBOL,
    TRAINING,
)
from finagent_model.settings import Settings
from finagent_model.tracking import registry
from finagent_model.tracking.prompt_registry import PromptVersion, is_unchanged, linked_prompts
from finagent_model.tracking.queries import RunRecord, find_trace_ids, read_run, search_runs
from finagent_model.tracking.runs import COMMIT, RunLog

HASHES = {"config": CONFIG, "package": PACKAGE, "code": CODE, "commit": COMMIT, "dirty": DIRTY}


@dataclass(frozen=True)
class TrainingOrigin:
    """A training as its run tells it."""

    run: RunRecord
    data: tuple[DatasetComparison, ...]
    prompts: tuple[PromptVersion, ...]

    def row(self) -> dict[str, Any]:
        return {
            **run_row(self.run),
            "params": dict(self.run.params),
            "data": [each.row() for each in self.data],
            "prompts": [asdict(each) for each in self.prompts],
        }


@dataclass(frozen=True)
class VersionOrigin:
    """A version, or a logged model that was never registered, and its training."""

    uri: str
    version: registry.Version | None
    """None: it is registered no longer, or never was."""
    training: TrainingOrigin | None
    why: str
    """Why the training is not known; empty where it is."""
    checks: tuple[Check, ...]

    def row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "uri": self.uri,
            "version": None if self.version is None else asdict(self.version),
            "training": None if self.training is None else self.training.row(),
            "why": self.why,
            "checks": [each.model_dump() for each in self.checks],
        }


def version_origin(
    uri: str, market: Market, training_run: str | None = None, package: str | None = None
) -> VersionOrigin:
    """Of the model at `uri`; a decision of it names the run that trained it and its package."""
    version = _version(uri)
    run_id = training_run or (version.run_id if version else None)
    training, why = None, "" if run_id else f"nothing names the run that made {uri}"
    if run_id:
        try:
            training = _training(run_id, market)
        except TrackingError as error:
            why = str(error)
    told = {
        "the version's tag": version.content_hash if version else None,
        "the training's tag": training.run.tags.get(PACKAGE) if training else None,
        "the decision's tag": package,
    }
    known = {who: said for who, said in told.items() if said}
    checks = [_package(uri, known)]
    if training and training.prompts:
        checks.append(_prompts(training.prompts))
    return VersionOrigin(uri, version, training, why, tuple(checks))


def run_row(run: RunRecord) -> dict[str, Any]:
    """What is told of a run, whatever it is."""
    return {
        "run_id": run.run_id,
        "experiment_id": run.experiment_id,
        "parent_run_id": run.parent_run_id,
        "name": run.name,
        "stage": run.stage,
        "status": run.status,
        "started": run.started_at.isoformat(),
        "asked_by": named(run, REQUESTED_BY),
        "hashes": named(run, HASHES),
    }


def named(run: RunRecord, tags: dict[str, str]) -> dict[str, str]:
    """Those that the run has, by their short names."""
    return {name: run.tags[tag] for name, tag in tags.items() if tag in run.tags}


def _version(uri: str) -> registry.Version | None:
    found = re.fullmatch(r"models:/([^/@]+)/(\d+)", uri)
    if not found:
        return None
    try:
        return registry.find_version(*found.groups())
    except BadInputError:
        return None


def _training(run_id: str, market: Market) -> TrainingOrigin:
    """Raises TrackingError."""
    run = read_run(run_id)
    return TrainingOrigin(
        run, tuple(compare_datasets(run.datasets, market)), tuple(linked_prompts(run.tags))
    )


def _prompts(versions: Sequence[PromptVersion]) -> Check:
    """Whether the registry still has the texts that it was given."""
    words = {False: "has another text", None: "is gone"}
    found = {each: is_unchanged(each) for each in versions}
    wrong = [f"{p.name} version {p.version} {words[ok]}" for p, ok in found.items() if not ok]
    said = "; ".join(wrong) or f"{len(found)} prompts have the texts of their hashes"
    return Check(name="prompts_as_registered", passed=not wrong, found=said)


def _package(uri: str, told: dict[str, str]) -> Check:
    """Whether the package that is kept is the one that was registered."""
    name = "package_as_registered"
    try:
        manifest = load_manifest(uri)
    except ModelLoadError as error:
        return Check(name=name, passed=False, found=str(error))
    stated, true = str(manifest.get("content_hash")), hash_package(manifest.get("files", {}))
    if stated != true:
        words = f"the manifest of {uri} states {stated[:12]}, and its files hash to {true[:12]}"
        return Check(name=name, passed=False, found=words)
    other = [f"{who} says {said[:12]}" for who, said in told.items() if said != true]
    if other:
        words = f"the manifest of {uri} says {true[:12]}, but {', '.join(other)}"
        return Check(name=name, passed=False, found=words)
    agree = ", ".join(told) or "nobody else"
    return Check(name=name, passed=True, found=f"{true[:12]}, as say the manifest, {agree}")


SIGNALS = {
    "signal_id": SIGNAL,
    "symbol": SYMBOL,
    "as_of": AS_OF,
    "action": ACTION,
    "status": STATUS,
    "model_uri": MODEL_URI,
}


@dataclass(frozen=True)
class SignalLineage:
    """One signal; where it was decided more than once, the last run of it."""

    signal_id: str
    run: RunRecord
    earlier: tuple[str, ...]
    """Other runs that gave the same signal, oldest first."""
    origin: VersionOrigin | None
    """None: a desk that was never packaged decided."""
    data: tuple[DatasetComparison, ...]
    traces: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def whole(self) -> bool:
        return all(each.passed for each in self.every_check)

    @property
    def every_check(self) -> tuple[Check, ...]:
        return self.checks + (self.origin.checks if self.origin else ())

    def row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "signal": named(self.run, SIGNALS),
            "run": run_row(self.run),
            "earlier_runs": list(self.earlier),
            "audit_head": self.run.tags.get(HEAD),
            "data": [each.row() for each in self.data],
            "traces": list(self.traces),
            "origin": None if self.origin is None else self.origin.row(),
            "checks": [each.model_dump() for each in self.checks],
            "whole": self.whole,
        }


@dataclass(frozen=True)
class VersionLineage:
    """One version, and what came of it."""

    origin: VersionOrigin
    signals: tuple[RunRecord, ...]
    """The last run of each signal, oldest first."""
    backtests: tuple[RunRecord, ...]

    @property
    def whole(self) -> bool:
        return all(each.passed for each in self.origin.checks)

    def row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            **self.origin.row(),
            "signals": [signal_row(run) for run in self.signals],
            "backtests": [run_row(run) for run in self.backtests],
            "whole": self.whole,
        }


@dataclass(frozen=True)
class DataLineage:
    """Data of one hash, and what came of them."""

    data: tuple[Dataset, ...]
    """More than one where the hash was cut short."""
    trainings: tuple[RunRecord, ...]
    signals: tuple[RunRecord, ...]
    """Decided from these data, or by a version that was trained on them."""
    backtests: tuple[RunRecord, ...]

    def row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "data": [each.row() for each in self.data],
            "trainings": [
                {**run_row(run), "model_uri": run.tags.get(MODEL_URI)} for run in self.trainings
            ],
            "signals": [signal_row(run) for run in self.signals],
            "backtests": [run_row(run) for run in self.backtests],
        }


def lineage_of_signal(signal_id: str, settings: Settings) -> SignalLineage:
    """Raises BadInputError for what is no id, or one that no run has."""
    if not re.fullmatch("[0-9a-f]{16}", signal_id):
        raise BadInputError(f"signal {signal_id!r} is no id: 16 digits, a to f in lower case")
    runs = search_runs(f"tags.`{SIGNAL}` = '{signal_id}'")
    if not runs:
        raise BadInputError(
            f"no run has signal {signal_id}; known are the signals of `finagent predict --log` "
            "and of a DAG's tasks. A row of a backtest or an answer over REST leaves no run of its "
            "own: it names its version, see `finagent lineage --version N`"
        )
    *earlier, run = runs
    market, uri = Market.from_settings(settings), run.tags.get(MODEL_URI)
    package = run.tags.get(PACKAGE)
    return SignalLineage(
        signal_id=signal_id,
        run=run,
        earlier=tuple(each.run_id for each in earlier),
        origin=version_origin(uri, market, run.tags.get(TRAINING), package) if uri else None,
        data=tuple(compare_datasets(run.datasets, market, datetime.fromisoformat(run.tags[AS_OF]))),
        traces=find_trace_ids(run),
        checks=(_signal_kept(run, signal_id), _audit_kept(run)),
    )


def lineage_of_version(name: str, version: str, settings: Settings) -> VersionLineage:
    """Raises BadInputError naming the versions that there are."""
    registry.find_version(name, version)
    uri = f"models:/{name}/{version}"
    runs = search_runs(f"tags.`{MODEL_URI}` = '{uri}'")
    found = version_origin(uri, Market.from_settings(settings))
    return VersionLineage(found, *_signals_and_backtests(runs))


def lineage_of_data(digest: str) -> DataLineage:
    """By a SHA-256 or at least its first 8 digits. Raises BadInputError."""
    if not re.fullmatch("[0-9a-f]{8,64}", digest):
        raise BadInputError(
            f"data {digest!r}: write 8 to 64 digits of a SHA-256, a to f lower case"
        )
    kept = digest[:DIGEST_LENGTH]
    query = (
        f"dataset.digest LIKE '{kept}%'"
        if len(kept) < DIGEST_LENGTH
        else f"dataset.digest = '{kept}'"
    )
    runs = [run for run in search_runs(query) if _of(run, digest)]
    if not runs:
        raise BadInputError(
            f"no run was given data {digest}; `finagent lineage --version N` names what a version "
            "was trained on"
        )
    trainings = tuple(run for run in runs if run.stage == "train")
    for uri in {run.tags[MODEL_URI]: None for run in trainings if MODEL_URI in run.tags}:
        runs += search_runs(f"tags.`{MODEL_URI}` = '{uri}'")
    data = {each.sha256: each for run in runs for each in _of(run, digest)}
    return DataLineage(tuple(data.values()), trainings, *_signals_and_backtests(runs))


def signal_row(run: RunRecord) -> dict[str, Any]:
    """A signal in short."""
    return {**named(run, SIGNALS), "run_id": run.run_id}


def _of(run: RunRecord, digest: str) -> list[Dataset]:
    return [each for each in run.datasets if each.sha256.startswith(digest)]


def _signals_and_backtests(
    runs: Sequence[RunRecord],
) -> tuple[tuple[RunRecord, ...], tuple[RunRecord, ...]]:
    """The last run of each signal, and every run of a backtest, each once."""
    oldest_first = sorted(runs, key=lambda run: run.started_at)
    signals = {run.tags[SIGNAL]: run for run in oldest_first if SIGNAL in run.tags}
    backtests = {run.run_id: run for run in oldest_first if run.stage in ("backtest", "ablate")}
    return tuple(signals.values()), tuple(backtests.values())


def _signal_kept(run: RunRecord, signal_id: str) -> Check:
    """Whether the record is of that signal."""
    name = "signal_as_decided"
    try:
        kept = RunLog(run.run_id).read_json("signal.json")
        kept.pop("is_actionable", None)  # derived
        found = TradingSignal.model_validate(kept).signal_id
    except (TrackingError, ValueError) as error:
        return Check(name=name, passed=False, found=" ".join(str(error).split()))
    if found != signal_id:
        return Check(name=name, passed=False, found=f"signal.json is of another signal, {found}")
    return Check(name=name, passed=True, found=f"signal.json of run {run.run_id}")


def _audit_kept(run: RunRecord) -> Check:
    name = "audit_as_written"
    try:
        report = verify_audit(run.run_id)
    except (TrackingError, BadInputError) as error:
        return Check(name=name, passed=False, found=" ".join(str(error).split()))
    return Check(name=name, passed=report.whole, found=report.words)
