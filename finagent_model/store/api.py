"""REST of the artifacts: `GET`, `POST` and `PATCH /api/artifacts`, in the trading platform's words.

A caller who sends `FINAGENT_API_READ_TOKEN` reads; who sends `FINAGENT_API_WRITE_TOKEN` or
`FINAGENT_API_TOKEN` reads and writes. Where none is set, callers on the server's machine do. What
is written here is never a decision of ours: its `origin` is `rest`. An error is
`{"error": ..., "message": ..., "fields": [...]}`; for bad input `fields` says which field it was,
what its value was and why it can't be used. No answer has a stack trace.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, SecretStr, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as AnyHTTPException

import finagent_model
from finagent_model._base import requirement
from finagent_model._documents import read_json
from finagent_model._secrets import redact_process
from finagent_model.errors import (
    ArtifactConflictError,
    BadInputError,
    StoreError,
    UnknownArtifactError,
    ValueTooLargeError,
)
from finagent_model.serving.auth import (
    AuthError,
    require_any_token,
    require_same_origin,
    require_this_machine,
)
from finagent_model.serving.http_guards import AccessGuard, BodyLimit
from finagent_model.settings import Settings
from finagent_model.store.artifact_models import (
    MAX_INTEGER,
    Artifact,
    ArtifactFilter,
    NewArtifact,
    Order,
)
from finagent_model.store.artifacts import ArtifactStore
from finagent_model.store.database import Database

log = logging.getLogger(__name__)
WRITE_TOKENS = {"FINAGENT_API_WRITE_TOKEN": "api_write_token", "FINAGENT_API_TOKEN": "api_token"}
READ_TOKENS = {"FINAGENT_API_READ_TOKEN": "api_read_token"} | WRITE_TOKENS
"""Fields of the settings by environment variable: the tokens that let a caller write, and read."""
MAX_BODY_BYTES = 1024 * 1024
"""Larger things belong in the artifacts of a run."""
MAX_PAGE_ROWS = 1000
MAX_PAGE_BYTES = 8 * 1024 * 1024
"""A single artifact that is larger is a page of its own."""
MAX_CHARS_SHOWN = 200
"""Characters of a wrong value, or of its field, that an error repeats."""
ERROR_WORDS = {413: "too_large", 422: "invalid", 503: "unavailable"}
"""Words for programs; any other status has its name in HTTP."""


class InvalidField(BaseModel):
    """A field that can't be used."""

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


class PageQuery(ArtifactFilter):
    """Which artifacts, and which part of them."""

    limit: int = Field(
        50,
        ge=1,
        le=MAX_PAGE_ROWS,
        description=f"A page has fewer where they would be more than {MAX_PAGE_BYTES} bytes; the "
        "next `offset` is this page's plus how many it has.",
    )
    offset: int = Field(0, ge=0, le=MAX_INTEGER)
    order: Order = Field("newest", description="`step`: by `step_name`, as within an execution.")


class ArtifactPageResponse(BaseModel):
    """A page."""

    artifacts: list[Artifact]
    total: int = Field(description="How many there are, on all pages.")
    limit: int
    offset: int


COMMON_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorResponse, "description": "The token is missing or wrong."},
    403: {
        "model": ErrorResponse,
        "description": "No token lets anybody write, and you are on another machine.",
    },
    422: {"model": ErrorResponse, "description": "A field or a parameter can't be used."},
    429: {"model": ErrorResponse, "description": "Too many wrong tokens came from your address."},
    503: {"model": ErrorResponse, "description": "The database can't be used now."},
}
NOT_FOUND_ERROR: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorResponse, "description": "No such."}
}
WRITE_ERRORS: dict[int | str, dict[str, Any]] = {
    409: {"model": ErrorResponse, "description": "The key is taken, or the signal is settled."},
    413: {"model": ErrorResponse, "description": f"The body has more than {MAX_BODY_BYTES} bytes."},
}
ArtifactId = Annotated[int, Path(ge=1, le=MAX_INTEGER, description="The artifact's `id`.")]


