"""A server killed in mid-run, before a chosen request: what is left is whole, and the command given
again ends well and asks no model twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from support.fake_llm import FakeProvider, Protocol
from support.intercepting_proxy import Tripwire
from support.places import AS_OF, small_options
from support.record_servers import Stores
from support.remote_place import Remote, require_whole, server

pytestmark = pytest.mark.servers
MODEL = "faulty"
GIVE_UP = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
KEY = {"OPENAI_API_KEY": "sk-test-0123456789-very-secret"}


@pytest.fixture(scope="module")
def door(stores: Stores) -> Iterator[Tripwire]:
    with Tripwire(stores.tracking.port) as door:
        yield door


@pytest.fixture(scope="module")
def place(door: Tripwire, tmp_path_factory: pytest.TempPathFactory) -> Remote:
    """Commands that work there reach MLflow through the door."""
    return Remote(tmp_path_factory.mktemp("faulty"), address=door.address)


def test_training_survives_loss_of_each_server(
    place: Remote, stores: Stores, door: Tripwire
) -> None:
    config = place.folder / "desk.yaml"
    train = ["train", *small_options(), "--schedule", "30", "--config", str(config), "--json"]
    with FakeProvider() as llm:
        address = llm.address(Protocol.OPENAI)
        config.write_text(f"client: openai\nmodel: stub\nbase_url: {address}\n")
        for name, request in (
            ("objects", r"PUT .*/package/manifest\.json"),
            ("postgres", r"POST .*/model-versions/create"),
            ("tracking", r"POST .*/registered-models/alias"),
        ):
            lost = server(stores, name)
            door.at(request, lost.kill)
            done = place.finagent(*train, "--register-as", MODEL, **GIVE_UP, **KEY)
            assert door.sprung.is_set(), done.stderr
            assert done.returncode == 2, done.stderr
            assert "can't be used" in done.stderr
            lost.start()
            versions = json.loads(place.finagent("models", "--name", MODEL, "--json").stdout)
            assert [row["aliases"] for row in versions] == [[]] * (name == "tracking")
        asked = len(llm.requests)
        assert asked

        # A server that comes back within MLflow's retries is not even noticed.
        def restart() -> None:
            stores.tracking.kill()
            stores.tracking.start()

        door.at(r"POST .*/model-versions/create", restart)
        done = place.finagent(*train, "--register-as", MODEL, **KEY)
        assert door.sprung.is_set()
        assert done.returncode in (0, 5), (
            done.stderr
        )  # 5: the gate has refused what this model says
        assert len(llm.requests) == asked
    [newest, older] = json.loads(place.finagent("models", "--name", MODEL, "--json").stdout)
    assert "candidate" in newest["aliases"]
    assert (newest["content_hash"], older["aliases"]) == (older["content_hash"], [])
    require_whole(place, stores)


@pytest.mark.parametrize(
    ("name", "request_line"),
    [
        ("objects", r"PUT .*/autogen_conversation\.jsonl"),
        ("postgres", r"POST .*/runs/log-batch"),
        ("tracking", r"POST .*/runs/update"),
    ],
)
def test_a_decision_that_loses_a_server_is_recorded_by_the_next_try(
    place: Remote, remote: Remote, stores: Stores, door: Tripwire, name: str, request_line: str
) -> None:
    champion = "models:/clean@champion"  # of `remote`
    question = ["predict", "FB", "--as-of", AS_OF, "--model", champion]
    ask = [*question, "--mode", "live", "--log", "--json"]  # cached, it is given back
    lost = server(stores, name)
    door.at(request_line, lost.kill)
    done = place.finagent(*ask, **GIVE_UP)
    assert door.sprung.is_set(), done.stderr
    assert done.returncode == 2, done.stderr
    assert "can't be used" in done.stderr
    lost.start()
    count = "select count(*) from runs where name = 'infer FB' and status = 'FINISHED'"
    [(before,)] = stores.rows(count)
    again = place.finagent(*ask)
    assert again.returncode == 0, again.stderr
    assert stores.rows(count) == [(before + 1,)]
    require_whole(place, stores)
