"""Pages that put runs side by side."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from finagent_model.errors import BadInputError
from finagent_model.tracking.queries import read_run
from finagent_model.webui._equity_curves import EquityCurves, draw_equity
from finagent_model.webui._rendering import Renderer
from finagent_model.webui._run_records import MAIN_METRICS, read_gate, table_rows

MAX_COMPARED = 5
"""Runs side by side; more curves can't be told apart."""


def comparison_routes(renderer: Renderer) -> APIRouter:
    """Return the routes of runs side by side."""
    routes = APIRouter(prefix="/runs")

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
            params=table_rows([run.params for run in runs]),
            metrics=table_rows([run.metrics for run in runs]),
            main_count=len(MAIN_METRICS),
            gates=[read_gate(run) for run in runs],
        )

    @routes.get("/equity.json")
    def send_equity(request: Request) -> Response:
        curves = [EquityCurves.from_run(read_run(run_id)) for run_id in _read_run_ids(request)]
        return JSONResponse(draw_equity(curves))

    return routes


def _read_run_ids(request: Request) -> list[str]:
    """Return the runs of a query, each once. Raises BadInputError for none or too many."""
    run_ids = list(dict.fromkeys(request.query_params.getlist("run")))
    if not run_ids:
        raise BadInputError("no run was chosen; tick two or more of them")
    if len(run_ids) > MAX_COMPARED:
        raise BadInputError(f"{len(run_ids)} runs were chosen; {MAX_COMPARED} can be told apart")
    return run_ids
