"""Trace a signal to the version, training and data behind it, and a version or data to its signals.

Everything is read from MLflow and compared with what exists today: the stored signal, the audit,
the package, the prompts and the data sets. A difference is a failed check, never an error; only an
unknown id is one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from finagent_model._base import Check
from finagent_model.audit.chain import HEAD
from finagent_model.data.market import Market
from finagent_model.data.snapshots import DIGEST_LENGTH, Dataset
from finagent_model.errors import BadInputError, ModelLoadError, TrackingError
from finagent_model.model.loading import load_checked
from finagent_model.pipeline.datasets import DatasetComparison, compare_datasets
from finagent_model.pipeline.final_decisions import SIGNAL_FILE, parse_signal
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

# Keys of the JSON rows, and the tags that hold their values.
HASHES = {"config": CONFIG, "package": PACKAGE, "code": CODE, "commit": COMMIT, "dirty": DIRTY}
SIGNAL_TAGS = {
    "signal_id": SIGNAL,
    "symbol": SYMBOL,
    "as_of": AS_OF,
    "action": ACTION,
    "status": STATUS,
    "model_uri": MODEL_URI,
}


@dataclass(frozen=True)
class TrainingOrigin:
    """A training run, the data it used compared with today's, and its prompts."""

    run: RunRecord
    data: tuple[DatasetComparison, ...]
    prompts: tuple[PromptVersion, ...]

    def row(self) -> dict[str, Any]:
        """Return the training as JSON-ready values."""
        return {
            **run_row(self.run),
            "params": dict(self.run.params),
            "data": [comparison.row() for comparison in self.data],
            "prompts": [asdict(prompt) for prompt in self.prompts],
        }


@dataclass(frozen=True)
class VersionOrigin:
    """A registered version, or a model that was only logged, and its training."""

    uri: str
    version: registry.Version | None
    """None: it was deleted, or never registered."""
    training: TrainingOrigin | None
    why: str
    """Why the training is unknown; empty where it is known."""
    checks: tuple[Check, ...]

    def row(self) -> dict[str, Any]:
        """Return the origin as JSON-ready values."""
        return {
            "uri": self.uri,
            "version": None if self.version is None else asdict(self.version),
            "training": None if self.training is None else self.training.row(),
            "why": self.why,
            "checks": [check.model_dump() for check in self.checks],
        }


@dataclass(frozen=True)
class SignalLineage:
    """What led to one signal; where several runs decided it, the last of them."""

    signal_id: str
    run: RunRecord
    earlier: tuple[str, ...]
    """Ids of other runs of the same signal, oldest first."""
    origin: VersionOrigin | None
    """None: an untrained desk decided, which is no version."""
    data: tuple[DatasetComparison, ...]
    traces: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def is_intact(self) -> bool:
        """Return whether every check passed."""
        return all(check.passed for check in self.every_check)

    @property
    def every_check(self) -> tuple[Check, ...]:
        """Return the signal's own checks and those of its version."""
        return self.checks + (self.origin.checks if self.origin else ())

    def row(self) -> dict[str, Any]:
        """Return the lineage as JSON-ready values."""
        return {
            "signal": select_tags(self.run, SIGNAL_TAGS),
            "run": run_row(self.run),
            "earlier_runs": list(self.earlier),
            "audit_head": self.run.tags.get(HEAD),
            "data": [comparison.row() for comparison in self.data],
            "traces": list(self.traces),
            "origin": None if self.origin is None else self.origin.row(),
            "checks": [check.model_dump() for check in self.checks],
            "whole": self.is_intact,
        }


@dataclass(frozen=True)
class VersionLineage:
    """One version, and the signals and backtests that it produced."""

    origin: VersionOrigin
    signals: tuple[RunRecord, ...]
    """The last run of each signal, oldest first."""
    backtests: tuple[RunRecord, ...]

    @property
    def is_intact(self) -> bool:
        """Return whether every check passed."""
        return all(check.passed for check in self.origin.checks)

    def row(self) -> dict[str, Any]:
        """Return the lineage as JSON-ready values."""
        return {
            **self.origin.row(),
            "signals": [signal_row(run) for run in self.signals],
            "backtests": [run_row(run) for run in self.backtests],
            "whole": self.is_intact,
        }


@dataclass(frozen=True)
class DataLineage:
    """Data sets of one hash, and the trainings, signals and backtests that used them."""

    data: tuple[Dataset, ...]
    """More than one where several hashes begin with the digits asked for."""
    trainings: tuple[RunRecord, ...]
    signals: tuple[RunRecord, ...]
    """Decided on these data, or by a version that was trained on them."""
    backtests: tuple[RunRecord, ...]

    def row(self) -> dict[str, Any]:
        """Return the lineage as JSON-ready values."""
        return {
            "data": [dataset.row() for dataset in self.data],
            "trainings": [
                {**run_row(run), "model_uri": run.tags.get(MODEL_URI)} for run in self.trainings
            ],
            "signals": [signal_row(run) for run in self.signals],
            "backtests": [run_row(run) for run in self.backtests],
        }


