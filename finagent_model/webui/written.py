"""What trainings and ablations wrote about themselves, as far as it has the shape that pages show:
other code may have written it.
"""

from __future__ import annotations

from pydantic import BaseModel, ValidationError

from finagent_model.errors import TrackingError
from finagent_model.run_records import RunRecord
from finagent_model.tracking import RunLog
from finagent_model.training.gate import GateReport


class Variant(BaseModel):
    """A row of `ablation.json`; None is undefined."""

    variant: str
    annual_return_difference: float | None
    low: float | None
    high: float | None
    sharpe: float | None
    same_action: float
    hold_share: float
    tokens: int
    cost_usd: float | None


class Ablated(BaseModel):
    """`ablation.json`, the whole desk first."""

    decisions: int
    rows: tuple[Variant, ...]


def gate_of(run: RunRecord) -> GateReport | None:
    """What the gate wrote about a training; None: nothing, or nothing that can be read."""
    said = _written(run, "train", "gate.json")
    if not isinstance(said, dict):
        return None
    checks = {name: value for name, value in said.items() if name not in ("verdict", "refusals")}
    try:
        return GateReport.model_validate(checks)
    except ValidationError:
        return None


def ablation_of(run: RunRecord) -> Ablated | None:
    """What an ablation came to; None: nothing, or nothing that can be read."""
    try:
        return Ablated.model_validate(_written(run, "ablate", "ablation.json"))
    except ValidationError:
        return None


def _written(run: RunRecord, stage: str, file: str) -> object:
    """What runs of `stage` leave in `file`, of any shape; None: nothing that can be read."""
    if run.stage != stage:
        return None
    try:
        return RunLog(run.run_id).read_json(file)
    except (TrackingError, ValueError, RecursionError):
        return None
