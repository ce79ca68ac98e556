"""Runs and packages of another schema raise typed errors."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest

from finagent_model.config.desk_config import load_preset
from finagent_model.decision.decision import Execution
from finagent_model.errors import PackageFormatError, TrackingError
from finagent_model.evaluation.gate import MIN_COMMON_DAYS, GateWindow
from finagent_model.model.package import Package
from finagent_model.pipeline.datasets import HASH
from finagent_model.pipeline.finalize import WINDOW, compare_with_champion
from finagent_model.pipeline.run_metadata import (
    FITTED,
    TrainingState,
    count_earlier_trainings,
    desk_family,
    execution_tags,
    read_execution_tags,
    read_request,
)
from finagent_model.policy.policy import Policy, PolicyBook, PolicyFit
from finagent_model.policy.trained_state import TrainedState
from finagent_model.settings import Settings
from finagent_model.tracking.registry import Version
from finagent_model.tracking.runs import REQUEST as REQUEST_TAG
from finagent_model.tracking.runs import STAGE, RunLog, open_run
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import Trials

OURS = GateWindow(version=None, returns={day: 0.001 * (day % 3) for day in range(MIN_COMMON_DAYS)})
REQUEST = TrainRequest().model_dump(mode="json")


def package(backtest: dict[str, Any]) -> Package:
    fit = PolicyFit.model_validate(
        {
            "policy": Policy(),
            "symbols": ("FB",),
            "fit_from": "2010-01-01T00:00Z",
            "fit_until": "2011-01-01T00:00Z",
            "valid_from": "2011-01-10T00:00Z",
            "configurations": 1,
        }
    )
    state = TrainedState(PolicyBook(fits=(fit,)))
    return Package(load_preset(), state, {}, backtest, (), "c", "h")


def test_execution_tags_read_back() -> None:
    by = Execution(execution_id="manual__1", platform_execution_id=42, map_index=0)
    assert read_execution_tags(execution_tags(by)) == by


def test_execution_tags_have_names_of_platform() -> None:
    tags = execution_tags(Execution(execution_id="manual__1", workflow_id="desk"))
    assert (tags["execution_id"], tags["workflow_id"]) == ("manual__1", "desk")
    assert tags["finagent.workflow_execution_id"] == "manual__1"


def test_read_request_of_package() -> None:
    assert read_request(package({"request": REQUEST})) == TrainRequest()


@pytest.mark.parametrize(
    ("backtest", "message"),
    [
        ({"request": REQUEST | {"embargo_bars": 3}}, "unknown parameter 'embargo_bars'"),
        ({"request": REQUEST | {"train_bars": 1}}, "train_bars: .*not 1;"),
        ({}, "request"),
        ({"request": None}, "can't read"),
    ],
)
def test_read_request_of_other_schema_is_package_format_error(
    backtest: dict[str, Any], message: str
) -> None:
    with pytest.raises(PackageFormatError, match=message):
        read_request(package(backtest))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunLog:
    """A run of a store of its own, with all that the first stage of a training leaves."""
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    opened = open_run("train", {})
    trials = Trials(configurations=1, scorings=1, sharpe_variance=None, overfitting=None)
    policies = package({}).trained_state.policies
    TrainingState(TrainRequest(symbols=("FB",)), load_preset(), policies, trials, {}).write(opened)
    return opened


def champion(run: RunLog) -> Version:
    return Version("4", ("champion",), run.run_id, "passed", None, "none", None, None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow's store has warnings of its own
@pytest.mark.parametrize("text", ['{"days": [1]}', "no JSON"])
def test_compare_with_champion_of_other_schema_fails_check(run: RunLog, text: str) -> None:
    assert compare_with_champion(champion(run), OURS) is None, "nothing to compare with"
    run.log_text(WINDOW, text)
    check = compare_with_champion(champion(run), OURS)
    assert check is not None
    assert (check.name, check.passed) == ("as_good_as_champion", False)
    assert "window.json of version 4 has another schema" in check.found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("request.json", json.dumps(REQUEST | {"colour": "red"})),
        ("config.yaml", "client: [\n"),
        ("config.yaml", "colour: red\n"),
        ("policy.json", '{"fits": []}'),
        ("trials.json", "{}"),
    ],
)
def test_training_state_of_other_version_is_refused(run: RunLog, name: str, text: str) -> None:
    assert TrainingState.read(run).request.symbols == ("FB",)
    run.log_text(name, text)
    with pytest.raises(TrackingError, match=r"another version.*start the training again"):
        TrainingState.read(run)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_symbol_run_of_other_version_is_refused(run: RunLog) -> None:
    from finagent_model.pipeline.finalize import finish_training  # MLflow warns when it is imported

    child = open_run("backtest FB", {}, parent=run.run_id)
    child.log_json("outcome.json", {"metrics": {}})
    with pytest.raises(TrackingError, match=r"ledger\.parquet"):
        finish_training(run.run_id, [child.run_id], Settings.load({}))
    child.log_text("ledger.parquet", "no Parquet")
    with pytest.raises(TrackingError, match="another version"):
        finish_training(run.run_id, [child.run_id], Settings.load({}))


@pytest.mark.parametrize(
    ("params", "family"),
    [
        ({"client": "rules", "model": "rules"}, ("rules",)),
        ({"client": "rules", "model": "rules+upstream"}, ("rules", "upstream")),
        ({"client": "rules", "model": "rules+gpt-4o"}, ("chat models",)),
        ({"client": "azure", "model": "gpt-4o"}, ("chat models",)),
        ({"client": "openai", "model": "gpt-x+upstream"}, ("chat models", "upstream")),
        # Trainings from before the param `model`.
        ({"client": "rules"}, ("rules",)),
        ({"client": "openai"}, ("chat models",)),
    ],
)
def test_desk_family_is_who_decides(params: dict[str, str], family: tuple[str, ...]) -> None:
    assert desk_family(params) == family


def fitted(request: str, bars: str = "b", model: str = "rules", **tags: str) -> str:
    """Open a training's run whose first stage is complete; return its id."""
    opened = open_run("train", {STAGE: "train", REQUEST_TAG: request, HASH: bars, **tags})
    opened.log(params={"register_as": "finagent", "client": "rules", "model": model})
    opened.set_tags({FITTED: "yes"})
    # Runs of one millisecond have no order.
    time.sleep(0.002)
    return opened.run_id


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_count_earlier_trainings_counts_each_other_request_once(run: RunLog) -> None:
    assert count_earlier_trainings(fitted("one")) == 0
    fitted("two")
    again = fitted("two")
    assert count_earlier_trainings(again) == 1
    # Whoever threw a training away had seen its result.
    mlflow.delete_run(fitted("three"))
    fitted("other bars", bars="c")
    last = fitted("four")
    fitted("later")
    assert count_earlier_trainings(last) == 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_count_earlier_trainings_counts_models_of_agents(run: RunLog) -> None:
    fitted("one")
    fitted("two", model="rules+gpt-4o")
    assert count_earlier_trainings(fitted("three", model="rules+gpt-x")) == 1
