"""Whether a scoring request asks what the model knows: MLflow drops an unknown parameter, column or
key before the model sees it, and a misspelt `mode` would be answered by the default.

What is refused here is refused in one sentence; what passes goes on to MLflow, which checks types.

An error of MLflow's in one sentence: it writes the caller's data and the whole schema before
what went wrong, and quotes one exception inside another.

MLflow's own scoring app, made to wait on models and to refuse clearly.

`/invocations` answers as `mlflow models serve` does, but a thread waits for each request, an
unknown name is refused, and an error, a time-out too, is one sentence of JSON. `/health` says that
it is up, `/version` which model speaks, `/approvals` what waits for a human. Told to end, it lets
requests finish for a moment and answers 503 to the rest.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from socket import socket
from typing import Any

import mlflow
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import DEADLINE_EXCEEDED, INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PyFuncModel, scoring_server

import finagent_model
from finagent_model._event_loop import EVENT_LOOP
from finagent_model.errors import BadInputError
from finagent_model.model.loading import load_model, unwrap
from finagent_model.serving.approval_routes import add_approval_routes
from finagent_model.settings import Settings

FORMS = ("dataframe_records", "dataframe_split", "inputs")
PARAMS = "params"


@dataclass(frozen=True)
class RequestSchema:
    """What a request may and must name."""

    columns: tuple[str, ...]
    required: tuple[str, ...]
    params: tuple[str, ...]

    @classmethod
    def of(cls, signature: ModelSignature) -> RequestSchema:
        params = signature.params.params if signature.params else []
        return cls(
            tuple(signature.inputs.input_names()),
            tuple(signature.inputs.required_input_names()),
            tuple(param.name for param in params),
        )


def read_request(body: bytes, names: RequestSchema) -> dict[str, Any]:
    """The JSON object of a request. Raises BadInputError."""
    try:
        request = json.loads(body)
    except ValueError as error:
        raise BadInputError(f"the body is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise BadInputError(f"the body must be a JSON object with {FORMS[0]!r}")
    _require_known("key", request, (*FORMS, PARAMS))
    forms = [form for form in FORMS if form in request]
    if len(forms) != 1:
        given = " and ".join(forms) or "none"
        raise BadInputError(f"send exactly one of {', '.join(FORMS)}; got {given}")
    for where, columns in _rows(forms[0], request[forms[0]]):
        _require_known(f"{where}column", columns, names.columns)
        for name in names.required:
            if name not in columns:
                raise BadInputError(
                    f"{where}{name} is missing; give {' and '.join(names.required)}"
                )
    params = request.get(PARAMS)
    if params is not None:
        if not isinstance(params, dict):
            raise BadInputError(f"{PARAMS} must be a JSON object with {', '.join(names.params)}")
        _require_known("parameter", params, names.params)
    return request


def _rows(form: str, data: Any) -> Iterable[tuple[str, Collection[str]]]:
    """Where columns are named, and which."""
    if form == "dataframe_split":
        if not isinstance(data, dict) or not isinstance(data.get("columns"), list):
            raise BadInputError(f"{form} must be an object with 'columns' and 'data'")
        yield "", [str(name) for name in data["columns"]]
        return
    for i, row in enumerate(data if isinstance(data, list) else [data]):
        if not isinstance(data, list) or not isinstance(row, dict):
            raise BadInputError(f"{form} must be a list of objects, one a row")
        yield f"row {i}: ", row


def _require_known(what: str, given: Iterable[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            hint = "" if name != "instances" else ", which turns rows into columns,"
            raise BadInputError(f"{what} {name!r}{hint} is unknown; known: {', '.join(known)}")


_BEFORE = (
    ("Failed to predict data", "\nError: "),
    ("Failed to enforce schema of data", "Error: "),
)
"""How a wrapping begins, and what stands before the reason that it wraps."""
_COLUMN = re.compile(r"Failed to convert column (\w+) .*Error: '\w+\(['\"](.*)['\"]\)'\.?$", re.S)
_PARAMETER = re.compile(r"Invalid parameters found: \{\('(\w+)', .*': (\w+) .*value `(.*?)`", re.S)


def one_line_error(message: str) -> str:
    """What went wrong, on one line."""
    for begins, mark in _BEFORE:
        if message.startswith(begins):
            message = message.partition(mark)[2] or message
    if found := _COLUMN.search(message):
        message = f"column {found[1]}: {found[2]}"
    elif found := _PARAMETER.search(message):
        message = f"parameter {found[1]}: {found[3]!r} is no {found[2]}"
    return " ".join(message.split())


SPARE_THREADS = 8
"""Beyond the requests that the model takes on: these refuse the next ones at once, with 429."""
FINISH_S = 3.0
"""How long requests under way may go on once the server is told to end."""
REPLACED = ("/version", "/invocations")


def scoring_app(uri: str, settings: Settings) -> FastAPI:
    """The app for a logged or registered model. Raises ModelLoadError."""
    loaded = load_model(uri)
    model = unwrap(loaded, uri)
    predictor = model.predictor
    timeout = MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
    timeout.set(timeout.get())  # as `mlflow models serve` does: the model ends before it
    app: FastAPI = scoring_server.init(loaded)
    app.user_middleware.clear()  # MLflow's time-out, which says what is no JSON
    inner = app.router.lifespan_context
    threads = settings.serve_threads + SPARE_THREADS

    @asynccontextmanager
    async def lifespan(started: FastAPI) -> AsyncIterator[Any]:
        pool = ThreadPoolExecutor(threads, thread_name_prefix="predict")
        asyncio.get_running_loop().set_default_executor(pool)
        async with inner(started) as state:
            yield state

    app.router.lifespan_context = lifespan
    app.router.routes = [
        route for route in app.router.routes if getattr(route, "path", "") not in REPLACED
    ]
    app.state.model = model
    names = RequestSchema.of(loaded.metadata.signature)

    @app.get("/version")
    def version() -> dict[str, str | None]:
        return {
            "finagent_model": finagent_model.__version__,
            "mlflow": mlflow.__version__,
            "model_uri": predictor.lineage.model_uri or uri,
            "model_version": predictor.lineage.model_version,
            "content_hash": predictor.package.content_hash,
            "model_used": predictor.package.config.model_used,
        }

    add_approval_routes(app, predictor.approvals, settings.approval_token)

    @app.post("/invocations")
    async def invocations(request: Request) -> Response:
        body, kind = await request.body(), request.headers.get("content-type", "")
        answer = asyncio.to_thread(_answer, loaded, names, body, kind)
        try:
            return await asyncio.wait_for(answer, timeout.get())
        except TimeoutError:
            said = "not answered in time; ask again later"
            return _refusal(MlflowException(said, error_code=DEADLINE_EXCEEDED))

    return app


def serve(uri: str, settings: Settings, host: str, port: int) -> None:
    """Answer until told to end."""
    app = scoring_app(uri, settings)
    _Server(uvicorn.Config(app, host=host, port=port, log_level="warning")).run()


class _Server(uvicorn.Server):
    """Ends within seconds, whatever its requests wait for."""

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        app: Any = self.config.app
        app.state.model.stop()
        asyncio.get_running_loop().call_later(FINISH_S, EVENT_LOOP.stop)
        await super().shutdown(sockets)


def _answer(loaded: PyFuncModel, names: RequestSchema, body: bytes, kind: str) -> Response:
    """What MLflow answers, its errors in one sentence."""
    try:
        asked: Any = body
        if kind.partition(";")[0].strip() == scoring_server.CONTENT_TYPE_JSON:
            asked = _read(body, names)
        schema = loaded.metadata.get_input_schema()
        found = scoring_server.invocations(asked, kind, loaded, schema)
    except MlflowException as error:
        return _refusal(error)
    return Response(found.response, found.status, media_type=found.mimetype)


def _refusal(error: MlflowException) -> Response:
    said = {"error_code": error.error_code, "message": one_line_error(error.message)}
    return JSONResponse(said, error.get_http_status_code())


def _read(body: bytes, names: RequestSchema) -> dict[str, Any]:
    try:
        return read_request(body, names)
    except BadInputError as error:
        raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None
