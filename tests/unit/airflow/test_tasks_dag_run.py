"""The run in MLflow of a whole workflow: one, however often its tasks are tried, and it ends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finagent_model.airflow.tasks import TaskContext
from finagent_model.decision.decision import Execution
from finagent_model.errors import (
    BadInputError,
    DagRunFailedError,
    DataSourceError,
    FinagentError,
    GateRefusedError,
    LocalStateError,
    ModelLoadError,
    StoreError,
    TrackingError,
    UnknownSymbolError,
    is_retryable_error,
)
from finagent_model.settings import Settings
from support.decisions import decision
from support.places import SMALL, Place

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow warns when it is imported
DECIDES = Execution(dag_id="desk", dag_run_id="manual__1", task_id="decide", map_index=3)


def test_open_dag_run_again_resumes_the_same_run(place: Place) -> None:
    from finagent_model.airflow.tasks import close_dag_run, open_dag_run
    from finagent_model.tracking.runs import RunLog

    run = open_dag_run(DECIDES, {"mode": "inference"})
    assert RunLog(run).read_json("asked.json") == {"mode": "inference"}
    close_dag_run(run, [], [])
    assert status(run) == "FINISHED"
    assert open_dag_run(DECIDES, {}) == run
    assert status(run) == "RUNNING"
    assert open_dag_run(DECIDES.model_copy(update={"dag_run_id": "manual__2"}), {}) != run


def test_tag_failure_names_task_without_keys(place: Place) -> None:
    from finagent_model.airflow.tasks import open_dag_run, tag_failure
    from finagent_model.tracking.runs import RunLog

    settings = Settings.load({"OPENAI_API_KEY": "sk-very-hidden"})
    tag_failure(DECIDES, ValueError("nobody's run"), settings)
    run = open_dag_run(DECIDES, {})
    tag_failure(DECIDES, ValueError("401: sk-very-hidden\nis no key"), settings)
    tag_failure(DECIDES.model_copy(update={"map_index": -1}), TimeoutError(), settings)
    note = RunLog(run).get_tag("finagent.failed/decide/3")
    assert note and note.startswith("401: ") and note.endswith(" is no key")
    assert "hidden" not in note
    assert RunLog(run).get_tag("finagent.failed/decide") == "TimeoutError"


def test_close_dag_run_kills_children_with_a_summary(place: Place) -> None:
    from finagent_model.airflow.tasks import SymbolOutcome, close_dag_run, open_dag_run
    from finagent_model.tracking.runs import RunLog, open_run

    run = open_dag_run(DECIDES, {})
    training = open_run("train", {}, parent=run)
    backtest = open_run("backtest", {}, parent=training.run_id)
    rows = [
        SymbolOutcome(symbol="FB", status="ok", action="BUY", run_id="r1"),
        SymbolOutcome(symbol="GOOG"),
    ]
    close_dag_run(run, rows, ["no signal on GOOG"])
    assert status(run) == "FAILED"
    assert status(training.run_id) == status(backtest.run_id) == "KILLED"
    summary = json.loads(RunLog(run).read_artifact("summary.json"))
    assert [(row["symbol"], row["status"]) for row in summary] == [("FB", "ok"), ("GOOG", None)]


def closing(
    run_id: str, try_number: int = 3, **params: object
) -> tuple[TaskContext, dict[str, str | None], list[dict[str, object]]]:
    """What the last task, here in its last try, knows of a run that decided on GOOG."""
    given = {"mode": "inference", "symbols": ["GOOG"], "max_failed_share": 0.2}
    context = TaskContext(
        dag_id="desk",
        dag_run_id="manual__1",
        run_date="2013-01-31",
        execution_id="manual__1",
        task_id="close_run",
        try_number=try_number,
        max_tries=2,
        params={**given, "require_stored": True, **params},
    )
    outcome: dict[str, object] = {"symbol": "GOOG", "status": "ok", "action": "BUY"}
    return context, {"inference.decide_0": "success"}, [{**outcome, "run_id": run_id}]


def close(parent: str, decided: str, **changes: Any) -> None:
    from finagent_model.airflow.tasks import close_run

    context, states, results = closing(decided, **changes)
    close_run(context, parent, states, results)


@pytest.fixture
def database(place: Place, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a database that is empty."""
    monkeypatch.setenv("FINAGENT_DATABASE", f"sqlite:///{place.folder}/finagent.db")
    return Settings.load()


def decided_run(stored: str) -> tuple[str, str]:
    """The DAG run's MLflow run, and a decision's below it."""
    from finagent_model.airflow.tasks import open_dag_run
    from finagent_model.tracking.runs import open_run

    parent = open_dag_run(DECIDES, {})
    decided = open_run("infer", {"finagent.stored": stored}, parent=parent)
    decided.end("FINISHED")
    return parent, decided.run_id


