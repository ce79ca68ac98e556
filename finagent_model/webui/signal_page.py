"""One signal: what was decided on which bars, who said what, and where it all came from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse

from finagent_model.artifacts.conversation import FILE, read_turns
from finagent_model.artifacts.price_chart import LEVELS
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
from finagent_model.tracking import RunLog
from finagent_model.webui import thread
from finagent_model.webui.bars import bars_around
from finagent_model.webui.render import Renderer
from finagent_model.webui.runs import RUN_ID

MESSAGES = 200
"""Of one decision; a desk of seven says some twenty."""
VERSION = r"models:/([A-Za-z0-9_.-]{1,100})/([0-9]{1,9})"
TONES = {"entry": "accent", "stop": "bad", "target": "good"}
Number = Annotated[int, Path(ge=1, le=NUMBER)]


@dataclass(frozen=True)
class Level:
    """A price that the signal names."""

    name: str
    price: float
    tone: str


def signal_page_routes(
    store: ArtifactStore, approvals: Approvals, settings: Settings, renderer: Renderer
) -> APIRouter:
    routes = APIRouter(prefix="/signals/{number}")

    @routes.get("")
    def signal(request: Request, number: Number) -> Response:
        found = _signal(store, number)
        rows = store.page(Wanted(type="llm", run_id=found.run_id), MESSAGES, 0, "step").artifacts
        said, levels = thread.from_rows(rows) if found.run_id else [], levels_of(found)
        return renderer.page(
            request,
            "signal.html",
            row=found,
            s=found.signal_data or {},
            levels=levels,
            trained_by=_run_id((found.signal_data or {}).get("run_id")),
            run_id=_run_id(found.run_id),
            version_page=_version_page(found),
            marked=_marked(found),
            levels_data=[vars(level) for level in levels],
            messages=said,
            approval=_approval(approvals, found),
            needs_token=settings.approval_token is not None,
        )

    @routes.get("/bars.json")
    def bars(number: Number, later: bool = False) -> Response:
        found = _signal(store, number)
        if found.symbol is None or found.as_of is None:
            return _no_bars("this signal names no symbol and day, so there is nothing to draw")
        try:
            series = Market.of(settings).bars(found.symbol)
            return JSONResponse(bars_around(series, found.as_of, later))
        except (DataError, InvalidBarsError) as error:
            return _no_bars(f"{error}. FINAGENT_BARS names the folder that the desk decided on.")

    @routes.get("/conversation")
    def conversation(request: Request, number: Number) -> Response:
        """All of it, from the run's record, as a part of the page."""
        found = _signal(store, number)
        try:
            if found.run_id is None:
                raise TrackingError("this signal names no run of MLflow")
            turns = read_turns(RunLog(found.run_id).read(FILE).decode())
        except (TrackingError, ValueError) as error:
            title = "The whole record can't be read"
            return renderer.page(request, "trouble.html", 404, title=title, said=str(error))
        return renderer.page(
            request,
            "thread.html",
            messages=thread.from_turns(turns, _prices(found)),
            whole=True,
            row=found,
        )

    return routes


def levels_of(row: Artifact) -> list[Level]:
    """Those that are prices, from the highest to the lowest."""
    given: dict[str, Any] = row.signal_data or {}
    found = [
        Level(name, float(price), TONES.get(name, "soft"))
        for field, (name, _) in LEVELS.items()
        if isinstance(price := given.get(field), int | float) and price > 0
    ]
    return sorted(found, key=lambda level: -level.price)


def _run_id(value: object) -> str | None:
    """As far as it can be one of MLflow's."""
    return value if isinstance(value, str) and re.fullmatch(RUN_ID, value) else None


def _prices(row: Artifact) -> Mapping[str, Price]:
    """Those that the desk was trained with; none where its training can't be read."""
    run_id = _run_id((row.signal_data or {}).get("run_id"))
    try:
        return Begun.read(RunLog(run_id)).config.prices if run_id else {}
    except TrackingError:
        return {}


def _version_page(row: Artifact) -> str | None:
    uri = re.fullmatch(VERSION, str((row.signal_data or {}).get("model_uri")))
    return f"/models/{uri[1]}/{uri[2]}" if uri else None


def _marked(row: Artifact) -> dict[str, object]:
    """Where this signal stands in the diagram; one without an action stands nowhere."""
    given = row.signal_data or {}
    if row.action == "HOLD":
        return {}
    said = given.get("confidence_score") if given.get("calibrated") is True else None
    return {"raw": given.get("raw_confidence_score"), "said": said}


def _signal(store: ArtifactStore, number: int) -> Artifact:
    """Raises UnknownArtifactError for what is no signal, too."""
    found = store.get(number)
    if found.type != "signal":
        raise UnknownArtifactError(number)
    return found


def _approval(approvals: Approvals, row: Artifact) -> Asked | None:
    """The one that this signal waited for, while it is listed."""
    asked_id = row.metadata.get("conversation_id")
    try:
        listed, _ = approvals.listed()
    except BadInputError:
        return None
    return next((a for a in listed if a.proposed.conversation_id == asked_id), None)


def _no_bars(message: str) -> Response:
    return JSONResponse({"message": message}, 404)
