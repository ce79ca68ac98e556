"""Recordings as tables of an SQLite file.

`content` has each text once, under its hash, packed where that makes it smaller: replies, and the
shapes of outlines. `entry` has a row for each request, sealed by a hash over itself and what it
points to. One connection a process: a forked child opens its own.

Files that older code made have a table `reply` alone. Its rows are taken over whenever the file is
opened; the table stays, for older code that is still at work.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from finagent_model.cassette.fingerprint import from_text, to_text
from finagent_model.cassette.records import CassetteRow, RecordedReply, reply_of, row_of
from finagent_model.errors import BadInputError, DamagedCassetteError

log = logging.getLogger(__name__)
FORMAT = 2
"""`user_version` of the file; that of a new file, and of one by older code, is 0."""
WAIT_S = 5.0
_TABLES = (
    "create table if not exists content "
    "(id integer primary key, hash blob not null unique, body not null)",
    "create table if not exists entry "
    "(key primary key, failed integer not null, reply integer not null, shape integer, marks, "
    "seal blob not null) without rowid",
)
_ROWS = (
    "select key, failed, r.hash, r.body, shape, s.hash, s.body, marks, seal from entry "
    "left join content r on r.id = reply left join content s on s.id = shape"
)
_ADD = (
    "insert into content (hash, body) values (?, ?) "
    "on conflict (hash) do update set body = excluded.body where body is not excluded.body"
)
_SET = (
    "insert or replace into entry values (?, ?, (select id from content where hash = ?), "
    "(select id from content where hash = ?), ?, ?)"
)
_UNUSED = (
    "delete from content where id not in (select reply from entry) "
    "and id not in (select shape from entry where shape is not null)"
)
_PLACE = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
}
"""Codes that tell of the place, not of what is in the file."""
_FINGERPRINT = re.compile("[0-9a-f]{64}")


class SqliteTables:
    """One file."""

    def __init__(self, path: Path) -> None:
        """Raises BadInputError where it can't be written, DamagedCassetteError where it is no such
        file.
        """
        self.path = path
        self._inherited: list[_Handle] = []
        try:
            self._handle = _open(path)
            self._take_over()
        except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
            raise _refused(path, error) from None

    def get(self, key: str) -> RecordedReply | None:
        with self._connected() as connection:
            found = connection.execute(f"{_ROWS} where key = ?", (_packed_key(key),)).fetchone()
        if found is None:
            return None
        row = _read(found)
        if row.reply is None:
            log.warning("%s, %s: %s", self.path, row.where, row.damage)
        return row.reply

    def put(self, replies: Mapping[str, RecordedReply]) -> None:
        with self._writing() as connection:
            for key, reply in replies.items():
                if reply.error is None or not _answered(connection, key):
                    _set(connection, key, reply)

    def rows(self) -> Iterator[CassetteRow]:
        with self._connected() as connection:
            entries = connection.execute(f"{_ROWS} order by key").fetchall()
            old = _old_rows(connection)
        yield from map(_read, entries)
        yield from (_read_old(key, body) for key, body in old)

    def keep(self, wanted: Callable[[CassetteRow], bool]) -> int:
        with self._writing() as connection:
            entries = connection.execute(_ROWS).fetchall()
            gone = [(entry[0],) for entry in entries if not wanted(_read(entry))]
            connection.executemany("delete from entry where key = ?", gone)
            old = [key for key, body in _old_rows(connection) if not wanted(_read_old(key, body))]
            for key in old:
                _drop_old(connection, key)
            connection.execute(_UNUSED)
        with self._connected() as connection:
            connection.execute("vacuum")
            connection.execute("pragma wal_checkpoint(truncate)")
        return len(gone) + len(old)

    def faults(self) -> list[str]:
        with self._connected() as connection:
            found = [text for (text,) in connection.execute("pragma integrity_check")]
            tables = {name for (name,) in connection.execute("select name from sqlite_schema")}
        strange = sorted(name for name in tables if not name.startswith("sqlite_autoindex"))
        known = ("content", "entry", "reply")
        return [text for text in found if text != "ok"] + [
            f"{name!r} is no table of a cassette" for name in strange if name not in known
        ]

    def _take_over(self) -> None:
        """What lies in the table `reply`; what can't be read there stays."""
        with self._connected() as connection:
            if not _old_rows(connection):
                return
        with self._writing() as connection:
            for key, body in _old_rows(connection):
                row = _read_old(key, body)
                if row.reply is None:
                    continue
                if not _answered(connection, key):
                    _set(connection, key, row.reply)
                _drop_old(connection, key)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._handle.pid != os.getpid():
                self._inherited.append(self._handle)  # to close it would disturb the parent
                self._handle = _open(self.path)
            handle = self._handle
            with handle.lock:
                yield handle.connection
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise OSError(f"{self.path}: {error}") from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, one writer at a time."""
        with self._connected() as connection:
            connection.execute("begin immediate")
            try:
                yield connection
                connection.execute("commit")
            finally:
                if connection.in_transaction:
                    connection.execute("rollback")


class _Handle(NamedTuple):
    """A process's own connection, for one thread at a time."""

    pid: int
    lock: threading.Lock
    connection: sqlite3.Connection


