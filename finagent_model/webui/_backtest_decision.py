"""The page of one decision of a backtest: as that of a signal, from what the run kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response

from finagent_model.config.roster import Price
from finagent_model.decision.decision import LedgerRow
from finagent_model.decision.signal import Action
from finagent_model.errors import BadInputError, TrackingError
from finagent_model.pipeline.run_metadata import SYMBOL
from finagent_model.policy.trained_state import TradeOutcome
from finagent_model.reports.signal_summary import Circumstances, SignalSummary
from finagent_model.settings import Settings
from finagent_model.tracking.queries import RunRecord, read_run
from finagent_model.webui._backtest_files import (
    read_ledger_rows,
    read_outcomes,
    read_transcript,
)
from finagent_model.webui._conversation import (
    Message,
    group_by_agent,
    messages_from_turns,
    read_levels,
)
from finagent_model.webui._price_bars import SYMBOL_PATTERN, Call, no_bars, send_chart_bars
from finagent_model.webui._rendering import Renderer, with_query
from finagent_model.webui._run_records import BACKTEST_STAGE, RunId
from finagent_model.webui._stored_facts import VersionFacts, VersionFactsReader


def backtest_routes(settings: Settings, facts: VersionFactsReader, renderer: Renderer) -> APIRouter:
    """Return the routes of decisions that backtests made."""
    routes = APIRouter(prefix="/runs")

    @routes.get("/{run_id}/decision")
    def show_decision(request: Request, run_id: RunId, as_of: str) -> Response:
        run, moment = read_run(run_id), _parse_moment(as_of)
        try:
            row = _find_row(run, moment)
            why = (
                f"Run {run_id} decided nothing as of {moment.isoformat()}. Links to its decisions "
                "are on the page that compares its training with another one."
            )
        except TrackingError as error:
            row, why = None, str(error)
        if row is None:
            title = "There is no such decision"
            return renderer.page(request, "error.html", 404, title=title, message=why)
        outcome, outcome_problem = _read_outcome(run_id, moment)
        levels = read_levels(row)
        known = facts.find(run.parent_run_id) or VersionFacts()
        messages, problem = _read_messages(run_id, moment, known.prices)
        return renderer.page(
            request,
            "backtest_decision.html",
            run=run,
            row=row,
            as_of=moment,
            # By its age: a test is of days that are over.
            summary=SignalSummary.from_fields(row, Circumstances(now=datetime.now(UTC))),
            outcome=outcome,
            outcome_problem=outcome_problem,
            levels=levels,
            levels_data=[asdict(level) for level in levels],
            agents=group_by_agent(messages, _decided(row), known.agents),
            problem=problem,
            src=with_query(f"/runs/{run_id}/bars.json", {"as_of": moment.isoformat()}),
        )

    @routes.get("/{run_id}/bars.json")
    def send_bars(run_id: RunId, as_of: str, later: bool = False) -> Response:
        run, moment = read_run(run_id), _parse_moment(as_of)
        try:
            row, symbol = _find_row(run, moment), _symbol_of(run)
        except TrackingError as error:
            return no_bars(str(error))
        if row is None or symbol is None:
            return no_bars("this run names no such decision, so there is nothing to draw")
        call = Call.from_fields(_decided(row), row)
        return send_chart_bars(settings, symbol, moment, _decided(row), later, call)

    return routes


def _decided(row: LedgerRow) -> Action | None:
    return row["action"] if row["status"] == "ok" else None


def _symbol_of(run: RunRecord) -> str | None:
    symbol = run.tags.get(SYMBOL, "")
    return symbol if re.fullmatch(SYMBOL_PATTERN, symbol) else None


def _find_row(run: RunRecord, moment: datetime) -> LedgerRow | None:
    """Return what a backtest decided as of a moment; None: nothing. Raises TrackingError."""
    if run.stage != BACKTEST_STAGE:
        raise TrackingError(
            f"run {run.run_id} is not a backtest; a training's decisions are in the "
            "backtests below it"
        )
    return read_ledger_rows(run.run_id).get(moment)


def _read_outcome(run_id: str, moment: datetime) -> tuple[TradeOutcome | None, str | None]:
    """Return what became of a call, and why that can't be read."""
    try:
        return read_outcomes(run_id).get(moment), None
    except TrackingError as error:
        return None, str(error)


def _read_messages(
    run_id: str, moment: datetime, prices: Mapping[str, Price]
) -> tuple[list[Message], str | None]:
    """Return the messages of one decision, and why they can't be read."""
    try:
        turns = [turn for as_of, turn in read_transcript(run_id) if as_of == moment]
        return messages_from_turns(turns, prices), None
    except TrackingError as error:
        return [], str(error)


def _parse_moment(text: str) -> datetime:
    """Return the moment of a query. Raises BadInputError."""
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC) if "T" in text else None
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise BadInputError(
            f"as_of {text[:40]!r} is not a moment; write it like 2012-06-29T20:00:00+00:00"
        )
    return moment
