"""A few numbers that a process keeps, alone or together with the processes that it forks.

Budgets and circuit breakers count in them. A process that dies leaves them as they are, and its
lock ends with it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Values = list[float] | memoryview[float]


class Numbers:
    """Numbers of this process, 0.0 at first; safe to use from several threads."""

    def __init__(self, count: int) -> None:
        self._values: Values = [0.0] * count
        self._threads = threading.Lock()

    @contextmanager
    def locked(self) -> Iterator[Values]:
        """Yield the numbers, to be read and written by nobody else meanwhile."""
        with self._threads:
            yield self._values


_SHARED_THREADS = threading.Lock()
"""One for all shared numbers: the system takes threads of two processes that wait for each other's
numbers for a deadlock (EDEADLK), though each will get on; with it, a process waits for one at most.
"""


class SharedNumbers(Numbers):
    """Numbers of this process and of all that it forks after it has made them.

    A thread that holds the lock of some must not ask for others.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self._threads = _SHARED_THREADS
        # Anonymous memory: nothing is left behind, whatever ends the processes.
        self._values = memoryview(mmap.mmap(-1, 8 * count)).cast("d")
        self._lock_file, name = tempfile.mkstemp()
        os.unlink(name)
        weakref.finalize(self, os.close, self._lock_file)

    @contextmanager
    def locked(self) -> Iterator[Values]:
        # Among processes by a lock of a file, which the system takes from a process that dies.
        with self._threads:
            fcntl.lockf(self._lock_file, fcntl.LOCK_EX)
            try:
                yield self._values
            finally:
                fcntl.lockf(self._lock_file, fcntl.LOCK_UN)
