"""A decision: the signal, and everything that was said and spent on the way to it.

`Execution` names the workflow that asked for it, in the words of the platform and of Airflow.
Timestamps here are those of the record; nothing is decided by them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from finagent_model._base import FrozenModel
from finagent_model.decision.signal import (
    Action,
    Status,
    TradingSignal,
    confidence_label,
    signal_columns,
)
from finagent_model.market.bars import BarSeries
from finagent_model.market.view import MarketView

EXTERNAL_REPORT: Final = "upstream"
"""Kind of the event that holds an external analyst's report; stored audits have this word."""
EventKind = Literal[
    "question",
    "request",
    "reply",
    "repair",
    "unwrapped",
    "upstream",
    "tool_call",
    "tool_result",
    "retry",
    "failed",
    "skipped",
    "budget",
    "clamp",
    "approval",
    "signal",
]


class Execution(FrozenModel):
    """The workflow run that asked for a decision; every field is None where a person asked."""

    execution_id: str | None = None
    """Groups what one run of a workflow made, by name; the DAG run's id unless it has another."""
    platform_execution_id: int | None = Field(None, ge=1)
    """Number of the platform's row of `workflow_executions`, to which its messages belong."""
    workflow_id: str | None = None
    dag_id: str | None = None
    dag_run_id: str | None = None
    task_id: str | None = None
    map_index: int | None = Field(None, ge=-1)
    """Airflow's; -1 for a task that is not mapped."""
    parent_run_id: str | None = None
    """The MLflow run that is the parent of the decision's own run."""


NO_EXECUTION = Execution()
"""No workflow: a person asked for the decision."""


@dataclass(frozen=True, slots=True)
class Event:
    """One step on the way to a decision, for the audit."""

    kind: EventKind
    at: datetime
    """UTC; when it was recorded."""
    agent: str
    """Name of the agent; empty for the desk itself."""
    body: Mapping[str, Any]
    """JSON-ready, numbers finite. Spoken text is under `text`, or in the list `messages`: an entry
    is the text itself, or a mapping with the text under one of its keys.
    """


