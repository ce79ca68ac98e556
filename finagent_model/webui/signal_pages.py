"""Bars as the chart draws them: up to a decision, and, when asked for, what came after it.

The first page: signals, the newest first, by execution, symbol, date, status and action; or the
executions that they came from.

One signal: what was decided on which bars, who said what, and where it all came from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, get_args

import numpy as np
from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from sqlalchemy import ColumnElement, or_

from finagent_model.approvals import ApprovalStore
from finagent_model.audit.chain import CONVERSATION_FILE, read_turns
from finagent_model.config.approval_rules import ApprovalRequest
from finagent_model.config.roster import Price
from finagent_model.data.market import Market
from finagent_model.decision.signal import Action, Status
from finagent_model.errors import (
    BadInputError,
    DataError,
    DataSourceError,
    InvalidBarsError,
    NoBarsError,
    TrackingError,
    UnknownArtifactError,
)
from finagent_model.market.bars import BarSeries, to_datetime64
from finagent_model.pipeline.run_metadata import TrainingState
from finagent_model.reports.charts import BARS_SHOWN
from finagent_model.settings import Settings
from finagent_model.store.artifacts import (
    NUMBER,
    Artifact,
    ArtifactFilter,
    ArtifactStore,
    executions,
)
from finagent_model.store.database import Database
from finagent_model.store.schema import artifacts as table
from finagent_model.tracking.runs import RunLog, usable_store
from finagent_model.webui import conversation as thread
from finagent_model.webui.conversation import SignalRow
from finagent_model.webui.rendering import Renderer
from finagent_model.webui.run_pages import RUN_ID

LATER = 60
"""Bars after a decision that are shown at most."""
AFTER = timedelta(days=92)
"""In which a market has that many."""


def drawn(
    market: Market, symbol: str, as_of: datetime, later: bool, now: datetime
) -> dict[str, Any]:
    """`bars_around` of what was kept, where that is enough: a vendor is asked for what it lacks. If
    it fails to give later bars, those that were kept are drawn, and `note` says so. Raises
    DataError and InvalidBarsError.
    """
    if not later or as_of >= now:
        return bars_around(market.bars(symbol, as_of), as_of, later) | {"note": None}
    try:
        series, note = market.bars(symbol, as_of + min(AFTER, now - as_of)), None
    except DataSourceError as error:
        series, note = market.bars(symbol, as_of), f"Later bars can't be had: {error}."
    return bars_around(series, as_of, later) | {"note": note}


def bars_around(bars: BarSeries, as_of: datetime, later: bool) -> dict[str, Any]:
    """JSON-ready; prices in units of the last bar that the decision saw, so that its levels lie
    where they belong. `later` is empty unless it is asked for. Raises NoBarsError.
    """
    seen = int(np.searchsorted(bars.closed_at, to_datetime64(as_of), side="right"))
    if seen == 0:
        raise NoBarsError(bars.symbol, as_of, bars.close_time(0) if len(bars) else None)
    factor = bars.growth_factor / bars.growth_factor[seen - 1]
    first, last = max(0, seen - BARS_SHOWN), seen + LATER if later else seen
    return {
        "symbol": bars.symbol,
        "seen": [_bar(bars, factor[i], i) for i in range(first, seen)],
        "later": [_bar(bars, factor[i], i) for i in range(seen, min(last, len(bars)))],
    }


def _bar(bars: BarSeries, factor: float, i: int) -> dict[str, Any]:
    prices = ("open", "high", "low", "close")
    return {
        "time": f"{bars.close_time(i):%Y-%m-%d}",
        **{name: round(float(getattr(bars, name)[i] * factor), 4) for name in prices},
    }


SHOWN = 50
"""Signals or executions on a page."""
LAST_PAGE = 1_000_000
FIELDS = ("symbol", "execution_id", "status", "action", "as_of_from", "as_of_to")
GROUPED = "execution"


class WantedSignals(ArtifactFilter):
    """Signals alone: a platform keeps orders, trades and portfolios under the same type and says in
    `signal_data.artifact_type` what they are. A symbol is found in either case.
    """

    def clauses(self) -> list[ColumnElement[bool]]:
        kind = table.c.signal_data["artifact_type"].as_string()
        found = ArtifactFilter.clauses(self.model_copy(update={"symbol": None}))
        if self.symbol is not None:
            ways = (self.symbol, self.symbol.upper(), self.symbol.lower())
            found.append(table.c.symbol.in_(ways))
        return [*found, or_(kind.is_(None), kind == "signal")]


@dataclass(frozen=True)
class Query:
    """What the form said, and what is wrong with it, by field."""

    given: Mapping[str, str]
    wanted: WantedSignals
    page: int
    grouped: bool
    wrong: Mapping[str, str]

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Query:
        """An empty field asks for any."""
        given = {name: query.get(name, "").strip() for name in FIELDS}
        wanted, wrong = WantedSignals(type="signal"), {}
        try:
            asked = {name: text for name, text in given.items() if text}
            wanted = WantedSignals.model_validate({"type": "signal", **asked})
        except ValidationError as error:
            wrong = {str(e["loc"][0]): f"{e['input']!r} can't be used" for e in error.errors()}
        number = query.get("page", "1")
        page = min(int(number), LAST_PAGE) if number.isdecimal() and number.isascii() else 1
        return cls(given, wanted, max(page, 1), query.get("group") == GROUPED, wrong)

    @property
    def offset(self) -> int:
        return (self.page - 1) * SHOWN

    @property
    def kept(self) -> dict[str, str]:
        """What a link to another page of the same asks for."""
        return {**self.given, "group": GROUPED if self.grouped else ""}


@dataclass(frozen=True)
class Waiting:
    """Decisions that wait for a human."""

    count: int | None
    """None: it can't be read."""
    why: str = ""
    """Why it can't."""

    @classmethod
    def of(cls, approvals: ApprovalStore) -> Waiting:
        try:
            return cls(sum(asked.state == "pending" for asked in approvals.list_approvals()[0]))
        except BadInputError as error:
            return cls(None, str(error))


