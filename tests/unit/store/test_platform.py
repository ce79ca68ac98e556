"""A platform that answers in drips, or from elsewhere: a call has an end, and is one call."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx
import pytest
from fastapi import Request

from finagent_model.decision.decision import NO_EXECUTION
from finagent_model.errors import PlatformUnavailableError
from finagent_model.store.artifact_models import Artifact
from finagent_model.store.decisions import artifact_rows
from finagent_model.store.platform import PlatformClient
from support.decisions import at, decision
from support.fake_platform import OTHERS_CHART, PlatformDouble, serving

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
BAR = {"date": "2012-06-29", "open": 1, "high": 1, "low": 1, "close": 1, "volume": None}
ARTIFACT = Artifact(id=1, name="note", type="llm", created_at=at(0), metadata={"key": "k"})


@contextmanager
def answering(*answer: bytes, drips: bool = False) -> Iterator[str]:
    """A server that says these pieces to whoever comes, and its address; `drips` then never end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def talk() -> None:
            while True:
                try:
                    caller, _ = listening.accept()
                    with caller:
                        caller.recv(65536)
                        for piece in answer:
                            caller.sendall(piece)
                        while drips:
                            caller.sendall(b"a")
                            time.sleep(0.05)
                except OSError:
                    if listening.fileno() < 0:
                        return

        threading.Thread(target=talk, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("first", [b"HTTP/1.1 200 OK\r\nX-Slow: ", HEAD])
def test_platform_client_cuts_off_slow_answer(first: bytes) -> None:
    with (
        answering(first, drips=True) as address,
        closing(PlatformClient(address)) as client,
        pytest.raises(PlatformUnavailableError, match=r"did not answer within 0\.\d s"),
    ):
        client.put(ARTIFACT, timeout_s=0.6)


@pytest.mark.parametrize("status", [301, 302, 303])
def test_platform_client_refuses_redirect_to_get(status: int) -> None:
    platform = PlatformDouble()
    there = f"Location: {platform.url}/api/artifacts/1".encode()
    moved = b"HTTP/1.1 %d Moved\r\n%b\r\nContent-Length: 0\r\n\r\n" % (status, there)
    with (
        serving(platform.app(), platform.port),
        answering(moved) as address,
        closing(PlatformClient(address)) as client,
        pytest.raises(PlatformUnavailableError, match=f"HTTP {status}.*FINAGENT_PLATFORM_URL"),
    ):
        client.put(ARTIFACT, "1")
    assert platform.asked == []


def test_platform_client_follows_redirect_of_post() -> None:
    platform = PlatformDouble()
    there = f"Location: {platform.url}/api/artifacts/".encode()
    moved = b"HTTP/1.1 307 Moved\r\n%b\r\nContent-Length: 0\r\n\r\n" % there
    with platform.up(), answering(moved) as address, closing(PlatformClient(address)) as client:
        assert client.put(ARTIFACT) == "1"
    assert (platform.asked, platform.rows[0]["name"]) == (["POST"], "note")


def test_platform_client_posts_without_redirect() -> None:
    """To the address with a slash, as the platform has it."""
    paths: list[str] = []
    platform = PlatformDouble()
    app = platform.app()

    @app.middleware("http")
    async def noted(request: Request, proceed: Callable[[Request], Awaitable[Any]]) -> Any:
        paths.append(request.url.path)
        return await proceed(request)

    with serving(app, platform.port) as address, closing(PlatformClient(address)) as client:
        client.put(ARTIFACT)
        client.put(ARTIFACT, sent_before=True)
    assert paths == ["/api/artifacts/", "/api/artifacts/", "/api/artifacts/1"]


@pytest.mark.parametrize(("bars", "status"), [(None, 409), ([], 409), ([BAR], 200)])
def test_platform_draws_chart_from_snapshot(bars: list[Any] | None, status: int) -> None:
    snapshot = (
        None if bars is None else {"timeframe": "daily", "bar_count": len(bars), "bars": bars}
    )
    _, [chart, *_] = artifact_rows(decision(), "r1", None, NO_EXECUTION, True, snapshot)
    row = Artifact(id=1, created_at=at(0), **dict(chart))
    with PlatformDouble().up() as platform, closing(PlatformClient(platform.url)) as client:
        client.put(row)
        answer = httpx.get(f"{platform.url}/api/artifacts/1/image")
    assert (answer.status_code, answer.content == OTHERS_CHART) == (status, False)


def test_platform_client_limits_redirects() -> None:
    circle = b"HTTP/1.1 307 Round\r\nLocation: /api/artifacts\r\nContent-Length: 0\r\n\r\n"
    with (
        answering(circle) as address,
        closing(PlatformClient(address)) as client,
        pytest.raises(PlatformUnavailableError, match="HTTP 307"),
    ):
        client.put(ARTIFACT)
