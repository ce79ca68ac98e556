"""Files that processes share: private, made whole, locked for a bounded time; scratch is swept."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from finagent_model import _local_files as local
from finagent_model.agents.budget import DailyBudget
from finagent_model.approvals import ApprovalStore
from finagent_model.cassette.cassette import open_cassette_file
from finagent_model.config.rules import ApprovalRules
from finagent_model.settings import Settings
from finagent_model.store.database import Database
from support.decisions import ASKED, decision


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def make_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table number (n int)")


def test_make_private_folder_is_private_with_missing_parents(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    local.make_private_folder(tmp_path / "a" / "b")
    modes = [mode(p) for p in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")]
    assert modes == [0o755, 0o700, 0o700]


def test_make_private_folder_refuses_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        local.make_private_folder(tmp_path / "file")


def test_home_files_are_private(tmp_path: Path) -> None:
    home = tmp_path / "home"
    Database.from_settings(Settings.load({"FINAGENT_HOME": str(home)})).prepare()
    files = [open_cassette_file(home / name) for name in ("replies.sqlite", "replies.jsonl")]
    DailyBudget(home / "spending.sqlite", ASKED.date(), 1, 1.0)
    rules = ApprovalRules(above_size_percent=1, timeout_s=0.001)
    ApprovalStore(home / "approvals.sqlite", notify=lambda _: None).require_approvals(
        [decision()], rules, "v"
    )
    assert len(files) == 2
    assert mode(home) == 0o700
    assert {path.name: mode(path) for path in home.iterdir() if mode(path) != 0o600} == {}


def test_begin_immediate_many_writers_all_write(tmp_path: Path) -> None:
    make_table(tmp_path / "x.sqlite")

    def write(_: int) -> None:
        with closing(sqlite3.connect(tmp_path / "x.sqlite", isolation_level=None)) as connection:
            for _ in range(10):
                local.begin_immediate(connection, 30)
                connection.execute("insert into number values (1)")
                connection.execute("commit")

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(write, range(12)))
    with closing(sqlite3.connect(tmp_path / "x.sqlite")) as connection:
        assert connection.execute("select count(*) from number").fetchone() == (120,)


def test_begin_immediate_wait_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    make_table(path)
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as holder,
        closing(sqlite3.connect(path, isolation_level=None)) as writer,
    ):
        holder.execute("begin immediate")
        with pytest.raises(sqlite3.OperationalError, match=r"had it locked for 0.05 s") as error:
            local.begin_immediate(writer, 0.05)
        assert error.value.sqlite_errorcode == sqlite3.SQLITE_BUSY
        holder.execute("rollback")
        local.begin_immediate(writer, 0.05)


def test_begin_immediate_keeps_other_errors(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    path.write_bytes(b"no database" * 100)
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as connection,
        pytest.raises(sqlite3.DatabaseError, match="not a database"),
    ):
        local.begin_immediate(connection, 1)


def test_create_sqlite_file_is_made_once(tmp_path: Path) -> None:
    made: list[Path] = []

    def fill(path: Path) -> None:
        make_table(path)
        made.append(path)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: local.create_sqlite_file(tmp_path / "x.sqlite", fill), range(8)))
    assert len(made) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.sqlite"]


def test_create_sqlite_file_failure_leaves_none(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        make_table(path)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        local.create_sqlite_file(tmp_path / "x.sqlite", fail)
    assert list(tmp_path.iterdir()) == []


def test_create_sqlite_file_replaces_what_a_kill_left(tmp_path: Path) -> None:
    for suffix in ("", "-wal", "-journal"):
        (tmp_path / f".x.sqlite.new{suffix}").write_bytes(b"half of it")
    local.create_sqlite_file(tmp_path / "x.sqlite", make_table)
    assert [path.name for path in tmp_path.iterdir()] == ["x.sqlite"]


def test_create_sqlite_file_follows_link(tmp_path: Path) -> None:
    (tmp_path / "link.sqlite").symlink_to(tmp_path / "missing" / "x.sqlite")
    with pytest.raises(FileNotFoundError, match="missing"):
        local.create_sqlite_file(tmp_path / "link.sqlite", make_table)
    assert (tmp_path / "link.sqlite").is_symlink()


def test_lock_folder_wait_is_bounded(tmp_path: Path) -> None:
    with (
        local.lock_folder(tmp_path),
        pytest.raises(TimeoutError, match=r"had the folder locked for 0.05 s"),
        local.lock_folder(tmp_path, 0.05),
    ):
        pass
    with local.lock_folder(tmp_path, 0.05):
        pass


def test_is_emptied_sees_log_without_its_file(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    assert not local.is_emptied(path)
    (tmp_path / "x.sqlite-wal").write_bytes(b"rows")
    assert local.is_emptied(path)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary folders."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_scratch_folder_is_removed_at_the_end(scratch: Path) -> None:
    with local.ScratchFolder() as folder:
        (folder / "file").write_text("x")
        assert list(scratch.iterdir()) == [folder]
    assert list(scratch.iterdir()) == []


def hold_until_killed(ready: threading.Event) -> None:
    with local.ScratchFolder() as folder:
        (folder / "file").write_text("x")
        ready.set()
        os.kill(os.getpid(), 9)


def test_scratch_folder_of_killed_process_is_swept(scratch: Path) -> None:
    context = multiprocessing.get_context("fork")
    process = context.Process(target=hold_until_killed, args=(context.Event(),))
    process.start()
    process.join()
    [left] = scratch.iterdir()
    other = scratch / "finagent-home"
    other.mkdir()
    with local.ScratchFolder() as mine:
        assert sorted(scratch.iterdir()) == sorted([mine, other])
    assert not left.exists()


def test_scratch_folder_of_living_owner_stays(scratch: Path) -> None:
    with local.ScratchFolder() as first, local.ScratchFolder() as second:
        assert first.is_dir() and second.is_dir()
