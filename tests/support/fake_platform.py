"""The trading platform's `/api/artifacts` as far as a client can tell: it numbers its rows, stores
the same one twice, knows no filter by key, and stumbles with a 500 over what it doesn't expect.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from finagent_model.store.artifact_models import NewArtifact
from support.places import free_port

IMAGES = (".png", ".jpg", ".jpeg")
OTHERS_CHART = b"another workflow's chart of that name"
"""What the platform finds for any path that ends like an image's."""
BAR = {"date", "open", "high", "low", "close", "volume"}
FIELDS = frozenset(NewArtifact.model_fields)
Hook = Callable[[str, dict[str, Any]], Response | None]


@dataclass
class PlatformDouble:
    rows: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """Methods, in order."""
    tokens: set[str | None] = field(default_factory=set)
    before: Hook = lambda method, body: None
    """May answer in its place."""
    after: Hook = lambda method, body: None
    """May answer in its place once the row is stored: the answer was lost on the way."""
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def steps(self) -> list[str]:
        return [row["step_name"] for row in self.rows]

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/api/artifacts/")
        def listed(
            type: str | None = None,
            symbol: str | None = None,
            execution_id: str | None = None,
            limit: int = 100,
        ) -> Any:
            self.asked.append("GET")
            given = {"type": type, "symbol": symbol, "execution_id": execution_id}
            wanted = {name: value for name, value in given.items() if value}
            rows = [r for r in self.rows if all(r.get(n) == v for n, v in wanted.items())]
            return {"artifacts": rows[::-1][:limit], "total": len(rows)}

        @app.post("/api/artifacts/")
        async def create(request: Request) -> Any:
            body = await request.json()
            return self._answered("POST", request, body, lambda: self._stored(body))

        @app.get("/api/artifacts/{number}/image")
        def image(number: int) -> Response:
            row = self.rows[number - 1]
            if PurePosixPath(row["image_path"]).suffix in IMAGES:
                return Response(OTHERS_CHART, media_type="image/png")
            snapshot = row["metadata"].get("market_data_snapshot") or {}
            bars = snapshot.get("bars") or []
            if not bars or not all(bar.keys() >= BAR for bar in bars):
                said = "Artifact is missing market_data_snapshot bars required for regeneration."
                return JSONResponse({"detail": said}, 409)
            return Response(b"drawn from %d bars" % len(bars), media_type="image/jpeg")

        @app.patch("/api/artifacts/{number}")
        async def update(number: int, request: Request) -> Any:
            body = await request.json()
            return self._answered("PATCH", request, body, lambda: self._changed(number, body))

        return app

    def _answered(
        self, method: str, request: Request, body: dict[str, Any], work: Callable[[], Any]
    ) -> Any:
        self.asked.append(method)
        self.tokens.add(request.headers.get("authorization"))
        if refusal := self.before(method, body):
            return refusal
        if unexpected := [n for n in body if n not in FIELDS]:
            return JSONResponse({"detail": f"invalid keyword argument: {unexpected[0]}"}, 500)
        if method == "POST" and None in body.values():
            return JSONResponse({"detail": "object of type 'NoneType' has no len()"}, 500)
        answer = work()
        return self.after(method, body) or answer

    def _stored(self, body: dict[str, Any]) -> dict[str, Any]:
        self.rows.append({"id": len(self.rows) + 1, **body})
        return self.rows[-1]

    def _changed(self, number: int, body: dict[str, Any]) -> Any:
        if not 1 <= number <= len(self.rows):
            return JSONResponse({"detail": "Artifact not found"}, 404)
        self.rows[number - 1] |= body
        return self.rows[number - 1]

    @contextmanager
    def up(self) -> Iterator[PlatformDouble]:
        """A real server on its port, for the time of the block."""
        with serving(self.app(), self.port):
            yield self


@contextmanager
def serving(app: FastAPI, port: int) -> Iterator[str]:
    """Its address."""
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
