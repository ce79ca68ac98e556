"""A door before a server, where something happens at a chosen request, before it is let through."""

from __future__ import annotations

import re
import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self


class Tripwire:
    """Passes bytes on as they come; a context manager."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._trap: tuple[re.Pattern[bytes], Callable[[], object]] | None = None
        self.sprung = threading.Event()
        self._lock = threading.Lock()
        passes = self._pass

        class Door(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                passes(self.request)

        self._door = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Door)
        self._door.daemon_threads = True
        self._door.block_on_close = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._door.server_address[1]}"

    def at(self, request: str, act: Callable[[], object]) -> None:
        """Call `act` once, before the first request whose first line `request` matches."""
        self.sprung.clear()
        self._trap = re.compile(request.encode()), act

    def __enter__(self) -> Self:
        threading.Thread(target=self._door.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._door.shutdown()
        self._door.server_close()

    def _pass(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._port))
        except OSError:
            return  # nobody is there: the client sees its connection end
        with server:
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            _copy(client, server, self._look)
            back.join()

    def _look(self, data: bytes) -> None:
        with self._lock:
            trap = self._trap
            if trap is None or not trap[0].match(data.partition(b"\r\n")[0]):
                return
            self._trap = None
        trap[1]()
        self.sprung.set()


def _copy(
    source: socket.socket, sink: socket.socket, look: Callable[[bytes], None] | None = None
) -> None:
    """Until either side ends; then both do."""
    with suppress(OSError):
        while data := source.recv(65536):
            if look:
                look(data)
            sink.sendall(data)
    for side in (source, sink):
        with suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)
