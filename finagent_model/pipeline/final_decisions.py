"""Find the decision that settles a question, and tell decisions of ours from other rows.

A decision settles its question if three records of it agree, which no single writer can reach: its
row in `finagent_decisions`, `signal.json` of its run, and the run's audit, whose head is a tag of
the run and a column of the row. The artifact that readers see is made from them. One that says
something else is written again; one that names another run is disowned: it stays readable, under
no key and with the origin `disowned`, and answers nothing.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args

from finagent_model._documents import split_json_lines
from finagent_model.audit.chain import AUDIT_FILE, CONVERSATION_FILE, HEAD, load_turns
from finagent_model.audit.verification import verify_chain
from finagent_model.decision.decision import Decision, Event, EventKind
from finagent_model.decision.signal import Status, TradingSignal, fill_later_fields
from finagent_model.errors import BadInputError, StoreError, UnknownRunError, UnverifiedRunError
from finagent_model.pipeline.run_metadata import REPLACES, SIGNAL, read_execution_tags
from finagent_model.settings import Settings
from finagent_model.store.database import Database
from finagent_model.store.decisions import (
    CHART_FILE,
    DecisionRow,
    DecisionStore,
    SignalRows,
    artifact_rows,
)
from finagent_model.tracking.queries import RunRecord, read_run
from finagent_model.tracking.runs import RunLog, find_runs_by_tag

log = logging.getLogger(__name__)
STORED = "finagent.stored"
"""Tag of a run: `yes` or `no`; absent where its decision does not belong in the database."""
SIGNAL_FILE = "signal.json"
SNAPSHOT_FILE = "market_data_snapshot.json"
"""Artifact of a decision's run: the bars of its chart."""


@dataclass(frozen=True)
class RecordedDecision:
    """A decision as its run holds it; signal and audit agree."""

    run: RunRecord
    signal: TradingSignal
    head: str
    """Head of its audit."""
    events: tuple[Event, ...]
    """Steps of the audit, for who took how long; without their bodies."""

    def read_decision(self) -> tuple[Decision, bool, dict[str, Any] | None]:
        """Return the decision with its conversation, whether the run has a chart, and its bars.

        Raises TrackingError or ValueError for what can't be read.
        """
        run = RunLog(self.run.run_id)
        turns = load_turns(run.read_artifact(CONVERSATION_FILE).decode())
        # Older code logged no bars.
        snapshot = run.find_artifact(SNAPSHOT_FILE)
        bars = None if snapshot is None else json.loads(snapshot)
        if bars is not None and not (isinstance(bars, dict) and "bar_count" in bars):
            raise ValueError(f"{SNAPSHOT_FILE} of run {self.run.run_id} has no bars")
        decision = Decision(self.signal, turns, events=self.events)
        return decision, run.has_artifact(CHART_FILE), bars

    def is_told_by(self, row: DecisionRow) -> bool:
        """Return whether the row of `finagent_decisions` says the same."""
        # Older code wrote no head.
        return (
            row.run_id == self.run.run_id
            and isinstance(row.signal, dict)
            and fill_later_fields(row.signal) == self.signal.model_dump(mode="json")
            and row.audit_head in (None, self.head)
        )


def parse_signal(record: dict[str, Any]) -> TradingSignal:
    """Return the signal of its JSON record. Raises ValidationError."""
    # `is_actionable` is derived: it is written for readers and computed again here.
    return TradingSignal.model_validate({k: v for k, v in record.items() if k != "is_actionable"})


def read_recorded(run_id: str) -> RecordedDecision:
    """Return the decision that belongs in the database from its run.

    Raises UnverifiedRunError where the run holds no such decision, or what it holds does not agree,
    and TrackingError where the store can't tell.
    """
    return verify_recorded(read_run(run_id))


