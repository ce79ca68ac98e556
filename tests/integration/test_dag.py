"""The Airflow DAG: three modes run for real, ids alone between tasks, nothing heavy at parsing."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from finagent_model.training.request import TrainRequest
from support.dag_file import load_dag_file
from support.places import AS_OF, ROOT, SMALL, Place

pytestmark = pytest.mark.slow
DAG = "finagent_autogen_pipeline"
LARGEST_XCOM = 2048
DOWNLOAD = """
import json, sys
from mlflow.artifacts import load_text
from mlflow.tracking import MlflowClient
run = MlflowClient().get_run(sys.argv[1])
print(json.dumps(json.loads(load_text(run.info.artifact_uri + "/signal.json"))))
"""


def airflow(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    return place.run(
        "airflow",
        *arguments,
        AIRFLOW_HOME=str(place.folder / "airflow"),
        AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags"),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__UNIT_TEST_MODE="False",
    )


@pytest.fixture(scope="module")
def airflow_place(trained: Place) -> Place:
    done = airflow(trained, "db", "migrate")
    assert done.returncode == 0, done.stderr
    return trained


def xcoms(place: Place) -> list[tuple[str, int, str]]:
    """Task, map index and value of everything that passed between tasks of the last run."""
    with sqlite3.connect(place.folder / "airflow" / "airflow.db") as db:
        rows = db.execute(
            "select task_id, map_index, value from xcom where dag_run_id = "
            "(select id from dag_run order by id desc limit 1)"
        )
        return [(task, index, str(value)) for task, index, value in rows]


def states(place: Place) -> dict[str, str]:
    with sqlite3.connect(place.folder / "airflow" / "airflow.db") as db:
        rows = db.execute(
            "select task_id, state from task_instance where run_id = "
            "(select run_id from dag_run order by id desc limit 1)"
        )
        return dict(rows.fetchall())


def decided(place: Place) -> dict[str, object]:
    """What `inference.decide` handed on."""
    [value] = [v for task, _, v in xcoms(place) if task == "inference.decide" and "run_id" in v]
    result = json.loads(value)
    return json.loads(result) if isinstance(result, str) else dict(result)


def run_mode(place: Place, **conf: object) -> None:
    done = airflow(place, "dags", "test", DAG, "--conf", json.dumps(conf))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert max(len(value) for _, _, value in xcoms(place)) < LARGEST_XCOM


def logged(place: Place, run_id: object) -> dict[str, object]:
    """The signal in a run's record."""
    done = place.python(DOWNLOAD, str(run_id))
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_dag_inference_decides_with_champion_as_of_the_day(
    airflow_place: Place,
) -> None:
    run_mode(airflow_place, symbols=["FB"], as_of=AS_OF)
    task_states = states(airflow_place)
    assert task_states["inference.decide"] == "success"
    assert task_states["train_backtest.fit"] == "skipped"
    result = decided(airflow_place)
    assert (result["status"], result["model_version"]) == ("ok", "1")
    # The same decision by another door, field by field; its stamp is the record's, not its own.
    task = logged(airflow_place, result["run_id"])
    shell = airflow_place.signal("FB", "--as-of", AS_OF, "--mode", "replay")
    assert task.pop("generated_at") != shell.pop("generated_at")
    assert task == shell


def test_dag_both_infers_with_the_new_version(airflow_place: Place) -> None:
    train = {k: v for k, v in SMALL.items() if k != "symbols"} | {"register_as": "fresh"}
    run_mode(airflow_place, mode="both", symbols=["FB"], as_of=AS_OF, train=train)
    assert decided(airflow_place)["model_version"] == "1"
    [row] = json.loads(airflow_place.finagent("models", "--name", "fresh", "--json").stdout)
    assert row["verdict"] == "passed"
    uris = [v for task, _, v in xcoms(airflow_place) if task == "inference.resolve_inputs"]
    assert any("models:/fresh/1" in value for value in uris)


def test_dag_train_backtest_registers_without_inference(airflow_place: Place) -> None:
    fields = {k: int(v) for k, v in SMALL.items() if k != "symbols"} | {"register_as": "only"}
    run_mode(airflow_place, mode="train_backtest", symbols=["FB"], **fields)
    task_states = states(airflow_place)
    assert task_states["train_backtest.register"] == "success"
    assert task_states["inference.decide"] == "skipped"


def test_dag_refuses_unknown_mode_before_any_task(airflow_place: Place) -> None:
    done = airflow(airflow_place, "dags", "test", DAG, "--conf", '{"mode": "dream"}')
    assert done.returncode != 0
    assert "dream" in done.stdout + done.stderr


def test_dag_file_imports_nothing_but_airflow() -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'dags')!r})\n"
        f"import {DAG}\n"
        "heavy = {'mlflow', 'pandas', 'autogen_core', 'numba', 'finagent_model'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    before = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from airflow.sdk import DAG\n"
            "print(sorted({'mlflow', 'pandas', 'autogen_core', 'numba'} & set(sys.modules)))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == before.stdout.splitlines()[-1]


@pytest.mark.parametrize("intervals", ["True", "False"])
def test_dag_scheduled_run_is_dated_by_its_moment(
    monkeypatch: pytest.MonkeyPatch, intervals: str
) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    # Dated by the start of an interval, it would decide a session late.
    monkeypatch.setenv("AIRFLOW__SCHEDULER__CREATE_CRON_DATA_INTERVALS", intervals)
    file = load_dag_file(monkeypatch, FINAGENT_DAG_SCHEDULE="0 22 * * 1-5")
    dag = file.closing.operator.dag
    assert dag.schedule.expression == "0 22 * * 1-5"
    read = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    run = read.next_dagrun_info(last_automated_run_info=None)
    assert run and run.data_interval.start == run.run_after
    # Nothing is decided as soon as the DAG is unpaused.
    assert run.run_after > datetime.now(UTC)


