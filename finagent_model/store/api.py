"""How the REST of artifacts says no: typed JSON, the field and its value, never a stack trace.

Artifacts over HTTP: `GET`, `POST` and `PATCH /api/artifacts`, in the trading platform's words.

With `FINAGENT_API_TOKEN` whoever has it reads and writes. Without, everybody who reaches the server
reads, and callers on its machine write. A refusal is `{"error": ..., "message": ...}`, of bad input
with `fields`: which one, what it was, why not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, SecretStr, ValidationError
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import finagent_model
from finagent_model.errors import (
    ArtifactConflictError,
    StoreError,
    UnknownArtifactError,
    ValueTooLargeError,
)
from finagent_model.serving.auth import AuthError, require_this_machine, require_token
from finagent_model.settings import Settings
from finagent_model.store.artifacts import (
    NUMBER,
    Artifact,
    ArtifactFilter,
    ArtifactStore,
    NewArtifact,
    Order,
)
from finagent_model.store.database import Database

log = logging.getLogger(__name__)
WORDS = {413: "too_large", 422: "invalid", 503: "unavailable"}
MAX_SHOWN = 200
"""Characters of a wrong value, or of where it is, that are told back."""


class InvalidField(BaseModel):
    field: str
    """Where it is, such as `body.confidence`."""
    value: str
    message: str


class ErrorResponse(BaseModel):
    """Every answer from 400 on."""

    error: str
    """A word for programs: `not_found`, `conflict`, `invalid`, `too_large`, ..."""
    message: str
    """A sentence for people."""
    fields: list[InvalidField] = []


def add_error_responses(app: FastAPI) -> None:
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

    @app.exception_handler(ValueTooLargeError)
    def unstorable(request: Request, error: ValueTooLargeError) -> JSONResponse:
        if error.column is None:
            return _refusal(422, str(error))
        said = {"loc": ("body", error.column), "input": error.value, "msg": str(error)}
        return _wrong([said])

    @app.exception_handler(AuthError)
    def not_admitted(request: Request, error: AuthError) -> JSONResponse:
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
        InvalidField(
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
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _refusal(status: int, message: str, fields: Sequence[InvalidField] = ()) -> JSONResponse:
    word = WORDS.get(status) or HTTPStatus(status).name.lower()
    refusal = ErrorResponse(error=word, message=message, fields=list(fields))
    return JSONResponse(refusal.model_dump(), status)


VARIABLE = "FINAGENT_API_TOKEN"
LARGEST_BODY = 1024 * 1024
"""Bytes. What is larger belongs into the artifacts of a run."""
LARGEST_PAGE = 1000
LARGEST_ANSWER = 8 * 1024 * 1024
"""Bytes of a page; one artifact of more is a page of its own."""
SAID: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorResponse, "description": "The token is missing or wrong."},
    403: {
        "model": ErrorResponse,
        "description": "No token is set, and you are on another machine.",
    },
    422: {"model": ErrorResponse, "description": "A field or a parameter can't be used."},
    503: {"model": ErrorResponse, "description": "The database can't be used now."},
}
UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorResponse, "description": "No such."}
}
CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {"model": ErrorResponse, "description": "The key is taken, or the signal is settled."},
    413: {"model": ErrorResponse, "description": f"The body has more than {LARGEST_BODY} bytes."},
}
Number = Annotated[int, Path(ge=1, le=NUMBER, description="The artifact's `id`.")]


class PageQuery(ArtifactFilter):
    """Which artifacts, and which part of them."""

    limit: int = Field(
        50,
        ge=1,
        le=LARGEST_PAGE,
        description=f"A page has fewer where they would be more than {LARGEST_ANSWER} bytes; the "
        "next `offset` is this page's plus how many it has.",
    )
    offset: int = Field(0, ge=0, le=NUMBER)
    order: Order = Field("newest", description="`step`: by `step_name`, as within an execution.")


class Listed(BaseModel):
    """A page."""

    artifacts: list[Artifact]
    total: int = Field(description="How many there are, on all pages.")
    limit: int
    offset: int


def api_app(settings: Settings) -> FastAPI:
    """An app with these routes alone; pages may be added to it. Raises StoreError for a database
    that can't be named; one that is down is a 503 until it is up.
    """
    app = FastAPI(
        title="finagent artifacts",
        version=finagent_model.__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,  # its page would fetch scripts from elsewhere
        redoc_url=None,
    )
    app.add_middleware(BodyLimit, largest=LARGEST_BODY)
    add_error_responses(app)
    app.include_router(artifact_routes(ArtifactStore(Database.of(settings)), settings.api_token))
    return app


def from_environment() -> FastAPI:
    """`uvicorn --factory finagent_model.store.api:from_environment`: the REST alone."""
    return api_app(Settings.load())


def artifact_routes(store: ArtifactStore, token: SecretStr | None) -> APIRouter:
    """To be included in an app that has `add_refusals`."""
    routes = APIRouter(tags=["artifacts"], responses=SAID)
    readers, writers = [Depends(_reader(token))], [Depends(_writer(token))]

    @routes.get(
        "/api/artifacts",
        dependencies=readers,
        response_model=None,
        responses=_ok(Listed, "A page."),
    )
    def listed(query: Annotated[PageQuery, Query()]) -> Response:
        """Artifacts, the newest first, with how many there are."""
        found = store.page(query, query.limit, query.offset, query.order, LARGEST_ANSWER)
        page = Listed.model_construct(
            artifacts=list(found.artifacts),
            total=found.total,
            limit=query.limit,
            offset=query.offset,
        )
        return _json(page)

    @routes.get(
        "/api/artifacts/{number}",
        dependencies=readers,
        response_model=None,
        responses=_ok(Artifact, "The artifact.") | UNKNOWN,
    )
    def one(number: Number) -> Response:
        """One artifact by its id."""
        return _json(store.get(number))

    @routes.post(
        "/api/artifacts",
        dependencies=writers,
        status_code=201,
        response_model=None,
        responses=_ok(Artifact, "It was there already.")
        | {201: {"model": Artifact, "description": "It is new."}}
        | CONFLICT,
    )
    def add(new: NewArtifact) -> Response:
        """Store an artifact. The same `metadata.key` again adds nothing."""
        artifact, is_new = store.add(new)
        return _json(artifact, 201 if is_new else 200)

    @routes.patch(
        "/api/artifacts/{number}",
        dependencies=writers,
        response_model=None,
        responses=_ok(Artifact, "The artifact as it is now.") | UNKNOWN | CONFLICT,
    )
    def change(
        number: Number,
        changes: Annotated[
            dict[str, Any], Body(description="Fields of a new artifact; `metadata` as a whole.")
        ],
    ) -> Response:
        """Change some fields. What a settled signal says, and where it came from, can't be."""
        return _json(store.change(number, changes))

    return routes


def _reader(token: SecretStr | None) -> Any:
    def admit(request: Request) -> None:
        if token is not None:
            require_token(request, token, VARIABLE)

    return admit


def _writer(token: SecretStr | None) -> Any:
    def admit(request: Request) -> None:
        if token is not None:
            require_token(request, token, VARIABLE)
        else:
            require_this_machine(
                request,
                "artifacts are written from the server's own machine (http://127.0.0.1); "
                f"set {VARIABLE} to write them from elsewhere",
            )

    return admit


def _ok(model: type[BaseModel], what: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model, "description": what}}


def _json(value: BaseModel, status: int = 200) -> Response:
    """As it stands: a row of another system may break the rules for new ones."""
    text = value.model_dump_json(warnings=False)
    return Response(text, status, media_type="application/json")
