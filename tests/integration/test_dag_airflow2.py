"""The DAG on Airflow 2.10, which has nothing of this package: another Python does the tasks."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from support.airflow2 import Airflow2, make_airflow2
from support.places import AS_OF, ROOT, Place

pytestmark = pytest.mark.slow
DAG = "finagent_autogen_pipeline"
PARSED = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
found = {}
for mode in ("inference", "train_backtest", "both"):
    os.environ["FINAGENT_AUTOGEN_DEFAULT_MODE"] = mode
    sys.modules.pop("finagent_autogen_pipeline", None)
    import finagent_autogen_pipeline as file
    dag = file.closing.operator.dag
    dag.validate()
    run = dag.next_dagrun_info(None)
    found[dag.params["mode"]] = [run.data_interval.start == run.run_after, len(dag.tasks)]
import airflow
heavy = sorted({"mlflow", "autogen_core", "finagent_model"} & set(sys.modules))
print(json.dumps([airflow.__version__, heavy, found]))
"""

FOLLOWED = """
import sys
from airflow.datasets import Dataset
from airflow.datasets.manager import dataset_manager
from airflow.models import DagBag
from airflow.models.dataset import DatasetEvent
from airflow.utils import timezone
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunType

bag = DagBag(sys.argv[1], include_examples=False)
assert not bag.import_errors, bag.import_errors
bag.sync_to_db()
dag, now = bag.dags["after_training"], timezone.utcnow()
with create_session() as session:
    # As `register` names it: Airflow 2 adds the slash to a URI without a path.
    registered = Dataset("finagent-model://finagent")
    event = {"name": "finagent", "version": "7"}
    dataset_manager.register_dataset_change(dataset=registered, extra=event, session=session)
    run = dag.create_dagrun(
        run_type=DagRunType.DATASET_TRIGGERED, run_id="d1", state=DagRunState.RUNNING,
        execution_date=now, data_interval=(now, now), session=session,
    )
    run.consumed_dataset_events.extend(session.query(DatasetEvent))
    [ti] = run.get_task_instances(session=session)
    ti.task = dag.get_task("tell")
    session.commit()
    ti.run(session=session)
    print(ti.xcom_pull("tell", session=session))
"""


@pytest.fixture(scope="module")
def airflow2(trained: Place, tmp_path_factory: pytest.TempPathFactory) -> Airflow2:
    made = make_airflow2(tmp_path_factory.mktemp("airflow2"), trained)
    done = made.run("airflow", "db", "migrate")
    assert done.returncode == 0, done.stderr
    return made


@pytest.mark.parametrize("intervals", ["True", "False"])
def test_dag_on_airflow_2_is_parsed_in_each_mode(airflow2: Airflow2, intervals: str) -> None:
    done = airflow2.run(
        "python",
        "-c",
        PARSED,
        str(ROOT / "dags"),
        FINAGENT_DAG_SCHEDULE="0 22 * * 1-5",
        AIRFLOW__SCHEDULER__CREATE_CRON_DATA_INTERVALS=intervals,
    )
    assert done.returncode == 0, done.stderr
    version, heavy, found = json.loads(done.stdout.splitlines()[-1])
    assert version == "2.10.5"
    assert heavy == []
    # A run is dated by the moment of its schedule, so that it decides on that day's close.
    assert found == {mode: [True, 9] for mode in ("inference", "train_backtest", "both")}


def test_dag_on_airflow_2_decides_as_the_shell_does(airflow2: Airflow2) -> None:
    conf = json.dumps({"symbols": ["FB"], "as_of": AS_OF})
    done = airflow2.run("airflow", "dags", "test", DAG, "--conf", conf)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    with closing(sqlite3.connect(airflow2.folder / "home" / "airflow.db")) as db:
        states = dict(db.execute("select task_id, state from task_instance"))
        [row] = db.execute(
            "select value from xcom where task_id = 'inference.decide' and key = 'return_value'"
        )
    assert states["close_run"] == states["inference.decide"] == "success"
    assert states["train_backtest.fit"] == "skipped"
    outcome = json.loads(row[0])
    shell = airflow2.place.signal("FB", "--as-of", AS_OF, "--mode", "replay")
    assert [outcome[key] for key in ("status", "action", "model_version")] == [
        shell[key] for key in ("status", "action", "model_version")
    ]


def test_dag_on_airflow_2_is_followed_by_the_example(airflow2: Airflow2) -> None:
    example = ROOT / "docs" / "examples" / "after_training_airflow2.py"
    done = airflow2.run("python", "-c", FOLLOWED, str(example))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "models:/finagent/7"
