"""A model over HTTP: MLflow's scoring protocol, made to wait on chat models and to face bad input.

`/invocations` takes and answers JSON as `mlflow models serve` does. The order is this: who asks,
how much is sent, whether a place is free, and only then what is asked. Each request has a thread
and a time-out, and each error is one sentence. An unknown key, column or parameter is refused:
MLflow drops it, and a misspelt `mode` would be answered by the default. `/health` says that the
server is up, `/version` which model answers, and `/approvals` what waits for a human. On shutdown,
running requests get a moment to finish and the rest are answered 503.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from socket import socket
from typing import Any

import mlflow
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from pydantic import SecretStr
from starlette.exceptions import HTTPException

import finagent_model
from finagent_model._base import show_value
from finagent_model._documents import read_json_object
from finagent_model._event_loop import EVENT_LOOP
from finagent_model.errors import BadInputError
from finagent_model.model.loading import load_model, unwrap
from finagent_model.model.pyfunc import FinagentModel, work_timeout_s
from finagent_model.model.questions import parse_rows
from finagent_model.serving.approval_routes import APPROVALS_PATH, add_approval_routes
from finagent_model.serving.auth import (
    TokenThrottle,
    require_same_origin,
    require_this_machine,
    require_token,
)
from finagent_model.serving.http_guards import AccessGuard, BodyLimit
from finagent_model.serving.workers import (
    WorkerGroup,
    close_pooled_connections,
    open_sockets,
)
from finagent_model.settings import Settings

log = logging.getLogger(__name__)
MAX_BODY_BYTES = 8 * 1024 * 1024
"""Some seventy thousand bars."""
SPARE_THREADS = 8
"""Threads beyond the requests that the model accepts; they refuse more at once, with 429."""
SHUTDOWN_GRACE_S = 3.0
"""How long running requests may go on once the server is told to end."""
TRACES_GRACE_S = 5.0
"""How long a server that ends waits for its last traces to be written."""
FORMS = ("dataframe_records", "dataframe_split", "inputs")
"""Keys of a request that hold its rows, in the forms that are accepted."""
PARAMS = "params"
EXAMPLE = '{"dataframe_records": [{"symbol": "GOOG", "as_of": "2012-06-29"}]}'
PUBLIC_PATHS = ("/ping", "/health")
"""Paths that anybody may ask: they say that the server is up, and nothing else."""
TOKEN_VARIABLE = "FINAGENT_SERVE_TOKEN"
ERROR_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "REQUEST_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    504: "DEADLINE_EXCEEDED",
}
"""The word of an error that no exception of MLflow's names."""


def serve(uri: str, settings: Settings, host: str, port: int, workers: int = 1) -> None:
    """Serve the model at `uri` over HTTP until the process is told to end.

    More than one of `workers` are processes that are forked once the model is loaded. Raises
    ModelLoadError, ConfigError for a desk that several processes can't serve, BadInputError for an
    address that is taken, and ServerFailedError where workers end at once.
    """
    model = unwrap(load_model(uri), uri)
    if refusal := model.predictor.refusal:
        log.warning("%s: %s", uri, refusal)  # each signal says it, too
    app = scoring_app(model, uri, settings, workers)
    config = uvicorn.Config(app, host=host, port=port, log_level="warning")
    if workers > 1:
        model.predictor.desk.share(workers)
        sockets = open_sockets(host, port, workers)
        close_pooled_connections()
    # What is loaded by now stays: the collector need not look at it again, nor a fork copy it.
    gc.collect()
    gc.freeze()
    if workers == 1:
        _Server(config).run()
    else:
        WorkerGroup(lambda each: _Server(config).run(sockets=[each]), sockets).run()


