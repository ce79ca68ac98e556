"""Pages that put runs side by side: curves and verdicts of up to five, and of two all that differs.

Of two runs only what both have in common is compared. A number of the one is called better than
that of the other only where the interval of the difference excludes 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from finagent_model.errors import BadInputError, TrackingError
from finagent_model.statistics.comparison import CurveMetric, MetricComparison, MetricEstimate
from finagent_model.statistics.resampling import MIN_PERIODS
from finagent_model.tracking.queries import RunRecord, read_run
from finagent_model.webui._equity_curves import EquityCurves, draw_equity
from finagent_model.webui._rendering import Renderer, finite_number
from finagent_model.webui._run_comparison import (
    MAX_TRANSCRIPT_SYMBOLS,
    BacktestIds,
    CommonDays,
    ComparedDecisions,
    DecisionDifference,
    backtest_ids,
    compare_agents,
    compare_backtests,
    compare_decisions,
)
from finagent_model.webui._run_records import (
    MAIN_METRICS,
    FinishedBacktests,
    read_gate,
    table_rows,
)

T = TypeVar("T")
MAX_COMPARED = 5
"""Runs side by side; more curves can't be told apart."""
PAIR = 2
DIFFERENCES_ON_PAGE = 50
MAX_PAGE = 1_000_000
METRIC_WORDS: Mapping[CurveMetric, tuple[str, str]] = {
    "total_return": ("Total return", "%"),
    "annual_return": ("Mean return a year", "%"),
    "sharpe": ("Sharpe ratio", ""),
    "volatility": ("Volatility a year", "%"),
    "max_drawdown": ("Max drawdown", "%"),
}
"""Name and unit of each metric, in the order of the page."""


def comparison_routes(renderer: Renderer) -> APIRouter:
    """Return the routes of runs side by side."""
    routes = APIRouter(prefix="/runs")

    @routes.get("/compare")
    def compare_runs(request: Request, page: int = 1) -> Response:
        run_ids = _read_run_ids(request)
        if len(run_ids) == 1:  # nothing to compare it with
            return RedirectResponse(f"/runs/{run_ids[0]}", 303)
        runs = [read_run(run_id) for run_id in run_ids]
        is_pair = len(runs) == PAIR
        return renderer.page(
            request,
            "compare.html",
            runs=runs,
            pair=_read_pair(runs, min(max(page, 1), MAX_PAGE)) if is_pair else None,
            params=table_rows([run.params for run in runs]),
            metrics=table_rows([run.metrics for run in runs]),
            main_count=len(MAIN_METRICS),
            gates=[read_gate(run) for run in runs],
        )

    @routes.get("/compare/metrics")
    def show_metrics(request: Request) -> Response:
        # A part of a version's page, where the first run is the champion's.
        runs = _read_two(request)
        common, error = _read_or_error(compare_backtests, runs)
        return renderer.part(
            request,
            "comparison_metrics.html",
            "Metrics beside the champion's",
            (_comparison_path(runs), "The comparison"),
            200 if error is None else 404,
            common=common,
            metrics=show_comparison(common) if common else (),
            error=error,
            names=("champion", "this version"),
            min_days=MIN_PERIODS,
        )

    @routes.get("/compare/agents")
    def show_agents(request: Request) -> Response:
        runs = _read_two(request)
        agents, error = _read_or_error(compare_agents, runs)
        return renderer.part(
            request,
            "comparison_agents.html",
            "What the agents of two runs saw",
            (_comparison_path(runs), "The comparison"),
            200 if error is None else 404,
            agents=agents or (),
            error=error,
            max_symbols=MAX_TRANSCRIPT_SYMBOLS,
        )

    @routes.get("/equity.json")
    def send_equity(request: Request, common: bool = False) -> Response:
        runs = [read_run(run_id) for run_id in _read_run_ids(request)]
        if common and len(runs) == PAIR:
            days = compare_backtests(*_pair_ids(runs))
            curves = [EquityCurves(pool, (), None) for pool in days.pools or (None, None)]
            empty = "No day in common: nothing to draw."
            return JSONResponse({**draw_equity(curves), "empty": empty})
        return JSONResponse(draw_equity([EquityCurves.from_run(run) for run in runs]))

    return routes


@dataclass(frozen=True)
class MetricRow:
    """One metric of two runs as a page shows it."""

    name: str
    cells: tuple[tuple[str, str], ...]
    """Value and interval of the first run, the second, and the difference."""
    verdict: str | None
    """Of the second run: better, worse or differs; None: the interval does not tell."""


