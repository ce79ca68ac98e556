"""`mlflow run`: parameters agree with the code, bad ones leave nothing running, clones are two."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, SMALL, Place

from finagent_model.training.request import TrainRequest

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


def test_the_parameters_and_defaults_of_train_are_the_codes() -> None:
    for entry in ("main", "train"):
        parameters = project()["entry_points"][entry]["parameters"]
        given = {name: row["default"] for name, row in parameters.items()}
        assert given.pop("jobs") == 1  # how, not what
        assert TrainRequest.read(**given) == TrainRequest()
        assert list(given) == list(TrainRequest.model_fields)


def test_every_entry_point_runs_from_the_checkout() -> None:
    points = project()["entry_points"]
    assert list(points) == ["main", "train", "backtest", "predict"]
    for name, point in points.items():
        module = "train" if name == "main" else name
        assert point["command"].startswith(f"python -m entrypoints.{module} ")
        assert (ROOT / "entrypoints" / f"{module}.py").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("train_bars=many", "parameter train_bars"),
        ("commission=2", "allowed: at least 0, below 0.1"),
        ("mode=dry", "one of ['cached', 'live', 'replay']"),
        ("colour=red", "--colour"),
    ],
)
def test_a_bad_value_names_itself_and_leaves_no_run_running(
    tmp_path: Path, option: str, said: str
) -> None:
    place = Place(tmp_path)
    done = place.run(
        "mlflow", "run", str(ROOT), "-e", "train", "--env-manager", "local", "-P", option
    )
    assert done.returncode != 0
    assert said in done.stderr + done.stdout
    assert json.loads(place.run(sys.executable, "-c", STATUSES).stdout) == ["FAILED"]


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
    statuses = json.loads(place.run(sys.executable, "-c", STATUSES).stdout)
    assert set(statuses) == {"FINISHED"}
    records = json.loads(place.run(sys.executable, "-c", RECORDS).stdout)
    expected = {"signal.json", "autogen_conversation.jsonl", "chart.html", "chart.png"}
    assert expected <= set(records)


@pytest.mark.slow
def test_a_clone_runs_its_own_code_in_an_environment_that_another_clone_made(
    tmp_path: Path,
) -> None:
    """Both use the environment of this process, which has the first checkout installed."""
    clone = tmp_path / "clone"
    for name in ("finagent_model", "entrypoints"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("MLproject", "conda.yaml"):
        shutil.copy(ROOT / name, clone / name)
    errors = clone / "finagent_model" / "domain" / "request.py"
    errors.write_text(errors.read_text().replace("parameter {explain", "CLONE {explain"))
    place = Place(tmp_path)
    bad = ["-e", "train", "--env-manager", "local", "-P", "train_bars=3"]
    here = place.run("mlflow", "run", str(ROOT), *bad)
    there = place.run("mlflow", "run", str(clone), *bad)
    assert "parameter train_bars" in here.stderr and "CLONE" not in here.stderr
    assert "CLONE train_bars" in there.stderr


def test_the_entry_points_share_the_commands_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "entrypoints.train", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--train-bars" in done.stdout
