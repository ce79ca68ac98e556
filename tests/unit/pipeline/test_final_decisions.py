"""What a row says counts only as far as its run and its audit say the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest

from finagent_model.audit.chain import HEAD, audit_decisions, chain_decisions
from finagent_model.data.market import Market
from finagent_model.decision.decision import Decision
from finagent_model.errors import UnverifiedRunError
from finagent_model.model.wheel import code_hash
from finagent_model.pipeline.final_decisions import STORED, find_final, read_recorded
from finagent_model.pipeline.record import record_decision
from finagent_model.settings import Settings
from finagent_model.store.artifact_models import Artifact, ArtifactFilter, NewArtifact
from finagent_model.store.artifacts import ArtifactStore
from finagent_model.store.database import Database
from finagent_model.store.decisions import DecisionStore
from finagent_model.tracking.runs import RunLog
from support.decisions import decision
from support.platform_tables import run as execute

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # MLflow's store has warnings of its own
]
UNDRAWN: dict[str, Any] = {"symbol": "NOPE", "model_uri": "models:/finagent/1"}
"""There is no market for it, so no chart takes time; and whoever knows the version knows the id."""
OURS = decision(**UNDRAWN).signal
FORGED = OURS.model_copy(update={"confidence_score": 99.0, "confidence": "HIGH"})
FAILED = {"status": "model_error", "action": "HOLD", "confidence": "LOW", "confidence_score": 0}


@dataclass(frozen=True)
class Recorded:
    """A decision in a database and in an MLflow store, made once and copied for each test."""

    folder: Path
    run_id: str

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder}/finagent.db"

    @property
    def settings(self) -> Settings:
        return Settings.load({"FINAGENT_DATABASE": self.url})

    def file(self, name: str) -> Path:
        return self.folder / "mlruns" / "1" / self.run_id / "artifacts" / name

    def record(self, made: Decision, **how: Any) -> str:
        options = self.settings
        audit, market = audit_decisions([made], code_hash()), Market.from_settings(options)
        return record_decision(made, audit, None, market, "desk.yaml", options, **how)

    def signals(self) -> tuple[Artifact, ...]:
        store = ArtifactStore(Database(self.url))
        return store.list_artifacts(ArtifactFilter(type="signal"), order="oldest").artifacts


@pytest.fixture(scope="module")
def first(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("settled")
        shutil.copy(empty_store, folder)
        patch.chdir(folder)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        return Recorded(folder, Recorded(folder, "").record(decision(**UNDRAWN)))


@pytest.fixture
def recorded(first: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """The same for each test, whatever the one before changed."""
    for name in ("mlflow.db", "finagent.db"):
        shutil.copy(first.folder / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    # The store has the run's folder as a whole path: it is pointed at this test's own copy.
    shutil.copytree(first.folder / "mlruns", tmp_path / "mlruns")
    uri = f"{tmp_path}/mlruns/1/{first.run_id}/artifacts"
    execute(f"sqlite:///{tmp_path}/mlflow.db", f"update runs set artifact_uri = '{uri}'")
    return Recorded(tmp_path, first.run_id)


def plant(recorded: Recorded, run_id: str) -> None:
    """Rows as this code writes them, by whoever may write to the database."""
    store = DecisionStore(Database(recorded.url))
    store.write(Decision(FORGED, decision().turns), run_id, audit_head="0" * 64)


def take_away(recorded: Recorded) -> None:
    """All that the database knows of ours."""
    for table in ("artifacts", "finagent_decisions", "agent_conversations"):
        execute(recorded.url, f"delete from {table}")


def test_find_final_is_none_before_a_decision(recorded: Recorded) -> None:
    assert find_final("5e77", recorded.settings) is None


def test_find_final_returns_settled_signal(recorded: Recorded) -> None:
    assert find_final(OURS.signal_id, recorded.settings) == (recorded.run_id, OURS)
    assert len(recorded.signals()) == 1


def test_find_final_ignores_failure(recorded: Recorded) -> None:
    take_away(recorded)
    failed = decision(**UNDRAWN, **FAILED)
    recorded.record(failed)
    assert find_final(failed.signal.signal_id, recorded.settings) is None


def test_find_final_ignores_signal_written_over_rest(recorded: Recorded) -> None:
    take_away(recorded)
    data = FORGED.model_dump(mode="json")
    planted = NewArtifact(
        name="x",
        type="signal",
        run_id=recorded.run_id,
        signal_data=data,
        metadata={"key": FORGED.signal_id, "status": "ok"},
    )
    ArtifactStore(Database(recorded.url)).add(planted)
    assert find_final(OURS.signal_id, recorded.settings) is None
    run_id = recorded.record(decision(**UNDRAWN))
    assert find_final(OURS.signal_id, recorded.settings) == (run_id, OURS)
    assert [(row.origin, row.run_id) for row in recorded.signals()] == [
        ("rest", recorded.run_id),
        ("finagent", run_id),
    ]


def test_find_final_ignores_rows_without_a_run(recorded: Recorded) -> None:
    take_away(recorded)
    plant(recorded, "f" * 32)
    assert find_final(OURS.signal_id, recorded.settings) is None


def test_record_decision_disowns_row_in_its_place(recorded: Recorded) -> None:
    take_away(recorded)
    plant(recorded, "f" * 32)
    run_id = recorded.record(decision(**UNDRAWN))
    assert [(row.origin, row.run_id) for row in recorded.signals()] == [
        ("disowned", "f" * 32),
        ("finagent", run_id),
    ]
    assert find_final(OURS.signal_id, recorded.settings) == (run_id, OURS)


def test_find_final_is_not_hidden_by_planted_rows(recorded: Recorded) -> None:
    execute(recorded.url, "delete from artifacts")
    plant(recorded, "f" * 32)
    assert find_final(OURS.signal_id, recorded.settings) == (recorded.run_id, OURS)
    assert [(row.origin, row.run_id) for row in recorded.signals()] == [
        ("disowned", "f" * 32),
        ("finagent", recorded.run_id),
    ]


def test_find_final_writes_changed_artifact_again(recorded: Recorded) -> None:
    before = recorded.signals()
    execute(recorded.url, "update artifacts set action = 'SELL', signal_data = '{}'")
    assert find_final(OURS.signal_id, recorded.settings) == (recorded.run_id, OURS)
    [row] = recorded.signals()
    assert (row.id, row.action, row.signal_data) == (before[0].id, "BUY", before[0].signal_data)


def change_row(recorded: Recorded) -> None:
    data = json.dumps(FORGED.model_dump(mode="json"))
    execute(recorded.url, f"update finagent_decisions set signal = '{data}'")


def change_head(recorded: Recorded) -> None:
    execute(recorded.url, f"update finagent_decisions set audit_head = '{'0' * 64}'")


def change_file(recorded: Recorded) -> None:
    recorded.file("signal.json").write_text(json.dumps(FORGED.model_dump(mode="json")))


def change_audit(recorded: Recorded) -> None:
    path = recorded.file("audit.jsonl")
    path.write_text(path.read_text().replace('"action":"BUY"', '"action":"SELL"'))


def change_run(recorded: Recorded) -> None:
    """All of it, by whoever may write to MLflow: only the database knows another head."""
    audit = chain_decisions([(FORGED, ())], {})
    recorded.file("audit.jsonl").write_text(audit.lines)
    change_file(recorded)
    RunLog(recorded.run_id).set_tags({HEAD: audit.head})


def take_tag(recorded: Recorded) -> None:
    """As a replay has it, or an answer within a caller's own limits."""
    mlflow.MlflowClient().delete_tag(recorded.run_id, STORED)


