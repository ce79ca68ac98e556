"""Recordings as tables of an SQLite file.

`content` has each text once, under its hash, compressed where that makes it smaller: replies, and
the shapes of outlines. `entry` has a row per request, sealed by a hash over itself and what it
points to. Each process has one connection: a forked child opens its own. A file is made whole, so
that one without our tables was emptied or is another program's; neither is written to.

Files of older code have a table `reply` alone. Its rows are migrated whenever the file is opened;
the table stays, for older code that is still running.
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

from finagent_model._local_files import (
    WRITE_TIMEOUT_S,
    FileId,
    begin_immediate,
    create_sqlite_file,
    file_id,
    is_emptied,
    make_private_folder,
)
from finagent_model.cassette.fingerprint import outline_from_row, outline_to_row
from finagent_model.cassette.records import CassetteRow, RecordedReply, reply_from_row, reply_to_row
from finagent_model.errors import BadInputError, DamagedCassetteError

log = logging.getLogger(__name__)
FORMAT = 2
"""`user_version` of the file; that of a new file, and of one by older code, is 0."""
READ_TIMEOUT_S = 5.0
"""How long a reader waits where the whole file is locked."""
_TABLES = (
    "create table if not exists content "
    "(id integer primary key, hash blob not null unique, body not null)",
    "create table if not exists entry "
    "(key primary key, failed integer not null, reply integer not null, shape integer, marks, "
    "seal blob not null) without rowid",
)
_COLUMNS = {
    "content": {"id", "hash", "body"},
    "entry": {"key", "failed", "reply", "shape", "marks", "seal"},
    "reply": {"key", "body"},
}
"""Columns by table; `reply` is older code's."""
_SELECT = (
    "select key, failed, r.hash, r.body, shape, s.hash, s.body, marks, seal from entry "
    "left join content r on r.id = reply left join content s on s.id = shape"
)
_INSERT_CONTENT = (
    "insert into content (hash, body) values (?, ?) "
    "on conflict (hash) do update set body = excluded.body where body is not excluded.body"
)
_INSERT_ENTRY = (
    "insert or replace into entry values (?, ?, (select id from content where hash = ?), "
    "(select id from content where hash = ?), ?, ?)"
)
_DELETE_UNUSED = (
    "delete from content where id not in (select reply from entry) "
    "and id not in (select shape from entry where shape is not null)"
)
_LOCATION_ERRORS = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
}
"""Codes that tell of the folder or disk, not of what is in the file."""
_EMPTIED = "it is empty, and no new file is; put a copy back, or remove it"
_FINGERPRINT = re.compile("[0-9a-f]{64}")


