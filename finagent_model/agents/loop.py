"""One event loop in a thread of its own: synchronous callers' door to the agents, from any thread,
also after a fork.

`asyncio.run` would fail inside a notebook's running loop, and would leave HTTP clients bound to a
loop that is closed.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Starts at the first call; a forked child starts its own."""

    def __init__(self) -> None:
        self._pid: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result; its exceptions come through."""
        return asyncio.run_coroutine_threadsafe(work, self._running()).result()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._pid, self._loop = os.getpid(), asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, daemon=True, name="desk").start()
            return self._loop


DESK_LOOP = LoopThread()
"""The process's one loop for agents; no thread exists until it is used."""
