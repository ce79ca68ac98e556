"""MLflow's scoring server, made to wait on chat models and to answer every error in one sentence.

`/invocations` answers as `mlflow models serve` does, but each request has a thread and a time-out,
and an unknown key, column or parameter is refused: MLflow drops it, and a misspelt `mode` would be
answered by the default. `/health` says that the server is up, `/version` which model answers, and
`/approvals` what waits for a human. On shutdown, running requests get a moment to finish and the
rest are answered 503.
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

SPARE_THREADS = 8
"""Threads beyond the requests that the model accepts; they refuse more at once, with 429."""
SHUTDOWN_GRACE_S = 3.0
"""How long running requests may go on once the server is told to end."""
REPLACED_ROUTES = ("/version", "/invocations")
"""Routes of MLflow's app that ours take the place of."""
FORMS = ("dataframe_records", "dataframe_split", "inputs")
"""Keys of a request that hold its rows, in the forms that are accepted."""
PARAMS = "params"


@dataclass(frozen=True)
class RequestSchema:
    """The names that a request may use, and the columns that it must have."""

    columns: tuple[str, ...]
    required: tuple[str, ...]
    params: tuple[str, ...]

    @classmethod
    def of(cls, signature: ModelSignature) -> RequestSchema:
        """Return the schema of a model's signature."""
        params = signature.params.params if signature.params else []
        return cls(
            tuple(signature.inputs.input_names()),
            tuple(signature.inputs.required_input_names()),
            tuple(param.name for param in params),
        )


def serve(uri: str, settings: Settings, host: str, port: int) -> None:
    """Serve the model at `uri` over HTTP until the process is told to end.

    Raises ModelLoadError.
    """
    app = scoring_app(uri, settings)
    _Server(uvicorn.Config(app, host=host, port=port, log_level="warning")).run()


def scoring_app(uri: str, settings: Settings) -> FastAPI:
    """Return the app of a logged or registered model. Raises ModelLoadError."""
    loaded = load_model(uri)
    model = unwrap(loaded, uri)
    predictor = model.predictor
    timeout = MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
    # Set, even to its default, as `mlflow models serve` does: the model takes its own deadline from
    # it, a little shorter, so that work stops before the server gives up.
    timeout.set(timeout.get())
    app: FastAPI = scoring_server.init(loaded)
    # MLflow's only middleware is its time-out, whose response is not JSON.
    app.user_middleware.clear()
    inner = app.router.lifespan_context
    threads = settings.serve_threads + SPARE_THREADS

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[Any]:
        # `asyncio.to_thread` uses the loop's default executor, which is a few threads wide.
        pool = ThreadPoolExecutor(threads, thread_name_prefix="predict")
        asyncio.get_running_loop().set_default_executor(pool)
        async with inner(app) as state:
            yield state

    app.router.lifespan_context = lifespan
    # Starlette takes the first route that matches, so MLflow's must go before ours are added.
    app.router.routes = [
        route for route in app.router.routes if getattr(route, "path", "") not in REPLACED_ROUTES
    ]
    app.state.model = model
    schema = RequestSchema.of(loaded.metadata.signature)

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
        body, content_type = await request.body(), request.headers.get("content-type", "")
        response = asyncio.to_thread(_predict, loaded, schema, body, content_type)
        try:
            return await asyncio.wait_for(response, timeout.get())
        except TimeoutError:
            message = "not answered in time; ask again later"
            return _error_response(MlflowException(message, error_code=DEADLINE_EXCEEDED))

    return app


class _Server(uvicorn.Server):
    """A server that ends within `SHUTDOWN_GRACE_S`, whatever its requests wait for."""

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        app: Any = self.config.app
        # New requests are 503 from here on.
        app.state.model.stop()
        # Cancels calls to chat models, so that the requests that wait for them end with 503 too.
        asyncio.get_running_loop().call_later(SHUTDOWN_GRACE_S, EVENT_LOOP.stop)
        await super().shutdown(sockets)