class SqliteFile:
    """A CassetteFile of SQLite tables."""

    def __init__(self, path: Path) -> None:
        """Open or create `path`.

        Raises BadInputError where it can't be written, DamagedCassetteError where it is no such
        file, or was emptied.
        """
        self.path = path
        self._inherited: list[_Handle] = []
        try:
            self._handle = _open(path)
            self._migrate()
        except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
            raise _open_error(path, error) from None

    def get(self, key: str) -> RecordedReply | None:
        """Return the reply, or None where there is none that can be read."""
        with self._connected() as connection:
            entry = connection.execute(f"{_SELECT} where key = ?", (_pack_key(key),)).fetchone()
        if entry is None:
            return None
        row = _read_entry(entry)
        if row.reply is None:
            log.warning("%s, %s: %s", self.path, row.where, row.damage)
        return row.reply

    def put(self, replies: Mapping[str, RecordedReply]) -> None:
        """Write all or nothing; an error supersedes no reply."""
        with self._transaction() as connection:
            for key, reply in replies.items():
                if reply.error is None or not _has_reply(connection, key):
                    _write_entry(connection, key, reply)

    def rows(self) -> Iterator[CassetteRow]:
        """Yield every row of the file, those of older code last."""
        with self._connected() as connection:
            entries = connection.execute(f"{_SELECT} order by key").fetchall()
            old_rows = _select_old_rows(connection)
        yield from map(_read_entry, entries)
        yield from (_read_old_row(key, body) for key, body in old_rows)

    def prune(self, keep: Callable[[CassetteRow], bool]) -> int:
        """Drop the rows that `keep` rejects, free their space, and return how many there were."""
        with self._transaction() as connection:
            entries = connection.execute(_SELECT).fetchall()
            rejected = [(entry[0],) for entry in entries if not keep(_read_entry(entry))]
            connection.executemany("delete from entry where key = ?", rejected)
            old_rows = _select_old_rows(connection)
            rejected_old = [key for key, body in old_rows if not keep(_read_old_row(key, body))]
            for key in rejected_old:
                _delete_old_row(connection, key)
            connection.execute(_DELETE_UNUSED)
        with self._connected() as connection:
            # Outside the transaction, where SQLite allows it: gives the space back to the disk.
            connection.execute("vacuum")
            connection.execute("pragma wal_checkpoint(truncate)")
        return len(rejected) + len(rejected_old)

    def check_integrity(self) -> list[str]:
        """Return what SQLite finds damaged, and tables that are none of a cassette's."""
        with self._connected() as connection:
            results = [text for (text,) in connection.execute("pragma integrity_check")]
            names = {name for (name,) in connection.execute("select name from sqlite_schema")}
        tables = sorted(name for name in names if not name.startswith("sqlite_autoindex"))
        return [text for text in results if text != "ok"] + [
            f"{name!r} is not a table of a cassette" for name in tables if name not in _COLUMNS
        ]

    def _migrate(self) -> None:
        """Move the rows of older code's table `reply` into ours."""
        with self._connected() as connection:
            if not _select_old_rows(connection):
                return
        # Read again under the lock: another process may have migrated them meanwhile.
        with self._transaction() as connection:
            for key, body in _select_old_rows(connection):
                row = _read_old_row(key, body)
                if row.reply is None:
                    continue  # it stays, for whoever can read it
                if not _has_reply(connection, key):
                    _write_entry(connection, key, row.reply)
                _delete_old_row(connection, key)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """Yield this process's connection, to one thread at a time. Raises OSError."""
        try:
            if self._handle.pid != os.getpid():
                # Kept open: closing a connection from before the fork would disturb the parent.
                self._inherited.append(self._handle)
                self._handle = _open(self.path)
            self._require_same_file()
            handle = self._handle
            with handle.lock:
                yield handle.connection
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise OSError(f"{self.path}: {error}") from error

    def _require_same_file(self) -> None:
        """Raise OSError where the file is no more the one that was opened."""
        # The connection still has that one: what it writes is lost with it. A new connection would
        # mix another file with the log of the old one.
        found = file_id(self.path)
        if found != self._handle.file_id:
            what = "removed" if found is None else "replaced"
            raise _UnusableFileError(
                f"it was {what} while it was in use; end what uses it, put the file back without "
                "its -wal and -shm, and start again"
            )
        if is_emptied(self.path):
            raise _UnusableFileError(_EMPTIED)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Write all or nothing, one writer at a time. Raises OSError."""
        with self._connected() as connection:
            # Immediate: a deferred transaction that has to wait fails at its first write.
            begin_immediate(connection, WRITE_TIMEOUT_S)
            try:
                yield connection
                connection.execute("commit")
            finally:
                if connection.in_transaction:
                    connection.execute("rollback")


class _Handle(NamedTuple):
    """A process's connection, and the lock of its threads."""

    pid: int
    lock: threading.Lock
    connection: sqlite3.Connection
    file_id: FileId | None


def _open(path: Path) -> _Handle:
    """Open or create the file. Raises OSError, among them _UnusableFileError, and sqlite3.Error."""
    make_private_folder(path.parent)
    if is_emptied(path):
        raise _UnusableFileError(_EMPTIED)
    create_sqlite_file(path, _create_tables)
    opened = file_id(path)
    connection = _connect(path)
    try:
        [version] = connection.execute("pragma user_version").fetchone()
        if version > FORMAT:
            raise _UnusableFileError(f"it has format {version}, written by a newer version")
        _require_our_tables(connection, version)
        if version < FORMAT:
            _add_tables(connection)
    except BaseException:
        connection.close()
        raise
    return _Handle(os.getpid(), threading.Lock(), connection, opened)


def _require_our_tables(connection: sqlite3.Connection, version: int) -> None:
    """Raise _UnusableFileError for a file of another program, and for one that lost a table."""
    found = {
        name: {column for _, column, *_ in connection.execute(f'pragma table_info("{name}")')}
        for (name,) in connection.execute("select name from sqlite_schema where type = 'table'")
    }
    ours = {name for name, columns in _COLUMNS.items() if found.get(name) == columns}
    # A file of older code has a table `reply`; a process of it may have been killed before more.
    if {"content", "entry"} <= ours or (version < FORMAT and ours):
        return
    tables = ", ".join(sorted(found)) or "none"
    raise _UnusableFileError(
        f"it has not the tables of a cassette (tables: {tables}), and was left alone; it was "
        "emptied, or is another program's: put a copy back, or name another file or FINAGENT_HOME"
    )


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, check_same_thread=False, isolation_level=None, timeout=READ_TIMEOUT_S
    )
    connection.text_factory = _decode
    # A power cut may lose the last replies, never the file; they are then requested again.
    connection.execute("pragma synchronous = normal")
    return connection


def _create_tables(path: Path) -> None:
    connection = _connect(path)
    _add_tables(connection)
    connection.close()


def _add_tables(connection: sqlite3.Connection) -> None:
    # Readers don't wait for a writer. The file keeps this mode.
    connection.execute("pragma journal_mode = wal")
    for table in _TABLES:
        connection.execute(table)
    connection.execute(f"pragma user_version = {FORMAT}")


class _UnusableFileError(OSError):
    """The file was changed, or is another program's; the message has the way out."""


