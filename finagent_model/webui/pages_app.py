"""The app of `finagent ui`: the pages, and the REST of the artifacts behind the same middleware."""

from __future__ import annotations

import logging
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from finagent_model._base import requirement
from finagent_model.approvals import APPROVALS_FILE, ApprovalStore
from finagent_model.errors import (
    ApprovalSettledError,
    BadInputError,
    GateRefusedError,
    StoreError,
    TrackingError,
    UnknownApprovalError,
    UnknownArtifactError,
    UnknownKeyError,
    UnknownRunError,
)
from finagent_model.serving.auth import AuthError, TokenThrottle
from finagent_model.serving.http_guards import BodyLimit
from finagent_model.settings import Settings
from finagent_model.store.api import api_app
from finagent_model.store.artifacts import ArtifactStore
from finagent_model.store.database import Database
from finagent_model.store.outbox import Outbox
from finagent_model.webui._backtest_decision import backtest_routes
from finagent_model.webui._comparison_pages import comparison_routes
from finagent_model.webui._live import live_routes
from finagent_model.webui._login import AuthMiddleware, Sessions, login_routes
from finagent_model.webui._model_pages import model_routes
from finagent_model.webui._overview import overview_routes
from finagent_model.webui._rendering import Renderer, is_part_request
from finagent_model.webui._run_pages import run_routes
from finagent_model.webui._signal_list import count_pending, list_routes
from finagent_model.webui._signal_pages import signal_routes
from finagent_model.webui._stored_facts import VersionFactsReader

log = logging.getLogger(__name__)
MAX_FORM_BYTES = 16 * 1024
ERROR_PAGES: dict[type[Exception], tuple[int, str]] = {
    UnknownArtifactError: (404, "There is no such signal"),
    UnknownKeyError: (404, "There is no such signal"),
    UnknownRunError: (404, "There is no such run"),
    UnknownApprovalError: (404, "There is no such approval"),
    ApprovalSettledError: (409, "It is settled already"),
    GateRefusedError: (409, "The champion stays as it is"),
    StoreError: (503, "The database can't be used"),
    TrackingError: (503, "The MLflow store can't be used"),
    BadInputError: (400, "That can't be done"),
}
"""Status and title by error. The error's own message names the way out."""


def ui_app(settings: Settings) -> ASGIApp:
    """Return the pages and the REST. Raises StoreError for a database that can't be named.

    A database or an MLflow store that is down is an error of the pages that need it.
    """
    database = Database.from_settings(settings)
    store, approvals = ArtifactStore(database), ApprovalStore(settings.home / APPROVALS_FILE)
    renderer = Renderer(settings, lambda: count_pending(approvals))
    facts, sessions = VersionFactsReader(), Sessions()
    # No description of the pages: they are no interface for programs.
    pages = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    pages.add_middleware(
        BodyLimit,
        max_bytes=MAX_FORM_BYTES,
        way_out="write less",
        respond=lambda status, message: PlainTextResponse(f"{message}\n", status),
    )
    _add_error_pages(pages, renderer)
    pages.include_router(overview_routes(store, approvals, settings, renderer))
    pages.include_router(list_routes(store, approvals, settings, facts, renderer))
    pages.include_router(signal_routes(store, approvals, settings, facts, renderer))
    pages.include_router(live_routes(approvals, Outbox(database), settings, facts, renderer))
    pages.include_router(model_routes(renderer, settings))
    # Before the runs' own: `compare` is no id of a run.
    pages.include_router(comparison_routes(renderer))
    pages.include_router(run_routes(renderer))
    pages.include_router(backtest_routes(settings, facts, renderer))
    if settings.api_token is not None:
        pages.include_router(login_routes(settings.api_token, sessions, renderer))
    pages.mount("/static", StaticFiles(directory=Path(__file__).with_name("static")))

    @pages.get("/ping")
    def ping() -> Response:
        return PlainTextResponse("up\n")

    api = api_app(settings)
    # One count of wrong tokens for the pages and the REST.
    pages.state.token_throttle = api.state.token_throttle = TokenThrottle()
    # Outermost, so that nothing below it answers a caller who may not ask.
    return AuthMiddleware(pages, api, settings.api_token, sessions)


def _add_error_pages(pages: FastAPI, renderer: Renderer) -> None:
    """Answer every error with a page, with a part of one for htmx, or with JSON for a script."""

    def respond(request: Request, status: int, title: str, message: str) -> Response:
        if request.url.path.endswith(".json"):
            return JSONResponse({"message": message}, status)
        template = "problem.html" if is_part_request(request) else "error.html"
        return renderer.page(request, template, status, title=title, message=message)

    def known_error(request: Request, error: Exception) -> Response:
        # The nearest class counts: UnknownRunError is a TrackingError, too.
        status, title = next(ERROR_PAGES[c] for c in type(error).__mro__ if c in ERROR_PAGES)
        if status >= 500:
            log.warning("%s", error)
        return respond(request, status, title, str(error))

    for error_type in ERROR_PAGES:
        pages.add_exception_handler(error_type, known_error)

    @pages.exception_handler(AuthError)
    def not_admitted(request: Request, error: AuthError) -> Response:
        response = respond(request, error.status, "You may not do that", str(error))
        response.headers.update(error.headers)
        return response

    @pages.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return respond(request, 422, "That can't be asked", f"{where}: {requirement(first)}")

    @pages.exception_handler(HTTPException)
    def other(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            hint = "The links above lead to all pages."
            return respond(request, 404, "There is no such page", hint)
        return respond(request, error.status_code, "That can't be answered", str(error.detail))

    @pages.exception_handler(Exception)
    def bug(request: Request, error: Exception) -> Response:
        return respond(request, 500, "Something is wrong here", "The server's log says what.")
