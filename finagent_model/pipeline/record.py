"""A decision's record in MLflow: signal, conversation, audit and chart in one run, which names the
desk that decided and the data that it saw.

The run is written in a handful of calls, all files at once: with a store over the network each call
is a wait of its own.

Decisions in the database, and those that are still to be written there.

A run's record comes first. While its decision is not in the database the run says so by a tag, from
before the first try: whatever is killed when, `sync` finds it. What the database has for a platform
elsewhere waits in its outbox; a decision tries to send it, briefly, and leaves the rest.

The audit of decisions: kept where they are kept, with its head as the run's tag, and verified
against it later.

A file alone says no more than that its lines agree with each other: whoever can write it can write
all of it again. The head of its chain, kept elsewhere, anchors it.
"""

from __future__ import annotations

import logging
import re
import tempfile
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from finagent_model._base import dump_json
from finagent_model.audit.chain import (
    AUDIT_FILE,
    CONVERSATION_FILE,
    HEAD,
    AuditChain,
    dump_turns,
    load_turns,
)
from finagent_model.audit.chain import AUDIT_FILE as AUDIT
from finagent_model.audit.chain import CONVERSATION_FILE as CONVERSATION
from finagent_model.audit.verification import ChainFault, read_head, verify_chain
from finagent_model.data.market import Market
from finagent_model.data.snapshots import Dataset
from finagent_model.decision.decision import NO_EXECUTION, Decision, Execution
from finagent_model.decision.signal import Status, TradingSignal
from finagent_model.errors import BadInputError, StoreError, TrackingError, ValueTooLargeError
from finagent_model.market.view import MarketView
from finagent_model.pipeline.datasets import bar_snapshots, decision_datasets, log_bar_snapshots
from finagent_model.pipeline.run_metadata import (
    MODEL_ID,
    NO_TAGS,
    REPLACES,
    Tags,
    open_tagged_run,
    read_execution_tags,
    signal_tags,
)
from finagent_model.reports.charts import write_price_chart
from finagent_model.settings import Settings
from finagent_model.store.artifacts import ArtifactStore
from finagent_model.store.database import Database
from finagent_model.store.decisions import CHART_FILE, DecisionStore
from finagent_model.store.outbox import Outbox, OutboxReport
from finagent_model.store.platform import PlatformClient
from finagent_model.tracking.queries import read_run
from finagent_model.tracking.runs import RunLog, find_runs_by_tag

if TYPE_CHECKING:
    from finagent_model.decision.decision import Decision


