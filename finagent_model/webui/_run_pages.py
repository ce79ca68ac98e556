"""Pages of trainings and ablations: one run, several side by side, and the files that they left.

Figures come from the run's own files and from the backtests below it. Other code may have written
these: a file without the expected shape counts as missing, or is a TrackingError that names it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Self

import numpy as np
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel, ValidationError

from finagent_model.errors import BadInputError, TrackingError
from finagent_model.evaluation.calibrate import ConfidenceRecord, build_confidence_record, calibrate
from finagent_model.evaluation.evidence import SymbolFacts
from finagent_model.evaluation.gate import GateReport
from finagent_model.market.bars import Floats
from finagent_model.pipeline.backtest import CALLS
from finagent_model.pipeline.run_metadata import (
    SYMBOL,
    TrainingState,
    schema_errors_as_tracking_error,
)
from finagent_model.policy.policy import PolicyBook
from finagent_model.policy.trained_state import load_outcomes
from finagent_model.reports.figures import Figure, equity_figure
from finagent_model.reports.tearsheet import DailyReturns
from finagent_model.statistics.reliability import reliability_bins
from finagent_model.tracking.queries import (
    RunRecord,
    find_finished_children,
    list_stage_runs,
    read_run,
)
from finagent_model.tracking.runs import RunLog, raise_tracking_errors
from finagent_model.webui._rendering import Renderer

MAX_RUNS = 100
"""Runs of each stage on a page."""
MAX_COMPARED = 5
"""Runs side by side; more curves can't be told apart."""
RUN_ID_PATTERN = r"^[0-9a-f]{32}$"
REPORT = "report.html"
FILES = {REPORT: "text/html", "ablation.png": "image/png", "chart.png": "image/png"}
"""Artifacts of a run that are served, with their media types."""
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; frame-ancestors 'self'"
)
"""The report has scripts of its own, so it gets an opaque origin and no access to anything."""
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
CURVE_TONES = ("accent", "warn", "good", "bad", "ink")
"""Tones of the runs of a comparison, as many as may be compared."""
MAX_MS = 10**13
"""Milliseconds since 1970, of the year 2286; a greater number is no moment of ours."""
PLOT_LEFT, PLOT_TOP, PLOT_SIDE = 44.0, 10.0, 240.0
"""Square of the reliability diagram, in units of its SVG."""
RunId = Annotated[str, Path(pattern=RUN_ID_PATTERN)]
BeforeMs = Annotated[int | None, Query(ge=0, le=MAX_MS)]
"""Milliseconds since 1970; selects the runs that began before."""