def signal_routes(database: Database, approvals: ApprovalStore, renderer: Renderer) -> APIRouter:
    routes, store = APIRouter(), ArtifactStore(database)

    def found(asked: Query) -> tuple[Any, int]:
        if asked.wrong:
            return (), 0
        if asked.grouped:
            return executions(database, asked.wanted, SHOWN, asked.offset)
        page = store.page(asked.wanted, SHOWN, asked.offset)
        return [SignalRow.of(row) for row in page.artifacts], page.total

    @routes.get("/")
    def signals(request: Request) -> Response:
        asked = Query.read(request.query_params)
        rows, total = found(asked)
        return renderer.page(
            request,
            "signals.html",
            422 if asked.wrong else 200,
            asked=asked,
            rows=rows,
            total=total,
            statuses=[status.value for status in Status],
            actions=get_args(Action),
            waiting=Waiting.of(approvals),
        )

    return routes


MESSAGES = 200
"""Of one decision; a desk of seven says some twenty."""
VERSION = r"models:/([A-Za-z0-9_.-]{1,100})/([0-9]{1,9})"
SYMBOL = r"[^a-z\s]{1,20}"
"""As a desk takes it. What a row says beyond that no source of bars is asked for."""
Number = Annotated[int, Path(ge=1, le=NUMBER)]


