"""The out-of-sample ledger: what was decided when. Stamps of the recording itself are left out, so
that equal trainings have equal ledgers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pandas as pd

from finagent_model.domain.signal import TradingSignal

NOT_DECIDED = {"generated_at", "model_uri", "model_version", "run_id"}


def ledger_rows(signals: Iterable[TradingSignal]) -> list[dict[str, Any]]:
    """One JSON-ready row a signal, without ids and clock."""
    return [signal.model_dump(mode="json", exclude=NOT_DECIDED) for signal in signals]


def ledger_frame(signals: Iterable[TradingSignal]) -> pd.DataFrame:
    """The same as a table, for Parquet; lists become JSON texts."""
    frame = pd.DataFrame(ledger_rows(signals))
    for column in ("key_factors", "clamps", "warnings", "fit_symbols"):
        frame[column] = [json.dumps(value) for value in frame[column]]
    return frame
