"""Who is champion, who made it so, and that two can't at once."""

from __future__ import annotations

import threading
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
        registry.register(name, str(store), "0" * 32, tags)
    return name


def champion(name: str) -> str | None:
    found = registry.champion(name)
    return found.version if found else None


def test_a_version_that_passed_becomes_champion_and_the_record_says_by_whom(models: str) -> None:
    row = registry.promote(models, "1", why="first").row()
    assert row["aliases"] == ("champion",)
    assert row["crowned"]["why"] == "first"
    assert row["crowned"]["was"] is None
    assert row["crowned"]["who"] and row["crowned"]["when"]


def test_a_refused_version_needs_force_and_a_reason(models: str) -> None:
    with pytest.raises(GateRefusedError, match="the gate's verdict is refused"):
        registry.promote(models, "3")
    with pytest.raises(BadInputError, match="--force needs a reason"):
        registry.promote(models, "3", force=True, why=" ")
    row = registry.promote(models, "3", force=True, why="a drill").row()
    assert (row["crowned"]["forced"], row["crowned"]["why"]) == (True, "a drill")
    assert champion(models) == "3"


def test_a_new_version_gets_its_aliases_once_however_often_it_is_asked_for(models: str) -> None:
    registry.apply_aliases(models, "1")
    assert registry.find_version(models, "1").aliases == ("champion",)  # 3 is newer: no candidate
    registry.apply_aliases(models, "3")
    assert registry.find_version(models, "3").aliases == ("candidate",)  # refused: no champion
    registry.promote(models, "2")
    registry.apply_aliases(models, "1")
    assert champion(models) == "2"


def test_a_version_judged_beside_another_champion_does_not_replace_the_new_one(models: str) -> None:
    registry.promote(models, "2")
    with pytest.raises(GateRefusedError, match=r"version 2 of .* became champion while 1"):
        registry.apply_aliases(models, "1")
    assert champion(models) == "2"


def test_an_alias_is_pinned_to_its_version_and_an_unknown_one_is_refused(models: str) -> None:
    registry.promote(models, "2")
    uri = f"models:/{models}@champion"
    assert registry.resolve_version(uri) == f"models:/{models}/2"
    assert registry.resolve_version(f"models:/{models}/1") == f"models:/{models}/1"
    with pytest.raises(ModelLoadError, match=r"@nobody can't be found.*`finagent models`"):
        registry.resolve_version(f"models:/{models}@nobody")


def test_the_way_back_leads_to_the_one_before(models: str) -> None:
    registry.promote(models, "1")
    registry.promote(models, "2")
    row = registry.rollback(models, why="worse").row()
    assert (row["version"], row["crowned"]["was"], row["crowned"]["why"]) == ("1", "2", "worse")
    with pytest.raises(BadInputError, match="first champion"):
        registry.rollback(models)


def test_who_was_judged_beside_a_former_champion_does_not_win(models: str) -> None:
    registry.promote(models, "1", instead_of=None)
    with pytest.raises(GateRefusedError, match=r"version 1 .* became champion while 2 was trained"):
        registry.promote(models, "2", instead_of=None)
    assert champion(models) == "1"
    registry.promote(models, "2", instead_of="1")
    assert champion(models) == "2"


def test_two_that_finish_together_cannot_both_win(models: str) -> None:
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


def test_who_died_while_changing_the_champion_is_overruled(
    models: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    MlflowClient().create_registered_model(
        f"{models}-champion-is-changing", tags={"since": "1000.0"}
    )
    registry.promote(models, "1")
    assert champion(models) == "1"