def _open(path: Path) -> _Handle:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(
        path, check_same_thread=False, isolation_level=None, timeout=WAIT_S
    )
    connection.text_factory = _text
    connection.execute("pragma journal_mode = wal")
    # A power cut may lose the last replies, never the file; they are then asked for again.
    connection.execute("pragma synchronous = normal")
    [version] = connection.execute("pragma user_version").fetchone()
    if version > FORMAT:
        raise OSError(f"it has format {version}, written by a newer version")
    for table in _TABLES:
        connection.execute(table)
    if version < FORMAT:
        connection.execute(f"pragma user_version = {FORMAT}")
    return _Handle(os.getpid(), threading.Lock(), connection)


def _refused(path: Path, error: Exception) -> BadInputError:
    cause = error.__cause__ or error
    code = getattr(cause, "sqlite_errorcode", None)
    if isinstance(cause, OSError) or (code is not None and code & 0xFF in _PLACE):
        return BadInputError(
            f"replies can't be recorded in {path}: {cause}; "
            "set FINAGENT_HOME to a folder that can be written"
        )
    return DamagedCassetteError(
        f"{path} can't be read: {cause}; move it away, or name another file"
    )


def _answered(connection: sqlite3.Connection, key: str) -> bool:
    """Whether there is a reply that is no error."""
    found = connection.execute("select failed from entry where key = ?", (_packed_key(key),))
    return bool(found.fetchone() == (0,))


def _set(connection: sqlite3.Connection, key: str, reply: RecordedReply) -> None:
    body = json.dumps(row_of(reply), separators=(",", ":")).encode()
    shape, marks = (None, None) if reply.outline is None else to_text(reply.outline)
    hashes = [None if text is None else _hash(text) for text in (body, shape)]
    for text, digest in zip((body, shape), hashes, strict=True):
        if text is not None:
            connection.execute(_ADD, (digest, _packed(text)))
    failed, packed = int(reply.error is not None), _packed_key(key)
    small = None if marks is None else _packed(marks)
    seal = _seal(packed, failed, *hashes, small)
    connection.execute(_SET, (packed, failed, *hashes, small, seal))


def _read(entry: tuple[Any, ...]) -> CassetteRow:
    key, failed, reply_hash, body, shape_id, shape_hash, shape, marks, seal = entry
    name = key.hex() if isinstance(key, bytes) else str(key)
    where = f"row {name[:12]}"
    try:
        if seal != _seal(key, failed, reply_hash, shape_hash, marks):
            raise ValueError("it is not as it was recorded")
        content = _unpacked(body, reply_hash)
        outline = None
        if shape_id is not None:
            outline = from_text(_unpacked(shape, shape_hash), _unpacked(marks))
        return CassetteRow(where, name, reply_of(json.loads(content), outline))
    except (ValueError, TypeError, AttributeError, zlib.error, RecursionError) as error:
        return CassetteRow(where, name, None, f"{type(error).__name__}: {error}")


def _old_rows(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    table = "select 1 from sqlite_schema where name = 'reply'"
    if connection.execute(table).fetchone() is None:
        return []
    return connection.execute("select key, body from reply").fetchall()


def _read_old(key: str, body: str) -> CassetteRow:
    where = f"old row {key[:12]}"
    try:
        body.encode()
        return CassetteRow(where, key, reply_of(json.loads(body)), sealed=False)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        return CassetteRow(where, key, None, f"{type(error).__name__}: {error}")


def _drop_old(connection: sqlite3.Connection, key: str) -> None:
    raw = key.encode("utf-8", "surrogateescape")
    connection.execute("delete from reply where key = cast(? as text)", (raw,))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _hash(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()[:16]


def _seal(key: str | bytes, failed: int, *parts: bytes | None) -> bytes:
    whole = hashlib.sha256(key.encode() if isinstance(key, str) else key)
    for part in (str(failed).encode(), *(b"" if part is None else part for part in parts)):
        whole.update(len(part).to_bytes(4, "big") + part)
    return whole.digest()[:8]


def _packed(text: bytes) -> bytes:
    """As it is, or by zlib (which begins with an x) where that is smaller."""
    small = zlib.compress(text, 9)
    return small if len(small) < len(text) else text


def _unpacked(packed: bytes, digest: bytes | None = None) -> bytes:
    """The inverse; raises ValueError where the hash is another."""
    text = zlib.decompress(packed) if packed.startswith(b"x") else packed
    if digest is not None and _hash(text) != digest:
        raise ValueError("its content is not as it was recorded")
    return text


def _packed_key(key: str) -> str | bytes:
    return bytes.fromhex(key) if _FINGERPRINT.fullmatch(key) else key
