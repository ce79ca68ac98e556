"""The SQLite file of MLflow's store is made whole and once; half a one is said, with a way out."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mlflow
import pytest

from finagent_model.errors import LocalStateError, TrackingError
from finagent_model.tracking import local_store
from support.places import Place


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Where the tracking URI says that the file is; there is none."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/store/mlflow.db")
    yield tmp_path / "store" / "mlflow.db"
    mlflow.set_tracking_uri(before)


@pytest.mark.parametrize("name", ["a%20b", "x%41"])
def test_prepare_local_store_refuses_temporary_folder_with_an_escape(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / name))
    with pytest.raises(LocalStateError, match=rf"{name}' can't be used.*set TMPDIR to one"):
        local_store.prepare_local_store()
    assert not path.exists()


@pytest.mark.parametrize("name", ["a b", "100%", "a%2", "x#y"])
def test_prepare_local_store_takes_other_odd_temporary_folders(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / name))
    (tmp_path / name).mkdir()
    monkeypatch.setattr(local_store, "_prepared", {mlflow.get_tracking_uri()})
    local_store.prepare_local_store()


@pytest.mark.parametrize("statements", ["", "create table runs (run_uuid text)"])
def test_prepare_local_store_refuses_half_made_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, statements: str
) -> None:
    monkeypatch.setattr(local_store, "FOREIGN_CREATION_S", 0.0)
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)
    path.touch()
    before = path.read_bytes()
    with pytest.raises(TrackingError, match=rf"holds no run: move it away \(mv {path} {path}\.br"):
        local_store.prepare_local_store()
    assert path.read_bytes() == before


def test_prepare_local_store_waits_for_other_program(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.mkdir()
    path.touch()

    def make_tables() -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("create table alembic_version (version_num text)")
            connection.execute("insert into alembic_version values ('1')")
            connection.commit()

    monkeypatch.setattr(local_store, "pause", make_tables)
    local_store.prepare_local_store()


def test_prepare_local_store_failure_leaves_no_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(local_store, "_create_tables", fail)
    with pytest.raises(TrackingError, match=r"can't be made: No space left on device; set MLFLOW_"):
        local_store.prepare_local_store()
    assert list(path.parent.iterdir()) == []


def test_prepare_local_store_leaves_other_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "http://127.0.0.1:9")
    monkeypatch.setattr(mlflow, "get_registry_uri", lambda: "sqlite:///:memory:")
    local_store.prepare_local_store()


@pytest.mark.slow
def test_first_commands_at_once_make_one_store(tmp_path: Path) -> None:
    place = Place(tmp_path)
    commands = (["models", "--json"], ["promote", "1"], ["predict", "GOOG", "--as-of=2012-06-29"])
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "finagent_model.cli", *command],
            cwd=tmp_path,
            env=place.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    results = [(*process.communicate(timeout=240), process.returncode) for process in started]
    assert [code for *_, code in results] == [0, 2, 4]
    # Nothing but the error, in one line: MLflow's lines about new tables are not there.
    assert [said.count("\n") for _, said, _ in results] == [0, 1, 1], results
    assert (tmp_path / "mlflow.db").stat().st_mode & 0o777 == 0o600
    assert place.finagent("models", "--json").stdout.strip() == "[]"
