"""`mlflow run`: parameters agree with the code, bad ones leave nothing running, clones are two."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from finagent_model.training.request import TrainRequest
from support.places import ROOT, SMALL, Place

STATUSES = """
import json
from mlflow.tracking import MlflowClient
client = MlflowClient()
ids = [e.experiment_id for e in client.search_experiments()]
print(json.dumps([run.info.status for run in client.search_runs(ids)]))
"""
RECORDS = """
import json
from mlflow.tracking import MlflowClient
client = MlflowClient()
ids = [e.experiment_id for e in client.search_experiments()]
[run] = client.search_runs(ids, "tags.`finagent.stage` = 'infer'")
print(json.dumps([file.path for file in client.list_artifacts(run.info.run_id)]))
"""


def project() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "MLproject").read_text())
    return found


def test_mlproject_train_defaults_are_the_codes() -> None:
    for entry in ("main", "train"):
        parameters = project()["entry_points"][entry]["parameters"]
        given = {name: row["default"] for name, row in parameters.items()}
        assert given.pop("jobs") == 1  # how, not what
        assert TrainRequest.parse(**given) == TrainRequest()
        assert set(given) == set(TrainRequest.model_fields)


def test_every_entry_point_runs_from_the_checkout() -> None:
    points = project()["entry_points"]
    assert list(points) == ["main", "train", "backtest", "predict", "ablate"]
    for name, point in points.items():
        module = "train" if name == "main" else name
        assert point["command"].startswith(f"python -m entrypoints.{module} ")
        assert (ROOT / "entrypoints" / f"{module}.py").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entry", "option", "said"),
    [
        ("train", "commission=2", "allowed: at least 0, below 0.1"),
        ("train", "colour=red", "--colour"),
        ("predict", "as_of=soon", "as_of 'soon' is not a date"),
        ("backtest", "model=models:/none/1", "model models:/none/1 can't be loaded"),
    ],
)
def test_mlproject_bad_value_leaves_no_run_running(
    tmp_path: Path, entry: str, option: str, said: str
) -> None:
    place = Place(tmp_path)
    done = place.run(
        "mlflow", "run", str(ROOT), "-e", entry, "--env-manager", "local", "-P", option
    )
    assert done.returncode == 1  # MLflow's own; the entry point's stands in the line it writes
    assert said in done.stderr + done.stdout
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
        assert store.execute("select status from runs").fetchall() == [("FAILED",)]
        for table in ("registered_models", "model_versions", "registered_model_aliases"):
            assert store.execute(f"select count(*) from {table}").fetchall() == [(0,)]


@pytest.mark.slow
def test_mlflow_run_trains_then_backtests_then_predicts(tmp_path: Path) -> None:
    place = Place(tmp_path)
    parameters = [text for k, v in SMALL.items() for text in ("-P", f"{k}={v}")]
    run = ["mlflow", "run", str(ROOT), "--env-manager", "local", "-e"]
    trained = place.run(*run, "train", *parameters)
    assert trained.returncode == 0, trained.stderr
    assert "registered finagent version 1, gate: passed" in trained.stdout + trained.stderr
    again = place.run(*run, "backtest")
    assert "its signals are the registered ones" in again.stdout + again.stderr
    asked = place.run(*run, "predict", "-P", "symbol=FB", "-P", "as_of=2013-01-31")
    assert "FB as of 2013-01-31:" in asked.stdout + asked.stderr
    statuses = json.loads(place.python(STATUSES).stdout)
    assert set(statuses) == {"FINISHED"}
    records = json.loads(place.python(RECORDS).stdout)
    expected = {"signal.json", "autogen_conversation.jsonl", "chart.html", "chart.png"}
    assert expected <= set(records)


def cloned(folder: Path, name: str) -> Path:
    """A copy of the project whose code says its name where a parameter is refused."""
    clone = folder / name
    for part in ("finagent_model", "entrypoints"):
        shutil.copytree(ROOT / part, clone / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("MLproject", "conda.yaml"):
        shutil.copy(ROOT / part, clone / part)
    errors = clone / "finagent_model" / "_base.py"
    errors.write_text(errors.read_text().replace("parameter {message", f"{name} {{message"))
    return clone


@pytest.mark.slow
@pytest.mark.parametrize("manager", ["local", "uv"])
def test_mlproject_runs_its_own_clones_code(tmp_path: Path, manager: str) -> None:
    """`local` is the environment of this process, which has the first checkout installed; `uv`
    makes one for the first clone and, by the hash of conda.yaml, takes it again for the second.
    """
    place = Place(tmp_path)
    environments = tmp_path / "environments"
    for name in ("ONE", "TWO"):
        project = str(cloned(tmp_path, name))
        bad = ["-e", "train", "--env-manager", manager, "-P", "train_bars=3"]
        done = place.run("mlflow", "run", project, *bad, MLFLOW_ENV_ROOT=str(environments))
        assert f"{name} train_bars" in done.stderr, done.stderr[-2000:]
    made = [path.name for path in environments.glob("*") if path.is_dir()]
    assert len(made) == (1 if manager == "uv" else 0), made


@pytest.mark.slow
def test_the_entry_points_share_the_commands_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "entrypoints.train", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--train-bars" in done.stdout