def api_app(settings: Settings) -> FastAPI:
    """Return an app with the routes of the artifacts alone; pages may be added to it.

    Raises StoreError for a database that can't be named. One that is down is a 503 until it is up.
    """
    app = FastAPI(
        title="finagent artifacts",
        version=finagent_model.__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,  # its page would fetch scripts from elsewhere
        redoc_url=None,
    )
    app.add_middleware(
        BodyLimit,
        max_bytes=MAX_BODY_BYTES,
        way_out="keep what is larger in MLflow's artifacts",
        respond=_error_response,
    )
    # Added last, so it is asked first.
    check = _access_check(settings)
    app.add_middleware(AccessGuard, check=check, respond=_error_response)
    add_error_responses(app)
    store = ArtifactStore(Database.from_settings(settings))
    app.include_router(artifact_routes(store, settings))
    return app


def from_environment() -> FastAPI:
    """Return the REST alone: `uvicorn --factory finagent_model.store.api:from_environment`.

    What the server's process prints is redacted from then on.
    """
    redact_process()
    return api_app(Settings.load())


def artifact_routes(store: ArtifactStore, settings: Settings) -> APIRouter:
    """Return the routes, for an app that has `add_error_responses`."""
    routes = APIRouter(tags=["artifacts"], responses=COMMON_ERRORS, route_class=JsonRoute)
    readers, writers = [Depends(_read_guard(settings))], [Depends(_write_guard(settings))]

    # `name` is what the OpenAPI document calls the two reads; it must not follow the functions.
    @routes.get(
        "/api/artifacts",
        name="listed",
        dependencies=readers,
        response_model=None,  # documented below; validating again would refuse foreign rows
        responses=_ok(ArtifactPageResponse, "A page."),
    )
    def list_artifacts(query: Annotated[PageQuery, Query()]) -> Response:
        """Artifacts, the newest first, with how many there are."""
        page = store.list_artifacts(query, query.limit, query.offset, query.order, MAX_PAGE_BYTES)
        response = ArtifactPageResponse.model_construct(
            artifacts=list(page.artifacts),
            total=page.total,
            limit=query.limit,
            offset=query.offset,
        )
        return _json_response(response)

    @routes.get(
        "/api/artifacts/{number}",
        name="one",
        dependencies=readers,
        response_model=None,
        responses=_ok(Artifact, "The artifact.") | NOT_FOUND_ERROR,
    )
    def get_artifact(number: ArtifactId) -> Response:
        """One artifact by its id."""
        return _json_response(store.get(number))

    @routes.post(
        "/api/artifacts",
        dependencies=writers,
        status_code=201,
        response_model=None,
        responses=_ok(Artifact, "It was there already.")
        | {201: {"model": Artifact, "description": "It is new."}}
        | WRITE_ERRORS,
    )
    def add(new: NewArtifact) -> Response:
        """Store an artifact. The same `metadata.key` again adds nothing."""
        artifact, is_new = store.add(new)
        return _json_response(artifact, 201 if is_new else 200)

    @routes.patch(
        "/api/artifacts/{number}",
        dependencies=writers,
        response_model=None,
        responses=_ok(Artifact, "The artifact as it is now.") | NOT_FOUND_ERROR | WRITE_ERRORS,
    )
    def change(
        number: ArtifactId,
        changes: Annotated[
            dict[str, Any], Body(description="Fields of a new artifact; `metadata` as a whole.")
        ],
    ) -> Response:
        """Change some fields. What a settled signal says, and where it came from, can't be."""
        return _json_response(store.update(number, changes))

    return routes


