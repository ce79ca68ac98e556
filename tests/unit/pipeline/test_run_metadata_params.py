"""Params of runs: what MLflow's own page filters and compares by, and no secret in any of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest

from finagent_model.config.desk_config import DeskConfig, find_preset, load_config, load_preset
from finagent_model.config.parsing import CallLimits
from finagent_model.config.roster import remove_agents
from finagent_model.config.rules import narrow_limits
from finagent_model.decision.decision import Execution
from finagent_model.pipeline.run_metadata import desk_params
from support.places import ACTED_ON, Place

DECIDES = Execution(dag_id="desk", dag_run_id="manual__1", task_id="decide", map_index=0)


def changed(**changes: Any) -> DeskConfig:
    return DeskConfig.model_validate({**load_preset().model_dump(), **changes})


@pytest.mark.parametrize("name", ["debate", "default", "lean", "production", "upstream"])
def test_find_preset_of_a_preset_is_its_name(name: str) -> None:
    assert find_preset(load_preset(name)) == name


def test_find_preset_goes_by_the_agents(tmp_path: Path) -> None:
    path = tmp_path / "desk.yaml"
    path.write_text("preset: lean\nclient: openai\nmodel: gpt-4o\n")
    assert find_preset(load_config(str(path))) == "lean"
    agents = remove_agents(load_preset("debate").agents, {"SentimentAnalyst"})
    assert find_preset(changed(agents=agents)) is None


def test_desk_params_name_client_team_limits_without_price() -> None:
    assert desk_params(load_preset("lean")) == {
        "client": "rules",
        "model": "rules",
        "preset": "lean",
        "team": "TechnicalAnalyst,RiskManager,Executor",
        "max_rounds": "10",
        "debate_rounds": "1",
        "max_tokens": "40000",
        "budget_usd": "0",
        "wall_clock_s": "120",
    }


def test_desk_params_hold_the_oldest_date_of_its_prices() -> None:
    price = {"prompt": 1, "completion": 2}
    config = changed(
        client="openai",
        model="gpt-4o",
        agents=[
            *load_preset().model_dump()["agents"][:3],
            {**load_preset().model_dump()["agents"][3], "model": "gpt-5"},
        ],
        prices={
            "gpt-4o": {**price, "as_of": "2026-05-01"},
            "gpt-5": {**price, "as_of": "2026-02-01"},
            "unused": {**price, "as_of": "2020-01-01"},
        },
    )
    params = desk_params(config)
    assert (params["model"], params["prices_as_of"]) == ("gpt-4o+gpt-5", "2026-02-01")
    assert params["preset"] == "own"


def test_desk_params_are_of_the_narrowed_limits() -> None:
    config = load_preset()
    limits, _ = narrow_limits(config.limits, CallLimits(max_rounds=2, budget_usd=0.5))
    params = desk_params(config, limits)
    assert (params["max_rounds"], params["budget_usd"]) == ("2", "0.5")


def find(query: str) -> dict[str, dict[str, str]]:
    """The params, by run, of the runs that MLflow finds, as its own page does."""
    runs = mlflow.MlflowClient().search_runs(["1"], query)
    return {run.info.run_id: dict(run.data.params) for run in runs}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow's store has warnings of its own
def test_runs_are_found_by_mode_client_and_preset(
    trained: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training, its backtest, a backtest that is run again, and a decision."""
    from finagent_model._public import CHAMPION
    from finagent_model.market.bars import parse_as_of
    from finagent_model.model.loading import load_predictor
    from finagent_model.model.questions import Question
    from finagent_model.pipeline.backtest import backtest
    from finagent_model.pipeline.infer import infer
    from finagent_model.settings import Settings
    from finagent_model.tracking.runs import RunLog

    monkeypatch.chdir(trained.folder)
    mlflow.set_tracking_uri(f"sqlite:///{trained.folder}/mlflow.db")
    monkeypatch.setenv("FINAGENT_HOME", str(tmp_path / "home"))
    predictor = load_predictor(CHAMPION)
    limits, day = CallLimits(max_rounds=9), ACTED_ON[0]
    decided = infer(
        predictor, Question("FB", parse_as_of(day)), CHAMPION, mode="live", limits=limits
    )
    [again] = backtest(CHAMPION, [], Settings.load(), "replay")
    same = "params.client = 'rules' and params.preset = 'default' and params.model = 'rules'"
    # The store is shared with other tests, so there may be more.
    live = find(f"{same} and params.mode = 'live' and params.max_rounds = '9'")
    decision = live[decided.run_id]
    assert (
        decision.items()
        >= {
            "symbol": "FB",
            "bars": "bundled",
            "bars_until": day,
            "max_tokens": "40000",
            "team": "TechnicalAnalyst,NewsAnalyst,RiskManager,Executor",
        }.items()
    )
    assert decision["as_of"].startswith(day)
    backtests = find(f"{same} and params.symbol = 'FB' and params.bars_until = '2013-03-01'")
    assert backtests[again.run_id]["mode"] == "replay"
    assert "cached" in [params["mode"] for params in backtests.values()]
    assert again.same_as_registered
    run_id = predictor.lineage.run_id
    assert run_id is not None
    training = find(f"{same} and params.register_as = 'finagent'")[run_id]
    assert (training["mode"], training["symbols"], training["max_rounds"]) == ("cached", "FB", "10")
    report, gate = (RunLog(run_id).read_artifact(name) for name in ("report.md", "gate.json"))
    sentence = "3 of 3 decisions by the AutoGen team equal the recorded ones"
    assert f"\n{sentence}.\n" in report.decode()
    assert sentence in [check["found"] for check in json.loads(gate)["integrity"]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_run_of_a_dag_run_has_params_of_request_and_desk(place: Place) -> None:
    from finagent_model.airflow import tasks

    asked = {"mode": "both", "symbols": ["FB", "GOOG"], "model": "models:/finagent@champion"}
    run_id = tasks.open_dag_run(DECIDES, asked, "2013-01-31")
    tasks._log_desk(run_id, load_preset("lean"))
    # Another task says more; a value that is there stays.
    tasks._log_desk(run_id, load_preset("default"), "models:/finagent/1")
    query = "params.mode = 'both' and params.client = 'rules' and params.preset = 'lean'"
    params = find(query)[run_id]
    assert (
        params.items()
        >= {
            "symbols": "FB,GOOG",
            "as_of": "2013-01-31",
            "model": "rules",
            "model_uri": "models:/finagent/1",
            "max_rounds": "10",
            "team": "TechnicalAnalyst,RiskManager,Executor",
        }.items()
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_run_log_strikes_secrets_out_of_params(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finagent_model.tracking.runs import open_run

    monkeypatch.setenv("OPENAI_API_KEY", "an-odd-looking-word")
    monkeypatch.setenv("FINAGENT_DATABASE", "postgresql://me:hunter2hunter2@host/db")
    run = open_run("mine", {})
    run.log(
        params={
            "config": "/desks/an-odd-looking-word.yaml",
            "bars": "postgresql://me:hunter2hunter2@host/db",
            "note": "Bearer sk-ant-REDACTED",
            "seed": 7,
        }
    )
    params = mlflow.MlflowClient().get_run(run.run_id).data.params
    assert params["seed"] == "7"
    for secret in ("odd-looking", "hunter2", "abcdefghij"):
        assert secret not in str(params)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_run_log_takes_params_of_any_length(place: Place) -> None:
    """MLflow keeps 6,000 characters of a value."""
    from finagent_model.airflow.tasks import open_dag_run

    symbols = [f"SYMBOL-{number:012d}" for number in range(600)]
    run_id = open_dag_run(DECIDES, {"mode": "inference", "symbols": symbols})
    params = find("params.mode = 'inference'")[run_id]
    assert params["symbols"].startswith(",".join(symbols[:200]))