def test_close_run_fails_if_decision_reached_no_table(place: Place, database: Settings) -> None:
    parent, decided = decided_run("no")
    with pytest.raises(DagRunFailedError, match="require_stored: 1 of 1 decisions reached no"):
        close(parent, decided)
    assert status(parent) == "FAILED"


def test_close_run_tries_unstored_decision_again(place: Place, database: Settings) -> None:
    parent, decided = decided_run("no")
    with pytest.raises(StoreError, match="require_stored"):
        close(parent, decided, try_number=2)
    assert status(parent) == "RUNNING"


@pytest.mark.slow
def test_close_run_writes_decision_that_reached_no_table(place: Place, database: Settings) -> None:
    from finagent_model.airflow.tasks import open_dag_run
    from finagent_model.audit.chain import audit_decisions
    from finagent_model.data.market import Market
    from finagent_model.model.wheel import code_hash
    from finagent_model.pipeline.record import record_decision
    from finagent_model.tracking.runs import RunLog

    made = decision(symbol="NOPE")
    away = Settings.load({"FINAGENT_DATABASE": "sqlite:////proc/no/finagent.db"})
    audit, market = audit_decisions([made], code_hash()), Market.from_settings(away)
    parent = open_dag_run(DECIDES, {})
    decided = record_decision(made, audit, None, market, "desk.yaml", away, DECIDES)
    assert RunLog(decided).get_tag("finagent.stored") == "no"
    close(parent, decided)
    assert (RunLog(decided).get_tag("finagent.stored"), status(parent)) == ("yes", "FINISHED")


def test_close_run_without_require_stored_notes_it(place: Place, database: Settings) -> None:
    from mlflow.tracking import MlflowClient

    parent, decided = decided_run("no")
    close(parent, decided, require_stored=False)
    assert status(parent) == "FINISHED"
    said = MlflowClient().get_run(parent).data.tags["mlflow.note.content"]
    assert f"GOOG in run {decided}" in said and "`finagent db sync`" in said


def test_close_run_is_green_if_decision_is_stored(place: Place) -> None:
    parent, decided = decided_run("yes")
    close(parent, decided)
    assert status(parent) == "FINISHED"


@pytest.mark.slow
def test_start_training_fits_once_below_a_dag_run(place: Place) -> None:
    from finagent_model.airflow.tasks import open_dag_run
    from finagent_model.pipeline.train import start_training
    from finagent_model.training.request import TrainRequest

    settings = Settings.load({"FINAGENT_HOME": str(place.folder)})
    small, other = TrainRequest.parse(**SMALL), TrainRequest.parse(**SMALL, seed=8)
    run = open_dag_run(DECIDES, {})
    below = Execution(parent_run_id=run)
    fitted = start_training(small, settings, execution=below)
    assert start_training(small, settings, execution=below) == fitted
    assert start_training(other, settings, execution=below) != fitted


@pytest.mark.slow
def test_finish_training_completes_interrupted_registration(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    from finagent_model.pipeline.finalize import finish_training
    from finagent_model.pipeline.train import backtest_symbol, start_training
    from finagent_model.reports.model_card import CARD_FILE
    from finagent_model.tracking import registry
    from finagent_model.tracking.runs import RunLog
    from finagent_model.training.request import TrainRequest

    settings = Settings.load({"FINAGENT_HOME": str(place.folder)})
    training = start_training(TrainRequest.parse(**SMALL), settings)
    children = [backtest_symbol(training, "FB", settings)]

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(registry, "set_description", killed)
        finish_training(training, children, settings)
    assert registry.find_champion("finagent") is None
    registered = finish_training(training, children, settings)
    assert (registered.version, registered.verdict) == ("1", "passed")
    assert [row.aliases for row in registry.list_versions("finagent")] == [
        ("candidate", "champion")
    ]
    run, version = RunLog(training), MlflowClient().get_model_version("finagent", "1")
    assert run.get_tag("finagent.model_uri") == "models:/finagent/1"
    assert registered.content_hash == run.get_tag("finagent.package")
    card = run.read_artifact(CARD_FILE).decode()
    assert registered.content_hash in card and "finagent.technical version 1" in card
    assert version.description and version.description in card


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (TrackingError("the store is down"), True),
        (LocalStateError("locked"), True),
        (DataSourceError("the vendor is down"), True),
        (ModelLoadError("not there yet"), True),
        (BadInputError("no such thing"), False),
        (UnknownSymbolError("NOPE", (), "bars"), False),
        (GateRefusedError("no"), False),
        (DagRunFailedError("no signal"), False),
    ],
)
def test_is_retryable_error_by_class(error: FinagentError, again: bool) -> None:
    assert is_retryable_error(error) is again


def status(run: str) -> str:
    from mlflow.tracking import MlflowClient

    return str(MlflowClient().get_run(run).info.status)