def _open_error(path: Path, error: Exception) -> BadInputError:
    cause = error.__cause__ or error
    if isinstance(cause, _UnusableFileError):
        return DamagedCassetteError(f"replies can't be recorded in {path}: {cause}")
    # The lower byte of an extended error code is its class.
    code = getattr(cause, "sqlite_errorcode", None)
    if isinstance(cause, OSError) or (code is not None and code & 0xFF in _LOCATION_ERRORS):
        return BadInputError(
            f"replies can't be recorded in {path}: {cause}; "
            "set FINAGENT_HOME to a folder that can be written"
        )
    return DamagedCassetteError(
        f"{path} can't be read: {cause}; move it away, or name another file"
    )


def _has_reply(connection: sqlite3.Connection, key: str) -> bool:
    """Tell whether the file has a reply of `key` that is no error."""
    rows = connection.execute("select failed from entry where key = ?", (_pack_key(key),))
    return bool(rows.fetchone() == (0,))


def _write_entry(connection: sqlite3.Connection, key: str, reply: RecordedReply) -> None:
    body = _compact_json(reply_to_row(reply))
    body_hash, shape_hash, marks = _hash(body), None, None
    connection.execute(_INSERT_CONTENT, (body_hash, _compress(body)))
    if reply.outline is not None:
        # All but the marks is a shape that many outlines share: it is stored once.
        row = outline_to_row(reply.outline)
        marks = _compress(row.pop("marks").encode())
        shape = _compact_json(row)
        shape_hash = _hash(shape)
        connection.execute(_INSERT_CONTENT, (shape_hash, _compress(shape)))
    failed, packed_key = int(reply.error is not None), _pack_key(key)
    seal = _seal(packed_key, failed, body_hash, shape_hash, marks)
    connection.execute(_INSERT_ENTRY, (packed_key, failed, body_hash, shape_hash, marks, seal))


def _read_entry(entry: tuple[Any, ...]) -> CassetteRow:
    """Read a row of `_SELECT`; a damaged one gives a row that says so."""
    key, failed, reply_hash, body, shape_id, shape_hash, shape, marks, seal = entry
    name = key.hex() if isinstance(key, bytes) else str(key)
    where = f"row {name[:12]}"
    try:
        if seal != _seal(key, failed, reply_hash, shape_hash, marks):
            raise ValueError("it is not as it was recorded")
        reply_row = json.loads(_decompress(body, reply_hash))
        outline = None
        if shape_id is not None:
            outline_row = json.loads(_decompress(shape, shape_hash))
            outline_row["marks"] = _decompress(marks).decode()
            outline = outline_from_row(outline_row)
        return CassetteRow(where, name, reply_from_row(reply_row, outline))
    except (ValueError, TypeError, AttributeError, zlib.error, RecursionError) as error:
        return CassetteRow(where, name, None, f"{type(error).__name__}: {error}")


def _select_old_rows(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    table = "select 1 from sqlite_schema where name = 'reply'"
    if connection.execute(table).fetchone() is None:
        return []
    return connection.execute("select key, body from reply").fetchall()


def _read_old_row(key: str, body: str) -> CassetteRow:
    where = f"old row {key[:12]}"
    try:
        body.encode()
        return CassetteRow(where, key, reply_from_row(json.loads(body)), sealed=False)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        return CassetteRow(where, key, None, f"{type(error).__name__}: {error}")


def _delete_old_row(connection: sqlite3.Connection, key: str) -> None:
    raw = key.encode("utf-8", "surrogateescape")
    connection.execute("delete from reply where key = cast(? as text)", (raw,))


def _decode(raw: bytes) -> str:
    # Damaged text must not fail the whole query; the row that holds it is named.
    return raw.decode("utf-8", "surrogateescape")


def _compact_json(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode()


def _hash(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()[:16]


def _seal(key: str | bytes, failed: int, *parts: bytes | None) -> bytes:
    hasher = hashlib.sha256(key.encode() if isinstance(key, str) else key)
    for part in (str(failed).encode(), *(b"" if part is None else part for part in parts)):
        # Each with its length, so that no byte can move from one part to the next.
        hasher.update(len(part).to_bytes(4, "big") + part)
    return hasher.digest()[:8]


def _compress(text: bytes) -> bytes:
    """Compress by zlib where that is smaller, else return `text` as it is."""
    compressed = zlib.compress(text, 9)
    return compressed if len(compressed) < len(text) else text


def _decompress(packed: bytes, digest: bytes | None = None) -> bytes:
    """Return the text of `_compress`. Raises ValueError where its hash is another."""
    # zlib's output begins with an x, JSON and marks never do.
    text = zlib.decompress(packed) if packed.startswith(b"x") else packed
    if digest is not None and _hash(text) != digest:
        raise ValueError("its content is not as it was recorded")
    return text


def _pack_key(key: str) -> str | bytes:
    return bytes.fromhex(key) if _FINGERPRINT.fullmatch(key) else key
