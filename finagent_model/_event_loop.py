"""One event loop in a background thread, and the deadlines of calls into it.

Synchronous callers run coroutines on it from any thread, also after a fork. `asyncio.run` would
fail inside a notebook's running loop, and would leave HTTP clients bound to a closed loop. A caller
that stops waiting cancels its work, so nothing is left running behind. A deadline decides whether
there is an answer, never what the answer is.
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
"""Seconds after its deadline for which a caller waits for the work to end by itself."""


class LoopThread:
    """An event loop in a daemon thread, which starts at the first call; a fork starts its own."""

    def __init__(self) -> None:
        self._pid: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self.stop_count = 0
        """How often `stop` was called; work outside of the loop ends where it has grown."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopped_tasks: set[asyncio.Task[Any]] = set()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Return the coroutine's result; its exceptions come through.

        Raises DeadlineError after `timeout_s` seconds, and ShutdownError after `stop`. The work is
        then cancelled, with all that it awaits.
        """
        future = asyncio.run_coroutine_threadsafe(
            self._run_with_timeout(coroutine, timeout_s), self._running_loop()
        )
        try:
            # The loop enforces the timeout. This one is for a loop that somebody blocks.
            return future.result(None if timeout_s is None else timeout_s + GRACE_S)
        except TimeoutError:
            if future.done() or timeout_s is None:
                raise
            raise DeadlineError(timeout_s) from None
        finally:
            future.cancel()

    def stop(self) -> None:
        """Cancel all work in progress; later calls of `run` work as before."""
        self.stop_count += 1
        if self._loop is not None and self._pid == os.getpid():
            self._loop.call_soon_threadsafe(self._cancel_tasks)

    def _cancel_tasks(self) -> None:
        self._stopped_tasks |= self._tasks
        for task in self._tasks:
            task.cancel()

    async def _run_with_timeout(
        self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None
    ) -> T:
        task, timeout = asyncio.current_task(), asyncio.timeout(timeout_s)
        assert task is not None
        self._tasks.add(task)
        try:
            async with timeout:
                return await coroutine
        except TimeoutError:
            # A TimeoutError of the work itself is not our deadline.
            if timeout_s is None or not timeout.expired():
                raise
            raise DeadlineError(timeout_s) from None
        except asyncio.CancelledError:
            if task in self._stopped_tasks:
                raise ShutdownError() from None
            raise  # the caller stopped waiting
        finally:
            self._tasks.discard(task)
            self._stopped_tasks.discard(task)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            # A forked child has the parent's loop object but not its thread.
            if self._loop is None or self._pid != os.getpid():
                self._pid, self._loop = os.getpid(), asyncio.new_event_loop()
                self._tasks, self._stopped_tasks = set(), set()
                threading.Thread(target=self._loop.run_forever, daemon=True, name="desk").start()
            return self._loop


def run_without_waiting(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that waits for nothing, on this thread and without a loop.

    A loop in another thread costs two changes of thread, more than the work of a cached decision.
    Raises RuntimeError for one that does wait.
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError("this work waits for something; run it on the event loop")


EVENT_LOOP = LoopThread()
"""The process's one loop for agents; no thread exists until it is used."""


@dataclass(frozen=True)
class Deadline:
    """The moment by which a caller needs its answer, on the monotonic clock."""

    timeout_s: float | None
    """Seconds that the caller allowed; None: no deadline."""
    ends_at: float

    @classmethod
    def after(cls, timeout_s: float | None) -> Deadline:
        """Return the deadline that ends `timeout_s` seconds from now; None: never."""
        return cls(timeout_s, 0.0 if timeout_s is None else time.monotonic() + timeout_s)

    def remaining_s(self) -> float | None:
        """Return the remaining seconds, at least 0; None where there is no deadline."""
        return None if self.timeout_s is None else max(0.0, self.ends_at - time.monotonic())

    def check(self) -> None:
        """Raise DeadlineError if the deadline has passed."""
        if self.timeout_s is not None and time.monotonic() >= self.ends_at:
            raise DeadlineError(self.timeout_s)


NO_DEADLINE = Deadline.after(None)