def add_error_responses(app: FastAPI) -> None:
    """Make `app` answer with an `ErrorResponse` to whatever is raised below it."""

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _invalid_response(error.errors())

    @app.exception_handler(ValidationError)
    def invalid_change(request: Request, error: ValidationError) -> JSONResponse:
        # `ArtifactStore.update` validates the merged artifact, so the fields are the body's.
        errors = error.errors(include_url=False)
        return _invalid_response([{**e, "loc": ("body", *e["loc"])} for e in errors])

    @app.exception_handler(UnknownArtifactError)
    def unknown(request: Request, error: UnknownArtifactError) -> JSONResponse:
        return _error_response(404, str(error))

    @app.exception_handler(ArtifactConflictError)
    def conflict(request: Request, error: ArtifactConflictError) -> JSONResponse:
        return _error_response(409, str(error))

    @app.exception_handler(ValueTooLargeError)
    def too_large_value(request: Request, error: ValueTooLargeError) -> JSONResponse:
        if error.column is None:
            return _error_response(422, str(error))
        detail = {"loc": ("body", error.column), "input": error.value, "msg": str(error)}
        return _invalid_response([detail])

    @app.exception_handler(AuthError)
    def not_admitted(request: Request, error: AuthError) -> JSONResponse:
        response = _error_response(error.status, str(error))
        response.headers.update(error.headers)
        return response

    @app.exception_handler(StoreError)
    def unavailable(request: Request, error: StoreError) -> JSONResponse:
        # The error names the database; only the log may.
        log.warning("%s", error)
        return _error_response(503, "the database can't be used now; the server's log says why")

    @app.exception_handler(AnyHTTPException)
    def other(request: Request, error: AnyHTTPException) -> JSONResponse:
        return _error_response(error.status_code, str(error.detail))

    @app.exception_handler(Exception)
    def bug(request: Request, error: Exception) -> JSONResponse:
        # Starlette raises it again after the answer, so the server's log has the stack trace.
        return _error_response(500, "something is wrong here; the server's log says what")


class JsonRoute(APIRoute):
    """A route whose JSON body is read by the bounded reader."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, given a request that reads its own JSON."""
        handle = super().get_route_handler()

        async def handle_bounded(request: Request) -> Response:
            return await handle(_JsonRequest(request.scope, request.receive))

        return handle_bounded


class _JsonRequest(Request):
    async def json(self) -> Any:
        try:
            # In a thread: a megabyte takes a moment, and the event loop has other requests.
            return await run_in_threadpool(read_json, await self.body())
        except BadInputError as error:
            raise HTTPException(422, str(error)) from None


def _invalid_response(errors: Sequence[Any]) -> JSONResponse:
    fields = [
        InvalidField(
            field=_shorten(".".join(str(part) for part in error["loc"])),
            value=_shorten(repr(error.get("input"))),
            message=requirement(error),
        )
        for error in errors
    ]
    first = fields[0]
    message = f"{first.field}: {first.message} (got {first.value})"
    if len(fields) > 1:
        message += f", and {len(fields) - 1} more"
    return _error_response(422, message, fields)


def _error_response(status: int, message: str, fields: Sequence[InvalidField] = ()) -> JSONResponse:
    word = ERROR_WORDS.get(status) or HTTPStatus(status).name.lower()
    body = ErrorResponse(error=word, message=message, fields=list(fields))
    return JSONResponse(body.model_dump(), status)


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_CHARS_SHOWN else f"{text[:MAX_CHARS_SHOWN]}..."


def _access_check(settings: Settings) -> Callable[[Request], None]:
    """Return the check of who may reach any route, for AccessGuard."""
    is_open = not _find_tokens(settings, READ_TOKENS)

    def check(request: Request) -> None:
        require_same_origin(request)
        if is_open:
            require_this_machine(
                request,
                "artifacts are for the server's own machine (http://127.0.0.1); "
                f"set {' or '.join(WRITE_TOKENS)} to read and write them from elsewhere",
            )

    return check


def _read_guard(settings: Settings) -> Any:
    tokens = _find_tokens(settings, READ_TOKENS)

    def check(request: Request) -> None:
        if tokens:
            require_any_token(request, tokens)

    return check


def _write_guard(settings: Settings) -> Any:
    tokens, variables = _find_tokens(settings, WRITE_TOKENS), " or ".join(WRITE_TOKENS)
    readers = _find_tokens(settings, READ_TOKENS)

    def check(request: Request) -> None:
        if tokens:
            require_any_token(request, tokens)
        elif readers:
            # A proxy on this machine makes everybody local, and readers are not to write.
            raise AuthError(403, f"only reading is allowed here; set {variables} to write")

    return check


def _find_tokens(settings: Settings, variables: Mapping[str, str]) -> dict[str, SecretStr]:
    """Return those of the tokens that are set, by their variables."""
    tokens = {variable: getattr(settings, field) for variable, field in variables.items()}
    return {variable: token for variable, token in tokens.items() if token is not None}


def _ok(model: type[BaseModel], description: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model, "description": description}}


def _json_response(value: BaseModel, status: int = 200) -> Response:
    # Without validation: a row of another system may break the rules for new ones.
    text = value.model_dump_json(warnings=False)
    return Response(text, status, media_type="application/json")
