"""Files of this machine that several processes share: made whole, private, and locked for a while.

A file is made under a lock of its folder and appears whole or not at all, so that an empty one was
emptied. No wait for a lock is without end. A scratch folder is locked by the process that works in
it; where that was killed, the next process removes the folder.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

LOCK_TIMEOUT_S = 60.0
"""How long to wait for a folder; making a file takes seconds at most."""
WRITE_TIMEOUT_S = 30.0
"""How long a writer waits for the other writers of a SQLite file; each takes milliseconds."""
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
SCRATCH_PREFIX = "finagent-scratch-"
_POLL_S = (0.002, 0.03)
"""Bounds of the pause between two tries. Drawn anew each time: equal waiters have equal chances,
while SQLite's own handler lets whoever waited longest look least often.
"""
_SQLITE_SUFFIXES = ("", "-wal", "-shm", "-journal")
FileId = tuple[int, int]
"""Device and inode."""


def make_private_folder(folder: Path) -> None:
    """Make a folder and the missing ones above it, for this user alone; others stay as they are."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    if not folder.is_dir():
        raise NotADirectoryError(20, "it is not a folder", str(folder))


def make_private_file(path: Path) -> None:
    """Make an empty file for this user alone, and its folder; a file that is there stays."""
    make_private_folder(path.parent)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE))


def file_id(path: Path) -> FileId | None:
    """Return what tells the file from another one of its name; None where there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def is_emptied(path: Path) -> bool:
    """Return whether a SQLite file lost its content: it has no byte, or only its log is left."""
    if path.exists():
        return path.stat().st_size == 0
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


def create_sqlite_file(path: Path, fill: Callable[[Path], object]) -> None:
    """Make the SQLite file `path` if there is none; `fill` writes and closes the one that it gets.

    Its folder must be there. Of several processes one makes the file. Raises OSError, and
    TimeoutError where another process has been at it for too long.
    """
    path = path.resolve()  # a link stays one, and where it leads nowhere no file takes its place
    if path.exists():  # no lock: its folder may be read-only
        return
    with lock_folder(path.parent):
        if path.exists():
            return
        unfinished = path.with_name(f".{path.name}.new")
        _remove_sqlite_file(unfinished)  # of a process that was killed
        try:
            # Readable by this user alone; SQLite gives its log the same rights.
            make_private_file(unfinished)
            fill(unfinished)
            unfinished.rename(path)
        finally:
            _remove_sqlite_file(unfinished)


@contextmanager
def lock_folder(folder: Path, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Hold the folder's lock during the block. Raises TimeoutError where another process keeps it.

    The lock ends with the process.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + timeout_s
        while not _try_lock(handle):
            if time.monotonic() >= deadline:
                raise TimeoutError(
                    11, f"another process has had the folder locked for {timeout_s:g} s", folder
                )
            pause()
        yield
    finally:
        os.close(handle)


def begin_immediate(connection: sqlite3.Connection, timeout_s: float) -> None:
    """Begin a transaction that may write; wait for the writers before it.

    Raises sqlite3.OperationalError, of code SQLITE_BUSY where the others took too long.
    """
    [wait_ms] = connection.execute("pragma busy_timeout").fetchone()
    connection.execute("pragma busy_timeout = 0")
    try:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                connection.execute("begin immediate")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                if time.monotonic() >= deadline:
                    raise _busy_error(timeout_s) from None
            pause()
    finally:
        connection.execute(f"pragma busy_timeout = {wait_ms}")


def pause() -> None:
    """Sleep between two tries for a lock."""
    time.sleep(random.uniform(*_POLL_S))


class ScratchFolder:
    """A temporary folder, locked while this process works in it; a context manager that gives it.

    The first one of a process removes the folders of processes that were killed.
    """

    def __init__(self) -> None:
        _sweep(Path(tempfile.gettempdir()))
        self.path, self._handle = _make_scratch()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._handle)


def _make_scratch() -> tuple[Path, int]:
    """Return a new folder and the handle that keeps it locked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX))
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # swept by another process, before it was opened
        fcntl.flock(handle, fcntl.LOCK_EX)
        if folder.exists():
            return folder, handle
        os.close(handle)  # swept by another process, before it was locked


@cache  # once a process
def _sweep(folder: Path) -> None:
    """Remove the scratch folders in `folder` that no living process has locked."""
    for scratch in folder.glob(f"{SCRATCH_PREFIX}*"):
        # A lock, not a process id: containers share folders, but not their ids.
        with suppress(OSError):
            handle = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(handle).st_uid == os.getuid() and _try_lock(handle):
                    shutil.rmtree(scratch, ignore_errors=True)
            finally:
                os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _busy_error(timeout_s: float) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(f"another process has had it locked for {timeout_s:g} s")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


def _remove_sqlite_file(path: Path) -> None:
    for suffix in _SQLITE_SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)
