"""The app of `finagent ui`: the pages, and the REST of the artifacts behind the same door."""

from __future__ import annotations

import logging
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from finagent_model.approvals import APPROVALS_FILE, ApprovalStore
from finagent_model.errors import (
    ApprovalSettledError,
    BadInputError,
    GateRefusedError,
    StoreError,
    TrackingError,
    UnknownApprovalError,
    UnknownArtifactError,
    UnknownRunError,
)
from finagent_model.serving.auth import AuthError
from finagent_model.settings import Settings
from finagent_model.store.api import BodyLimit, api_app
from finagent_model.store.artifacts import ArtifactStore
from finagent_model.store.database import Database
from finagent_model.store.outbox import Outbox
from finagent_model.webui.live import live_routes
from finagent_model.webui.login import AuthMiddleware, login_routes
from finagent_model.webui.model_pages import model_routes
from finagent_model.webui.rendering import Renderer, is_part
from finagent_model.webui.run_pages import run_routes
from finagent_model.webui.signal_pages import signal_page_routes, signal_routes

log = logging.getLogger(__name__)
LARGEST_FORM = 16 * 1024
"""Bytes."""
STORE = "The MLflow store can't be used"
TITLES: dict[type[Exception], tuple[int, str]] = {
    UnknownArtifactError: (404, "There is no such signal"),
    UnknownRunError: (404, "There is no such run"),
    UnknownApprovalError: (404, "There is no such approval"),
    ApprovalSettledError: (409, "It is settled already"),
    GateRefusedError: (409, "The champion stays as it is"),
    StoreError: (503, "The database can't be used"),
    TrackingError: (503, STORE),
    BadInputError: (400, "That can't be done"),
}
"""What our errors are to whoever looks; their own words say the way out."""


def ui_app(settings: Settings) -> ASGIApp:
    """Raises StoreError for a database that can't be named; one that is down is said on the pages
    that need it. The same holds for MLflow.
    """
    database = Database.of(settings)
    store, approvals = ArtifactStore(database), ApprovalStore(settings.home / APPROVALS_FILE)
    renderer = Renderer(settings)
    pages = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    pages.add_middleware(BodyLimit, largest=LARGEST_FORM)
    _say_errors(pages, renderer)
    pages.include_router(signal_routes(database, approvals, renderer))
    pages.include_router(signal_page_routes(store, approvals, settings, renderer))
    pages.include_router(live_routes(approvals, Outbox(database), settings, renderer))
    pages.include_router(model_routes(renderer))
    pages.include_router(run_routes(renderer))
    if settings.api_token is not None:
        pages.include_router(login_routes(settings.api_token, renderer))
    pages.mount("/static", StaticFiles(directory=Path(__file__).with_name("static")))

    @pages.get("/ping")
    def ping() -> Response:
        return PlainTextResponse("up\n")

    return AuthMiddleware(pages, api_app(settings), settings.api_token)


def _say_errors(pages: FastAPI, renderer: Renderer) -> None:
    """A page for each, a part of one where htmx asks for it, JSON where a script does."""

    def say(request: Request, status: int, title: str, said: str) -> Response:
        if request.url.path.endswith(".json"):
            return JSONResponse({"message": said}, status)
        template = "trouble.html" if is_part(request) else "error.html"
        return renderer.page(request, template, status, title=title, said=said)

    def ours(request: Request, error: Exception) -> Response:
        status, title = next(TITLES[kind] for kind in type(error).__mro__ if kind in TITLES)
        if status >= 500:
            log.warning("%s", error)
        return say(request, status, title, str(error))

    for kind in TITLES:
        pages.add_exception_handler(kind, ours)

    @pages.exception_handler(AuthError)
    def not_admitted(request: Request, error: AuthError) -> Response:
        return say(request, error.status, "You may not do that", str(error))

    @pages.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return say(request, 422, "That can't be asked", f"{where}: {first['msg']}")

    @pages.exception_handler(HTTPException)
    def other(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return say(request, 404, "There is no such page", "The links above lead to all pages.")
        return say(request, error.status_code, "That can't be answered", str(error.detail))

    @pages.exception_handler(Exception)
    def bug(request: Request, error: Exception) -> Response:
        return say(request, 500, "Something is wrong here", "The server's log says what.")
