"""Decisions in the database, and those that are still to be written there.

A run's record comes first. While its decision is not in the database the run says so by a tag, from
before the first try: whatever is killed when, `sync` finds it. What the database has for a platform
elsewhere waits in its outbox; a decision tries to send it, briefly, and leaves the rest.
"""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from finagent_model.artifacts.conversation import FILE, read_turns
from finagent_model.domain.decision import Decision
from finagent_model.domain.execution import Execution
from finagent_model.domain.signal import Status, TradingSignal
from finagent_model.errors import BadInputError, StoreError, TrackingError, UnstorableError
from finagent_model.pipeline.provenance import REPLACES, asked_of
from finagent_model.run_records import read_run
from finagent_model.settings import Settings
from finagent_model.store.artifacts import ArtifactStore
from finagent_model.store.database import Database
from finagent_model.store.decisions import DecisionStore
from finagent_model.store.outbox import Outbox, Sent
from finagent_model.store.platform import PlatformClient
from finagent_model.store.rows import CHART
from finagent_model.tracking import RunLog, runs_tagged

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


def keep(
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
    run.tags({STORED: "no"})
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
    except UnstorableError as error:
        symbol = decision.signal.symbol
        log.warning("%s. The decision on %s is in run %s alone", error, symbol, run.run_id)
        return
    run.tags({STORED: "yes"})
    if settings.platform_url:
        _send_briefly(settings)


def _send_briefly(settings: Settings) -> None:
    try:
        sent = send(settings, BRIEFLY_S)
    except (StoreError, BadInputError) as error:
        log.warning("%s; `finagent outbox send` sends what waits", error)
    else:
        if sent.why:
            log.warning("%s; `finagent outbox send` sends the %s that wait", sent.why, sent.waiting)


def send(settings: Settings, within_s: float = float("inf")) -> Sent:
    """What the outbox has, to the platform of FINAGENT_PLATFORM_URL. Raises StoreError, and
    BadInputError for an address that can't be read.
    """
    assert settings.platform_url is not None
    client = PlatformClient(settings.platform_url, settings.platform_token)
    with closing(client):
        return Outbox(Database.of(settings)).send(client, within_s)


def sync(settings: Settings) -> Synced:
    """Write what is not in the database yet, from the runs of every experiment. Raises StoreError
    when none of it can be written.
    """
    Database.of(settings).prepare()
    store = _store(settings)
    counts = {"written": 0, "already": 0, "failed": 0}
    for run in runs_tagged(STORED, "no"):
        try:
            tags = read_run(run.run_id).tags
            fresh = store.write(
                _recorded(run),
                run.run_id,
                asked_of(tags),
                run.experiment_id,
                run.has(CHART),
                tags.get(REPLACES),
            )
        except (StoreError, TrackingError, UnstorableError, ValueError) as error:
            log.warning("run %s: %s", run.run_id, error)
            counts["failed"] += 1
        else:
            run.tags({STORED: "yes"})
            counts["written" if fresh else "already"] += 1
    return Synced(**counts)


def settled(signal_id: str, settings: Settings) -> tuple[str, TradingSignal] | None:
    """The run and the signal that this id was settled as; None: nobody did, or the database can't
    tell, which is worth a warning.
    """
    try:
        found = ArtifactStore(Database.of(settings)).named(signal_id)
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
    return DecisionStore(Database.of(settings), queue=settings.platform_url is not None)


def _recorded(run: RunLog) -> Decision:
    """Raises TrackingError or ValueError where the run has no whole record."""
    turns = read_turns(run.read(FILE).decode())
    return Decision(_signal(run.read_json("signal.json")), turns)


def _signal(record: dict[str, Any]) -> TradingSignal:
    """From its JSON, which holds what is derived, too."""
    return TradingSignal.model_validate({k: v for k, v in record.items() if k != "is_actionable"})
