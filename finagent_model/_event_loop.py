"""One event loop in a thread of its own: synchronous callers' door to agents and clients that are
awaited, from any thread, also after a fork.

`asyncio.run` would fail inside a notebook's running loop, and would leave HTTP clients bound to a
loop that is closed. Who stops waiting stops the work: a caller that was given up leaves nothing
running behind.

The moment by which a caller wants its answer. It decides whether there is an answer, never what
it says.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from finagent_model.errors import DeadlineError, ShutdownError

T = TypeVar("T")
GRACE_S = 0.5
"""How long after its deadline a caller waits for the work to end by itself; longer only where
somebody blocks the loop.
"""


class LoopThread:
    """Starts at the first call; a forked child starts its own."""

    def __init__(self) -> None:
        self._pid: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._at_work: set[asyncio.Task[Any]] = set()
        self._stopped: set[asyncio.Task[Any]] = set()

    def run(self, work: Coroutine[Any, Any, T], within_s: float | None = None) -> T:
        """The coroutine's result; its exceptions come through.

        Raises DeadlineError once `within_s` seconds are over, and StoppedError after `stop`; the
        work is then cancelled, with all that it awaits.
        """
        future = asyncio.run_coroutine_threadsafe(self._bounded(work, within_s), self._running())
        try:
            return future.result(None if within_s is None else within_s + GRACE_S)
        except TimeoutError:
            if future.done() or within_s is None:
                raise
            raise DeadlineError(within_s) from None
        finally:
            future.cancel()

    def stop(self) -> None:
        """Cancel all that is running now; what is asked for later is run."""
        if self._loop is not None and self._pid == os.getpid():
            self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        self._stopped |= self._at_work
        for task in self._at_work:
            task.cancel()

    async def _bounded(self, work: Coroutine[Any, Any, T], within_s: float | None) -> T:
        task, limit = asyncio.current_task(), asyncio.timeout(within_s)
        assert task is not None
        self._at_work.add(task)
        try:
            async with limit:
                return await work
        except TimeoutError:
            if within_s is None or not limit.expired():
                raise
            raise DeadlineError(within_s) from None
        except asyncio.CancelledError:
            if task in self._stopped:
                raise ShutdownError() from None
            raise  # nobody waits for it any longer
        finally:
            self._at_work.discard(task)
            self._stopped.discard(task)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._pid, self._loop = os.getpid(), asyncio.new_event_loop()
                self._at_work, self._stopped = set(), set()
                threading.Thread(target=self._loop.run_forever, daemon=True, name="desk").start()
            return self._loop


EVENT_LOOP = LoopThread()
"""The process's one loop for agents; no thread exists until it is used."""


@dataclass(frozen=True)
class Deadline:
    """Counted by the monotonic clock; `within_s` is None for a caller that waits for good."""

    within_s: float | None
    ends_at: float

    @classmethod
    def after(cls, within_s: float | None) -> Deadline:
        return cls(within_s, 0.0 if within_s is None else time.monotonic() + within_s)

    def left_s(self) -> float | None:
        """Seconds, not below 0; None where there is no end."""
        return None if self.within_s is None else max(0.0, self.ends_at - time.monotonic())

    def check(self) -> None:
        """Raises DeadlineError once it is over."""
        if self.within_s is not None and time.monotonic() >= self.ends_at:
            raise DeadlineError(self.within_s)


NO_DEADLINE = Deadline.after(None)