def show_comparison(common: CommonDays) -> tuple[MetricRow, ...]:
    """Return the metrics of two runs in words."""
    found = {each.name: each for each in common.metrics}
    return tuple(
        _metric_row(found[name], words, unit)
        for name, (words, unit) in METRIC_WORDS.items()
        if name in found
    )


def _metric_row(compared: MetricComparison, words: str, unit: str) -> MetricRow:
    # A loss and a deviation have no sign; a difference always has one.
    sign = "+" if compared.name in ("total_return", "annual_return") else ""
    sides = [_show(each, unit, sign) for each in (compared.first, compared.second)]
    difference = _show(compared.difference, unit, "+")
    return MetricRow(words, (*sides, difference), compared.verdict)


def _show(estimate: MetricEstimate, unit: str, sign: str) -> tuple[str, str]:
    how = f"{sign}.1%" if unit == "%" else f"{sign}.2f"

    def text(value: float) -> str:
        if finite_number(value) is None:
            return "undefined"
        # What is rounded to nothing has no sign but the one of a difference.
        shown = format(value, how)
        return shown.replace("-", sign) if float(shown.rstrip("%")) == 0 else shown

    low, high = text(estimate.interval.low), text(estimate.interval.high)
    interval = "interval undefined" if "undefined" in (low, high) else f"{low} to {high}"
    return text(estimate.value), interval


@dataclass(frozen=True, eq=False)
class ComparedPair:
    """What a page shows of two runs and of no more."""

    common: CommonDays | None
    metrics: tuple[MetricRow, ...]
    decisions: ComparedDecisions | None
    shown: Sequence[DecisionDifference]
    """Those of this page."""
    page: int
    error: str | None
    """Why they can't be compared."""
    decisions_error: str | None
    incomplete: tuple[str, ...]
    """Which symbols are missing, by run."""
    min_days: int = MIN_PERIODS

    @property
    def offset(self) -> int:
        """How many differing decisions come before this page."""
        return (self.page - 1) * DIFFERENCES_ON_PAGE


def _read_pair(runs: Sequence[RunRecord], page: int) -> ComparedPair:
    """Return what differs between two runs; what can't be read is told."""
    common, error = _read_or_error(compare_backtests, runs)
    decisions, decisions_error, incomplete = None, None, []
    if common is not None:
        decisions, decisions_error = _read_or_error(compare_decisions, runs)
        for number, run in enumerate(runs, 1):
            if words := FinishedBacktests.from_run(run).incomplete:
                incomplete.append(f"run {number}: {words}")
    start = (page - 1) * DIFFERENCES_ON_PAGE
    different = decisions.different if decisions else ()
    return ComparedPair(
        common=common,
        metrics=show_comparison(common) if common else (),
        decisions=decisions,
        shown=different[start : start + DIFFERENCES_ON_PAGE],
        page=page,
        error=error,
        decisions_error=decisions_error,
        incomplete=tuple(incomplete),
    )


def _pair_ids(runs: Sequence[RunRecord]) -> tuple[BacktestIds, BacktestIds]:
    first, second = (backtest_ids(FinishedBacktests.from_run(run)) for run in runs)
    return first, second


def _read_or_error(
    read: Callable[[BacktestIds, BacktestIds], T], runs: Sequence[RunRecord]
) -> tuple[T | None, str | None]:
    """Return what `read` returns of the backtests of two runs and None, or None and why not."""
    # One file that is not there must not hide what the runs themselves say.
    try:
        return read(*_pair_ids(runs)), None
    except TrackingError as error:
        return None, str(error)


def _comparison_path(runs: Sequence[RunRecord]) -> str:
    return f"/runs/compare?run={runs[0].run_id}&run={runs[1].run_id}"


def _read_two(request: Request) -> list[RunRecord]:
    """Return the two runs of a query. Raises BadInputError, UnknownRunError and TrackingError."""
    run_ids = _read_run_ids(request)
    if len(run_ids) != PAIR:
        raise BadInputError(f"{len(run_ids)} runs were chosen; two are compared")
    return [read_run(run_id) for run_id in run_ids]


def _read_run_ids(request: Request) -> list[str]:
    """Return the runs of a query, each once. Raises BadInputError for none or too many."""
    run_ids = list(dict.fromkeys(request.query_params.getlist("run")))
    if not run_ids:
        raise BadInputError("no run was chosen; tick two or more of them")
    if len(run_ids) > MAX_COMPARED:
        raise BadInputError(f"{len(run_ids)} runs were chosen; {MAX_COMPARED} can be told apart")
    return run_ids
