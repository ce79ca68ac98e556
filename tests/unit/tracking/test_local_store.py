"""The SQLite file of MLflow's store is made whole and once; half a one is said, with a way out."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from sqlalchemy import create_engine
from typer.testing import CliRunner

from finagent_model.cli import app
from finagent_model.errors import LocalStateError, TrackingError
from finagent_model.tracking import local_store, registry
from support.places import DEFAULT_STORE, Place


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


def test_unsynced_relaxes_connections_to_its_own_file_alone(tmp_path: Path) -> None:
    def synchronous(name: str) -> int:
        engine = create_engine(f"sqlite:///{tmp_path / name}")
        with engine.connect() as connection:
            [[level]] = connection.exec_driver_sql("pragma synchronous").fetchall()
        engine.dispose()
        return int(level)

    usual = synchronous("new.db")
    with local_store._unsynced(tmp_path / "new.db"):
        assert (synchronous("new.db"), synchronous("other.db")) == (0, usual)
    assert synchronous("new.db") == usual > 0


def test_prepare_local_store_leaves_other_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "http://127.0.0.1:9")
    monkeypatch.setattr(mlflow, "get_registry_uri", lambda: "sqlite:///:memory:")
    local_store.prepare_local_store()


def test_require_store_makes_no_file_where_one_is_named(path: Path) -> None:
    with pytest.raises(TrackingError, match=f"{path} is not there; set MLFLOW_TRACKING_URI to"):
        local_store.require_store()
    assert not path.parent.exists()


def test_require_store_takes_one_that_is_there(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    local_store.require_store()
    assert path.read_bytes() == b""


def test_require_store_passes_over_default_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow.tracking, "is_tracking_uri_set", lambda: False)
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "sqlite:////nothing/mlflow.db")
    local_store.require_store()


@pytest.mark.parametrize(
    "arguments",
    [
        ["models"],
        ["promote", "1"],
        ["rollback"],
        ["sign", "1"],
        ["lineage", "abc"],
        ["verify", "models:/finagent/1"],
        ["audit", "verify", "abc"],
        ["backtest"],
        ["ablate"],
        ["memory"],
        ["serve"],
        ["predict", "GOOG", "--as-of", "2012-06-29"],
    ],
)
def test_reading_command_makes_no_store_that_is_named(path: Path, arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: the MLflow store {path} is not there; set MLFLOW_")
    assert not path.parent.exists()


@pytest.fixture
def no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that holds nothing, which would take seconds to make."""
    monkeypatch.setattr(registry, "list_versions", lambda _: [])
    monkeypatch.setattr(registry, "find_dangling_aliases", lambda _: {})
    monkeypatch.setattr(local_store, "require_store", lambda: None)


@pytest.mark.usefixtures("no_version")
@pytest.mark.parametrize(
    ("name", "command"),
    [("nobody", "finagent train --register-as nobody"), ("finagent", "finagent train")],
)
def test_models_says_how_a_version_of_the_name_is_made(name: str, command: str) -> None:
    done = CliRunner().invoke(app, ["models", "--name", name])
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == f"no version of {name} yet; `{command}` makes one\n"


@pytest.mark.usefixtures("no_version")
def test_models_gives_up_server_after_one_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "")  # so that it is put back, whatever it was
        monkeypatch.delenv(name)
    assert CliRunner().invoke(app, ["models"]).exit_code == 0
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "10"


@pytest.mark.slow
def test_first_commands_at_once_make_one_store(tmp_path: Path) -> None:
    place = Place(tmp_path)
    commands = (["models", "--json"], ["promote", "1"], ["predict", "GOOG", "--as-of=2012-06-29"])
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "finagent_model.cli", *command],
            cwd=tmp_path,
            env=place.env | DEFAULT_STORE,
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