def record(
    decision: Decision,
    audit: AuditChain,
    view: MarketView | None,
    market: Market,
    desk: str,
    settings: Settings,
    execution: Execution = NO_EXECUTION,
    made_by: Tags = NO_TAGS,
    *,
    replaces: str | None = None,
    replayed: bool = False,
) -> str:
    """Log `decision` and its audit, made on `view` (None: there was nothing to decide on) of
    `market` by `desk` (a model's URI or a configuration's file), of which `made_by` tells more; the
    run's id. In the database it takes the place of what the run `replaces` left there.

    It is written to the database, too, unless it was `replayed`: that is for reading, and nobody
    was asked for an approval.
    """
    signal = decision.signal
    tags = {**signal_tags(signal), **made_by, HEAD: audit.head}
    if replaces:
        tags[REPLACES] = replaces
    run = open_tagged_run(
        "infer", f"infer {signal.symbol}", tags, execution=execution, single_process=True
    )
    with run.failed_on_error(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run.log(
            params={"symbol": signal.symbol, "as_of": signal.as_of.isoformat(), "desk": desk},
            metrics={"confidence_score": signal.confidence_score, "tokens": signal.tokens},
        )
        (folder / "signal.json").write_text(dump_json(signal.model_dump(mode="json")))
        (folder / CONVERSATION).write_text(dump_turns([decision]))
        (folder / AUDIT).write_text(audit.lines, encoding="ascii")
        datasets: tuple[Dataset, ...] = ()
        if view is not None:
            datasets = decision_datasets(market, view)
            write_price_chart(view, signal, folder)
        run.log_inputs(datasets, "inference", made_by.get(MODEL_ID))
        run.log_files(folder)
        log_bar_snapshots(run, bar_snapshots(market, [signal.symbol]))
        if not replayed:
            store_decision(decision, run, settings, execution, view is not None, replaces)
        run.end("FINISHED")
    return run.run_id


log = logging.getLogger(__name__)
STORED = "finagent.stored"
"""Tag of a run: `yes` or `no`; absent where it is not to be in the database."""
BRIEFLY_S = 3.0
"""How long a decision that is made waits for the platform to take it."""


@dataclass(frozen=True)
class Synced:
    """What became of the decisions that were not in the database."""

    written: int = 0
    already: int = 0
    """There after all: whoever wrote them was stopped before saying so."""
    failed: int = 0
    """Still not there."""

    def row(self) -> dict[str, Any]:
        return asdict(self)


def store_decision(
    decision: Decision,
    run: RunLog,
    settings: Settings,
    execution: Execution,
    chart: bool,
    replaces: str | None = None,
) -> None:
    """Write a decision that `run` records, with or without a chart, in the place of what the run
    `replaces` left. A database that can't be used, or has no room for what was decided, is worth a
    warning: the run has it all.
    """
    run.set_tags({STORED: "no"})
    try:
        store = _store(settings)
        store.write(decision, run.run_id, execution, run.experiment_id, chart, replaces)
    except StoreError as error:
        log.warning(
            "%s. The decision on %s stays in run %s; `finagent db sync` writes it",
            error,
            decision.signal.symbol,
            run.run_id,
        )
        return
    except ValueTooLargeError as error:
        symbol = decision.signal.symbol
        log.warning("%s. The decision on %s is in run %s alone", error, symbol, run.run_id)
        return
    run.set_tags({STORED: "yes"})
    if settings.platform_url:
        _flush_outbox(settings)


def _flush_outbox(settings: Settings) -> None:
    try:
        sent = send_outbox(settings, BRIEFLY_S)
    except (StoreError, BadInputError) as error:
        log.warning("%s; `finagent outbox send` sends what waits", error)
    else:
        if sent.why:
            log.warning("%s; `finagent outbox send` sends the %s that wait", sent.why, sent.waiting)


def send_outbox(settings: Settings, within_s: float = float("inf")) -> OutboxReport:
    """What the outbox has, to the platform of FINAGENT_PLATFORM_URL. Raises StoreError, and
    BadInputError for an address that can't be read.
    """
    assert settings.platform_url is not None
    client = PlatformClient(settings.platform_url, settings.platform_token)
    with closing(client):
        return Outbox(Database.from_settings(settings)).send(client, within_s)


def sync_decisions(settings: Settings) -> Synced:
    """Write what is not in the database yet, from the runs of every experiment. Raises StoreError
    when none of it can be written.
    """
    Database.from_settings(settings).prepare()
    store = _store(settings)
    counts = {"written": 0, "already": 0, "failed": 0}
    for run in find_runs_by_tag(STORED, "no"):
        try:
            tags = read_run(run.run_id).tags
            fresh = store.write(
                _recorded(run),
                run.run_id,
                read_execution_tags(tags),
                run.experiment_id,
                run.has_artifact(CHART_FILE),
                tags.get(REPLACES),
            )
        except (StoreError, TrackingError, ValueTooLargeError, ValueError) as error:
            log.warning("run %s: %s", run.run_id, error)
            counts["failed"] += 1
        else:
            run.set_tags({STORED: "yes"})
            counts["written" if fresh else "already"] += 1
    return Synced(**counts)


def find_final(signal_id: str, settings: Settings) -> tuple[str, TradingSignal] | None:
    """The run and the signal that this id was settled as; None: nobody did, or the database can't
    tell, which is worth a warning.
    """
    try:
        found = ArtifactStore(Database.from_settings(settings)).find(signal_id)
        if found is None or found.run_id is None or found.signal_data is None:
            return None
        signal = _signal(found.signal_data)
        if signal.signal_id != signal_id:
            return None  # whoever wrote it there
    except (StoreError, ValidationError) as error:
        log.warning("whether %s was decided before can't be read: %s", signal_id, error)
        return None
    return None if Status(signal.status).is_failure else (found.run_id, signal)


def _store(settings: Settings) -> DecisionStore:
    return DecisionStore(Database.from_settings(settings), queue=settings.platform_url is not None)


def _recorded(run: RunLog) -> Decision:
    """Raises TrackingError or ValueError where the run has no whole record."""
    turns = load_turns(run.read_artifact(CONVERSATION_FILE).decode())
    return Decision(_signal(run.read_json("signal.json")), turns)


def _signal(record: dict[str, Any]) -> TradingSignal:
    """From its JSON, which holds what is derived, too."""
    return TradingSignal.model_validate({k: v for k, v in record.items() if k != "is_actionable"})


@dataclass(frozen=True)
class AuditReport:
    """What verifying found."""

    what: str
    lines: int
    head: str | None
    """What the last line states as it is now."""
    anchored: bool
    """Whether the chain was held against a head that was kept elsewhere."""
    faults: tuple[ChainFault, ...]

    @property
    def whole(self) -> bool:
        return not self.faults

    @property
    def words(self) -> str:
        """The verdict in a line."""
        if self.faults:
            return f"{self.what} is not as it was written"
        if self.anchored:
            return f"{self.what} is whole: {self.lines} lines, and the head is {self.head}"
        return (
            f"{self.what} is whole in itself, but not anchored: {self.lines} lines that agree with "
            f"each other; compare the head {self.head} with the one that was kept (--head)"
        )

    def row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "whole": self.whole}


