"""What `finagent train` leaves behind, and what a second or a killed one does."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from support.killed_training import TRAP
from support.places import AS_OF, ROOT, Place, small_options

pytestmark = pytest.mark.slow

LOOK = """
import json, sys
from mlflow.tracking import MlflowClient
client = MlflowClient()
[experiment] = [e for e in client.search_experiments() if e.name == "finagent"]
rows = []
for run in client.search_runs([experiment.experiment_id]):
    files = [f.path for f in client.list_artifacts(run.info.run_id)]
    history = len(client.get_metric_history(run.info.run_id, "equity"))
    rows.append({"id": run.info.run_id, "name": run.info.run_name, "status": run.info.status,
                 "params": run.data.params, "metrics": run.data.metrics, "files": files,
                 "equity_points": history})
print(json.dumps(rows))
"""


def runs(place: Place) -> list[dict[str, object]]:
    done = place.python(LOOK)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def stored(place: Place, query: str) -> list[tuple[str, ...]]:
    """Straight from MLflow's tables: a client takes six seconds to import."""
    with closing(sqlite3.connect(place.folder / "mlflow.db")) as store:
        return store.execute(query).fetchall()


def test_training_logs_all_artifacts(
    trained: Place,
) -> None:
    by_name = {run["name"]: run for run in runs(trained)}
    parent, child = by_name["train FB"], by_name["backtest FB"]
    assert parent["status"] == child["status"] == "FINISHED"
    assert {"config.yaml", "policy.json", "gate.json", "report.md"} <= set(parent["files"])  # type: ignore[call-overload]
    assert {
        "equity_FB.png",
        "equity_FB.html",
        "ledger.parquet",
        "trades.parquet",
        "autogen_conversation.jsonl",
    } <= set(child["files"])  # type: ignore[call-overload]
    assert child["equity_points"] == 71
    assert {"total_return", "benchmark_total_return", "sharpe"} <= set(child["metrics"])  # type: ignore[call-overload]
    assert parent["params"]["symbols"] == "FB"  # type: ignore[index]


def test_a_second_training_of_the_same_inputs_has_the_same_content_hash(trained: Place) -> None:
    """By another name of the same configuration, too."""
    preset = ROOT / "finagent_model" / "config" / "presets" / "default.yaml"
    (trained.folder / "copy.yaml").write_bytes(preset.read_bytes())
    options = [*small_options(), "--json", "--register-as", "again", "--config", "copy.yaml"]
    done = trained.finagent("train", *options)
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)["content_hash"]
    [first] = json.loads(trained.finagent("models", "--json").stdout)
    assert again == first["content_hash"]


def test_the_champion_is_listed_with_its_verdict(trained: Place) -> None:
    [row] = json.loads(trained.finagent("models", "--json").stdout)
    assert (row["version"], row["aliases"], row["verdict"]) == (
        "1",
        ["candidate", "champion"],
        "passed",
    )


def test_backtest_rerun_gives_registered_signals(
    trained: Place,
) -> None:
    done = trained.finagent("backtest", "--json", FINAGENT_HOME=str(trained.folder / "empty"))
    assert done.returncode == 0, done.stderr
    [rerun] = json.loads(done.stdout)
    assert rerun["same_as_registered"] is True


def test_backtest_of_untrained_symbol_says_that_its_decisions_failed(trained: Place) -> None:
    home = str(trained.folder / "empty")
    done = trained.finagent("backtest", "--symbols", "GOOG", FINAGENT_HOME=home)
    assert done.returncode == 4, done.stderr
    assert done.stdout.startswith("GOOG: every decision FAILED, so nothing was traded")
    assert "no recorded reply of TechnicalAnalyst" in done.stdout
    assert "--mode cached" in done.stdout


def test_training_takes_symbols_that_begin_at_different_times(tmp_path: Path) -> None:
    place = Place(tmp_path)
    windows = ["--train-bars", "252", "--test-bars", "1000", "--candidates", "8"]
    done = place.finagent("train", "--symbols", "IBM,FB", *windows, "--schedule", "60")
    assert done.returncode == 0, done.stderr
    [description] = stored(place, "select description from model_versions where name = 'finagent'")
    # FB begins in May 2012 and has its hundredth bar in October.
    assert "but on FB from 2012-10-10 to " in description[0]


KILLED_AT = {
    "fitting": ("finagent_model.training.walk_forward", "search_policy", 2),
    "deciding": ("finagent_model.cassette.cassette.Cassette", "put", 60),
    "logging": ("finagent_model.tracking.runs.RunLog", "log_files", 1),
    "packaging": ("finagent_model.pipeline.finalize", "log_package", 1),
    "registering": ("finagent_model.tracking.registry", "mark_candidate", 1),
}
"""Where a training kills itself: an attribute, and the call of it that never returns."""


