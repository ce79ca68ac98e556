"""Pages of trainings and ablations: the list, one run, and the files that it left."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from finagent_model.errors import TrackingError
from finagent_model.tracking.queries import list_stage_runs, read_run
from finagent_model.tracking.runs import RunLog, raise_tracking_errors
from finagent_model.webui._backtest_files import MAX_MS
from finagent_model.webui._comparison_pages import MAX_COMPARED
from finagent_model.webui._equity_curves import EquityCurves
from finagent_model.webui._reliability_diagram import Reliability, draw_periods, svg_points
from finagent_model.webui._rendering import Renderer
from finagent_model.webui._run_records import (
    MAIN_METRICS,
    RunId,
    group_checks,
    read_ablation,
    read_gate,
    table_rows,
)

MAX_RUNS = 100
"""Runs of each stage on a page."""
REPORT = "report.html"
FILES = {REPORT: "text/html", "ablation.png": "image/png", "chart.png": "image/png"}
"""Artifacts of a run that are served, with their media types."""
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; frame-ancestors 'self'"
)
"""The report has scripts of its own, so it gets an opaque origin and no access to anything."""
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
            params=table_rows([run.params]),
            metrics=table_rows([run.metrics]),
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

    @routes.get("/{run_id}/calibration")
    def show_calibration(request: Request, run_id: RunId) -> Response:
        parent = (f"/runs/{run_id}", "The training")
        try:
            reliability = Reliability.from_run(read_run(run_id))
        except TrackingError as error:
            title, message = "Its training can't be read", str(error)
            return renderer.part(request, "problem.html", title, parent, 404, message=message)
        return renderer.part(
            request,
            "calibration.html",
            "Calibration over time",
            parent,
            reliability=reliability,
            drawn=draw_periods(reliability.periods),
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
