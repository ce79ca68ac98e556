"""Artifacts over HTTP: `GET`, `POST` and `PATCH /api/artifacts`, in the trading platform's words.

With `FINAGENT_API_TOKEN` whoever has it reads and writes. Without, everybody who reaches the server
reads, and callers on its machine write. A refusal is `{"error": ..., "message": ...}`, of bad input
with `fields`: which one, what it was, why not.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, FastAPI, Path, Query, Request, Response
from pydantic import BaseModel, Field, SecretStr

import finagent_model
from finagent_model.domain.artifact import NUMBER, Artifact, NewArtifact
from finagent_model.serving.callers import require_this_machine, require_token
from finagent_model.settings import Settings
from finagent_model.store.artifacts import ArtifactStore, Order
from finagent_model.store.database import Database
from finagent_model.store.refusals import BodyLimit, Refusal, add_refusals
from finagent_model.store.wanted import Wanted

VARIABLE = "FINAGENT_API_TOKEN"
LARGEST_BODY = 1024 * 1024
"""Bytes. What is larger belongs into the artifacts of a run."""
LARGEST_PAGE = 1000
LARGEST_ANSWER = 8 * 1024 * 1024
"""Bytes of a page; one artifact of more is a page of its own."""
SAID: dict[int | str, dict[str, Any]] = {
    401: {"model": Refusal, "description": "The token is missing or wrong."},
    403: {"model": Refusal, "description": "No token is set, and you are on another machine."},
    422: {"model": Refusal, "description": "A field or a parameter can't be used."},
    503: {"model": Refusal, "description": "The database can't be used now."},
}
UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": Refusal, "description": "No such."}}
TAKEN: dict[int | str, dict[str, Any]] = {
    409: {"model": Refusal, "description": "The key is taken, or the signal is settled."},
    413: {"model": Refusal, "description": f"The body has more than {LARGEST_BODY} bytes."},
}
Number = Annotated[int, Path(ge=1, le=NUMBER, description="The artifact's `id`.")]


class PageQuery(Wanted):
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
    add_refusals(app)
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
        | TAKEN,
    )
    def add(new: NewArtifact) -> Response:
        """Store an artifact. The same `metadata.key` again adds nothing."""
        artifact, is_new = store.add(new)
        return _json(artifact, 201 if is_new else 200)

    @routes.patch(
        "/api/artifacts/{number}",
        dependencies=writers,
        response_model=None,
        responses=_ok(Artifact, "The artifact as it is now.") | UNKNOWN | TAKEN,
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