@pytest.mark.parametrize(
    "change", [change_row, change_head, change_file, change_audit, change_run, take_tag]
)
def test_find_final_needs_row_file_and_audit_to_agree(
    recorded: Recorded, change: Callable[[Recorded], None]
) -> None:
    change(recorded)
    assert find_final(OURS.signal_id, recorded.settings) is None


@pytest.mark.parametrize("change", [change_file, change_audit, take_tag])
def test_read_recorded_error_names_run(
    recorded: Recorded, change: Callable[[Recorded], None]
) -> None:
    change(recorded)
    with pytest.raises(UnverifiedRunError, match=f"run {recorded.run_id} holds no decision as it"):
        read_recorded(recorded.run_id)


def test_find_final_takes_row_of_older_code(recorded: Recorded) -> None:
    execute(recorded.url, "update finagent_decisions set audit_head = null")
    assert find_final(OURS.signal_id, recorded.settings) == (recorded.run_id, OURS)


def test_find_final_takes_row_without_later_fields(recorded: Recorded) -> None:
    for table, column in (("finagent_decisions", "signal"), ("artifacts", "signal_data")):
        older = f"json_remove({column}, '$.knowledge_cutoff')"
        execute(recorded.url, f"update {table} set {column} = {older} where {column} is not null")
    before = recorded.signals()
    assert find_final(OURS.signal_id, recorded.settings) == (recorded.run_id, OURS)
    assert recorded.signals() == before  # told right already: not written again


def test_find_final_prefers_what_replaced_another(recorded: Recorded) -> None:
    later = recorded.record(decision(**UNDRAWN, confidence_score=70), replaces=recorded.run_id)
    execute(recorded.url, "delete from artifacts where type = 'signal'")
    final = find_final(OURS.signal_id, recorded.settings)
    assert final is not None and final[0] == later


def test_find_final_warns_if_database_is_down(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    options = Settings.load({"FINAGENT_DATABASE": "sqlite:////proc/no/finagent.db"})
    assert find_final("5e77", options) is None
    assert "whether 5e77 was decided before can't be read" in caplog.text