def recorded_audit(run_id: str) -> AuditChain:
    """Return the audit that a run keeps, with the head of its tag. Raises TrackingError."""
    run = RunLog(run_id)
    return AuditChain(run.read_artifact(AUDIT_FILE).decode(), run.get_tag(HEAD) or "")


def verify_audit(what: str, head: str | None = None) -> AuditReport:
    """Of a file, or of the run of that id, whose tag anchors it; `head` anchors either.

    Raises BadInputError for what is neither, and TrackingError for a run without an audit.
    """
    if head is not None and not re.fullmatch("[0-9a-f]{64}", head):
        raise BadInputError(f"head {head!r} is not a SHA-256: 64 digits, a to f in lower case")
    content, tag = _read(what, head)
    text = content.decode("utf-8", "replace")  # an audit is ASCII: other bytes are a change
    try:
        faults = verify_chain(text, head or tag)
    except BadInputError as error:
        raise BadInputError(f"audit {what}: {error}") from None
    lines = text.count("\n")
    if tag and head and tag != head:
        words = f"the run's tag {HEAD} says {tag}, not {head}"
        faults = (*faults, ChainFault(lines, "other head", words))
    return AuditReport(what, lines, read_head(text), bool(head or tag), faults)


def _read(what: str, head: str | None) -> tuple[bytes, str | None]:
    """The audit's bytes and, of a run, its tag."""
    try:
        return Path(what).read_bytes(), None
    except OSError as error:
        if not re.fullmatch("[0-9a-f]{32}", what):
            raise BadInputError(
                f"audit {what}: can't be read: {error.strerror}; name a file, or the id of a run"
            ) from None
    from finagent_model.tracking.runs import RunLog  # MLflow: seconds that a file does not need

    run = RunLog(what)
    tag = run.get_tag(HEAD)
    if tag is None and head is None:
        raise BadInputError(
            f"run {what} has no tag {HEAD}: nothing anchors an audit of it; `finagent predict "
            "--log`, a training and a backtest keep one"
        )
    return run.read_artifact(AUDIT_FILE), tag