def scoring_app(model: FinagentModel, uri: str, settings: Settings, processes: int = 1) -> FastAPI:
    """Return the app of a model that was loaded from `uri`, one of so many that serve it."""
    predictor, timeout_s = model.predictor, float(MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # `asyncio.to_thread` uses the loop's default executor, which is a few threads wide.
        threads = settings.serve_threads + SPARE_THREADS
        pool = ThreadPoolExecutor(threads, thread_name_prefix="predict")
        asyncio.get_running_loop().set_default_executor(pool)
        yield

    app = FastAPI(
        title="finagent",
        version=finagent_model.__version__,
        lifespan=lifespan,
        docs_url=None,  # its page would fetch scripts from elsewhere
        redoc_url=None,
    )
    app.state.model = model
    app.state.token_throttle = TokenThrottle(processes=processes)
    app.add_middleware(
        BodyLimit,
        max_bytes=MAX_BODY_BYTES,
        way_out="send fewer rows at a time",
        respond=_error_response,
    )
    # Added last, so it is asked first.
    app.add_middleware(AccessGuard, check=_access_check(settings), respond=_error_response)

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> Response:
        return _error_response(error.status_code, str(error.detail))

    @app.get("/ping")
    @app.get("/health")
    def health() -> Response:
        return Response("\n", media_type="application/json")

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
        _require_json(request)
        try:
            # The time-out holds for the upload, too: a slow one must not stay for ever.
            async with asyncio.timeout(timeout_s):
                body = await request.body()
                return await asyncio.to_thread(_answer, model, body, work_timeout_s(timeout_s))
        except TimeoutError:
            return _error_response(504, "not answered in time; ask again later")

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
        # Here, since the signal ends the process after this, without the interpreter's own wait.
        if not self.force_exit:
            predictor = app.state.model.predictor
            await asyncio.to_thread(predictor.flush_traces, TRACES_GRACE_S)


def _access_check(settings: Settings) -> Any:
    """Return the check of who may ask what, for AccessGuard."""

    def check(request: Request) -> None:
        require_same_origin(request)
        # As the router has it: `request.url` is made from what the caller says of the host, too.
        path = request.scope["path"]
        # The routes of approvals have a rule and a token of their own.
        if path in PUBLIC_PATHS or path == APPROVALS_PATH or path.startswith(f"{APPROVALS_PATH}/"):
            return
        token: SecretStr | None = settings.serve_token
        if token is not None:
            require_token(request, token, TOKEN_VARIABLE)
        else:
            require_this_machine(
                request,
                "this server answers its own machine (http://127.0.0.1); "
                f"set {TOKEN_VARIABLE} to ask it from elsewhere",
            )

    return check


def _require_json(request: Request) -> None:
    """Raise HTTPException (415) for a body that does not say that it is JSON in UTF-8."""
    content_type = request.headers.get("content-type", "")
    kind, *options = (part.strip().lower() for part in content_type.split(";"))
    if kind != "application/json" or any(option != "charset=utf-8" for option in options if option):
        # MLflow lists text/csv, whose cells can't hold the nested columns, and Parquet.
        raise HTTPException(
            415,
            f"send JSON, with Content-Type: application/json, not {show_value(content_type)}; "
            "no other form is read",
        )


def _answer(model: FinagentModel, body: bytes, timeout_s: float) -> Response:
    """Return the response to a request, once it is admitted."""
    try:
        with model.admit(timeout_s) as deadline:
            rows, params = parse_request(body)
            signals = model.signals(parse_rows(rows), params, deadline)
            # Written straight from the signals: as dicts they would be walked twice.
            content = ",".join(signal.model_dump_json() for signal in signals)
            return Response(f'{{"predictions":[{content}]}}', media_type="application/json")
    except MlflowException as error:
        return _error_response(error.get_http_status_code(), error.message, error.error_code)


def parse_request(body: bytes) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows of a scoring request, and its parameters. Raises BadInputError."""
    request = read_json_object(body, EXAMPLE)
    for key in request:
        if key not in (*FORMS, PARAMS):
            # TensorFlow's form, which MLflow would accept and read in another way.
            hint = "" if key != "instances" else ", which turns rows into columns,"
            known = ", ".join((*FORMS, PARAMS))
            raise BadInputError(f"key {show_value(key)}{hint} is unknown; known: {known}")
    forms = [form for form in FORMS if form in request]
    if len(forms) != 1:
        got = " and ".join(forms) or "none"
        raise BadInputError(f"send exactly one of {', '.join(FORMS)}; got {got}")
    [form], params = forms, request.get(PARAMS)
    if not isinstance(params, dict | None):
        raise BadInputError(f"{PARAMS} must be a JSON object, not {show_value(params)}")
    rows = _split_rows(request[form]) if form == "dataframe_split" else request[form]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadInputError(f"{form} must be a list of objects, one a row")
    return rows, params or {}


def _split_rows(table: Any) -> list[dict[str, Any]]:
    """Return the rows of the form that names its columns once. Raises BadInputError."""
    keys = {"columns", "data"}
    # pandas writes an index beside them, which says nothing here.
    if not isinstance(table, dict) or not keys <= table.keys() <= {*keys, "index"}:
        raise BadInputError("dataframe_split must be an object with 'columns' and 'data'")
    columns, data = table["columns"], table["data"]
    if not _is_list_of(str, columns) or len(set(columns)) < len(columns):
        raise BadInputError("dataframe_split: columns must be a list of names, each once")
    if not _is_list_of(list, data):
        raise BadInputError("dataframe_split: data must be a list of lists, one a row")
    for i, row in enumerate(data):
        if len(row) != len(columns):
            raise BadInputError(f"row {i}: {len(row)} values for {len(columns)} columns")
    return [dict(zip(columns, row, strict=True)) for row in data]


def _is_list_of(kind: type, value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _error_response(status: int, message: str, code: str | None = None) -> Response:
    word = code or ERROR_CODES.get(status, "BAD_REQUEST")
    # One line, whatever a library wrote.
    return JSONResponse({"error_code": word, "message": " ".join(message.split())}, status)
