"""The out-of-sample ledger as Parquet: what was decided when.

Stamps of the recording itself are left out, so that equal trainings have equal ledgers.
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

NOT_DECIDED = frozenset({"evidence", "generated_at", "model_uri", "model_version", "run_id"})
"""What a signal says of its record or of its version, not of the market."""
_TYPES = {
    "string": pa.string(),
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "array": pa.list_(pa.string()),
}
LedgerRow = dict[str, Any]


def ledger_row(signal: TradingSignal) -> LedgerRow:
    """A signal as JSON has it, without ids and clock: what two doors must agree on."""
    return signal.model_dump(mode="json", exclude=set(NOT_DECIDED))


def signal_of(row: LedgerRow) -> TradingSignal:
    """The signal that a row was made from; stamped by its own date, since a row has no other."""
    known = {name: value for name, value in row.items() if name != "is_actionable"}
    return TradingSignal.model_validate(known | {"generated_at": row["as_of"]})


def write_ledger(signals: Iterable[TradingSignal], path: Path) -> None:
    """One row a signal."""
    columns = [c for c in signal_columns() if c.name not in NOT_DECIDED]
    schema = pa.schema([(c.name, _TYPES[c.kind]) for c in columns])
    rows = [ledger_row(signal) for signal in signals]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def read_ledger(source: pa.BufferReader) -> list[LedgerRow]:
    """The rows as they were written, nulls as None."""
    rows: list[LedgerRow] = pq.read_table(source).to_pylist()
    return rows


def ledger_hash(rows: Sequence[LedgerRow]) -> str:
    """SHA-256 over the rows in their order."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