def _predict(
    loaded: PyFuncModel, schema: RequestSchema, body: bytes, content_type: str
) -> Response:
    """Return MLflow's response to a request, with its errors in one sentence."""
    try:
        data: Any = body
        if content_type.partition(";")[0].strip() == scoring_server.CONTENT_TYPE_JSON:
            data = _parse_json(body, schema)
        input_schema = loaded.metadata.get_input_schema()
        result = scoring_server.invocations(data, content_type, loaded, input_schema)
    except MlflowException as error:
        return _error_response(error)
    return Response(result.response, result.status, media_type=result.mimetype)


def _parse_json(body: bytes, schema: RequestSchema) -> dict[str, Any]:
    """Return a request's JSON object. Raises MlflowException, which becomes status 400."""
    try:
        return parse_request(body, schema)
    except BadInputError as error:
        raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None


def _error_response(error: MlflowException) -> Response:
    body = {"error_code": error.error_code, "message": one_line_error(error.message)}
    return JSONResponse(body, error.get_http_status_code())


def parse_request(body: bytes, schema: RequestSchema) -> dict[str, Any]:
    """Return the JSON object of a scoring request, whose names are all in `schema`.

    Types are left to MLflow. Raises BadInputError.
    """
    try:
        request = json.loads(body)
    except ValueError as error:
        raise BadInputError(f"the body is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise BadInputError(f"the body must be a JSON object with {FORMS[0]!r}")
    _require_known_names("key", request, (*FORMS, PARAMS))
    forms = [form for form in FORMS if form in request]
    if len(forms) != 1:
        got = " and ".join(forms) or "none"
        raise BadInputError(f"send exactly one of {', '.join(FORMS)}; got {got}")
    for prefix, columns in _column_names(forms[0], request[forms[0]]):
        _require_known_names(f"{prefix}column", columns, schema.columns)
        for name in schema.required:
            if name not in columns:
                raise BadInputError(
                    f"{prefix}{name} is missing; give {' and '.join(schema.required)}"
                )
    params = request.get(PARAMS)
    if params is not None:
        if not isinstance(params, dict):
            raise BadInputError(f"{PARAMS} must be a JSON object with {', '.join(schema.params)}")
        _require_known_names("parameter", params, schema.params)
    return request


def _column_names(form: str, data: Any) -> Iterable[tuple[str, Collection[str]]]:
    """Yield the column names of a request, with the prefix that locates them in an error.

    Raises BadInputError.
    """
    # The split form names its columns once, every other form in each row.
    if form == "dataframe_split":
        if not isinstance(data, dict) or not isinstance(data.get("columns"), list):
            raise BadInputError(f"{form} must be an object with 'columns' and 'data'")
        yield "", [str(name) for name in data["columns"]]
        return
    for i, row in enumerate(data if isinstance(data, list) else [data]):
        if not isinstance(data, list) or not isinstance(row, dict):
            raise BadInputError(f"{form} must be a list of objects, one a row")
        yield f"row {i}: ", row


def _require_known_names(what: str, names: Iterable[str], allowed: Collection[str]) -> None:
    for name in names:
        if name not in allowed:
            # TensorFlow's form, which MLflow would accept and read in another way.
            hint = "" if name != "instances" else ", which turns rows into columns,"
            raise BadInputError(f"{what} {name!r}{hint} is unknown; known: {', '.join(allowed)}")


# How MLflow begins an error that quotes another, and what it writes before the quoted reason. The
# text in between is the caller's data and the whole schema.
_WRAPPERS = (
    ("Failed to predict data", "\nError: "),
    ("Failed to enforce schema of data", "Error: "),
)
_COLUMN = re.compile(r"Failed to convert column (\w+) .*Error: '\w+\(['\"](.*)['\"]\)'\.?$", re.S)
_PARAMETER = re.compile(r"Invalid parameters found: \{\('(\w+)', .*': (\w+) .*value `(.*?)`", re.S)


def one_line_error(message: str) -> str:
    """Return the reason inside an error message of MLflow, on one line."""
    # In order: an error of data may wrap an error of schema.
    for beginning, mark in _WRAPPERS:
        if message.startswith(beginning):
            message = message.partition(mark)[2] or message
    if match := _COLUMN.search(message):
        message = f"column {match[1]}: {match[2]}"
    elif match := _PARAMETER.search(message):
        message = f"parameter {match[1]}: {match[3]!r} is no {match[2]}"
    return " ".join(message.split())
