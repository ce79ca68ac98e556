"""Recordings as JSON lines: new ones at the end, the file's replies in memory.

The form of a package's `cassette.jsonl`, which is sorted by key. A line that is written here ends
in a hash of itself. What another process appends is read when something is asked for; half a line,
left by a writer that was killed, is kept apart from the next. Lines are ASCII: no character of a
reply can end one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from finagent_model.cassette.fingerprint import from_row, to_row
from finagent_model.cassette.records import CassetteRow, RecordedReply, replaces, reply_of, row_of
from finagent_model.errors import BadInputError, CorruptPackageError

log = logging.getLogger(__name__)
SEAL = "sha256"
"""Last field of a sealed line: 16 hex digits over the line without it."""
_Identity = tuple[int, int]
"""Device and inode."""
_SEAL_LENGTH = len(f', "{SEAL}": "0123456789abcdef"}}')


def dump_replies(replies: Mapping[str, RecordedReply]) -> str:
    """JSON lines sorted by key: equal recordings give equal bytes. They are not sealed: a package
    has hashes of its files.
    """
    return "".join(_line(key, replies[key]) + "\n" for key in sorted(replies))


def load_replies(lines: Iterable[str]) -> dict[str, RecordedReply]:
    """The inverse of `dump_replies`; raises CorruptPackageError naming the line."""
    replies = {}
    for number, line in enumerate(lines, 1):
        row = _read(number, line)
        if row.key is None or row.reply is None:
            raise CorruptPackageError(f"cassette {row.where}: {row.damage}")
        replies[row.key] = row.reply
    return replies


class JsonLines:
    """One file, read as it grows."""

    def __init__(self, path: Path) -> None:
        """Raises BadInputError where it can't be read and written."""
        self.path = path
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._forget()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("ab").close()
            self._catch_up()
        except OSError as error:
            raise BadInputError(
                f"replies can't be recorded in {path}: {error.strerror}; "
                "set FINAGENT_HOME to a folder that can be written"
            ) from None

    def get(self, key: str) -> RecordedReply | None:
        with self._one_thread():
            self._catch_up()
            return self._replies.get(key)

    def put(self, replies: Mapping[str, RecordedReply]) -> None:
        with self._one_thread(), self._one_writer() as file:
            self._catch_up()
            new = {k: r for k, r in replies.items() if replaces(r, self._replies.get(k))}
            torn = file.seek(0, os.SEEK_END) > self._read_to
            text = "".join(_sealed(_line(key, reply)) + "\n" for key, reply in new.items())
            file.write(b"\n" * torn + text.encode())
            file.flush()
            if not torn:
                self._replies |= new
                self._read_to += len(text)

    def rows(self) -> Iterator[CassetteRow]:
        return (row for row, _ in self._lines())

    def keep(self, wanted: Callable[[CassetteRow], bool]) -> int:
        with self._one_thread(), self._one_writer():
            damaged: list[tuple[CassetteRow, bytes]] = []
            best: dict[str, tuple[CassetteRow, bytes]] = {}
            for row, line in self._lines():
                if row.key is None or row.reply is None:
                    damaged.append((row, line))
                elif row.key not in best or replaces(row.reply, best[row.key][0].reply):
                    best[row.key] = row, line
            found = [*best.values(), *damaged]
            kept = [line for row, line in found if wanted(row)]
            beside = self.path.with_name(f"{self.path.name}.{os.getpid()}")
            beside.write_bytes(b"".join(line + b"\n" for line in kept))
            shutil.copymode(self.path, beside)
            beside.replace(self.path)
        return len(found) - len(kept)

    def faults(self) -> list[str]:
        return []

    def _lines(self) -> Iterator[tuple[CassetteRow, bytes]]:
        for number, line in enumerate(self.path.read_bytes().split(b"\n"), 1):
            if line:
                yield _read(number, line), line

    def _forget(self) -> None:
        self._replies: dict[str, RecordedReply] = {}
        self._file, self._read_to = (0, 0), 0

    def _catch_up(self) -> None:
        """Read what was appended; everything anew where the file is another."""
        now = os.stat(self.path)
        if _identity(now) == self._file and now.st_size == self._read_to:
            return
        with self.path.open("rb") as file:
            opened = os.fstat(file.fileno())
            if _identity(opened) != self._file or opened.st_size < self._read_to:
                self._forget()
                self._file = _identity(opened)
            file.seek(self._read_to)
            *whole, rest = file.read().split(b"\n")
        damaged = sum(not self._take(line) for line in whole if line)
        self._read_to += sum(len(line) + 1 for line in whole)
        self._take(rest)  # it may lack its end yet
        if damaged:
            log.warning("%s: %d lines can't be read", self.path, damaged)

    def _take(self, line: bytes) -> bool:
        """Whether the line can be read."""
        row = _read(0, line)
        if row.key is None or row.reply is None:
            return False
        if replaces(row.reply, self._replies.get(row.key)):
            self._replies[row.key] = row.reply
        return True

    @contextmanager
    def _one_thread(self) -> Iterator[None]:
        if self._pid != os.getpid():  # forked, perhaps while another thread held the lock
            self._pid, self._lock = os.getpid(), threading.Lock()
        with self._lock:
            yield

    @contextmanager
    def _one_writer(self) -> Iterator[BinaryIO]:
        """The file, locked; opened again if it was replaced while we waited."""
        while True:
            with self.path.open("ab+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if _identity(os.fstat(file.fileno())) == self._now():
                    yield file
                    return

    def _now(self) -> _Identity | None:
        with suppress(FileNotFoundError):
            return _identity(os.stat(self.path))
        return None


def _identity(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino


def _line(key: str, reply: RecordedReply) -> str:
    row: dict[str, Any] = {"key": key, **row_of(reply)}
    if reply.outline is not None:
        row["outline"] = to_row(reply.outline)
    return json.dumps(row)


def _sealed(line: str) -> str:
    return f'{line[:-1]}, "{SEAL}": "{_seal(line.encode())}"}}'


def _seal(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()[:16]


def _read(number: int, line: str | bytes) -> CassetteRow:
    """The recording in a line, sealed or not."""
    where, key = f"line {number}", None
    try:
        row = json.loads(line)
        key = row.pop("key")
        if type(key) is not str:
            raise ValueError("its key is no text")
        seal = row.pop(SEAL, None)
        text = line.encode() if isinstance(line, str) else line
        if seal is not None and seal != _seal(text.rstrip()[:-_SEAL_LENGTH] + b"}"):
            raise ValueError("it is not as it was recorded")
        outlined = row.pop("outline", None)
        outline = None if outlined is None else from_row(outlined)
        return CassetteRow(where, key, reply_of(row, outline), sealed=seal is not None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        known = key if type(key) is str else None
        return CassetteRow(where, known, None, f"{type(error).__name__}: {error}")
