"""How the REST of artifacts says no: typed JSON, the field and its value, never a stack trace."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finagent_model.errors import (
    ArtifactConflictError,
    StoreError,
    UnknownArtifactError,
    UnstorableError,
)
from finagent_model.serving.callers import NotAdmittedError

log = logging.getLogger(__name__)
WORDS = {413: "too_large", 422: "invalid", 503: "unavailable"}
SHOWN = 200
"""Characters of a wrong value, or of where it is, that are told back."""


class WrongField(BaseModel):
    field: str
    """Where it is, such as `body.confidence`."""
    value: str
    message: str


class Refusal(BaseModel):
    """Every answer from 400 on."""

    error: str
    """A word for programs: `not_found`, `conflict`, `invalid`, `too_large`, ..."""
    message: str
    """A sentence for people."""
    fields: list[WrongField] = []


def add_refusals(app: FastAPI) -> None:
    """Answers for everything that is raised below `app`."""

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _wrong(error.errors())

    @app.exception_handler(ValidationError)
    def invalid_change(request: Request, error: ValidationError) -> JSONResponse:
        found = error.errors(include_url=False)
        return _wrong([{**e, "loc": ("body", *e["loc"])} for e in found])

    @app.exception_handler(UnknownArtifactError)
    def unknown(request: Request, error: UnknownArtifactError) -> JSONResponse:
        return _refusal(404, str(error))

    @app.exception_handler(ArtifactConflictError)
    def conflict(request: Request, error: ArtifactConflictError) -> JSONResponse:
        return _refusal(409, str(error))

    @app.exception_handler(UnstorableError)
    def unstorable(request: Request, error: UnstorableError) -> JSONResponse:
        if error.column is None:
            return _refusal(422, str(error))
        said = {"loc": ("body", error.column), "input": error.value, "msg": str(error)}
        return _wrong([said])

    @app.exception_handler(NotAdmittedError)
    def not_admitted(request: Request, error: NotAdmittedError) -> JSONResponse:
        return _refusal(error.status, str(error))

    @app.exception_handler(StoreError)
    def unavailable(request: Request, error: StoreError) -> JSONResponse:
        log.warning("%s", error)
        return _refusal(503, "the database can't be used now; the server's log says why")

    @app.exception_handler(AnyHTTPException)
    def other(request: Request, error: AnyHTTPException) -> JSONResponse:
        return _refusal(error.status_code, str(error.detail))

    @app.exception_handler(Exception)
    def bug(request: Request, error: Exception) -> JSONResponse:
        return _refusal(500, "something is wrong here; the server's log says what")


class BodyLimit:
    """Refuses a body of more than `largest` bytes with 413, before it is read whole."""

    def __init__(self, app: ASGIApp, largest: int) -> None:
        self._app, self._largest = app, largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = f"the body may have {self._largest} bytes; keep what is larger in MLflow's artifacts"
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > self._largest:
            await _refusal(413, said)(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._largest:
                raise HTTPException(413, said)
            return message

        await self._app(scope, counted, send)


def _wrong(errors: Sequence[Any]) -> JSONResponse:
    fields = [
        WrongField(
            field=_cut(".".join(str(part) for part in error["loc"])),
            value=_cut(repr(error.get("input"))),
            message=error["msg"].removeprefix("Value error, "),
        )
        for error in errors
    ]
    first = fields[0]
    message = f"{first.field}: {first.message} (got {first.value})"
    if len(fields) > 1:
        message += f", and {len(fields) - 1} more"
    return _refusal(422, message, fields)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _refusal(status: int, message: str, fields: Sequence[WrongField] = ()) -> JSONResponse:
    word = WORDS.get(status) or HTTPStatus(status).name.lower()
    refusal = Refusal(error=word, message=message, fields=list(fields))
    return JSONResponse(refusal.model_dump(), status)
