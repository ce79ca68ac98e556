"""MLflow's store in trouble: one line for people, and no run that stays open for ever."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import DatabaseError
from typer.testing import CliRunner

from finagent_model.cli import app
from finagent_model.errors import TrackingError
from finagent_model.tracking.registry import Version
from finagent_model.tracking.runs import (
    PROCESS,
    RunLog,
    as_tracking_error,
    find_child_runs,
    kill_children,
    open_run,
)
from support.places import Place, free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # MLflow's store has warnings of its own
]


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, place: Place) -> str:
    """The address of a server that is not there; it is asked once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    address = f"http://127.0.0.1:{free_port()}"
    mlflow.set_tracking_uri(address)
    return address


def status(run: RunLog) -> str:
    return str(MlflowClient().get_run(run.run_id).info.status)


def test_tracking_kills_orphaned_run(place: Place) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mine, lost, shared = (
        open_run(n, {}, single_process=n != "shared") for n in ("mine", "lost", "shared")
    )
    below = open_run("below", {}, lost.run_id)
    lost.set_tags({PROCESS: f"{socket.gethostname()}:{ended.pid}"})
    elsewhere = open_run("elsewhere", {PROCESS: f"another-host:{ended.pid}"})
    open_run("next", {}, single_process=True)
    assert [status(run) for run in (lost, below)] == ["KILLED"] * 2
    assert [status(run) for run in (mine, shared, elsewhere)] == ["RUNNING"] * 3
    assert mine.get_tag(PROCESS) == f"{socket.gethostname()}:{os.getpid()}"


def test_tracking_finds_runs_of_another_experiment(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As `mlflow run` does: it opens its run in `Default`, and says so to its child by the id.
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    parent = open_run("project", {})
    child = open_run("backtest", {"kind": "child"}, parent.run_id)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
    assert open_run("own", {}).experiment_id != parent.experiment_id == "0"
    assert [run.run_id for run in find_child_runs(parent.run_id, {"kind": "child"})] == [
        child.run_id
    ]
    kill_children(parent.run_id)
    assert status(child) == "KILLED"


@pytest.mark.parametrize("name", [None, "Default"])
def test_open_run_says_where_mlflow_run_put_it(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str | None,
) -> None:
    project = MlflowClient().create_run("0")
    monkeypatch.setenv("MLFLOW_RUN_ID", project.info.run_id)
    if name:  # chosen by the user
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    assert open_run("train FB", {}).run_id == project.info.run_id
    assert ("mlflow run --experiment-name finagent" in caplog.text) is (name is None)


def test_tracking_store_error_fails_run(place: Place) -> None:
    run = open_run("mine", {})
    with (
        pytest.raises(TrackingError, match="no room; set MLFLOW_TRACKING_URI"),
        run.failed_on_error(),
    ):
        raise MlflowException("no room")
    assert status(run) == "FAILED"


def test_tracking_passes_on_other_errors(place: Place) -> None:
    run = open_run("mine", {})
    with pytest.raises(ZeroDivisionError), run.failed_on_error():
        _ = 1 / 0
    assert status(run) == "FAILED"


def test_tracking_lost_store_hides_no_error(nobody: str) -> None:
    with pytest.raises(ZeroDivisionError), RunLog("0" * 32).failed_on_error():
        _ = 1 / 0


def test_tracking_unreadable_store_is_not_empty(place: Place, nobody: str) -> None:
    from finagent_model.evaluation.gate import GateWindow
    from finagent_model.pipeline.finalize import compare_with_champion

    before = Version("1", (), "0" * 32, "passed", None, None, None, None)
    with pytest.raises(TrackingError, match="can't be used"):
        compare_with_champion(before, GateWindow(version=None, returns={}))
    mlflow.set_tracking_uri(place.env["MLFLOW_TRACKING_URI"])
    assert compare_with_champion(before, GateWindow(version=None, returns={})) is None


def test_cli_reports_lost_tracking_store_in_one_line(nobody: str) -> None:
    done = CliRunner().invoke(app, ["models"])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: the MLflow store {nobody} can't be used: ")
    assert done.stderr.count("\n") == 1


def test_tracking_does_not_mask_bug(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr("finagent_model.tracking.registry.list_versions", bug)
    done = CliRunner().invoke(app, ["models"])
    assert done.exit_code == 1
    assert "Traceback" in done.stderr and "KeyError: 'finagent'" in done.stderr


def test_full_disk_is_said_in_one_line(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(name: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full/chart.html")

    monkeypatch.setattr("finagent_model.tracking.registry.list_versions", write)
    done = CliRunner().invoke(app, ["models"])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: no room to write /full/chart.html: No space left")
    assert done.stderr.count("\n") == 1


def test_tracking_error_is_one_line() -> None:
    cause = DatabaseError("select 1", {}, Exception("no database"), code="4xp6")
    error = as_tracking_error(cause)
    assert error is not None and "no database" in str(error)
    assert "\n" not in str(error) and "Background" not in str(error)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("nobody", "nothing listens at that address (connection refused)"),
        ("http://no-such-host.invalid:5000", "no host of that name was found"),
        ("silent", "it did not answer in time"),
        ("hangs up", "it closed the connection"),
        ("plain", "it does not speak TLS as this program does; is its address http://?"),
    ],
)
def test_tracking_error_says_in_words_why_server_was_not_reached(
    address: str, reason: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if address == "nobody":
            server.close()
        if address in ("hangs up", "plain"):
            threading.Thread(target=lambda: server.accept()[0].close(), daemon=True).start()
        if "://" not in address:
            address = f"http{'s' if address == 'plain' else ''}://127.0.0.1:{port}"
        mlflow.set_tracking_uri(address)
        done = CliRunner().invoke(app, ["models"])
    assert done.stderr.startswith(f"error: the MLflow store {address} can't be used: {reason}; ")
