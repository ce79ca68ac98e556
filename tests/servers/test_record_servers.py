"""Every record on servers, swapped in by the environment alone: PostgreSQL, an object store and
MLflow's server on both. What is registered there is what the files of one machine would hold.
"""

from __future__ import annotations

import json

import httpx
import pytest

from support.places import AS_OF, Place, small_options
from support.record_servers import BUCKET, KEY, SECRET, Stores
from support.remote_place import Remote

pytestmark = pytest.mark.servers
ASK = ["predict", "FB", "--as-of", AS_OF, "--model", "models:/clean@champion", "--log"]
CLEAN = "experiment_id = (select experiment_id from experiments where name = 'clean')"
"""Of the runs of `remote` alone: the servers have other tests' too."""


def test_a_training_on_servers_makes_the_package_that_one_machine_makes(
    remote: Remote, trained: Place
) -> None:
    [there] = json.loads(remote.finagent("models", "--name", "clean", "--json").stdout)
    [here] = json.loads(trained.finagent("models", "--json").stdout)
    same = ("version", "aliases", "verdict", "content_hash", "evidence")
    assert {k: there[k] for k in same} == {k: here[k] for k in same}


def test_a_decision_of_the_served_champion_is_the_one_of_the_files(
    remote: Remote, trained: Place
) -> None:
    done = remote.finagent(*ASK, "--json")
    assert done.returncode == 0, done.stderr
    there, here = json.loads(done.stdout), trained.signal("FB", "--as-of", AS_OF)
    for signal in (there, here):
        for named in ("generated_at", "run_id", "model_uri", "signal_id"):
            signal.pop(named, None)  # by time, run and model: nothing that was decided
    assert there == here


def test_the_database_has_every_row_of_what_was_done(remote: Remote, stores: Stores) -> None:
    tag = "select value from tags where run_uuid = runs.run_uuid and key = 'finagent.stage'"
    stages = stores.rows(f"select ({tag}), status from runs where {CLEAN} order by 1")
    assert stages == [(stage, "FINISHED") for stage in ("backtest", "infer", "train")]
    of_model = "where name = 'clean' order by 1"
    assert stores.rows(f"select version from model_versions {of_model}") == [(1,)]
    aliases = stores.rows(f"select alias, version from registered_model_aliases {of_model}")
    assert aliases == [("candidate", 1), ("champion", 1)]
    curve = f"metrics natural join runs where {CLEAN} and key = 'equity'"
    assert stores.rows(f"select count(*) from {curve}") == [(71,)]
    tags = stores.rows(f"select key from model_version_tags {of_model}")
    verdict = ("finagent.verdict", "finagent.content_hash", "finagent.evidence")
    assert {(key,) for key in verdict} <= set(tags)


def test_object_store_holds_every_artifact(remote: Remote, stores: Stores) -> None:
    [(number,)] = stores.rows("select experiment_id from experiments where name = 'clean'")
    listed = {k: v for k, v in remote.artifacts().items() if k.startswith(f"{number}/")}
    stored = {k: v for k, v in stores.objects.sizes().items() if k.startswith(f"{number}/")}
    assert {key: size for key, size in stored.items() if size} == listed
    assert any(key.endswith("/ledger.parquet") for key in listed)
    assert any(key.endswith("/package/manifest.json") for key in listed)
    assert not list(remote.folder.rglob("mlruns"))  # nothing was left on this machine


def test_no_key_of_the_store_is_in_a_row_or_a_log(remote: Remote, stores: Stores) -> None:
    for table in ("params", "tags", "model_version_tags", "logged_model_tags"):
        assert SECRET not in str(stores.rows(f"select * from {table}"))
    assert SECRET not in stores.tracking.log.read_text()


def test_object_store_refused_key_is_named(remote: Remote, stores: Stores) -> None:
    """As after a rotation that MLflow's server was not told of."""
    stores.objects.kill()
    stores.objects.know("finagent-test", "another-secret")
    stores.objects.start()
    try:
        options = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
        read = remote.finagent(*ASK, **options)
        write = remote.finagent("train", *small_options(), "--register-as", "other", **options)
    finally:
        stores.objects.kill()
        stores.objects.know("finagent-test", SECRET)
        stores.objects.start()
    assert (read.returncode, write.returncode) == (4, 2), read.stderr + write.stderr
    for said in (read.stderr, write.stderr):
        assert "Traceback" not in said
        assert stores.tracking.address in said
    assert stores.rows("select count(*) from runs where status = 'RUNNING'") == [(0,)]
    assert stores.rows("select name from registered_models where name = 'other'") == []


def test_a_client_with_a_wrong_key_of_its_own_is_told_what_the_store_said(
    remote: Remote, stores: Stores
) -> None:
    """Where artifacts don't go through MLflow's server."""
    experiments = f"{stores.tracking.address}/api/2.0/mlflow/experiments"
    direct = {"name": "direct", "artifact_location": f"s3://{BUCKET}/direct"}
    made = httpx.post(f"{experiments}/create", json=direct)
    assert made.status_code == 200
    keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": "wrong-but-still-a-secret"}
    place = {"MLFLOW_EXPERIMENT_NAME": "direct", "MLFLOW_S3_ENDPOINT_URL": stores.objects.address}
    done = remote.finagent(*ASK, "--mode", "live", **place, **keys)
    httpx.post(f"{experiments}/delete", json=made.json())  # who has no key can't list it
    assert done.returncode == 2, done.stderr
    assert "SignatureDoesNotMatch" in done.stderr
    assert "Traceback" not in done.stderr
    assert "wrong-but-still-a-secret" not in done.stderr
    assert stores.rows("select count(*) from runs where status = 'RUNNING'") == [(0,)]


def test_mlflow_server_answers_only_to_its_names(stores: Stores) -> None:
    """So that no page of another site can reach it through a browser."""
    answers = {}
    address = f"{stores.tracking.address}/api/2.0/mlflow/experiments/get?experiment_id=0"
    for host in ("mlflow:5000", "127.0.0.1:5000", "elsewhere.example:5000"):
        asked = httpx.get(address, headers={"Host": host}, timeout=30)
        answers[host] = asked.status_code
    assert list(answers.values()) == [200, 200, 403]