def run_routes(renderer: Renderer) -> APIRouter:
    """Return the routes of trainings and ablations."""
    routes = APIRouter(prefix="/runs")

    @routes.get("")
    def list_runs(request: Request, trained: BeforeMs = None, ablated: BeforeMs = None) -> Response:
        return renderer.page(
            request,
            "runs.html",
            trainings=list_stage_runs("train", MAX_RUNS, trained),
            ablations=list_stage_runs("ablate", MAX_RUNS, ablated),
            query={"trained": trained, "ablated": ablated},
            max_compared=MAX_COMPARED,
        )

    @routes.get("/compare")
    def compare_runs(request: Request) -> Response:
        run_ids = _read_run_ids(request)
        if len(run_ids) == 1:  # nothing to compare it with
            return RedirectResponse(f"/runs/{run_ids[0]}", 303)
        runs = [read_run(run_id) for run_id in run_ids]
        return renderer.page(
            request,
            "compare.html",
            runs=runs,
            params=_table_rows([run.params for run in runs]),
            metrics=_table_rows([run.metrics for run in runs]),
            main_count=len(MAIN_METRICS),
            gates=[read_gate(run) for run in runs],
        )

    @routes.get("/equity.json")
    def send_equity(request: Request) -> Response:
        curves = [EquityCurves.from_run(read_run(run_id)) for run_id in _read_run_ids(request)]
        return JSONResponse(draw_equity(curves))

    @routes.get("/{run_id}/returns.csv")
    def send_returns(request: Request, run_id: RunId) -> Response:
        curves = EquityCurves.from_run(read_run(run_id))
        if curves.pool is None:
            title, message = "There are no returns", f"run {run_id} has no finished backtest"
            return renderer.page(request, "error.html", 404, title=title, message=message)
        name = f'attachment; filename="returns-{run_id[:8]}.csv"'
        headers = {"content-disposition": name}
        return Response(curves.pool.to_csv(), media_type="text/csv", headers=headers)

    @routes.get("/{run_id}")
    def show_run(request: Request, run_id: RunId) -> Response:
        run = read_run(run_id)
        return renderer.page(
            request,
            "run.html",
            run=run,
            gate=(gate := read_gate(run)),
            check_groups=group_checks(gate),
            ablation=read_ablation(run),
            params=_table_rows([run.params]),
            metrics=_table_rows([run.metrics]),
            main_count=len(MAIN_METRICS),
            has_report=run.stage == "train" and RunLog(run_id).has_artifact(REPORT),
        )

    @routes.get("/{run_id}/reliability")
    def show_reliability(
        request: Request,
        run_id: RunId,
        raw: float | None = None,
        calibrated: Annotated[float | None, Query(alias="said")] = None,
    ) -> Response:
        # A part of a signal's page, too: it marks that signal's confidence in the diagram.
        parent = (f"/runs/{run_id}", "The training")
        try:
            reliability = Reliability.from_run(read_run(run_id))
        except TrackingError as error:
            title, message = "Its training can't be read", str(error)
            return renderer.part(request, "problem.html", title, parent, 404, message=message)
        confidence = calibrated if calibrated is not None else raw
        mark = min(max(confidence, 0.0), 100.0) if confidence is not None else None
        return renderer.part(
            request,
            "reliability.html",
            "What a confidence is worth",
            parent,
            reliability=reliability,
            mark=mark,
            svg_points=svg_points,
        )

    @routes.get("/{run_id}/files/{name}")
    def send_file(request: Request, run_id: RunId, name: str) -> Response:
        try:
            if name not in FILES:
                raise TrackingError(f"no file {name!r} is handed out; there are {', '.join(FILES)}")
            with raise_tracking_errors():
                content = RunLog(run_id).read_artifact(name)
        except TrackingError as error:
            title = "There is no such file"
            return renderer.page(request, "error.html", 404, title=title, message=str(error))
        # A header that is set here wins over the one of the middleware.
        headers = {"content-security-policy": REPORT_POLICY} if name == REPORT else {}
        return Response(content, media_type=FILES[name], headers=headers)

    return routes


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
        groups["Beside the champion"] = [champion]
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
        """Read the backtests below a training. Raises TrackingError."""
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


@dataclass(frozen=True, eq=False)
class EquityCurves:
    """Equity of a training on days that no fit had seen."""

    pool: DailyReturns | None
    """Of its symbols together; None: nothing was decided on unseen days yet."""
    folds: tuple[str, ...]
    """Days from which a newer fit was in force; empty where that is not recorded."""
    incomplete: str | None
    """Which symbols are missing, in words; None: none."""

    @classmethod
    def from_run(cls, run: RunRecord) -> Self:
        """Read the curves of a training. Raises TrackingError, also for another shape."""
        backtests = FinishedBacktests.from_run(run)
        facts = [_read_facts(backtest.run_id) for backtest in backtests.runs]
        if not facts:
            return cls(None, (), None)
        firsts = [_read_first_close(backtest.run_id) for backtest in backtests.runs]
        known = [first for first in firsts if first is not None]
        # Without the first bar of every symbol the curve begins a bar later, at what was earned.
        first = np.datetime64(min(known), "ms") if len(known) == len(firsts) else None
        return cls(DailyReturns.pool(facts, first), _read_folds(run), backtests.incomplete)


def draw_equity(curves: Sequence[EquityCurves]) -> Figure:
    """Return equity and drawdown of some trainings, and of holding what the first one traded."""
    pools = [each.pool for each in curves if each.pool is not None]
    days = sorted({day for pool in pools for day in pool.days})
    # One run is compared with buying and holding alone, so its curve is simply the desk's.
    names = [f"run {i}" for i in range(1, len(curves) + 1)] if len(curves) > 1 else ["desk"]
    lines = []
    if curves[0].pool is not None:
        held = curves[0].pool.curve(curves[0].pool.held)
        lines.append(("buy and hold", "soft", _on_calendar(days, curves[0].pool.days, held)))
    for name, tone, each in zip(names, CURVE_TONES, curves, strict=False):
        if each.pool is not None:
            values = each.pool.curve(each.pool.desk)
            lines.append((name, tone, _on_calendar(days, each.pool.days, values)))
    missing = [
        f"{name}: {each.incomplete}."
        for name, each in zip(names, curves, strict=True)
        if each.incomplete
    ]
    empty = "No equity curve: nothing was decided on unseen days, or not yet."
    # Fits of several trainings can't be told apart as lines of one kind.
    folds = curves[0].folds if len(curves) == 1 else ()
    return equity_figure(days, lines, folds, incomplete=" ".join(missing), empty=empty)


