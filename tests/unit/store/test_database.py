"""A SQLite database that lost its content is refused, and one that was replaced is said."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from finagent_model.errors import StoreError
from finagent_model.store.artifact_models import ArtifactFilter
from finagent_model.store.artifacts import ArtifactStore
from finagent_model.store.database import DATABASE_FILE, Database
from finagent_model.store.decisions import DecisionStore
from support.decisions import decision


@pytest.fixture
def path(tmp_path: Path, empty_database: Path) -> Path:
    """A file with our tables and one decision."""
    shutil.copy(empty_database, tmp_path)
    DecisionStore(Database(f"sqlite:///{tmp_path / DATABASE_FILE}")).write(decision(), "r1")
    return tmp_path / DATABASE_FILE


def total(database: Database) -> int:
    return ArtifactStore(database).list_artifacts(ArtifactFilter()).total


def truncate(path: Path) -> None:
    path.write_bytes(b"")


def drop_tables(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        names = connection.execute("select name from sqlite_schema where type = 'table'").fetchall()
        for (name,) in names:
            if not name.startswith("sqlite_"):
                connection.execute(f"drop table {name}")


def lose_all_but_log(path: Path) -> None:
    path.with_name(f"{path.name}-wal").write_bytes(path.read_bytes())
    path.unlink()


@pytest.mark.parametrize("lose", [truncate, drop_tables, lose_all_but_log])
def test_database_that_was_emptied_is_not_refilled(
    path: Path, lose: Callable[[Path], None]
) -> None:
    lose(path)
    found = {each: each.read_bytes() for each in path.parent.iterdir()}
    database = Database(f"sqlite:///{path}")
    for _ in range(2):
        with pytest.raises(StoreError, match=r"lost its content: .*`finagent db upgrade`"):
            total(database)
    assert {each: each.read_bytes() for each in path.parent.iterdir()} == found


@pytest.mark.parametrize("lose", [truncate, Path.unlink, drop_tables])
def test_database_emptied_in_use_is_not_refilled(path: Path, lose: Callable[[Path], None]) -> None:
    database = Database(f"sqlite:///{path}")
    assert total(database) == 5
    lose(path)
    with pytest.raises(StoreError, match=r"lost its content|no such table"):
        total(database)
    assert not path.exists() or b"artifacts" not in path.read_bytes()[:4096]


def test_database_upgrade_fills_emptied_file(path: Path) -> None:
    path.write_bytes(b"")
    Database(f"sqlite:///{path}").upgrade()
    assert total(Database(f"sqlite:///{path}")) == 0


def test_database_replaced_in_use_is_said(
    path: Path, empty_database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(f"sqlite:///{path}")
    assert total(database) == 5
    shutil.copy(empty_database, path.with_name("copy"))
    path.with_name("copy").rename(path)
    with caplog.at_level(logging.WARNING):
        assert total(database) == 0
    assert "was replaced while it was in use" in caplog.text


def test_database_replaced_by_foreign_file_is_refused(path: Path) -> None:
    database = Database(f"sqlite:///{path}")
    assert total(database) == 5
    foreign = path.with_name("foreign")
    with closing(sqlite3.connect(foreign)) as theirs:
        theirs.execute("create table artifacts (id integer primary key, path text)")
    foreign.rename(path)
    with pytest.raises(StoreError, match="another system's"):
        total(database)


def test_database_upgrade_of_newer_revision_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("update finagent_version set version_num = 'r9999'")
        connection.commit()
    with pytest.raises(StoreError, match=r"has revision r9999.*install the finagent-model that"):
        Database(f"sqlite:///{path}").upgrade()


def test_database_failed_creation_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError(28, "No space left on device")

    database = Database(f"sqlite:///{tmp_path}/finagent.db")
    with monkeypatch.context() as patched:
        patched.setattr("finagent_model.store.database._run_migrations", fail)
        with pytest.raises(StoreError, match="No space left"):
            database.prepare()
    assert list(tmp_path.iterdir()) == []
    assert total(database) == 0
