"""MLflow's own scoring app, made to wait on models and to refuse clearly.

`/invocations` answers as `mlflow models serve` does, but a thread waits for each request, an
unknown name is refused, and an error, a time-out too, is one sentence of JSON. `/health` says that
it is up, `/version` which model speaks, `/approvals` what waits for a human. Told to end, it lets
requests finish for a moment and answers 503 to the rest.
"""

from __future__ import annotations

import asyncio
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
from mlflow.protos.databricks_pb2 import DEADLINE_EXCEEDED, INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PyFuncModel, scoring_server

import finagent_model
from finagent_model.errors import BadInputError
from finagent_model.loop import DESK_LOOP
from finagent_model.serving.approval_routes import add_approval_routes
from finagent_model.serving.asked import Names, read_request
from finagent_model.serving.logged import load_model, packaged_in
from finagent_model.serving.sentence import sentence
from finagent_model.settings import Settings

SPARE_THREADS = 8
"""Beyond the requests that the model takes on: these refuse the next ones at once, with 429."""
FINISH_S = 3.0
"""How long requests under way may go on once the server is told to end."""
REPLACED = ("/version", "/invocations")


def scoring_app(uri: str, settings: Settings) -> FastAPI:
    """The app for a logged or registered model. Raises ModelLoadError."""
    loaded = load_model(uri)
    model = packaged_in(loaded, uri)
    answering = model.answering
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
    names = Names.of(loaded.metadata.signature)

    @app.get("/version")
    def version() -> dict[str, str | None]:
        return {
            "finagent_model": finagent_model.__version__,
            "mlflow": mlflow.__version__,
            "model_uri": answering.lineage.model_uri or uri,
            "model_version": answering.lineage.model_version,
            "content_hash": answering.package.content_hash,
            "model_used": answering.package.config.model_used,
        }

    add_approval_routes(app, answering.approvals, settings.approval_token)

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
        asyncio.get_running_loop().call_later(FINISH_S, DESK_LOOP.stop)
        await super().shutdown(sockets)


def _answer(loaded: PyFuncModel, names: Names, body: bytes, kind: str) -> Response:
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
    said = {"error_code": error.error_code, "message": sentence(error.message)}
    return JSONResponse(said, error.get_http_status_code())


def _read(body: bytes, names: Names) -> dict[str, Any]:
    try:
        return read_request(body, names)
    except BadInputError as error:
        raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None
