"""Record a decision in an MLflow run and in the database, and verify its audit later.

The run comes first and holds everything: signal, conversation, audit, chart, and the data that the
desk saw. Until its decision is in the database the run carries the tag `finagent.stored: no`,
whatever was killed when. `sync_decisions` writes what the database lacks from the runs, all of it
where the database is lost. Rows for a platform elsewhere wait in the database's outbox; each
decision tries briefly to send them.

The audit's head is a tag of the run. A file alone only proves that its lines agree with each other:
whoever can write it can write all of it again.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finagent_model._base import dump_json
from finagent_model._local_files import ScratchFolder
from finagent_model.audit.chain import (
    AUDIT_FILE,
    CONVERSATION_FILE,
    HEAD,
    AuditChain,
    dump_turns,
)
from finagent_model.audit.verification import ChainFault, read_head, verify_chain
from finagent_model.data.market import Market
from finagent_model.data.snapshots import Dataset
from finagent_model.decision.decision import NO_EXECUTION, Decision, Execution
from finagent_model.errors import (
    BadInputError,
    StoreError,
    TrackingError,
    UnverifiedRunError,
    ValueTooLargeError,
)
from finagent_model.market.view import MarketView
from finagent_model.pipeline.datasets import bar_snapshots, decision_datasets, log_bar_snapshots
from finagent_model.pipeline.final_decisions import (
    SIGNAL_FILE,
    SNAPSHOT_FILE,
    STORED,
    clear_place,
    open_decision_store,
    verify_recorded,
)
from finagent_model.pipeline.run_metadata import (
    MODEL_ID,
    NO_TAGS,
    REPLACES,
    Tags,
    bars_params,
    open_tagged_run,
    read_execution_tags,
    signal_tags,
)
from finagent_model.reports.charts import market_data_snapshot, write_price_chart
from finagent_model.settings import Settings
from finagent_model.store.database import Database
from finagent_model.store.decisions import DecisionStore
from finagent_model.store.outbox import Outbox, OutboxReport
from finagent_model.store.platform import PlatformClient
from finagent_model.tracking.queries import RunRecord, search_runs
from finagent_model.tracking.runs import RunLog

log = logging.getLogger(__name__)
OUTBOX_TIMEOUT_S = 3.0
"""How long a finished decision waits for the platform to take what is in the outbox."""


@dataclass(frozen=True)
class SyncReport:
    """How many decisions `sync_decisions` found in runs, by what came of them."""

    written: int = 0
    """The database lacked them, or said something else."""
    already: int = 0
    """The database has them as their runs do."""
    failed: int = 0
    """The run can't be read, is not as it was recorded, or has no room in the database."""


