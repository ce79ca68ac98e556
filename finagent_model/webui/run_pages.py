"""What trainings and ablations wrote about themselves, as far as it has the shape that pages show:
other code may have written it.

The runs below a training in which the desk decided on its symbols: of each symbol the newest
that finished, since a task that was tried again left another.

What a training earned on the days that no fit had seen, as curves that start from 1.

How often a version's calls came true, by what their confidence said: from the record of its
training, and as a drawing.

Trainings and ablations: one of them, several beside each other, and the files that they left.
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
from finagent_model.evaluation.calibrate import ConfidenceRecord, calibrate, confidence_record
from finagent_model.evaluation.evidence import SymbolFacts, pooled
from finagent_model.evaluation.gate import GateReport
from finagent_model.market.bars import Floats, from_datetime64
from finagent_model.pipeline.backtest import CALLS
from finagent_model.pipeline.run_metadata import (
    SYMBOL,
    TrainingState,
    schema_errors_as_tracking_error,
)
from finagent_model.policy.trained_state import load_outcomes
from finagent_model.statistics.reliability import reliability_bins
from finagent_model.tracking.queries import RunRecord, finished_below, of_stage, read_run
from finagent_model.tracking.runs import RunLog, usable_store
from finagent_model.webui.rendering import Renderer


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


def read_gate(run: RunRecord) -> GateReport | None:
    """What the gate wrote about a training; None: nothing, or nothing that can be read."""
    said = _written(run, "train", "gate.json")
    if not isinstance(said, dict):
        return None
    checks = {name: value for name, value in said.items() if name not in ("verdict", "refusals")}
    try:
        return GateReport.model_validate(checks)
    except ValidationError:
        return None


def read_ablation(run: RunRecord) -> Ablated | None:
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


STAGE = "backtest"
SKEW = timedelta(minutes=1)
"""By how much clocks of the machines that end runs may differ."""


@dataclass(frozen=True)
class Backtests:
    """Those that a training has so far."""

    runs: tuple[RunRecord, ...]
    wanted: int | None
    """How many symbols it is trained on; None: its run doesn't say."""

    @classmethod
    def of(cls, training: RunRecord) -> Self:
        """Raises TrackingError."""
        found = finished_below(training, STAGE)
        newest = {run.tags[SYMBOL]: run for run in found if SYMBOL in run.tags}
        return cls(tuple(newest.values()), symbols_of(training))

    @property
    def short(self) -> str | None:
        """What is missing, in words; None: nothing, as far as is known."""
        if self.wanted is None or len(self.runs) >= self.wanted:
            return None
        return f"{len(self.runs)} of {self.wanted} symbols: the others have no finished backtest"


class DecidedSymbols:
    """On which symbols trainings at work have decided. What has finished stays finished, so that
    each look asks for what did since the last one.
    """

    def __init__(self) -> None:
        self._known: dict[str, dict[str, datetime]] = {}

    def count(self, training: RunRecord) -> int:
        """Raises TrackingError."""
        known = self._known.setdefault(training.run_id, {})
        since = max(known.values()) - SKEW if known else None
        for run in finished_below(training, STAGE, since):
            if SYMBOL in run.tags and run.ended is not None:
                known[run.tags[SYMBOL]] = run.ended
        return len(known)

    def forget_but(self, at_work: set[str]) -> None:
        """All trainings but these runs."""
        for run_id in self._known.keys() - at_work:
            self._known.pop(run_id, None)


def symbols_of(training: RunRecord) -> int | None:
    """How many it is trained on; None: its run doesn't say."""
    given = training.params.get("symbols")
    return len(given.split(",")) if given else None


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
    with schema_errors_as_tracking_error(run_id):
        return SymbolFacts.model_validate_json(RunLog(run_id).read("facts.json"))


def _curve(days: list[str], returns: Floats) -> Points:
    points = zip(days, np.cumprod(1.0 + returns), strict=True)
    return [{"time": day, "value": round(float(value), 5)} for day, value in points]


LEFT, TOP, SIDE = 44.0, 10.0, 240.0
"""The square of the drawing, in its own units."""


@dataclass(frozen=True)
class Point:
    """A tenth of the scale, and where it is drawn."""

    said: float
    true: float
    weight: float

    @property
    def x(self) -> float:
        return round(LEFT + SIDE * self.said, 1)

    @property
    def y(self) -> float:
        return round(TOP + SIDE * (1 - self.true), 1)

    @property
    def radius(self) -> float:
        return round(2 + math.sqrt(self.weight) / 2, 1)


@dataclass(frozen=True)
class Reliability:
    """Before and after calibration; both are empty where too few outcomes were known."""

    raw: tuple[Point, ...]
    said: tuple[Point, ...]
    calls: int
    reason: str
    """What the calibration in force was fitted on, or why there is none."""
    short: str | None
    """Which part of the symbols it is, where it is not all of them."""

    @classmethod
    def of(cls, run: RunRecord) -> Self:
        """Of the version that the training `run` made. Raises TrackingError."""
        policies = TrainingState.read(RunLog(run.run_id)).policies
        below = Backtests.of(run)
        texts = [RunLog(each.run_id).read(CALLS).decode() for each in below.runs]
        with schema_errors_as_tracking_error(run.run_id):
            calls = [call for text in texts for call in load_outcomes(text)]
            book = calibrate(calls, policies.start_times)
            known = confidence_record(calls, book)
        return cls(
            raw=_points(known.raw, known),
            said=_points(known.said, known),
            calls=len(known.said),
            reason=book.fits[-1].reason,
            short=below.short,
        )


