"""What trainings and ablations left in their runs: verdicts, variants, backtests and metrics.

Other code may have written these files: one without the expected shape counts as missing, or is a
TrackingError that names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Self

from fastapi import Path
from pydantic import BaseModel, ValidationError

from finagent_model.errors import TrackingError
from finagent_model.evaluation.gate import GateReport
from finagent_model.pipeline.run_metadata import SYMBOL
from finagent_model.reports.charts import ablation_chart_size
from finagent_model.tracking.queries import RunRecord, find_finished_children
from finagent_model.tracking.runs import RunLog

RUN_ID_PATTERN = r"^[0-9a-f]{32}$"
RunId = Annotated[str, Path(pattern=RUN_ID_PATTERN)]
MAIN_METRICS = (
    "total_return",
    "benchmark_total_return",
    "cagr",
    "volatility",
    "sharpe",
    "benchmark_sharpe",
    "sortino",
    "max_drawdown",
    "benchmark_max_drawdown",
    "exposure",
    "turnover",
    "hold_share",
    "failed_share",
    "hit_rate",
    "profit_factor",
)
"""Metrics that come first; the others are folded."""
CLOCK_SKEW = timedelta(minutes=1)
"""By how much the clocks of machines that end runs may differ."""
BACKTEST_STAGE = "backtest"
EVIDENCE_GROUPS = {
    "weak": "Evidence: needed for the grade weak",
    "strong": "Evidence: needed for the grade strong",
    "none": "Confidence: no grade needs it",
}
"""Name of a group of checks by the lowest grade that needs them."""


class VariantResult(BaseModel):
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


class AblationResult(BaseModel):
    """`ablation.json`, the whole desk first."""

    decisions: int
    rows: tuple[VariantResult, ...]
    left_out: dict[str, str] = {}
    """Why, by variant that was asked for and not run; older code did not write it."""

    @property
    def chart_size(self) -> tuple[int, int]:
        """Width and height in pixels of the chart that was drawn of them."""
        return ablation_chart_size(sum(row.low is not None for row in self.rows[1:]))


def read_gate(run: RunRecord) -> GateReport | None:
    """Return a training's `gate.json`; None if it has none, or one of another shape."""
    report = _read_json(run, "train", "gate.json")
    if not isinstance(report, dict):
        return None
    # Both are derived from the checks, so the model computes them and takes no value for them.
    checks = {name: value for name, value in report.items() if name not in ("verdict", "refusals")}
    try:
        return GateReport.model_validate(checks)
    except ValidationError:
        return None


@dataclass(frozen=True)
class CheckGroup:
    """Checks of the gate that answer one question, those that failed first."""

    name: str
    rows: tuple[tuple[str, bool, str], ...]
    """Name, whether it passed, and what was found."""

    @property
    def failed(self) -> int:
        """How many did not pass."""
        return sum(not passed for _, passed, _ in self.rows)


def group_checks(gate: GateReport | None) -> list[CheckGroup]:
    """Return all checks of a gate's report by what they are for; groups with failures first."""
    if gate is None:
        return []
    groups: dict[str, list[tuple[str, bool, str]]] = {
        "Integrity: needed for any champion": [(c.name, c.passed, c.found) for c in gate.integrity]
    }
    for check in gate.evidence.checks:
        name = EVIDENCE_GROUPS[check.needed_for]
        bound = f"needed {'at least' if check.at_least else 'at most'} {check.threshold:.4g}"
        row = (check.name, check.passed, f"{check.number_text}, {bound}")
        groups.setdefault(name, []).append(row)
    if gate.champion:
        champion = (gate.champion.name, gate.champion.passed, gate.champion.found)
        groups["Compared with the champion"] = [champion]
    made = [
        CheckGroup(name, tuple(sorted(rows, key=lambda row: row[1])))
        for name, rows in groups.items()
    ]
    return sorted(made, key=lambda group: group.failed == 0)


def read_ablation(run: RunRecord) -> AblationResult | None:
    """Return an ablation's `ablation.json`; None if it has none, or one of another shape."""
    try:
        return AblationResult.model_validate(_read_json(run, "ablate", "ablation.json"))
    except ValidationError:
        return None


def _read_json(run: RunRecord, stage: str, file: str) -> object:
    """Return the JSON of a file that runs of `stage` leave; None if there is none to be read."""
    if run.stage != stage:
        return None
    try:
        return RunLog(run.run_id).read_json(file)
    except (TrackingError, ValueError, RecursionError):
        return None


def count_symbols(training: RunRecord) -> int | None:
    """Return on how many symbols a model is trained; None: its run doesn't say."""
    symbols = training.params.get("symbols")
    return len(symbols.split(",")) if symbols else None


@dataclass(frozen=True)
class FinishedBacktests:
    """The finished backtests of a training, the newest of each symbol."""

    runs: tuple[RunRecord, ...]
    total: int | None
    """How many symbols it is trained on; None: its run doesn't say."""

    @classmethod
    def from_run(cls, training: RunRecord) -> Self:
        """Read the backtests below a training; a backtest is its own. Raises TrackingError."""
        if training.stage == BACKTEST_STAGE:
            is_finished = training.status == "FINISHED" and SYMBOL in training.tags
            return cls((training,) if is_finished else (), 1)
        runs = find_finished_children(training, BACKTEST_STAGE)
        # Oldest first, so the newest stays: a retried task has left another run.
        by_symbol = {run.tags[SYMBOL]: run for run in runs if SYMBOL in run.tags}
        return cls(tuple(by_symbol.values()), count_symbols(training))

    @property
    def incomplete(self) -> str | None:
        """Which symbols are missing, in words; None: none, as far as is known."""
        if self.total is None or len(self.runs) >= self.total:
            return None
        return f"{len(self.runs)} of {self.total} symbols: the others have no finished backtest"


class DecidedSymbols:
    """Cache of the symbols on which trainings at work have decided.

    A finished backtest stays finished, so each look asks for those since the last one only.
    """

    def __init__(self) -> None:
        self._ended_at: dict[str, dict[str, datetime]] = {}

    def count(self, training: RunRecord) -> int:
        """Return on how many symbols a training has decided. Raises TrackingError."""
        ended_at = self._ended_at.setdefault(training.run_id, {})
        # Runs end on several machines: a slow clock's run may end before the latest one seen.
        since = max(ended_at.values()) - CLOCK_SKEW if ended_at else None
        for run in find_finished_children(training, BACKTEST_STAGE, since):
            if SYMBOL in run.tags and run.ended_at is not None:
                ended_at[run.tags[SYMBOL]] = run.ended_at
        return len(ended_at)

    def retain(self, run_ids: set[str]) -> None:
        """Forget all trainings but these."""
        for run_id in self._ended_at.keys() - run_ids:
            self._ended_at.pop(run_id, None)


def table_rows(columns: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """Return name and values by run, `MAIN_METRICS` first; None if a run has no such value."""
    names = {name for column in columns for name in column}
    ordered = [name for name in MAIN_METRICS if name in names] + sorted(names - set(MAIN_METRICS))
    return [(name, [column.get(name) for column in columns]) for name in ordered]
