"""The out-of-sample ledger: one row a signal, as JSON for hashing and as Parquet for storage.

Fields of the record itself are left out, so that equal trainings have equal ledgers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finagent_model.decision.signal import TradingSignal, signal_columns

RECORD_FIELDS = frozenset({"evidence", "generated_at", "model_uri", "model_version", "run_id"})
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


def read_ledger(source: pa.BufferReader) -> list[LedgerRow]:
    """Return the rows that `write_ledger` wrote, nulls as None."""
    rows: list[LedgerRow] = pq.read_table(source).to_pylist()
    return rows


def hash_ledger(rows: Sequence[LedgerRow]) -> str:
    """Return the SHA-256 of the rows in their order, in hexadecimal."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
