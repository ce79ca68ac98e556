"""The DAG under CeleryExecutor: tasks go over Redis to a worker, their states are in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from support.airflow_servers import Airflow, airflow
from support.places import AS_OF, SMALL, Place

pytestmark = pytest.mark.servers
KEY = "sk-test-0123456789-very-secret"


@pytest.fixture(scope="module")
def spread(trained: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    place = Place(tmp_path_factory.mktemp("spread"))
    (place.folder / "mlflow.db").write_bytes((trained.folder / "mlflow.db").read_bytes())
    home = tmp_path_factory.mktemp("celery") / "home"
    with airflow(place, home, celery=True, OPENAI_API_KEY=KEY) as found:
        yield found


def test_celery_worker_decides_as_a_shell_does(spread: Airflow) -> None:
    run = spread.start(symbols=["FB", "AAPL"], as_of=AS_OF)
    assert spread.ended(run) == "success", spread.told(run)
    for index, symbol in enumerate(("FB", "AAPL")):
        found = spread.xcom(run, "inference.decide", index)
        shell = spread.place.signal(symbol, "--as-of", AS_OF, "--mode", "replay")
        same = ("symbol", "status", "action", "model_version")
        assert {name: found[name] for name in same} == {name: shell[name] for name in same}
    assert "succeeded in" in (spread.home / "worker.log").read_text()


def test_celery_worker_trains_and_registers(spread: Airflow) -> None:
    train = {k: v for k, v in SMALL.items() if k != "symbols"} | {"register_as": "spread"}
    run = spread.start(mode="train_backtest", symbols=["FB"], train=train)
    assert spread.ended(run) == "success", spread.told(run)
    [row] = json.loads(spread.place.finagent("models", "--name", "spread", "--json").stdout)
    assert row["verdict"] == "passed"
    assert spread.states(run)["inference.resolve_inputs"] == "skipped"


def test_celery_xcoms_are_small_without_keys_in_logs(spread: Airflow) -> None:
    assert spread.largest_xcom() < 2048
    assert list(spread.home.rglob("task_id=*/**/*.log"))
    assert KEY not in spread.text_of_logs()