@dataclass(frozen=True)
class Turn:
    """One message of the conversation, a line of `autogen_conversation.jsonl`."""

    agent_name: str
    message_type: Literal["request", "response", "skipped", "failed"]
    message_content: str
    timestamp: datetime
    """UTC; when it was recorded."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model: str = ""
    cached: bool = False
    """Whether the reply came from the cassette."""


@dataclass(frozen=True)
class Decision:
    """One answer of a decider; `signal.status` says whether it succeeded."""

    signal: TradingSignal
    # Records carry the wall clock, so equal decisions would differ if they were compared.
    turns: tuple[Turn, ...] = field(default=(), compare=False)
    calls: int = 0
    """Requests that reached a chat client, retries among them; replies from the cassette are not
    counted.
    """
    events: tuple[Event, ...] = field(default=(), compare=False)
    """Every step in order, for the audit."""

    @property
    def seconds(self) -> float | None:
        """Seconds from the question to the signal; None where no turn was recorded."""
        if not self.turns:
            return None
        elapsed = (self.signal.generated_at - self.turns[0].timestamp).total_seconds()
        # A record made by hand may have any stamps.
        return elapsed if elapsed >= 0 else None


# A protocol, so that a user's own class needs no base class of this package.
class Decider(Protocol):
    """Turns a market view into a decision: a desk, a rule, or a class of your own.

    Walk-forward, backtest, statistics and gate know this and nothing of agents. One that has an
    attribute `warm_up` is not asked about a symbol before it has so many bars. One that asks a chat
    model says in `knowledge_cutoff` until when that has read: a date, or `unknown`.
    """

    def decide(self, view: MarketView) -> Decision:
        """Return the decision at `view.as_of`, from the view alone.

        A model that fails is a status of the decision, never an exception.
        """


@runtime_checkable
class TrainableDecider(Protocol):
    """A decider that is fitted anew in each fold of a walk-forward."""

    def fit(self, histories: Mapping[str, BarSeries]) -> Decider:
        """Return the decider that speaks until the next fit.

        `histories` are the bars of each symbol in the fold's training window, cut at its end: what
        comes later is not in them.
        """


def make_decision(
    view: MarketView,
    action: Action,
    *,
    reasoning: str,
    author: str,
    confidence: float = 50.0,
    stop: float | None = None,
    target: float | None = None,
    size_percent: float | None = None,
    key_factors: Sequence[str] = (),
    status: Status = Status.OK,
) -> Decision:
    """Return the decision of a decider of your own about `view`.

    `confidence` is a chance in percent that a call makes money; `stop` and `target` are prices as
    traded on the last bar, None for none; `size_percent` is percent of equity, None for all of it.
    The entry is the last close. Raises ValidationError for levels in an order that can't be meant.

        >>> from finagent_model import make_decision, market_view
        >>> view = market_view("GOOG", "2012-06-29")
        >>> decision = make_decision(view, "HOLD", reasoning="nothing to do", author="example")
        >>> decision.signal.action, decision.signal.status.value
        ('HOLD', 'ok')
    """
    acts = action != "HOLD"
    entry = float(view.bars.close[-1]) if acts else None
    ratio = None
    if entry is not None and stop is not None and target is not None and stop != entry:
        ratio = abs(target - entry) / abs(entry - stop)
    question = f"{view.symbol} {view.as_of.isoformat()} {author}"
    score = confidence if status is Status.OK else 0.0
    return Decision(
        TradingSignal(
            symbol=view.symbol,
            action=action,
            confidence=confidence_label(score),
            confidence_score=score,
            raw_confidence_score=score,
            calibrated=False,
            status=status,
            reasoning=reasoning,
            key_factors=tuple(key_factors),
            suggested_entry_price=entry,
            suggested_stop_loss=stop if acts else None,
            suggested_take_profit=target if acts else None,
            r_multiple=ratio,
            position_size_percent=(100.0 if size_percent is None else size_percent)
            if acts
            else None,
            timeframe_analyzed=view.bars.timeframe.label,
            model_used=author,
            generated_at=view.as_of,  # no clock: two evaluations are equal
            as_of=view.as_of,
            conversation_id=hashlib.sha256(question.encode()).hexdigest()[:16],
            tokens=0,
            cost_usd=0.0,
        )
    )


RECORD_FIELDS = frozenset(
    {
        "anchored",
        "evidence",
        "generated_at",
        "knowledge_cutoff",
        "model_uri",
        "model_version",
        "run_id",
    }
)
"""Fields that describe a signal's record or version, not its decision; a ledger has none."""
_TYPES = {
    "string": pa.string(),
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "array": pa.list_(pa.string()),
}
LedgerRow = dict[str, Any]


def to_ledger_row(signal: TradingSignal) -> LedgerRow:
    """Return the JSON-ready fields of a signal without `RECORD_FIELDS`.

    Two ways of asking for the same decision must give equal rows.
    """
    return signal.model_dump(mode="json", exclude=set(RECORD_FIELDS))


def from_ledger_row(row: LedgerRow) -> TradingSignal:
    """Return the signal that a row was made from, with `as_of` as its `generated_at`.

    Raises pydantic's ValidationError for a row that is no signal.
    """
    # A row has no time of its own, and the wall clock would make equal signals differ.
    return TradingSignal.from_dump({**row, "generated_at": row["as_of"]})


def write_ledger(signals: Iterable[TradingSignal], path: Path) -> None:
    """Write one row a signal to a Parquet file."""
    columns = [c for c in signal_columns() if c.name not in RECORD_FIELDS]
    schema = pa.schema([(c.name, _TYPES[c.kind]) for c in columns])
    rows = [to_ledger_row(signal) for signal in signals]
    # The schema is explicit: a column of nulls alone would otherwise lose its type.
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def read_ledger(source: pa.BufferReader, columns: Collection[str] | None = None) -> list[LedgerRow]:
    """Return the rows that `write_ledger` wrote, nulls as None; with `columns`, these alone."""
    names = None if columns is None else list(columns)
    rows: list[LedgerRow] = pq.read_table(source, columns=names).to_pylist()
    return rows


def count_ledger_rows(source: pa.BufferReader) -> int:
    """Return how many rows a Parquet file says that it has, without reading them."""
    return int(pq.read_metadata(source).num_rows)


def hash_ledger(rows: Sequence[LedgerRow]) -> str:
    """Return the SHA-256 of the rows in their order, in hexadecimal."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
