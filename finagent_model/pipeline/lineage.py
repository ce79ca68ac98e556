"""From a signal to the version, the training and the data it came from, and back: read from MLflow
alone, and held on the way against what is at hand today.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from finagent_model import registry
from finagent_model.artifacts.audit import HEAD
from finagent_model.domain.check import Check
from finagent_model.domain.dataset import DIGITS, Dataset
from finagent_model.domain.signal import TradingSignal
from finagent_model.errors import BadInputError, TrackingError
from finagent_model.market import Market
from finagent_model.pipeline.audit import verify_audit
from finagent_model.pipeline.inputs import Compared, compare
from finagent_model.pipeline.origin import Origin, named, origin, run_row
from finagent_model.pipeline.provenance import (
    ACTION,
    AS_OF,
    MODEL_URI,
    PACKAGE,
    SIGNAL,
    STATUS,
    SYMBOL,
    TRAINING,
)
from finagent_model.run_records import RunRecord, runs_where, traces_of
from finagent_model.settings import Settings
from finagent_model.tracking import RunLog

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
    origin: Origin | None
    """None: a desk that was never packaged decided."""
    data: tuple[Compared, ...]
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

    origin: Origin
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


def of_signal(signal_id: str, settings: Settings) -> SignalLineage:
    """Raises BadInputError for what is no id, or one that no run has."""
    if not re.fullmatch("[0-9a-f]{16}", signal_id):
        raise BadInputError(f"signal {signal_id!r} is no id: 16 digits, a to f in lower case")
    runs = runs_where(f"tags.`{SIGNAL}` = '{signal_id}'")
    if not runs:
        raise BadInputError(
            f"no run has signal {signal_id}; known are the signals of `finagent predict --log` "
            "and of a DAG's tasks. A row of a backtest or an answer over REST leaves no run of its "
            "own: it names its version, see `finagent lineage --version N`"
        )
    *earlier, run = runs
    market, uri = Market.of(settings), run.tags.get(MODEL_URI)
    package = run.tags.get(PACKAGE)
    return SignalLineage(
        signal_id=signal_id,
        run=run,
        earlier=tuple(each.run_id for each in earlier),
        origin=origin(uri, market, run.tags.get(TRAINING), package) if uri else None,
        data=tuple(compare(run.datasets, market, datetime.fromisoformat(run.tags[AS_OF]))),
        traces=traces_of(run),
        checks=(_signal_kept(run, signal_id), _audit_kept(run)),
    )


def of_version(name: str, version: str, settings: Settings) -> VersionLineage:
    """Raises BadInputError naming the versions that there are."""
    registry.find(name, version)
    uri = f"models:/{name}/{version}"
    runs = runs_where(f"tags.`{MODEL_URI}` = '{uri}'")
    found = origin(uri, Market.of(settings))
    return VersionLineage(found, *_signals_and_backtests(runs))


def of_data(digest: str) -> DataLineage:
    """By a SHA-256 or at least its first 8 digits. Raises BadInputError."""
    if not re.fullmatch("[0-9a-f]{8,64}", digest):
        raise BadInputError(
            f"data {digest!r}: write 8 to 64 digits of a SHA-256, a to f lower case"
        )
    kept = digest[:DIGITS]
    query = f"dataset.digest LIKE '{kept}%'" if len(kept) < DIGITS else f"dataset.digest = '{kept}'"
    runs = [run for run in runs_where(query) if _of(run, digest)]
    if not runs:
        raise BadInputError(
            f"no run was given data {digest}; `finagent lineage --version N` names what a version "
            "was trained on"
        )
    trainings = tuple(run for run in runs if run.stage == "train")
    for uri in {run.tags[MODEL_URI]: None for run in trainings if MODEL_URI in run.tags}:
        runs += runs_where(f"tags.`{MODEL_URI}` = '{uri}'")
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
    oldest_first = sorted(runs, key=lambda run: run.started)
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
