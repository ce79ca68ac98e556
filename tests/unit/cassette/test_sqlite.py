"""A file of replies that was emptied, replaced or is another program's is said and left alone."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from finagent_model.cassette._sqlite import SqliteFile
from finagent_model.cassette.cassette import Cassette
from finagent_model.cassette.records import RecordedReply
from finagent_model.errors import BadInputError, LocalStateError

ONE, TWO = RecordedReply("one", "stop", 1, 2), RecordedReply("two", "stop", 3, 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "replies.sqlite"


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def truncate(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    "statements",
    [
        ("create table note (id int)",),
        ("create table content (id int, title text)", "create table entry (id int)"),
        ("create table reply (id int, author text)", "pragma user_version = 2"),
        ("create view entry as select 1",),
    ],
)
def test_sqlite_file_of_other_program_is_left_alone(
    path: Path, statements: tuple[str, ...]
) -> None:
    execute(path, *statements)
    before = path.read_bytes()
    with pytest.raises(BadInputError, match=r"not the tables of a cassette .*left alone"):
        Cassette(None, path)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_sqlite_file_that_was_emptied_is_not_refilled(path: Path) -> None:
    SqliteFile(path)
    truncate(path)
    with pytest.raises(BadInputError, match="it is empty, and no new file is; put a copy back"):
        Cassette(None, path)
    assert path.read_bytes() == b""


def test_sqlite_file_without_one_table_is_not_refilled(path: Path) -> None:
    SqliteFile(path)
    execute(path, "drop table entry")
    with pytest.raises(BadInputError, match=r"tables: content"):
        Cassette(None, path)


@pytest.mark.parametrize("lose", [truncate, Path.unlink])
def test_sqlite_file_lost_in_use_is_no_cache_miss(
    path: Path, lose: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    cassette = Cassette(None, path)
    cassette.put("a", ONE)
    lose(path)
    with pytest.raises(LocalStateError, match=r"it is empty|it was removed"):
        cassette.get("b")
    with caplog.at_level(logging.WARNING):
        cassette.put("b", TWO)
    assert "kept in memory only" in caplog.text
    assert cassette.get("b") == TWO


def test_sqlite_file_replaced_in_use_is_left_alone(path: Path) -> None:
    cassette = Cassette(None, path)
    cassette.put("a", ONE)
    other = path.with_name("other.sqlite")
    SqliteFile(other)
    other.rename(path)
    before = path.read_bytes()
    cassette.put("b", TWO)
    with pytest.raises(LocalStateError, match="it was replaced while it was in use; end what uses"):
        cassette.get("c")
    assert path.read_bytes() == before
