"""Recorded replies, keyed by a fingerprint of the whole request.

A package carries its replies read-only; whatever is recorded later goes into a local overlay
(SQLite), never back into the package. The same request gets the same reply, for free, on any
machine.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finagent_model.errors import CorruptPackageError, HomeError

log = logging.getLogger(__name__)

LOCKED_S = 5.0
"""How long a file that another process holds is waited for; a statement takes milliseconds."""


@dataclass(frozen=True, slots=True)
class RecordedError:
    """Why a request finally got no reply."""

    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that a reply asks for; `arguments` is JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class RecordedReply:
    """What a chat client answered, and what it took."""

    content: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    tool_calls: tuple[ToolCall, ...] = ()
    error: RecordedError | None = None


def fingerprint(request: Mapping[str, Any]) -> str:
    """SHA-256 of the request as canonical JSON."""
    text = json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Cassette:
    """Replies of a package, of an overlay file, and of this process. Safe for threads and for
    several processes.
    """

    def __init__(
        self, packaged: Mapping[str, RecordedReply] | None = None, overlay: Path | None = None
    ) -> None:
        self._packaged = packaged or {}
        self._recorded: dict[str, RecordedReply] = {}
        self._overlay = None if overlay is None else _Overlay(overlay)
        self.used: dict[str, RecordedReply] = {}
        """Every reply that this object handed out or took in."""

    def get(self, key: str, *, errors: bool = False) -> RecordedReply | None:
        """The recorded reply, or None. What came packaged wins: it is the same on any machine.
        Raises HomeError where the file can't be read: no reply is paid for twice.
        """
        reply = self._packaged.get(key) or self._recorded.get(key)
        if reply is None and self._overlay is not None:
            reply = self._overlay.get(key)
        if reply is not None:
            self.used[key] = reply
        return reply

    def put(self, key: str, reply: RecordedReply, outline: object = None) -> None:
        """Record a reply; a later one replaces an earlier. Where the file can't be written, it is
        kept in memory, with a warning.
        """
        self.used[key] = reply
        self._recorded[key] = reply
        if self._overlay is not None:
            try:
                self._overlay.put(key, reply)
            except HomeError as error:
                log.warning("%s; this reply is kept in memory only", error)


class _Overlay:
    """One SQLite file, through one connection a process: a forked child opens its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pid, self._lock, self._connection = os.getpid(), threading.Lock(), _open(path)

    def get(self, key: str, *, errors: bool = False) -> RecordedReply | None:
        row = self._run("select body from reply where key = ?", key).fetchone()
        return RecordedReply(**json.loads(row[0])) if row else None

    def put(self, key: str, reply: RecordedReply) -> None:
        self._run("insert or replace into reply values (?, ?)", key, json.dumps(asdict(reply)))

    def _run(self, statement: str, *values: str) -> sqlite3.Cursor:
        if self._pid != os.getpid():
            self._pid, self._lock, self._connection = (
                os.getpid(),
                threading.Lock(),
                _open(self._path),
            )
        try:
            with self._lock:
                return self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise HomeError(f"recorded replies in {self._path} can't be used: {error}") from None


def dump_replies(replies: Mapping[str, RecordedReply]) -> str:
    """JSON lines sorted by key: equal recordings give equal bytes."""
    rows = ({"key": key, **asdict(replies[key])} for key in sorted(replies))
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def load_replies(lines: Iterable[str]) -> dict[str, RecordedReply]:
    """The inverse of `dump_replies`; raises CorruptPackageError naming the line."""
    replies = {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            key = row.pop("key")
            replies[key] = RecordedReply(**row)
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptPackageError(f"cassette line {number}: {error}") from None
    return replies


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            path, check_same_thread=False, isolation_level=None, timeout=LOCKED_S
        )
        connection.execute("pragma journal_mode = wal")
        # A power cut may lose the last replies; they are then asked for again.
        connection.execute("pragma synchronous = off")
        connection.execute(
            "create table if not exists reply (key text primary key, body text) without rowid"
        )
    except (OSError, sqlite3.Error) as error:
        raise HomeError(
            f"replies can't be recorded in {path}: {error}; "
            "set FINAGENT_HOME to a folder that can be written"
        ) from None
    return connection