def lineage_of_signal(signal_id: str, settings: Settings) -> SignalLineage:
    """Return what led to a signal. Raises BadInputError for a bad id, or one that no run has."""
    # Checked before it goes into a search query.
    if not re.fullmatch("[0-9a-f]{16}", signal_id):
        raise BadInputError(f"signal {signal_id!r} is not an id: 16 digits, a to f in lower case")
    runs = search_runs(f"tags.`{SIGNAL}` = '{signal_id}'")
    if not runs:
        raise BadInputError(
            f"no run has signal {signal_id}; known are the signals of `finagent predict --log` "
            "and of a DAG's tasks. A row of a backtest or an answer over REST has no separate run. "
            "It names its version, see `finagent lineage --version N`"
        )
    # Oldest first: what was decided again took the place of what was decided before.
    *earlier, run = runs
    market, uri = Market.from_settings(settings), run.tags.get(MODEL_URI)
    package = run.tags.get(PACKAGE)
    return SignalLineage(
        signal_id=signal_id,
        run=run,
        earlier=tuple(record.run_id for record in earlier),
        origin=trace_version(uri, market, run.tags.get(TRAINING), package) if uri else None,
        # Bars after the decision's day are no change of what it saw.
        data=tuple(compare_datasets(run.datasets, market, datetime.fromisoformat(run.tags[AS_OF]))),
        traces=find_trace_ids(run),
        checks=(_check_signal(run, signal_id), _check_audit(run)),
    )


def lineage_of_version(name: str, version: str, settings: Settings) -> VersionLineage:
    """Return a version's origin and what it produced.

    Raises BadInputError naming the versions that exist.
    """
    registry.find_version(name, version)
    uri = f"models:/{name}/{version}"
    runs = search_runs(f"tags.`{MODEL_URI}` = '{uri}'")
    origin = trace_version(uri, Market.from_settings(settings))
    return VersionLineage(origin, *_signals_and_backtests(runs))


def lineage_of_data(digest: str) -> DataLineage:
    """Return what used the data of a SHA-256, or of its first 8 or more digits.

    Raises BadInputError for a malformed hash, or one that no run has.
    """
    # Fewer digits would match by accident; other characters could be wildcards of LIKE.
    if not re.fullmatch("[0-9a-f]{8,64}", digest):
        raise BadInputError(
            f"data {digest!r}: write 8 to 64 digits of a SHA-256, a to f lower case"
        )
    # MLflow stores a digest of limited length; the full hash is compared below.
    prefix = digest[:DIGEST_LENGTH]
    query = (
        f"dataset.digest LIKE '{prefix}%'"
        if len(prefix) < DIGEST_LENGTH
        else f"dataset.digest = '{prefix}'"
    )
    runs = [run for run in search_runs(query) if _select_datasets(run, digest)]
    if not runs:
        raise BadInputError(
            f"no run was given data {digest}; `finagent lineage --version N` names what a version "
            "was trained on"
        )
    trainings = tuple(run for run in runs if run.stage == "train")
    # A dict, so that each version is searched once and in order.
    for uri in {run.tags[MODEL_URI]: None for run in trainings if MODEL_URI in run.tags}:
        runs += search_runs(f"tags.`{MODEL_URI}` = '{uri}'")
    data = {each.sha256: each for run in runs for each in _select_datasets(run, digest)}
    return DataLineage(tuple(data.values()), trainings, *_signals_and_backtests(runs))


def trace_version(
    uri: str, market: Market, training_run: str | None = None, package: str | None = None
) -> VersionOrigin:
    """Return the origin of the model at `uri`, with its data compared to `market`.

    `training_run` and `package` are the run and the content hash that a decision's tags name; None
    where only the registry is asked.
    """
    version = _find_version(uri)
    # The decision's tag comes first: it stays after the version is deleted.
    run_id = training_run or (version.run_id if version else None)
    training, why = None, "" if run_id else f"nothing names the run that made {uri}"
    if run_id:
        try:
            training = _read_training(run_id, market)
        except TrackingError as error:
            why = str(error)
    hashes = {
        "the version's tag": version.content_hash if version else None,
        "the training's tag": training.run.tags.get(PACKAGE) if training else None,
        "the decision's tag": package,
    }
    checks = [_check_package(uri, {source: sha for source, sha in hashes.items() if sha})]
    if training and training.prompts:
        checks.append(_check_prompts(training.prompts))
    return VersionOrigin(uri, version, training, why, tuple(checks))


