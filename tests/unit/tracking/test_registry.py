"""Who is champion, who made it so, and that two can't at once."""

from __future__ import annotations

import threading
from dataclasses import asdict
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from finagent_model.errors import BadInputError, GateRefusedError, ModelLoadError
from finagent_model.tracking import registry

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


def test_champion_lock_of_dead_process_is_broken(
    models: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    MlflowClient().create_registered_model(
        f"{models}-champion-is-changing", tags={"since": "1000.0"}
    )
    registry.promote(models, "1")
    assert champion(models) == "1"
