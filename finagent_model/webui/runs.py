"""Trainings and ablations: one of them, several beside each other, and the files that they left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from finagent_model.errors import BadInputError, TrackingError, UnknownRunError
from finagent_model.run_records import RunRecord, of_stage, read_run
from finagent_model.tracking import RunLog
from finagent_model.webui.equity import equity_of
from finagent_model.webui.reliability import Reliability, line
from finagent_model.webui.render import Renderer

SHOWN = 100
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


def run_routes(renderer: Renderer) -> APIRouter:
    routes = APIRouter(prefix="/runs")

    @routes.get("")
    def runs(request: Request) -> Response:
        trainings, ablations = of_stage("train", SHOWN), of_stage("ablate", SHOWN)
        return renderer.page(
            request, "runs.html", trainings=trainings, ablations=ablations, most=COMPARED
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
            gates=[gate_of(run) for run in found],
        )

    @routes.get("/equity.json")
    def equity(request: Request) -> Response:
        found = [equity_of(read_run(run_id)) for run_id in _asked(request)]
        names = [f"run {i}" for i in range(1, len(found) + 1)] if len(found) > 1 else ["desk"]
        curves = [
            {"name": name, "points": desk} for name, (desk, _) in zip(names, found, strict=True)
        ]
        held = {"name": "buy and hold", "points": found[0][1]}
        return JSONResponse({"curves": curves, "held": held})

    @routes.get("/{run_id}")
    def run(request: Request, run_id: Run) -> Response:
        found = read_run(run_id)
        return renderer.page(
            request,
            "run.html",
            run=found,
            gate=gate_of(found),
            ablation=_written(found, "ablate", "ablation.json"),
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
        try:
            found = Reliability.of(read_run(run_id))
        except (TrackingError, UnknownRunError) as error:
            title = "Its training can't be read"
            return renderer.page(request, "trouble.html", 404, title=title, said=str(error))
        here = said if said is not None else raw
        shown = min(max(here, 0.0), 100.0) if here is not None else None
        return renderer.page(request, "reliability.html", found=found, mark=shown, line=line)

    @routes.get("/{run_id}/files/{name}")
    def file(request: Request, run_id: Run, name: str) -> Response:
        try:
            if name not in FILES:
                raise TrackingError(f"no file {name!r} is handed out; there are {', '.join(FILES)}")
            content = RunLog(run_id).read(name)
        except TrackingError as error:
            title = "There is no such file"
            return renderer.page(request, "error.html", 404, title=title, said=str(error))
        headers = {"content-security-policy": REPORT_POLICY} if name == REPORT else {}
        return Response(content, media_type=FILES[name], headers=headers)

    return routes


def gate_of(run: RunRecord) -> dict[str, Any] | None:
    """What the gate wrote about a training; None: nothing, or nothing that can be read."""
    return _written(run, "train", "gate.json")


def _written(run: RunRecord, stage: str, file: str) -> dict[str, Any] | None:
    """What runs of `stage` leave in `file`."""
    if run.stage != stage:
        return None
    try:
        return RunLog(run.run_id).read_json(file)
    except (TrackingError, ValueError):
        return None


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
