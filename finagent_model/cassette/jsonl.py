"""Recordings as JSON lines: a package's `cassette.jsonl`, and local files that grow at the end.

The file's replies are held in memory; what another process appends is read on the next access. A
line in a local file ends in a seal, a hash of the line itself; a package's lines have none, since
its manifest hashes the whole file. Half a line, left by a writer that was killed, is kept apart
from the next. Lines are ASCII: no character of a reply can end one.
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

from finagent_model._local_files import make_private_file
from finagent_model.cassette.fingerprint import outline_from_row, outline_to_row
from finagent_model.cassette.records import (
    CassetteRow,
    RecordedReply,
    reply_from_row,
    reply_to_row,
    supersedes,
)
from finagent_model.errors import BadInputError, CorruptPackageError

log = logging.getLogger(__name__)
SEAL = "sha256"
"""Last field of a sealed line: 16 hex digits over the line without it."""
_SEAL_LENGTH = len(f', "{SEAL}": "0123456789abcdef"}}')
_FileId = tuple[int, int]
"""Device and inode."""


def dump_replies(replies: Mapping[str, RecordedReply]) -> str:
    """Return JSON lines sorted by key: equal recordings give equal bytes. They are not sealed."""
    return "".join(_write_line(key, replies[key]) + "\n" for key in sorted(replies))


def load_replies(lines: Iterable[str]) -> dict[str, RecordedReply]:
    """Return the replies of `dump_replies`. Raises CorruptPackageError naming the line."""
    replies = {}
    for number, line in enumerate(lines, 1):
        row = _read_line(number, line)
        if row.key is None or row.reply is None:
            raise CorruptPackageError(f"cassette {row.where}: {row.damage}")
        replies[row.key] = row.reply
    return replies


class JsonlFile:
    """A CassetteFile of JSON lines, read as it grows."""

    def __init__(self, path: Path) -> None:
        """Open or create `path`. Raises BadInputError where it can't be read and written."""
        self.path = path
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._reset()
        try:
            make_private_file(path)
            self._catch_up()
        except OSError as error:
            raise BadInputError(
                f"replies can't be recorded in {path}: {error.strerror}; "
                "set FINAGENT_HOME to a folder that can be written"
            ) from None

    def get(self, key: str) -> RecordedReply | None:
        """Return the reply, or None where there is none that can be read."""
        with self._one_thread():
            self._catch_up()
            return self._replies.get(key)

    def put(self, replies: Mapping[str, RecordedReply]) -> None:
        """Append those that supersede what the file has."""
        with self._one_thread(), self._one_writer() as file:
            self._catch_up()
            new = {k: r for k, r in replies.items() if supersedes(r, self._replies.get(k))}
            # A writer that was killed may have left half a line: end it before ours.
            torn = file.seek(0, os.SEEK_END) > self._offset
            text = "".join(_seal_line(_write_line(key, reply)) + "\n" for key, reply in new.items())
            file.write(b"\n" * torn + text.encode())
            file.flush()
            if not torn:  # else the next access reads both lines from the file
                self._replies |= new
                self._offset += len(text)

    def rows(self) -> Iterator[CassetteRow]:
        """Yield every row of the file, damaged and superseded ones included."""
        return (row for row, _ in self._lines())

    def prune(self, keep: Callable[[CassetteRow], bool]) -> int:
        """Drop the rows that `keep` rejects, and those superseded; return how many it rejected."""
        with self._one_thread(), self._one_writer():
            damaged: list[tuple[CassetteRow, bytes]] = []
            current: dict[str, tuple[CassetteRow, bytes]] = {}
            for row, line in self._lines():
                if row.key is None or row.reply is None:
                    damaged.append((row, line))
                elif row.key not in current or supersedes(row.reply, current[row.key][0].reply):
                    current[row.key] = row, line
            candidates = [*current.values(), *damaged]
            lines = [line for row, line in candidates if keep(row)]
            temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}")
            temporary.write_bytes(b"".join(line + b"\n" for line in lines))
            # Replaced as a whole: a reader sees the old file or the new one.
            shutil.copymode(self.path, temporary)
            temporary.replace(self.path)
        return len(candidates) - len(lines)

    def check_integrity(self) -> list[str]:
        """Return nothing: what can be wrong here is a row's."""
        return []

    def _lines(self) -> Iterator[tuple[CassetteRow, bytes]]:
        for number, line in enumerate(self.path.read_bytes().split(b"\n"), 1):
            if line:
                yield _read_line(number, line), line

    def _reset(self) -> None:
        self._replies: dict[str, RecordedReply] = {}
        self._file_id: _FileId = (0, 0)
        self._offset = 0
        """Bytes of the file that have been read, up to the end of a line."""

    def _catch_up(self) -> None:
        """Read what was appended; everything again if the file was replaced."""
        status = os.stat(self.path)
        if _file_id(status) == self._file_id and status.st_size == self._offset:
            return
        with self.path.open("rb") as file:
            opened = os.fstat(file.fileno())
            if _file_id(opened) != self._file_id or opened.st_size < self._offset:
                self._reset()
                self._file_id = _file_id(opened)
            file.seek(self._offset)
            *complete, rest = file.read().split(b"\n")
        damaged = sum(not self._load_line(line) for line in complete if line)
        self._offset += sum(len(line) + 1 for line in complete)
        self._load_line(rest)  # it may be whole and lack only its end
        if damaged:
            log.warning("%s: %d lines can't be read", self.path, damaged)

    def _load_line(self, line: bytes) -> bool:
        """Take the reply of a line into memory; return whether the line can be read."""
        row = _read_line(0, line)
        if row.key is None or row.reply is None:
            return False
        if supersedes(row.reply, self._replies.get(row.key)):
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
        """Open the file and lock it; open it again if it was replaced while we waited."""
        while True:
            with self.path.open("ab+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                # `prune` replaces the file; a line in the old one would be lost.
                if _file_id(os.fstat(file.fileno())) == self._current_file_id():
                    yield file
                    return

    def _current_file_id(self) -> _FileId | None:
        with suppress(FileNotFoundError):
            return _file_id(os.stat(self.path))
        return None


def _file_id(status: os.stat_result) -> _FileId:
    return status.st_dev, status.st_ino


def _write_line(key: str, reply: RecordedReply) -> str:
    row: dict[str, Any] = {"key": key, **reply_to_row(reply)}
    if reply.outline is not None:
        row["outline"] = outline_to_row(reply.outline)
    return json.dumps(row)


def _seal_line(line: str) -> str:
    return f'{line[:-1]}, "{SEAL}": "{_hash_line(line.encode())}"}}'


def _hash_line(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()[:16]


def _read_line(number: int, line: str | bytes) -> CassetteRow:
    """Read the recording of a line, sealed or not; a damaged line gives a row that says so."""
    where, key = f"line {number}", None
    try:
        fields = json.loads(line)
        key = fields.pop("key")
        if type(key) is not str:
            raise ValueError("its key is not text")
        seal = fields.pop(SEAL, None)
        text = line.encode() if isinstance(line, str) else line
        if seal is not None and seal != _hash_line(text.rstrip()[:-_SEAL_LENGTH] + b"}"):
            raise ValueError("it is not as it was recorded")
        outline_row = fields.pop("outline", None)
        outline = None if outline_row is None else outline_from_row(outline_row)
        reply = reply_from_row(fields, outline)
        return CassetteRow(where, key, reply, sealed=seal is not None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        readable_key = key if type(key) is str else None
        return CassetteRow(where, readable_key, None, f"{type(error).__name__}: {error}")
