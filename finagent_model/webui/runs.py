"""Trainings and ablations: one of them, several beside each other, and the files that they left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from finagent_model.errors import BadInputError, TrackingError
from finagent_model.run_records import of_stage, read_run
from finagent_model.tracking import RunLog, usable_store
from finagent_model.webui.equity import Equity
from finagent_model.webui.reliability import Reliability, line
from finagent_model.webui.render import Renderer
from finagent_model.webui.written import ablation_of, gate_of

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
            gates=[gate_of(run) for run in found],
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
            gate=gate_of(found),
            ablation=ablation_of(found),
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