@dataclass(frozen=True)
class AuditReport:
    """What `verify_audit` found in a file or a run."""

    what: str
    lines: int
    head: str | None
    """Hash that the last line states as it is now."""
    anchored: bool
    """Whether the chain was compared with a head that was kept elsewhere."""
    faults: tuple[ChainFault, ...]

    @property
    def is_intact(self) -> bool:
        """Return whether no line was changed, removed, swapped or added."""
        return not self.faults

    @property
    def summary(self) -> str:
        """Return the verdict in a line."""
        if self.faults:
            return f"{self.what} is not as it was written"
        if self.anchored:
            return f"{self.what} is whole: {self.lines} lines, and the head is {self.head}"
        return (
            f"{self.what} is whole in itself, but not anchored: {self.lines} lines that agree with "
            f"each other; compare the head {self.head} with the one that was kept (--head)"
        )

    def row(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        return {**asdict(self), "whole": self.is_intact}


def record_decision(
    decision: Decision,
    audit: AuditChain,
    view: MarketView | None,
    market: Market,
    desk: str,
    settings: Settings,
    execution: Execution = NO_EXECUTION,
    desk_tags: Tags = NO_TAGS,
    *,
    params: Mapping[str, str] = NO_TAGS,
    replaces: str | None = None,
    replayed: bool = False,
) -> str:
    """Log `decision` and its audit to a new run, store it in the database, and return the run's id.

    `view` of `market` is what was decided on; None: there was no data. `desk` names who decided, a
    model's URI or a configuration's file; `desk_tags` and `params` say more of it. The decision
    takes the place of what the run `replaces` left in the database. A `replayed` one is not stored:
    nobody was asked to approve it. Raises TrackingError.
    """
    signal = decision.signal
    tags = {**signal_tags(signal), **desk_tags, HEAD: audit.head}
    if replaces:
        tags[REPLACES] = replaces
    # One process records a decision: where it dies, the next command marks the run as killed.
    run = open_tagged_run(
        "infer", f"infer {signal.symbol}", tags, execution=execution, single_process=True
    )
    # Few calls, and all files in one: with a store over the network each call is a round trip.
    with run.failed_on_error(), ScratchFolder() as folder:
        run.log(
            params={
                "symbol": signal.symbol,
                "as_of": signal.as_of.isoformat(),
                "desk": desk,
                **bars_params(market, view.bars if view else None),
                **params,
            },
            metrics={"confidence_score": signal.confidence_score, "tokens": signal.tokens},
        )
        (folder / SIGNAL_FILE).write_text(dump_json(signal.model_dump(mode="json")))
        (folder / CONVERSATION_FILE).write_text(dump_turns([decision]))
        # The chain hashes these bytes, so no platform may encode them in another way.
        (folder / AUDIT_FILE).write_text(audit.lines, encoding="ascii")
        datasets: tuple[Dataset, ...] = ()
        snapshot = None
        if view is not None:
            snapshot = market_data_snapshot(view)
            # Unsorted: what `sync_decisions` writes from it is equal to the letter.
            (folder / SNAPSHOT_FILE).write_text(json.dumps(snapshot, allow_nan=False))
            datasets = decision_datasets(market, view)
            write_price_chart(view, signal, folder)
        run.log_inputs(datasets, "inference", desk_tags.get(MODEL_ID))
        run.log_files(folder)
        log_bar_snapshots(run, bar_snapshots(market, [signal.symbol]))
        # After the files: `sync_decisions` reads them from the run if this write fails.
        if not replayed:
            store_decision(decision, run, settings, execution, snapshot, replaces, audit.head)
        run.end("FINISHED")
    return run.run_id


def store_decision(
    decision: Decision,
    run: RunLog,
    settings: Settings,
    execution: Execution,
    snapshot: dict[str, Any] | None,
    replaces: str | None,
    audit_head: str,
) -> None:
    """Write the decision of `run` to the database, in the place of what the run `replaces` left.

    `snapshot` has the bars of its chart; None: there was nothing to draw. A database that can't be
    used, or a value too large for it, is logged as a warning: the run has it all.
    """
    # Before the write: a process killed in between leaves a run that `sync_decisions` finds.
    run.set_tags({STORED: "no"})
    try:
        store, experiment_id = open_decision_store(settings), run.experiment_id
        clear_place(store, decision.signal.signal_id, run.run_id)
        store.write(
            decision,
            run.run_id,
            execution,
            experiment_id,
            snapshot is not None,
            replaces,
            audit_head,
            snapshot=snapshot,
        )
    except StoreError as error:
        log.warning(
            "%s. The decision on %s stays in run %s; `finagent db sync` writes it",
            error,
            decision.signal.symbol,
            run.run_id,
        )
        return
    except ValueTooLargeError as error:
        # No retry makes room for it, so the warning names no command.
        symbol = decision.signal.symbol
        log.warning("%s. The decision on %s is in run %s alone", error, symbol, run.run_id)
        return
    run.set_tags({STORED: "yes"})
    if settings.platform_url:
        _flush_outbox(settings)


def send_outbox(settings: Settings, timeout_s: float = float("inf")) -> OutboxReport:
    """Send what waits in the outbox to the platform of FINAGENT_PLATFORM_URL, which must be set.

    Raises StoreError, and BadInputError for an address that can't be read.
    """
    assert settings.platform_url is not None
    client = PlatformClient(settings.platform_url, settings.platform_token)
    with closing(client):
        return Outbox(Database.from_settings(settings)).send(client, timeout_s)


def sync_decisions(settings: Settings, run_ids: Collection[str] | None = None) -> SyncReport:
    """Make the database say what the runs of every experiment decided: all of it, if it is lost.

    With `run_ids` only these runs are looked at. A decision is written from its run where its audit
    is as it was recorded, and the database has no other head of it. Raises StoreError when none can
    be written, and TrackingError.
    """
    # Fails here once, rather than once a run, where the database is down.
    Database.from_settings(settings).prepare()
    store = open_decision_store(settings)
    heads = store.audit_heads()
    runs = search_runs(f"tags.`{STORED}` LIKE '%'")
    # Oldest first, as they were decided: a later one takes the place of an earlier failure.
    order = {run.run_id: number for number, run in enumerate(runs)}
    counts = {"written": 0, "already": 0, "failed": 0}
    for run in runs:
        if run_ids is not None and run.run_id not in run_ids:
            continue
        try:
            is_new = _sync_run(store, run, heads.get(run.run_id), order)
        except (StoreError, TrackingError, ValueTooLargeError, ValueError) as error:
            # One bad run must not hold up the others.
            log.warning("run %s: %s", run.run_id, error)
            counts["failed"] += 1
        else:
            if run.tags[STORED] != "yes":
                RunLog(run.run_id).set_tags({STORED: "yes"})
            counts["written" if is_new else "already"] += 1
    return SyncReport(**counts)


def _sync_run(
    store: DecisionStore, run: RunRecord, known_head: str | None, order: Mapping[str, int]
) -> bool:
    """Write one run's decision; return False if the database has it as the run does."""
    record = verify_recorded(run)
    if known_head not in (None, record.head):
        raise UnverifiedRunError(run.run_id, f"the database knows its audit as {known_head}")
    decision, chart, snapshot = record.read_decision()
    signal_id = record.signal.signal_id
    clear_place(store, signal_id, run.run_id)
    place = store.find(signal_id).artifact
    return store.write(
        decision,
        run.run_id,
        read_execution_tags(run.tags),
        run.experiment_id,
        chart,
        run.tags.get(REPLACES),
        record.head,
        snapshot=snapshot,
        is_superseded=place is not None and order.get(place.run_id or "", -1) > order[run.run_id],
        # Whatever the database had queued is lost with it.
        sent_before=run.tags[STORED] == "yes",
    )


def read_audit(run_id: str) -> AuditChain:
    """Return the audit that a run holds, with the head of its tag. Raises TrackingError."""
    run = RunLog(run_id)
    return AuditChain(run.read_artifact(AUDIT_FILE).decode(), run.get_tag(HEAD) or "")


def verify_audit(what: str, head: str | None = None) -> AuditReport:
    """Check the audit in the file `what`, or in the run of that id, whose tag anchors it.

    `head` is a hash kept elsewhere that anchors either. Raises BadInputError where `what` is
    neither, and TrackingError for a run without an audit.
    """
    if head is not None and not re.fullmatch("[0-9a-f]{64}", head):
        raise BadInputError(f"head {head!r} is not a SHA-256: 64 digits, a to f in lower case")
    content, tag = _read_audit_bytes(what, head)
    # An audit is ASCII: other bytes are a change, which the chain then shows.
    text = content.decode("utf-8", "replace")
    try:
        faults = verify_chain(text, head or tag)
    except BadInputError as error:
        raise BadInputError(f"audit {what}: {error}") from None
    lines = text.count("\n")
    # Two anchors that disagree are a fault even where the chain fits one of them.
    if tag and head and tag != head:
        message = f"the run's tag {HEAD} says {tag}, not {head}"
        faults = (*faults, ChainFault(lines, "other head", message))
    return AuditReport(what, lines, read_head(text), bool(head or tag), faults)


def _read_audit_bytes(what: str, head: str | None) -> tuple[bytes, str | None]:
    """Return the bytes of an audit and, for a run, the head of its tag."""
    try:
        return Path(what).read_bytes(), None
    except OSError as error:
        if not re.fullmatch("[0-9a-f]{32}", what):
            raise BadInputError(
                f"audit {what}: can't be read: {error.strerror}; name a file, or the id of a run"
            ) from None
    run = RunLog(what)
    tag = run.get_tag(HEAD)
    if tag is None and head is None:
        raise BadInputError(
            f"run {what} has no tag {HEAD}: nothing anchors an audit of it; `finagent predict "
            "--log`, a training and a backtest keep one"
        )
    return run.read_artifact(AUDIT_FILE), tag


def _flush_outbox(settings: Settings) -> None:
    """Send the outbox within `OUTBOX_TIMEOUT_S`; log what still waits."""
    try:
        report = send_outbox(settings, OUTBOX_TIMEOUT_S)
    except (StoreError, BadInputError) as error:
        log.warning("%s; `finagent outbox send` sends what waits", error)
    else:
        if report.why:
            log.warning(
                "%s; `finagent outbox send` sends the %s that wait", report.why, report.waiting
            )
