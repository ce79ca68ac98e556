"""What a training earned on the days that no fit had seen, as curves that start from 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from finagent_model.domain.bars import Floats, from_datetime64
from finagent_model.pipeline.recorded import reading
from finagent_model.run_records import RunRecord
from finagent_model.tracking import RunLog
from finagent_model.training.evidence import SymbolFacts, pooled
from finagent_model.webui.backtests import Backtests

Points = list[dict[str, Any]]
"""JSON-ready, a day each."""


@dataclass(frozen=True)
class Equity:
    """Of a training; empty where nothing was decided on unseen days, or not yet."""

    desk: Points
    held: Points
    """Of the same symbols, bought and held."""
    short: str | None
    """Which part of the symbols it is, where it is not all of them."""

    @classmethod
    def of(cls, run: RunRecord) -> Self:
        """Raises TrackingError, also for what other code wrote."""
        below = Backtests.of(run)
        facts = [_facts(each.run_id) for each in below.runs]
        if not facts:
            return cls([], [], None)
        calendar, desk, held = pooled(facts)
        days = [f"{from_datetime64(np.datetime64(int(at), 'ms')):%Y-%m-%d}" for at in calendar]
        return cls(_curve(days, desk), _curve(days, held), below.short)


def _facts(run_id: str) -> SymbolFacts:
    with reading(run_id):
        return SymbolFacts.model_validate_json(RunLog(run_id).read("facts.json"))


def _curve(days: list[str], returns: Floats) -> Points:
    points = zip(days, np.cumprod(1.0 + returns), strict=True)
    return [{"time": day, "value": round(float(value), 5)} for day, value in points]
