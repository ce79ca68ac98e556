"""The clock of the desk's event loop, moved by a test: a deadline of minutes comes at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from finagent_model._event_loop import EVENT_LOOP


class LoopClock:
    """Moves the time of one event loop forward; every timer of it that is then due fires."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._offset_s = 0.0
        self.time_of_machine = loop.time

    def time(self) -> float:
        return self.time_of_machine() + self._offset_s

    def advance(self, seconds: float) -> None:
        """Move the clock, from any thread."""
        self._loop.call_soon_threadsafe(self._advance, seconds)

    def _advance(self, seconds: float) -> None:
        self._offset_s += seconds

    @contextmanager
    def advanced_after(self, *waits: Callable[[], object], seconds: float) -> Iterator[None]:
        """Run the block while a thread advances the clock after each of `waits` has returned."""

        def follow() -> None:
            for wait in waits:
                wait()
                self.advance(seconds)

        thread = threading.Thread(target=follow)
        thread.start()
        try:
            yield
        finally:
            thread.join()


@contextmanager
def desk_clock() -> Iterator[LoopClock]:
    """Give the clock of the loop that desks decide on, and put it right again."""

    async def running() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    with moved(EVENT_LOOP.run(running())) as clock:
        yield clock


@contextmanager
def moved(loop: asyncio.AbstractEventLoop) -> Iterator[LoopClock]:
    """Give the clock of `loop` for the time of the block."""
    clock = LoopClock(loop)
    loop.time = clock.time  # type: ignore[method-assign]
    try:
        yield clock
    finally:
        loop.time = clock.time_of_machine  # type: ignore[method-assign]