@pytest.mark.parametrize("place", KILLED_AT)
def test_training_killed_is_repeated_to_equal_package(
    trained: Place, tmp_path: Path, place: str
) -> None:
    where = Place(tmp_path)
    owner, name, call = KILLED_AT[place]
    victim = where.python(TRAP, owner, name, str(call), *small_options())
    assert victim.returncode == -signal.SIGKILL, victim.stderr
    assert stored(where, "select alias from registered_model_aliases") == []
    assert ("RUNNING",) in stored(where, "select status from runs where name = 'train FB'")

    done = where.finagent("train", *small_options(), "--json")
    assert done.returncode == 0, done.stderr
    [expected] = json.loads(trained.finagent("models", "--json").stdout)[-1:]
    assert json.loads(done.stdout)["content_hash"] == expected["content_hash"]
    statuses = stored(where, "select status from runs where name = 'train FB' order by status")
    assert statuses == [("FINISHED",), ("KILLED",)]
    assert ("RUNNING",) not in stored(where, "select status from runs")
    assert len(stored(where, "select alias from registered_model_aliases")) == 2


def test_a_model_answers_from_an_empty_folder_without_the_checkout(
    trained: Place, tmp_path: Path
) -> None:
    wheels = list((trained.folder / "mlruns").rglob("*.whl"))
    assert len({path.read_bytes() for path in wheels}) == 1
    wheel = wheels[0]
    site = tmp_path / "site"
    unpacked = trained.run(sys.executable, "-m", "zipfile", "-e", str(wheel), str(site))
    assert unpacked.returncode == 0
    script = f"""
import json, os, sys
root = {str(ROOT)!r}
read = []
def watch(event, args):
    if event == "open" and isinstance(args[0], str):
        path = os.path.abspath(args[0])
        if path.startswith(root + "/finagent_model") or path.startswith(root + "/entrypoints"):
            read.append(path)
sys.addaudithook(watch)
import mlflow, pandas
model = mlflow.pyfunc.load_model("models:/finagent@champion")
row = model.predict(pandas.DataFrame([{{"symbol": "FB", "as_of": "{AS_OF}"}}])).iloc[0].to_dict()
import finagent_model
print(json.dumps([finagent_model.__file__, row["status"], read]))
"""
    empty = tmp_path / "empty"
    empty.mkdir()
    done = trained.run(
        sys.executable,
        "-c",
        script,
        cwd=empty,
        PYTHONPATH=str(site),
        MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false",
    )
    assert done.returncode == 0, done.stderr
    origin, status, read = json.loads(done.stdout.splitlines()[-1])
    assert origin.startswith(str(site))
    assert (status, read) == ("ok", [])
    assert "trained with code" not in done.stderr


def test_a_model_answers_from_an_environment_that_is_made_for_it_alone(
    trained: Place, tmp_path: Path
) -> None:
    """The wheel inside the model is installed there; uv's cache is all that is shared."""
    asked, answered = tmp_path / "asked.json", tmp_path / "answered.json"
    asked.write_text(json.dumps({"dataframe_records": [{"symbol": "FB", "as_of": AS_OF}]}))
    done = trained.run(
        *("mlflow", "models", "predict", "-m", "models:/finagent@champion", "--env-manager", "uv"),
        *("-i", str(asked), "-o", str(answered)),
        cwd=tmp_path,
        PYTHONPATH="",
    )
    assert done.returncode == 0, done.stderr[-4000:]
    [signal] = json.loads(answered.read_text())["predictions"]
    here = trained.signal("FB", "--as-of", AS_OF)
    assert signal.pop("generated_at") != here.pop("generated_at")
    assert signal == here
    assert "trained with code" not in done.stderr
    assert "Creating a new environment" in done.stderr and "using uv" in done.stderr


def test_promote_and_rollback_move_the_champion(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for _ in range(2):
        assert place.finagent("train", *small_options()).returncode == 0
    back = place.finagent("rollback", "--json")
    assert json.loads(back.stdout)["version"] == "1"
    again = place.finagent("promote", "2", "--json")
    assert json.loads(again.stdout)["aliases"] == ["candidate", "champion"]
    missing = place.finagent("promote", "9")
    assert missing.returncode == 2
    assert "has no version '9'; it has: 2, 1" in missing.stderr


FINISH = """
import json, sys
from finagent_model.pipeline.finalize import finish_training
from finagent_model.settings import Settings
trained = finish_training(sys.argv[1], sys.argv[2:], Settings.load())
print(json.dumps([trained.version, trained.content_hash, trained.report[:1]]))
"""


def test_training_killed_registering_completes_version(
    tmp_path: Path,
) -> None:
    where = Place(tmp_path)
    owner, name, call = KILLED_AT["registering"]
    victim = where.python(TRAP, owner, name, str(call), *small_options())
    assert victim.returncode == -signal.SIGKILL, victim.stderr
    made = stored(where, "select run_uuid from runs order by start_time")
    [training, *children] = [run for (run,) in made]
    for _ in range(2):
        done = where.python(FINISH, training, *children)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])[0] == "1"
        assert stored(where, "select version from model_versions where name = 'finagent'") == [(1,)]
        aliases = stored(where, "select alias, version from registered_model_aliases")
        assert sorted(aliases) == [("candidate", 1), ("champion", 1)]
    assert stored(where, "select distinct status from runs") == [("FINISHED",)]
