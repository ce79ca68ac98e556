"""Conversations in the database of FINAGENT_DATABASE, and those that are still to be written there.

A run's record comes first. While its conversation is not in the database the run says so by a tag,
from before the first try: whatever is killed when, `sync` finds it.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

from finagent_model.artifacts.conversation import FILE, read_turns
from finagent_model.artifacts.conversation_store import ConversationStore
from finagent_model.domain.decision import Decision
from finagent_model.domain.signal import TradingSignal
from finagent_model.errors import BadInputError, StoreError, TrackingError
from finagent_model.settings import Settings
from finagent_model.tracking import RunLog, runs_tagged

log = logging.getLogger(__name__)

STORED = "finagent.conversation_stored"
"""Tag of a run: `yes`, `no`; absent where there was no database."""
EXECUTION = "finagent.workflow_execution_id"
"""Tag of a run that a workflow asked for."""


@dataclass(frozen=True)
class Synced:
    """What became of the conversations that were not in the database."""

    written: int = 0
    already: int = 0
    """There after all: whoever wrote them was stopped before saying so."""
    failed: int = 0
    """Still not there."""

    def row(self) -> dict[str, Any]:
        return asdict(self)


def keep(
    decision: Decision, run: RunLog, settings: Settings, workflow_execution_id: str | None = None
) -> None:
    """Write a decision that `run` records, if there is a database. One that can't be used is worth
    a warning: the run has it all.
    """
    if settings.database is None:
        return
    run.tags({STORED: "no"})
    try:
        store = ConversationStore(settings.database.get_secret_value())
        store.write(decision, run.run_id, workflow_execution_id)
    except StoreError as error:
        log.warning(
            "%s. The conversation on %s stays in run %s; `finagent conversations sync` writes it",
            error,
            decision.signal.symbol,
            run.run_id,
        )
    else:
        run.tags({STORED: "yes"})


def sync(settings: Settings) -> Synced:
    """Write what is not in the database yet, from the runs of every experiment. Raises
    BadInputError without a database and StoreError when none of it can be written.
    """
    if settings.database is None:
        raise BadInputError("there is no database to write to; set FINAGENT_DATABASE")
    store = ConversationStore(settings.database.get_secret_value())
    store.prepare()
    counts = {"written": 0, "already": 0, "failed": 0}
    for run in runs_tagged(STORED, "no"):
        try:
            fresh = store.write(_recorded(run), run.run_id, run.tag(EXECUTION))
        except (StoreError, TrackingError, ValueError) as error:
            log.warning("run %s: %s", run.run_id, error)
            counts["failed"] += 1
        else:
            run.tags({STORED: "yes"})
            counts["written" if fresh else "already"] += 1
    return Synced(**counts)


def _recorded(run: RunLog) -> Decision:
    """Raises TrackingError or ValueError where the run has no whole record."""
    signal = run.read_json("signal.json")
    del signal["is_actionable"]  # derived
    turns = read_turns(run.read(FILE).decode())
    return Decision(TradingSignal.model_validate(signal), turns)