def _on_calendar(days: Sequence[str], own_days: Sequence[str], values: Floats) -> Floats:
    """Return the value on each of `days`; nan where the curve has none."""
    by_day = dict(zip(own_days, values.tolist(), strict=True))
    return np.array([by_day.get(day, math.nan) for day in days])


def _read_facts(run_id: str) -> SymbolFacts:
    with schema_errors_as_tracking_error(run_id):
        return SymbolFacts.model_validate_json(RunLog(run_id).read_artifact("facts.json"))


def _read_first_close(run_id: str) -> int | None:
    """Return a backtest's first close in milliseconds since 1970; None: not recorded."""
    try:
        first = RunLog(run_id).read_json("outcome.json")["first_closed_at"]
    except (TrackingError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return first if isinstance(first, int) and abs(first) < MAX_MS else None


def _read_folds(run: RunRecord) -> tuple[str, ...]:
    # Not the whole state of the training: each of its files is a call of the store.
    try:
        policies = PolicyBook.model_validate(RunLog(run.run_id).read_json("policy.json"))
    except (TrackingError, ValueError, RecursionError):
        return ()
    return tuple(f"{start:%Y-%m-%d}" for start in policies.start_times)


@dataclass(frozen=True)
class ReliabilityPoint:
    """A tenth of the scale of confidence, and where it is drawn."""

    stated: float
    """Mean stated confidence, a fraction."""
    observed: float
    """Share of the calls that made money, a fraction."""
    weight: float
    """Number of independent calls."""

    @property
    def x(self) -> float:
        """Centre, from the left."""
        return round(PLOT_LEFT + PLOT_SIDE * self.stated, 1)

    @property
    def y(self) -> float:
        """Centre, from the top."""
        return round(PLOT_TOP + PLOT_SIDE * (1 - self.observed), 1)

    @property
    def radius(self) -> float:
        """Radius; the area grows with the weight."""
        return round(2 + math.sqrt(self.weight) / 2, 1)


@dataclass(frozen=True)
class Reliability:
    """Reliability diagram of a version; without points if too few outcomes were known."""

    raw: tuple[ReliabilityPoint, ...]
    """Before calibration."""
    calibrated: tuple[ReliabilityPoint, ...]
    calls: int
    """Calls with a calibrated confidence and a known outcome."""
    reason: str
    """What the calibration in force was fitted on, or why there is none."""
    incomplete: str | None
    """Which symbols are missing, in words; None: none."""

    @classmethod
    def from_run(cls, run: RunRecord) -> Self:
        """Read the diagram of the version that the training `run` made. Raises TrackingError."""
        # Calibrated anew from the outcomes, as training did: the run has no file of the diagram.
        policies = TrainingState.read(RunLog(run.run_id)).policies
        backtests = FinishedBacktests.from_run(run)
        texts = [
            RunLog(backtest.run_id).read_artifact(CALLS).decode() for backtest in backtests.runs
        ]
        with schema_errors_as_tracking_error(run.run_id):
            calls = [call for text in texts for call in load_outcomes(text)]
            book = calibrate(calls, policies.start_times)
            record = build_confidence_record(calls, book)
        return cls(
            raw=_reliability_points(record.raw, record),
            calibrated=_reliability_points(record.calibrated, record),
            calls=len(record.calibrated),
            reason=book.fits[-1].reason,
            incomplete=backtests.incomplete,
        )


def _reliability_points(
    confidence: Floats, record: ConfidenceRecord
) -> tuple[ReliabilityPoint, ...]:
    bins = reliability_bins(confidence, record.outcome, record.weight)
    return tuple(ReliabilityPoint(b.probability, b.outcome, b.weight) for b in bins)


def svg_points(points: Sequence[ReliabilityPoint]) -> str:
    """Return the value of SVG's attribute `points`."""
    return " ".join(f"{point.x},{point.y}" for point in points)


def _read_run_ids(request: Request) -> list[str]:
    """Return the runs of a query, each once. Raises BadInputError for none or too many."""
    run_ids = list(dict.fromkeys(request.query_params.getlist("run")))
    if not run_ids:
        raise BadInputError("no run was chosen; tick two or more of them")
    if len(run_ids) > MAX_COMPARED:
        raise BadInputError(f"{len(run_ids)} runs were chosen; {MAX_COMPARED} can be told apart")
    return run_ids


def _table_rows(columns: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """Return name and values by run, `MAIN_METRICS` first; None if a run has no such value."""
    names = {name for column in columns for name in column}
    ordered = [name for name in MAIN_METRICS if name in names] + sorted(names - set(MAIN_METRICS))
    return [(name, [column.get(name) for column in columns]) for name in ordered]