def signal_page_routes(
    store: ArtifactStore, approvals: ApprovalStore, settings: Settings, renderer: Renderer
) -> APIRouter:
    routes = APIRouter(prefix="/signals/{number}")

    def said_in(row: Artifact) -> list[thread.Message]:
        """In short, as the database has it."""
        if not row.run_id:
            return []
        found = store.page(ArtifactFilter(type="llm", run_id=row.run_id), MESSAGES, 0, "step")
        return thread.from_rows(found.artifacts)

    @routes.get("")
    def signal(request: Request, number: Number) -> Response:
        found = _signal(store, number)
        approval, approval_why = _approval(approvals, found.row)
        return renderer.page(
            request,
            "signal.html",
            s=found,
            row=found.row,
            levels_data=[vars(level) for level in found.levels],
            trained_by=_run_id(found.text("run_id")),
            run_id=_run_id(found.row.run_id),
            version_page=_version_page(found),
            marked=_marked(found),
            messages=said_in(found.row),
            approval=approval,
            approval_why=approval_why,
            needs_token=settings.approval_token is not None,
        )

    @routes.get("/bars.json")
    def bars(number: Number, later: bool = False) -> Response:
        row = _signal(store, number).row
        if row.symbol is None or row.as_of is None:
            return _no_bars("this signal names no symbol and day, so there is nothing to draw")
        if not re.fullmatch(SYMBOL, row.symbol):
            return _no_bars(f"{row.symbol[:40]!r} is no symbol that a desk takes")
        try:
            market = Market.of(settings)
            return JSONResponse(drawn(market, row.symbol, row.as_of, later, datetime.now(UTC)))
        except (DataError, InvalidBarsError) as error:
            return _no_bars(f"{error}. FINAGENT_BARS names the folder that the desk decided on.")

    @routes.get("/conversation")
    def conversation(request: Request, number: Number) -> Response:
        """All of it, from the run's record; where that can't be read, why, above what the database
        has.
        """
        found = _signal(store, number)
        messages, trouble = [], None
        try:
            if found.row.run_id is None:
                raise TrackingError("this signal names no run of MLflow")
            with usable_store():
                turns = read_turns(RunLog(found.row.run_id).read(CONVERSATION_FILE).decode())
            messages = thread.from_turns(turns, _prices(found))
        except (TrackingError, ValueError, RecursionError) as error:
            messages, trouble = said_in(found.row), str(error)
        return renderer.part(
            request,
            "thread.html",
            f"Conversation about {found.row.symbol or found.row.name}",
            (f"/signals/{number}", "The signal"),
            200 if trouble is None else 404,
            messages=messages,
            trouble=trouble,
            whole=trouble is None,
            row=found.row,
        )

    return routes


def _run_id(value: str | None) -> str | None:
    """As far as it can be one of MLflow's."""
    return value if value and re.fullmatch(RUN_ID, value) else None


def _prices(signal: SignalRow) -> Mapping[str, Price]:
    """Those that the desk was trained with; none where its training can't be read."""
    run_id = _run_id(signal.text("run_id"))
    try:
        return TrainingState.read(RunLog(run_id)).config.prices if run_id else {}
    except TrackingError:
        return {}


def _version_page(signal: SignalRow) -> str | None:
    uri = re.fullmatch(VERSION, signal.text("model_uri") or "")
    return f"/models/{uri[1]}/{uri[2]}" if uri else None


def _marked(signal: SignalRow) -> dict[str, object]:
    """Where this signal stands in the diagram; one without an action stands nowhere."""
    if signal.row.action == "HOLD":
        return {}
    said = signal.number("confidence_score") if signal.calibrated else None
    return {"raw": signal.number("raw_confidence_score"), "said": said}


def _signal(store: ArtifactStore, number: int) -> SignalRow:
    """Raises UnknownArtifactError for what is no signal, too."""
    found = store.get(number)
    if found.type != "signal":
        raise UnknownArtifactError(number)
    return SignalRow.of(found)


def _approval(approvals: ApprovalStore, row: Artifact) -> tuple[ApprovalRequest | None, str | None]:
    """The one that this signal waited for, while it is listed; and why that can't be read. Another
    version asked the same question in the same conversation, so that the signal's own name counts.
    """
    try:
        listed, _ = approvals.list_approvals()
    except BadInputError as error:
        return None, str(error)
    mine = (row.key, row.metadata.get("conversation_id"))
    asked = (a for a in listed if (a.signal.signal_id, a.signal.conversation_id) == mine)
    return next(asked, None), None


def _no_bars(message: str) -> Response:
    return JSONResponse({"message": message}, 404)
