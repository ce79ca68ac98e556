"""Every record on servers, swapped in by the environment alone: PostgreSQL, an object store and
MLflow's server on both. What is registered there is what the files of one machine would hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx
import pytest
from conftest import AS_OF, Place, small_options
from stores import BUCKET, KEY, SECRET, Stores

pytestmark = pytest.mark.servers
TRAIN = ["train", *small_options(), "--json"]
MODELS = " where name not like '%.%'"
"""In MLflow's registry, where prompts are beside them as NAME.PROMPT."""


@dataclass(frozen=True)
class Remote(Place):
    """A place whose store is a server's; nothing else is told to the commands."""

    address: str = ""
    told: Mapping[str, str] = field(default_factory=dict)
    """What else the environment says."""

    @property
    def env(self) -> dict[str, str]:
        return {**super().env, "MLFLOW_TRACKING_URI": self.address, **self.told}


@pytest.fixture(scope="module")
def remote(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Remote:
    """Where `finagent train` has just made version 1."""
    place = Remote(tmp_path_factory.mktemp("remote"), address=stores.tracking.address)
    done = place.finagent(*TRAIN)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)  # and nothing but the result is on stdout
    assert (made["version"], made["verdict"]) == ("1", "passed")
    return place


def test_a_training_on_servers_makes_the_package_that_one_machine_makes(
    remote: Remote, trained: Place
) -> None:
    [there] = json.loads(remote.finagent("models", "--json").stdout)
    [here] = json.loads(trained.finagent("models", "--json").stdout)
    same = ("version", "aliases", "verdict", "content_hash", "evidence")
    assert {k: there[k] for k in same} == {k: here[k] for k in same}


def test_a_decision_of_the_served_champion_is_the_one_of_the_files(
    remote: Remote, trained: Place
) -> None:
    done = remote.finagent("predict", "FB", "--as-of", AS_OF, "--json", "--log")
    assert done.returncode == 0, done.stderr
    there, here = json.loads(done.stdout), trained.signal("FB", "--as-of", AS_OF)
    for signal in (there, here):
        del signal["generated_at"], signal["run_id"]
    assert there == here


def test_the_database_has_every_row_of_what_was_done(remote: Remote, stores: Stores) -> None:
    tag = "select value from tags where run_uuid = runs.run_uuid and key = 'finagent.stage'"
    stages = stores.rows(f"select ({tag}), status from runs order by 1")
    assert stages == [(stage, "FINISHED") for stage in ("backtest", "infer", "train")]
    assert stores.rows(f"select name, version from model_versions{MODELS}") == [("finagent", 1)]
    aliases = stores.rows("select alias, version from registered_model_aliases order by alias")
    assert aliases == [("candidate", 1), ("champion", 1)]
    [(curve,)] = stores.rows("select count(*) from metrics where key = 'equity'")
    assert curve == 71
    tags = stores.rows("select key from model_version_tags")
    verdict = ("finagent.verdict", "finagent.content_hash", "finagent.evidence")
    assert {(key,) for key in verdict} <= set(tags)


def test_the_object_store_has_every_artifact_whole_and_no_other(
    remote: Remote, stores: Stores
) -> None:
    listed = json.loads(remote.run("python", "-c", LISTED).stdout)
    assert {key: size for key, size in stores.objects.sizes().items() if size} == listed
    assert any(key.endswith("/ledger.parquet") for key in listed)
    assert any(key.endswith("/package/manifest.json") for key in listed)
    assert not list(remote.folder.rglob("mlruns"))  # nothing was left on this machine


def test_no_key_of_the_store_is_in_a_row_or_a_log(remote: Remote, stores: Stores) -> None:
    for table in ("params", "tags", "model_version_tags", "logged_model_tags"):
        assert SECRET not in str(stores.rows(f"select * from {table}"))
    assert SECRET not in stores.tracking.log.read_text()


def test_a_key_that_the_store_refuses_is_named_as_such_and_leaves_nothing_open(
    remote: Remote, stores: Stores
) -> None:
    """As after a rotation that MLflow's server was not told of."""
    stores.objects.kill()
    stores.objects.know("finagent-test", "another-secret")
    stores.objects.start()
    try:
        options = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
        read = remote.finagent("predict", "FB", "--as-of", AS_OF, "--log", **options)
        write = remote.finagent(*TRAIN, "--register-as", "other", **options)
    finally:
        stores.objects.kill()
        stores.objects.know("finagent-test", SECRET)
        stores.objects.start()
    assert (read.returncode, write.returncode) == (4, 2), read.stderr + write.stderr
    for said in (read.stderr, write.stderr):
        assert "Traceback" not in said
        assert stores.tracking.address in said
    assert stores.rows("select count(*) from runs where status = 'RUNNING'") == [(0,)]
    assert stores.rows(f"select name from registered_models{MODELS}") == [("finagent",)]


def test_a_client_with_a_wrong_key_of_its_own_is_told_what_the_store_said(
    remote: Remote, stores: Stores
) -> None:
    """Where artifacts don't go through MLflow's server."""
    made = httpx.post(
        f"{stores.tracking.address}/api/2.0/mlflow/experiments/create",
        json={"name": "direct", "artifact_location": f"s3://{BUCKET}/direct"},
    )
    assert made.status_code == 200
    keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": "wrong-but-still-a-secret"}
    place = {"MLFLOW_EXPERIMENT_NAME": "direct", "MLFLOW_S3_ENDPOINT_URL": stores.objects.address}
    done = remote.finagent("predict", "FB", "--as-of", AS_OF, "--log", **place, **keys)
    assert done.returncode == 2, done.stderr
    assert "SignatureDoesNotMatch" in done.stderr
    assert "Traceback" not in done.stderr
    assert "wrong-but-still-a-secret" not in done.stderr
    assert stores.rows("select count(*) from runs where status = 'RUNNING'") == [(0,)]


def test_mlflows_server_answers_to_its_names_and_to_no_other(stores: Stores) -> None:
    """So that no page of another site can reach it through a browser."""
    answers = {}
    address = f"{stores.tracking.address}/api/2.0/mlflow/experiments/get?experiment_id=0"
    for host in ("mlflow:5000", "127.0.0.1:5000", "elsewhere.example:5000"):
        asked = httpx.get(address, headers={"Host": host}, timeout=30)
        answers[host] = asked.status_code
    assert list(answers.values()) == [200, 200, 403]


LISTED = """
import json
from mlflow.tracking import MlflowClient
client, found = MlflowClient(), {}
def walk(list_, root, path=None):
    for each in list_(path):
        if each.is_dir:
            walk(list_, root, each.path)
        elif each.file_size:
            found[f"{root}/{each.path}"] = each.file_size
for experiment in client.search_experiments():
    id_ = experiment.experiment_id
    for run in client.search_runs([id_]):
        run_id = run.info.run_id
        walk(lambda p: client.list_artifacts(run_id, p), f"{id_}/{run_id}/artifacts")
    for model in client.search_logged_models([id_]):
        name, listing = model.model_id, client.list_logged_model_artifacts
        walk(lambda p: listing(name, p), f"{id_}/models/{name}/artifacts")
print(json.dumps(found))
"""
