"""MLflow's own scoring app with a thread for each request that waits on a model.

The app answers on `/invocations` as `mlflow models serve` does; `/health` says that it is up,
`/version` which model speaks, `/approvals` what waits for a human.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import mlflow
from fastapi import FastAPI
from mlflow.pyfunc import scoring_server

import finagent_model
from finagent_model.serving.approval_routes import add_approval_routes
from finagent_model.serving.logged import desk_of, load_model
from finagent_model.settings import Settings

SPARE_THREADS = 8
"""Beyond the requests that the model takes on: these refuse the next ones at once, with 429."""


def scoring_app(uri: str, settings: Settings) -> FastAPI:
    """The app for a logged or registered model. Raises ModelLoadError."""
    loaded = load_model(uri)
    answering = desk_of(loaded, uri)
    app: FastAPI = scoring_server.init(loaded)
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
        route for route in app.router.routes if getattr(route, "path", "") != "/version"
    ]

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
    return app


def serve(uri: str, settings: Settings, host: str, port: int) -> None:
    """Answer until told to stop."""
    import uvicorn

    uvicorn.run(scoring_app(uri, settings), host=host, port=port, log_level="warning")