def run_row(run: RunRecord) -> dict[str, Any]:
    """Return the JSON-ready values that describe a run of any stage."""
    return {
        "run_id": run.run_id,
        "experiment_id": run.experiment_id,
        "parent_run_id": run.parent_run_id,
        "name": run.name,
        "stage": run.stage,
        "status": run.status,
        "started": run.started_at.isoformat(),
        "asked_by": select_tags(run, REQUESTED_BY),
        "hashes": select_tags(run, HASHES),
    }


def signal_row(run: RunRecord) -> dict[str, Any]:
    """Return a signal in short, from the tags of its run, as JSON-ready values."""
    return {**select_tags(run, SIGNAL_TAGS), "run_id": run.run_id}


def select_tags(run: RunRecord, tags: Mapping[str, str]) -> dict[str, str]:
    """Return the values of `tags` by their short names; tags that the run lacks are left out."""
    return {name: run.tags[tag] for name, tag in tags.items() if tag in run.tags}


def _find_version(uri: str) -> registry.Version | None:
    """Return the registered version of `models:/NAME/NUMBER`; None for any other URI."""
    match = re.fullmatch(r"models:/([^/@]+)/(\d+)", uri)
    if not match:
        return None
    try:
        return registry.find_version(*match.groups())
    except BadInputError:
        return None


def _read_training(run_id: str, market: Market) -> TrainingOrigin:
    """Return the training of a run. Raises TrackingError."""
    run = read_run(run_id)
    return TrainingOrigin(
        run, tuple(compare_datasets(run.datasets, market)), tuple(linked_prompts(run.tags))
    )


def _select_datasets(run: RunRecord, digest: str) -> list[Dataset]:
    return [dataset for dataset in run.datasets if dataset.sha256.startswith(digest)]


def _signals_and_backtests(
    runs: Sequence[RunRecord],
) -> tuple[tuple[RunRecord, ...], tuple[RunRecord, ...]]:
    """Return the last run of each signal, and every run of a backtest once."""
    oldest_first = sorted(runs, key=lambda run: run.started_at)
    # A later run of the same signal overwrites the earlier one.
    signals = {run.tags[SIGNAL]: run for run in oldest_first if SIGNAL in run.tags}
    # Keyed by run, for several searches may have returned the same one.
    backtests = {run.run_id: run for run in oldest_first if run.stage in ("backtest", "ablate")}
    return tuple(signals.values()), tuple(backtests.values())


def _check_package(uri: str, hashes: Mapping[str, str]) -> Check:
    """Check the model's files against its anchor, and its content hash against `hashes`."""
    name = "package_as_registered"
    try:
        # The same comparison as loading makes: every file is hashed.
        checked = load_checked(uri)
    except ModelLoadError as error:
        return Check(name=name, passed=False, found=str(error))
    actual = checked.manifest.content_hash
    # Where the version was deleted only the runs' tags remain to compare with.
    others = [f"{source} says {sha[:12]}" for source, sha in hashes.items() if sha != actual]
    if others:
        message = f"the files of {uri} hash to {actual[:12]}, but {', '.join(others)}"
        return Check(name=name, passed=False, found=message)
    sources = ", ".join(hashes)
    also = f"; {sources}: the same content hash" if sources else ""
    return Check(name=name, passed=True, found=f"{actual[:12]}: {checked.summary}{also}")


def _check_prompts(versions: Sequence[PromptVersion]) -> Check:
    """Check that MLflow's prompt registry still has the texts that were registered."""
    # None: the registry has no such version any more.
    words = {False: "has another text", None: "is gone"}
    results = {version: is_unchanged(version) for version in versions}
    faults = [f"{p.name} version {p.version} {words[ok]}" for p, ok in results.items() if not ok]
    message = "; ".join(faults) or f"{len(results)} prompts have the texts of their hashes"
    return Check(name="prompts_as_registered", passed=not faults, found=message)


def _check_signal(run: RunRecord, signal_id: str) -> Check:
    """Check that the run's stored signal has the id of the run's tag."""
    name = "signal_as_decided"
    try:
        # The id is computed from symbol, moment and version, never read from the file.
        stored_id = parse_signal(RunLog(run.run_id).read_json(SIGNAL_FILE)).signal_id
    except (TrackingError, ValueError) as error:
        return Check(name=name, passed=False, found=" ".join(str(error).split()))
    if stored_id != signal_id:
        message = f"signal.json is of another signal, {stored_id}"
        return Check(name=name, passed=False, found=message)
    return Check(name=name, passed=True, found=f"signal.json of run {run.run_id}")


def _check_audit(run: RunRecord) -> Check:
    """Check the run's audit against the head in its tag."""
    name = "audit_as_written"
    try:
        report = verify_audit(run.run_id)
    except (TrackingError, BadInputError) as error:
        return Check(name=name, passed=False, found=" ".join(str(error).split()))
    return Check(name=name, passed=report.is_intact, found=report.summary)
