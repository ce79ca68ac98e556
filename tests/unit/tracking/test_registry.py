"""Who is champion, who made it so, and that two can't at once."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from finagent_model.errors import (
    BadInputError,
    GateRefusedError,
    ModelLoadError,
    TrackingError,
)
from finagent_model.tracking import _champion_lock, registry

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # MLflow's store has warnings of its own
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(autouse=True)
def models(store: Path, request: pytest.FixtureRequest) -> str:
    """A name with three versions: two that passed, one that was refused."""
    mlflow.set_tracking_uri(f"sqlite:///{store}/mlflow.db")
    name = f"desk-{abs(hash(request.node.name))}"
    for verdict in ("passed", "passed", "refused"):
        tags = {registry.VERDICT: verdict, registry.EVIDENCE: "none"}
        registry.create_version(name, str(store), "0" * 32, tags)
    return name


def champion(name: str) -> str | None:
    version = registry.find_champion(name)
    return version.version if version else None


def test_promote_records_who_made_champion(models: str) -> None:
    row = asdict(registry.promote(models, "1", why="first"))
    assert row["aliases"] == ("champion",)
    assert row["crowned"]["why"] == "first"
    assert row["crowned"]["was"] is None
    assert row["crowned"]["who"] and row["crowned"]["when"]


def test_promote_of_refused_version_needs_force_with_reason(models: str) -> None:
    with pytest.raises(GateRefusedError, match="the gate's verdict is refused"):
        registry.promote(models, "3")
    with pytest.raises(BadInputError, match="--force needs a reason"):
        registry.promote(models, "3", force=True, why=" ")
    row = asdict(registry.promote(models, "3", force=True, why="a drill"))
    assert (row["crowned"]["forced"], row["crowned"]["why"]) == (True, "a drill")
    assert champion(models) == "3"


def test_apply_aliases_is_idempotent(models: str) -> None:
    registry.apply_aliases(models, "1")
    assert registry.find_version(models, "1").aliases == ("champion",)  # 3 is newer: no candidate
    registry.apply_aliases(models, "3")
    assert registry.find_version(models, "3").aliases == ("candidate",)  # refused: no champion
    registry.promote(models, "2")
    registry.apply_aliases(models, "1")
    assert champion(models) == "2"


def test_apply_aliases_refuses_version_compared_with_other_champion(models: str) -> None:
    registry.promote(models, "2")
    with pytest.raises(GateRefusedError, match=r"version 2 of .* became champion while 1"):
        registry.apply_aliases(models, "1")
    assert champion(models) == "2"


def test_resolve_version_pins_alias_or_refuses(models: str) -> None:
    registry.promote(models, "2")
    uri = f"models:/{models}@champion"
    assert registry.resolve_version(uri) == f"models:/{models}/2"
    assert registry.resolve_version(f"models:/{models}/1") == f"models:/{models}/1"
    with pytest.raises(ModelLoadError, match=r"@nobody can't be found.*`finagent models`"):
        registry.resolve_version(f"models:/{models}@nobody")


def test_rollback_returns_to_previous_champion(models: str) -> None:
    registry.promote(models, "1")
    registry.promote(models, "2")
    row = asdict(registry.rollback(models, why="worse"))
    assert (row["version"], row["crowned"]["was"], row["crowned"]["why"]) == ("1", "2", "worse")
    with pytest.raises(BadInputError, match="first champion"):
        registry.rollback(models)


def test_promote_refuses_stale_instead_of(models: str) -> None:
    registry.promote(models, "1", instead_of=None)
    with pytest.raises(GateRefusedError, match=r"version 1 .* became champion while 2 was trained"):
        registry.promote(models, "2", instead_of=None)
    assert champion(models) == "1"
    registry.promote(models, "2", instead_of="1")
    assert champion(models) == "2"


def test_promote_of_two_versions_at_once_has_one_winner(models: str) -> None:
    start, won, lost = threading.Barrier(2), [], []

    def finish(version: str) -> None:
        start.wait()
        try:
            registry.promote(models, version, instead_of=None)
            won.append(version)
        except GateRefusedError:
            lost.append(version)

    threads = [threading.Thread(target=finish, args=(v,)) for v in ("1", "2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == len(lost) == 1
    assert champion(models) == won[0]


def cut(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> pytest.MonkeyPatch:
    """Let the process die, as it were, when it calls `name`."""

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, die)
    return monkeypatch


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (MlflowClient, "set_registered_model_alias"),
        (registry, "_record"),
    ],
)
def test_apply_aliases_completes_cut_promotion(
    models: str, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    registry.promote(models, "1")
    client = MlflowClient()
    client.set_model_version_tag(models, "2", registry.COMPARED_WITH, "1")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        cut(patched, owner, name)
        registry.apply_aliases(models, "2")
    for _ in range(2):
        registry.apply_aliases(models, "2")
        row = registry.find_version(models, "2")
        assert row.aliases == ("champion",)
        assert row.crowned is not None
        assert (row.crowned["was"], row.previous) == ("1", "1")


def test_apply_aliases_completes_record_without_alias(models: str) -> None:
    """Older code wrote the record first."""
    registry.promote(models, "1")
    client = MlflowClient()
    client.set_model_version_tag(models, "2", registry.COMPARED_WITH, "1")
    record = {"was": "1", "forced": False, "when": "2099-01-01T00:00:00+00:00"}
    client.set_model_version_tag(models, "2", registry.PROMOTED, json.dumps(record))
    registry.apply_aliases(models, "2")
    assert champion(models) == "2"


def test_apply_aliases_leaves_rollback_alone(models: str) -> None:
    registry.promote(models, "1")
    client = MlflowClient()
    client.set_model_version_tag(models, "2", registry.COMPARED_WITH, "1")
    registry.apply_aliases(models, "2")
    registry.rollback(models)
    registry.apply_aliases(models, "2")
    assert champion(models) == "1"


@pytest.mark.parametrize(
    ("owner", "name"), [(MlflowClient, "set_registered_model_alias"), (registry, "_record")]
)
def test_rollback_that_was_cut_goes_back_once(
    models: str, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    registry.create_version(models, "x", "0" * 32, {registry.VERDICT: "passed"})
    for version in ("1", "2", "4"):
        registry.promote(models, version)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        cut(patched, owner, name)
        registry.rollback(models)
    assert registry.rollback(models).version == champion(models) == "2"


def test_promote_of_champion_keeps_its_record(models: str) -> None:
    first = registry.promote(models, "1", why="first").crowned
    assert registry.promote(models, "1", why="again", instead_of=None).crowned == first


def test_rollback_to_deleted_version_says_so(models: str) -> None:
    registry.promote(models, "1")
    registry.promote(models, "2")
    MlflowClient().delete_model_version(models, "1")
    with pytest.raises(
        BadInputError, match=r"version 1 of .*, champion before 2, was deleted; `fi"
    ):
        registry.rollback(models)
    assert champion(models) == "2"


def test_find_dangling_aliases_names_deleted_version(models: str, store: Path) -> None:
    registry.promote(models, "2")
    assert registry.find_dangling_aliases(models) == {}
    # MLflow's client takes the alias along; a store of another release, or by hand, does not.
    with closing(sqlite3.connect(store / "mlflow.db")) as connection:
        connection.execute(
            "update model_versions set current_stage = 'Deleted_Internal' "
            "where name = ? and version = 2",
            (models,),
        )
        connection.commit()
    assert registry.find_dangling_aliases(models) == {"champion": "2"}
    assert champion(models) is None
    assert registry.promote(models, "1").aliases == ("champion",)


def test_champion_moves_at_once_all_end(models: str) -> None:
    """Four `promote` and a `rollback`."""
    registry.promote(models, "1")
    registry.promote(models, "2")
    start = threading.Barrier(5)

    def move(version: str | None) -> str:
        start.wait()
        try:
            done = (
                registry.rollback(models) if version is None else registry.promote(models, version)
            )
        except BadInputError as error:
            return str(error)
        return done.version

    with ThreadPoolExecutor(5) as threads:
        moved = list(threads.map(move, ["1", "2", "1", "2", None]))
    assert all(each in ("1", "2") or "no way back" in each for each in moved)
    row = registry.find_champion(models)
    assert row is not None and row.crowned is not None
    assert MlflowClient().search_registered_models(f"name = '{models}-champion-is-changing'") == []


def lock_name(models: str) -> str:
    return f"{models}-champion-is-changing"


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"since": "1000.0"},
        {"since": "99999999999.0"},
        {"since": "soon", "owner": "x", "process": "elsewhere:1"},
    ],
)
def test_champion_lock_nobody_renews_is_broken(
    models: str, monkeypatch: pytest.MonkeyPatch, tags: dict[str, str]
) -> None:
    monkeypatch.setattr(_champion_lock, "STALE_S", 0.2)
    MlflowClient().create_registered_model(lock_name(models), tags=tags)
    registry.promote(models, "1")
    assert champion(models) == "1"


def test_champion_lock_of_dead_process_is_broken(models: str) -> None:
    process = f"{socket.gethostname()}:999999999"
    MlflowClient().create_registered_model(lock_name(models), tags={"process": process})
    registry.promote(models, "1")
    assert champion(models) == "1"


def test_champion_lock_wait_is_bounded(models: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_champion_lock, "WAIT_S", 0.2)
    with (
        _champion_lock.hold_champion_lock(models),
        pytest.raises(TrackingError, match=rf"for 0.2 s, now by .*:{os.getpid()} .*delete the reg"),
    ):
        registry.promote(models, "1")
    assert champion(models) is None


def test_champion_lock_broken_owner_changes_nothing(
    models: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner that was stopped, and goes on after others broke its lock."""
    registry.promote(models, "1")
    original = MlflowClient.set_model_version_tag

    def stop(client: MlflowClient, *given: str) -> None:
        monkeypatch.setattr(MlflowClient, "set_model_version_tag", original)
        monkeypatch.setattr(_champion_lock, "STALE_S", 0.1)
        registry.promote(models, "3", force=True, why="urgent")
        original(client, *given)

    monkeypatch.setattr(MlflowClient, "set_model_version_tag", stop)
    with pytest.raises(TrackingError, match="took so long that another one began"):
        registry.promote(models, "2")
    assert champion(models) == "3"
