"""A platform that answers in drips, or from elsewhere: a call has an end, and is one call."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from finagent_model.errors import PlatformUnavailableError
from finagent_model.store.artifact_models import Artifact
from finagent_model.store.platform import PlatformClient
from support.decisions import at
from support.fake_platform import PlatformDouble, serving

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
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
    """As that of FastAPI to the address with a slash."""
    with PlatformDouble().up() as platform, closing(PlatformClient(platform.url)) as client:
        assert client.put(ARTIFACT) == "1"
    assert (platform.asked, platform.rows[0]["name"]) == (["POST"], "note")


def test_platform_client_limits_redirects() -> None:
    circle = b"HTTP/1.1 307 Round\r\nLocation: /api/artifacts\r\nContent-Length: 0\r\n\r\n"
    with (
        answering(circle) as address,
        closing(PlatformClient(address)) as client,
        pytest.raises(PlatformUnavailableError, match="HTTP 307"),
    ):
        client.put(ARTIFACT)
