"""What a training earned on the days that no fit had seen, as curves that start from 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import ValidationError

from finagent_model.domain.bars import Floats, from_datetime64
from finagent_model.errors import TrackingError
from finagent_model.run_records import RunRecord, children
from finagent_model.tracking import RunLog
from finagent_model.training.evidence import SymbolFacts, pooled

Points = list[dict[str, Any]]
"""JSON-ready, a day each."""


def equity_of(run: RunRecord) -> tuple[Points, Points]:
    """Of desk and benchmark on the days that no fit had seen; empty where nothing was decided."""
    facts = []
    for child in children(run):
        try:
            facts.append(SymbolFacts.model_validate_json(RunLog(child.run_id).read("facts.json")))
        except (TrackingError, ValidationError):
            continue  # it has not come so far, or other code wrote it
    if not facts:
        return [], []
    calendar, desk, benchmark = pooled(facts)
    days = [f"{from_datetime64(np.datetime64(int(at), 'ms')):%Y-%m-%d}" for at in calendar]

    def curve(returns: Floats) -> Points:
        values = np.cumprod(1.0 + returns)
        points = zip(days, values, strict=True)
        return [{"time": day, "value": round(float(value), 5)} for day, value in points]

    return curve(desk), curve(benchmark)
