"""One signal: what was decided on which bars, who said what, and where it all came from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse

from finagent_model.artifacts.conversation import FILE, read_turns
from finagent_model.domain.approval import Asked
from finagent_model.domain.artifact import NUMBER, Artifact
from finagent_model.domain.model_row import Price
from finagent_model.errors import (
    BadInputError,
    DataError,
    InvalidBarsError,
    TrackingError,
    UnknownArtifactError,
)
from finagent_model.market import Market
from finagent_model.pipeline.begun import Begun
from finagent_model.serving.approvals import Approvals
from finagent_model.settings import Settings
from finagent_model.store.artifacts import ArtifactStore
from finagent_model.store.wanted import Wanted
from finagent_model.tracking import RunLog, usable_store
from finagent_model.webui import thread
from finagent_model.webui.bars import drawn
from finagent_model.webui.render import Renderer
from finagent_model.webui.runs import RUN_ID
from finagent_model.webui.signal_row import SignalRow

MESSAGES = 200
"""Of one decision; a desk of seven says some twenty."""
VERSION = r"models:/([A-Za-z0-9_.-]{1,100})/([0-9]{1,9})"
SYMBOL = r"[^a-z\s]{1,20}"
"""As a desk takes it. What a row says beyond that no source of bars is asked for."""
Number = Annotated[int, Path(ge=1, le=NUMBER)]


def signal_page_routes(
    store: ArtifactStore, approvals: Approvals, settings: Settings, renderer: Renderer
) -> APIRouter:
    routes = APIRouter(prefix="/signals/{number}")

    def said_in(row: Artifact) -> list[thread.Message]:
        """In short, as the database has it."""
        if not row.run_id:
            return []
        found = store.page(Wanted(type="llm", run_id=row.run_id), MESSAGES, 0, "step")
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
                turns = read_turns(RunLog(found.row.run_id).read(FILE).decode())
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
        return Begun.read(RunLog(run_id)).config.prices if run_id else {}
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


def _approval(approvals: Approvals, row: Artifact) -> tuple[Asked | None, str | None]:
    """The one that this signal waited for, while it is listed; and why that can't be read. Another
    version asked the same question in the same conversation, so that the signal's own name counts.
    """
    try:
        listed, _ = approvals.listed()
    except BadInputError as error:
        return None, str(error)
    mine = (row.key, row.metadata.get("conversation_id"))
    asked = (a for a in listed if (a.proposed.signal_id, a.proposed.conversation_id) == mine)
    return next(asked, None), None


def _no_bars(message: str) -> Response:
    return JSONResponse({"message": message}, 404)