def _points(said: Floats, known: ConfidenceRecord) -> tuple[Point, ...]:
    bins = reliability_bins(said, known.true, known.weight)
    return tuple(Point(b.said, b.true, b.weight) for b in bins)


def line(points: Sequence[Point]) -> str:
    """As the attribute `points` of SVG has it."""
    return " ".join(f"{point.x},{point.y}" for point in points)


SHOWN = 100
"""Of each stage on a page."""
COMPARED = 5
"""Runs beside each other: more can't be told apart."""
RUN_ID = r"^[0-9a-f]{32}$"
REPORT = "report.html"
FILES = {REPORT: "text/html", "ablation.png": "image/png", "chart.png": "image/png"}
"""What is handed out of a run's artifacts."""
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; frame-ancestors 'self'"
)
"""The report brings its own scripts. It has an origin of its own, and reaches nothing."""
FIRST = (
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
"""Metrics that are looked at first."""
Run = Annotated[str, Path(pattern=RUN_ID)]
Before = Annotated[int | None, Query(ge=0, le=10**13)]
"""Milliseconds since 1970: runs that began before."""


def run_routes(renderer: Renderer) -> APIRouter:
    routes = APIRouter(prefix="/runs")

    @routes.get("")
    def runs(request: Request, trained: Before = None, ablated: Before = None) -> Response:
        return renderer.page(
            request,
            "runs.html",
            trainings=of_stage("train", SHOWN, trained),
            ablations=of_stage("ablate", SHOWN, ablated),
            asked={"trained": trained, "ablated": ablated},
            most=COMPARED,
        )

    @routes.get("/compare")
    def compare(request: Request) -> Response:
        asked = _asked(request)
        if len(asked) == 1:
            return RedirectResponse(f"/runs/{asked[0]}", 303)
        found = [read_run(run_id) for run_id in asked]
        return renderer.page(
            request,
            "compare.html",
            runs=found,
            params=_rows([run.params for run in found]),
            metrics=_rows([run.metrics for run in found]),
            told=len(FIRST),
            gates=[read_gate(run) for run in found],
        )

    @routes.get("/equity.json")
    def equity(request: Request) -> Response:
        found = [Equity.of(read_run(run_id)) for run_id in _asked(request)]
        names = [f"run {i}" for i in range(1, len(found) + 1)] if len(found) > 1 else ["desk"]
        curves = [
            {"name": name, "points": each.desk, "short": each.short}
            for name, each in zip(names, found, strict=True)
        ]
        held = {"name": "buy and hold", "points": found[0].held}
        return JSONResponse({"curves": curves, "held": held})

    @routes.get("/{run_id}")
    def run(request: Request, run_id: Run) -> Response:
        found = read_run(run_id)
        return renderer.page(
            request,
            "run.html",
            run=found,
            gate=read_gate(found),
            ablation=read_ablation(found),
            params=_rows([found.params]),
            metrics=_rows([found.metrics]),
            told=len(FIRST),
            has_report=found.stage == "train" and RunLog(run_id).has(REPORT),
        )

    @routes.get("/{run_id}/reliability")
    def reliability(
        request: Request, run_id: Run, raw: float | None = None, said: float | None = None
    ) -> Response:
        """A part of a page; marks a confidence, calibrated or else raw."""
        training = (f"/runs/{run_id}", "The training")
        try:
            found = Reliability.of(read_run(run_id))
        except TrackingError as error:
            title = "Its training can't be read"
            return renderer.part(request, "trouble.html", title, training, 404, said=str(error))
        here = said if said is not None else raw
        mark = min(max(here, 0.0), 100.0) if here is not None else None
        title, shown = "What a confidence is worth", {"found": found, "mark": mark, "line": line}
        return renderer.part(request, "reliability.html", title, training, **shown)

    @routes.get("/{run_id}/files/{name}")
    def file(request: Request, run_id: Run, name: str) -> Response:
        try:
            if name not in FILES:
                raise TrackingError(f"no file {name!r} is handed out; there are {', '.join(FILES)}")
            with usable_store():
                content = RunLog(run_id).read(name)
        except TrackingError as error:
            title = "There is no such file"
            return renderer.page(request, "error.html", 404, title=title, said=str(error))
        headers = {"content-security-policy": REPORT_POLICY} if name == REPORT else {}
        return Response(content, media_type=FILES[name], headers=headers)

    return routes


def _asked(request: Request) -> list[str]:
    """The runs of a query, each once. Raises BadInputError."""
    asked = list(dict.fromkeys(request.query_params.getlist("run")))
    if not asked:
        raise BadInputError("no run was chosen; tick two or more of them")
    if len(asked) > COMPARED:
        raise BadInputError(f"{len(asked)} runs were chosen; {COMPARED} can be told apart")
    return asked


def _rows(columns: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """By name, those of `FIRST` first; None where a run has no such value."""
    names = {name for column in columns for name in column}
    ordered = [name for name in FIRST if name in names] + sorted(names - set(FIRST))
    return [(name, [column.get(name) for column in columns]) for name in ordered]
