"""The whole platform on servers: Airflow on PostgreSQL, records on MLflow's server, artifacts on
PostgreSQL, the web UI before them. What `make smoke` asks of the containers is asked of these; then
each server is killed while a run is at work.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator

import pytest

from support.airflow_servers import PASSWORD, Airflow, airflow
from support.intercepting_proxy import Tripwire
from support.places import AS_OF, ROOT, SMALL, free_port
from support.record_servers import Stores
from support.remote_place import Remote, require_whole, server

pytestmark = pytest.mark.servers
TOKEN = "a token of this test alone"
AWAY_S = 3.0
"""How long a server is gone: MLflow's client tries for longer, the database's does not."""


@pytest.fixture(scope="module")
def door(stores: Stores) -> Iterator[Tripwire]:
    with Tripwire(stores.tracking.port) as door:
        yield door


@pytest.fixture(scope="module")
def place(stores: Stores, door: Tripwire, tmp_path_factory: pytest.TempPathFactory) -> Remote:
    database = stores.postgres.database("artifacts")
    told = {"FINAGENT_DATABASE": database, "FINAGENT_API_TOKEN": TOKEN}
    return Remote(tmp_path_factory.mktemp("platform"), address=door.address, told=told)


@pytest.fixture(scope="module")
def running(place: Remote, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    patient = {"FINAGENT_DAG_RETRIES": "2", "FINAGENT_DAG_RETRY_DELAY_S": "3"}
    with airflow(place, tmp_path_factory.mktemp("airflow") / "home", **patient) as found:
        # As the container `prepare` does before the others start; once more is nothing new.
        told = {"AIRFLOW_USER": "ann", "AIRFLOW_PASSWORD": PASSWORD}
        settings = {k: v for k, v in found.env.items() if k.startswith("AIRFLOW")}
        prepared = place.run("sh", str(ROOT / "airflow" / "prepare.sh"), **settings, **told)
        assert prepared.returncode == 0, prepared.stderr
        yield found


def kinds(stores: Stores, run: str) -> dict[str, int]:
    """How many artifacts of each type a run of the DAG left."""
    query = f"select type, count(*) from artifacts where execution_id = '{run}' group by type"
    return dict(stores.postgres.rows("artifacts", query))


def test_platform_run_leaves_every_record(place: Remote, running: Airflow, stores: Stores) -> None:
    port = free_port()
    ui = [sys.executable, "-m", "finagent_model.cli", "ui", "--port", str(port)]
    with place.serving(*ui, port=port) as address:
        smoke = [sys.executable, str(ROOT / "airflow" / "smoke.py"), "--ui", address]
        api = str(running.client.base_url).removesuffix("/api/v2/")
        asked_by = {"AIRFLOW_USER": "ann", "AIRFLOW_PASSWORD": PASSWORD}
        done = place.run(*smoke, "--airflow", api, **asked_by)
    assert done.returncode == 0, done.stderr + running.text_of_logs()[-3000:]
    assert done.stdout.startswith("FB: ")
    [run] = running.runs()
    assert kinds(stores, run["dag_run_id"]) == {"signal": 1, "llm": 3, "chart": 1}
    made = stores.rows("select version from model_versions where name = 'smoke'")
    aliases = stores.rows("select alias from registered_model_aliases where name = 'smoke'")
    assert (made, sorted(aliases)) == ([(1,)], [("candidate",), ("champion",)])
    require_whole(place, stores)


def test_platform_run_survives_lost_servers(
    place: Remote, running: Airflow, stores: Stores, door: Tripwire
) -> None:
    losses = [
        ("postgres", r"POST .*/runs/log-batch"),
        ("objects", r"PUT .*/package/manifest\.json"),
        ("tracking", r"POST .*/model-versions/create"),
        ("postgres", r"PUT .*/signal\.json"),
    ]
    timers: list[threading.Timer] = []

    def lose_the_next() -> None:
        name, request = losses.pop(0)
        lost = server(stores, name)

        def lose() -> None:
            lost.kill()
            timers.append(threading.Timer(AWAY_S, lost.start))
            timers[-1].start()
            if losses:
                lose_the_next()

        door.at(request, lose)

    lose_the_next()
    train = {k: v for k, v in SMALL.items() if k != "symbols"} | {"register_as": "lossy"}
    run = running.start(mode="both", symbols=["FB"], as_of=AS_OF, train=train)
    state = running.ended(run)
    for timer in timers:
        timer.join()
    assert (state, losses, len(timers)) == ("success", [], 4), running.told(run)
    synced = place.finagent("db", "sync", "--json")  # what the database missed while it was away
    assert synced.returncode == 0, synced.stderr
    assert kinds(stores, run) == {"signal": 1, "llm": 3, "chart": 1}
    [newest] = json.loads(place.finagent("models", "--name", "lossy", "--json").stdout)
    assert newest["aliases"] == ["candidate", "champion"]
    require_whole(place, stores)