def test_dag_wiring_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "FINAGENT_DAG_POOL": "models",
        "FINAGENT_DAG_AT_ONCE": "8",
        "FINAGENT_DAG_AT_ONCE_A_RUN": "4",
        "FINAGENT_DAG_RETRIES": "5",
        "FINAGENT_DAG_TRAIN_WITHIN_S": "60",
        "FINAGENT_DAG_DECIDE_WITHIN_S": "30",
        "FINAGENT_DAG_EXECUTION_ID": "logical_date",
        "FINAGENT_AUTOGEN_DEFAULT_MODE": "both",
        "FINAGENT_MODEL": "models:/desk@champion",
        "STOCK_SYMBOLS": "TSLA, NVDA",
    }
    dag = load_dag_file(monkeypatch, **variables).closing.operator.dag
    wiring = {
        task.task_id: [
            task.pool,
            task.max_active_tis_per_dag,
            task.max_active_tis_per_dagrun,
            task.retries,
            task.execution_timeout.total_seconds(),
        ]
        for task in dag.tasks
    }
    assert wiring["train_backtest.fit"] == ["models", None, None, 5, 60]
    assert wiring["train_backtest.backtest"] == ["models", 8, 4, 5, 60]
    assert wiring["inference.decide"] == ["models", 8, 4, 5, 30]
    assert dag.params["mode"] == "both"
    assert dag.params["model"] == "models:/desk@champion"
    assert dag.params["symbols"] == ["TSLA", "NVDA"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FINAGENT_DAG_AT_ONCE", "many", "invalid literal"),
        ("FINAGENT_DAG_PYTHON", "'/opt/python", "No closing quotation"),
        ("FINAGENT_DAG_SCHEDULE", "@once", "write it as cron"),
        ("FINAGENT_DAG_SCHEDULE", "99 22 * * *", "write it as cron"),
        ("FINAGENT_AUTOGEN_DEFAULT_MODE", "train", "it is none of inference, train_backtest, both"),
        ("STOCK_SYMBOLS", "GOOG,GOOG", "write different symbols"),
        ("FINAGENT_DAG_EXECUTION_ID", "date", "it is none of run_id, logical_date"),
    ],
)
def test_dag_names_bad_variable_in_import_error(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        load_dag_file(monkeypatch, **{name: value})
    assert f"{name}={value!r} can't be used" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "execution"), [("run_id", "r7"), ("logical_date", "2012-06-29T22:00:00.500000+00:00")]
)
def test_dag_execution_is_named_as_the_variable_says(
    monkeypatch: pytest.MonkeyPatch, name: str, execution: str
) -> None:
    file = load_dag_file(monkeypatch, FINAGENT_DAG_EXECUTION_ID=name)
    moment = datetime.fromisoformat("2012-06-29T22:00:00.500000+00:00")
    run = SimpleNamespace(dag_id=DAG, run_id="r7", logical_date=None, run_after=moment)
    ti = SimpleNamespace(task_id="t", map_index=-1, try_number=1, max_tries=0)
    told = file.describe_task({"dag_run": run, "ti": ti, "params": {}})
    assert told["execution_id"] == execution


def test_dag_symbol_indices_fit_xcom_limit() -> None:
    text = (ROOT / "dags" / f"{DAG}.py").read_text()
    [most] = re.findall(r"^MAX_SYMBOLS = (\d+)$", text, flags=re.M)
    assert len(json.dumps([0] * int(most))) < LARGEST_XCOM


def test_dag_form_explains_every_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    dag = load_dag_file(monkeypatch).closing.operator.dag
    for name in dag.params:
        param = dag.params.get_param(name)
        assert all(param.schema[key] for key in ("title", "section", "type")), name
        assert "efault" in param.description, name
        assert param.resolve() == param.value


def test_dag_form_of_training_is_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    dag = load_dag_file(monkeypatch).closing.operator.dag
    properties = TrainRequest.model_json_schema()["properties"]
    for name, known in properties.items():
        if name in ("symbols", "schedule"):
            continue
        param = dag.params.get_param("train_mode" if name == "mode" else name)
        if name != "register_as":  # by the environment where it is empty
            assert param.value == known["default"], name
        for bound in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "enum"):
            assert param.schema.get(bound) == known.get(bound), (name, bound)
    for text in ("change", "1", "250"):
        dag.params["schedule"] = text
        assert str(TrainRequest(schedule=text).schedule) == text
    with pytest.raises(ValueError, match="251"):
        dag.params["schedule"] = "251"


def test_dag_parameters_are_documented(airflow_place: Place) -> None:
    done = airflow(airflow_place, "dags", "details", DAG, "--output", "json")
    assert done.returncode == 0, done.stderr
    page = (ROOT / "docs" / "airflow.md").read_text()
    modes = ("inference", "train_backtest", "both")
    file = Path(ROOT / "dags" / f"{DAG}.py").read_text()
    parameters = re.findall(r'^        "(\w+)": Param\(', file, flags=re.M)
    assert {"mode", "symbols", "as_of", "model", "train"} <= set(parameters)
    for word in (DAG, *modes, *parameters):
        assert f"`{word}`" in page
        assert f'"{word}"' in file