def verify_recorded(run: RunRecord) -> RecordedDecision:
    """Return the decision of `run`. Raises as `read_recorded` does."""
    head = run.tags.get(HEAD)
    # A replay, and an answer within a caller's own limits, have no such tag and settle nothing.
    if STORED not in run.tags or head is None:
        raise UnverifiedRunError(run.run_id, f"it has no tag {HEAD if head is None else STORED}")
    files = RunLog(run.run_id).find_artifacts((SIGNAL_FILE, AUDIT_FILE))
    if missing := {SIGNAL_FILE, AUDIT_FILE} - files.keys():
        raise UnverifiedRunError(run.run_id, f"it has no artifact {min(missing)!r}")
    audit = files[AUDIT_FILE].decode("utf-8", "replace")
    try:
        record = json.loads(files[SIGNAL_FILE])
        signal = parse_signal(record)
        faults = verify_chain(audit, head)
    except (ValueError, AttributeError, RecursionError, BadInputError) as error:
        raise UnverifiedRunError(run.run_id, " ".join(str(error).split())) from None
    if faults:
        raise UnverifiedRunError(run.run_id, f"line {faults[0].line} of its audit was changed")
    if signal.signal_id != run.tags.get(SIGNAL):
        raise UnverifiedRunError(run.run_id, f"{SIGNAL_FILE} is of signal {signal.signal_id}")
    lines = [json.loads(line) for line in split_json_lines(audit)]
    if [line["body"]["signal"] for line in lines if line["kind"] == "signal"] != [record]:
        raise UnverifiedRunError(run.run_id, f"{SIGNAL_FILE} is not the signal of its audit")
    try:
        events = tuple(
            Event(line["kind"], datetime.fromisoformat(line["at"]), line["agent"], {})
            for line in lines
            if line["kind"] in get_args(EventKind)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UnverifiedRunError(run.run_id, f"its audit can't be read: {error}") from None
    return RecordedDecision(run, signal, head, events)


def find_final(signal_id: str, settings: Settings) -> tuple[str, TradingSignal] | None:
    """Return the run and the signal that settle the question of `signal_id`.

    The signal's artifact is put right if it says something else. None where nothing settles it: a
    failure may be decided again. None as well, with a warning, where the database can't be read.
    Raises TrackingError where MLflow can't be.
    """
    try:
        store = open_decision_store(settings)
        rows = store.find(signal_id)
        record = _choose(signal_id, rows)
        if record is None:
            return None
        if not _is_in_place(store, rows, record):
            restore_place(store, rows, record)
    except StoreError as error:
        log.warning("whether %s was decided before can't be read: %s", signal_id, error)
        return None
    return record.run.run_id, record.signal


def find_unstored_runs() -> frozenset[str]:
    """Return the ids of the runs whose decision belongs in the database and is not there yet.

    Raises TrackingError.
    """
    return frozenset(run.run_id for run in find_runs_by_tag(STORED, "no"))


def open_decision_store(settings: Settings) -> DecisionStore:
    """Return the store of FINAGENT_DATABASE. Raises StoreError for one that can't be named."""
    return DecisionStore(Database.from_settings(settings), queue=settings.platform_url is not None)


def clear_place(store: DecisionStore, signal_id: str, run_id: str) -> None:
    """Disown the artifact that has a signal's place, unless it is of `run_id` or another decision.

    Raises StoreError, and TrackingError where MLflow can't tell.
    """
    rows = store.find(signal_id)
    if rows.artifact is None or rows.artifact.run_id == run_id:
        return
    if any(
        row.run_id == rows.artifact.run_id and _verify_row(signal_id, row) for row in rows.decisions
    ):
        return
    log.warning(
        "artifact %s has the key of signal %s and no decision behind it: it is disowned",
        rows.artifact.id,
        signal_id,
    )
    store.disown(rows.artifact.id)


def restore_place(store: DecisionStore, rows: SignalRows, record: RecordedDecision) -> None:
    """Write the artifacts of a decision whose signal's place another row has, or was changed.

    Raises StoreError, and TrackingError for a run that can't be read.
    """
    run, signal_id = record.run, record.signal.signal_id
    log.warning(
        "no artifact says what run %s decided as signal %s: it is written again",
        run.run_id,
        signal_id,
    )
    clear_place(store, signal_id, run.run_id)
    decision, chart, snapshot = record.read_decision()
    store.write(
        decision,
        run.run_id,
        read_execution_tags(run.tags),
        run.experiment_id,
        chart,
        rows.artifact.run_id if rows.artifact else None,
        record.head,
        snapshot=snapshot,
    )


def _choose(signal_id: str, rows: SignalRows) -> RecordedDecision | None:
    """Return the decision that settles a signal: the artifact's, else the first that stands."""
    if all(_is_failure(row) for row in rows.decisions):
        return None
    place = rows.artifact.run_id if rows.artifact else None
    records = []
    for row in rows.decisions:
        if record := _verify_row(signal_id, row):
            if row.run_id == place and not record.signal.status.is_failure:
                return record
            records.append(record)
    # Somebody took the artifact away, or wrote it: decisions that were recorded count all the same.
    replaced = {record.run.tags.get(REPLACES) for record in records}
    standing = [
        record
        for record in records
        if not record.signal.status.is_failure and record.run.run_id not in replaced
    ]
    return min(standing, key=lambda record: record.run.started_at, default=None)


def _is_failure(row: DecisionRow) -> bool:
    try:
        return Status(row.signal["status"]).is_failure
    except (TypeError, KeyError, ValueError):
        return True  # no signal of ours


def _verify_row(signal_id: str, row: DecisionRow) -> RecordedDecision | None:
    """Return the decision that a row tells of; None, with a warning, if its run says another."""
    try:
        record = read_recorded(row.run_id)
    except (UnverifiedRunError, UnknownRunError) as error:
        log.warning("signal %s is not settled by a row of the database: %s", signal_id, error)
        return None
    if record.signal.signal_id == signal_id and record.is_told_by(row):
        return record
    log.warning("signal %s: the database and run %s disagree", signal_id, row.run_id)
    return None


def _is_in_place(store: DecisionStore, rows: SignalRows, record: RecordedDecision) -> bool:
    if rows.artifact is None:
        return False
    run = record.run
    signal, _ = artifact_rows(
        Decision(record.signal),
        run.run_id,
        run.experiment_id,
        read_execution_tags(run.tags),
        False,
    )
    return store.is_as_written(rows.artifact, signal)
