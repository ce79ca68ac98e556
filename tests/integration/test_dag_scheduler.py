"""The DAG under a real scheduler with LocalExecutor, asked over REST: whole runs, a task that
hangs, humans who answer or stop a run, a backfill. A model server counts what was asked.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from support.airflow_servers import DAG, DONE_S, Airflow, airflow, until
from support.echo_server import echo_server
from support.fake_llm import FakeProvider, Fault, Protocol
from support.places import AS_OF, SMALL, Place, small_options

pytestmark = pytest.mark.slow
KEY = "sk-test-0123456789-very-secret"
TOKEN = "open-sesame-to-the-platform"
PROXY_PASSWORD = "open-sesame-to-the-proxy"
ASKING = "models:/asking@candidate"
TRAIN = {k: v for k, v in SMALL.items() if k != "symbols"}
LEVELS = ("entry_price", "stop_loss", "take_profit")
BUY = dict.fromkeys(("support_level", "resistance_level", *(f"suggested_{x}" for x in LEVELS))) | {
    "action": "BUY",
    "confidence_score": 70,
    "reasoning": "The reports point this way today.",
    "key_factors": [],
    "trend": "bullish",
    "position_size_percent": 50.0,
}
LATER = (datetime.now(UTC).hour + 12) % 24
"""An hour at which nothing is scheduled while the tests run."""


@pytest.fixture(scope="module")
def llm() -> Iterator[FakeProvider]:
    with FakeProvider() as llm:
        llm.replies["Executor"] = lambda request: BUY
        yield llm


@pytest.fixture(scope="module")
def slowness() -> list[float]:
    """Seconds that a small training took here and now: what is too long depends on it."""
    return []


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
    trained: Place,
    llm: FakeProvider,
    slowness: list[float],
) -> Place:
    """Two models: the small champion, and a desk of a model server whose decisions wait."""
    place = Place(tmp_path_factory.mktemp("scheduled"))
    store = (trained.folder / "mlflow.db").read_bytes()
    (place.folder / "mlflow.db").write_bytes(store)
    news = {"symbol": "AAPL", "published_at": "2013-01-30T12:00:00+00:00", "headline": "It is so."}
    (place.folder / "news.jsonl").write_text(json.dumps(news) + "\n")
    (place.folder / "desk.yaml").write_text(
        f"client: openai\nmodel: stub\nbase_url: {llm.address(Protocol.OPENAI)}\n"
        "approval: {below_confidence: 100, timeout_s: 600}\n"
    )
    options = ["--config", "desk.yaml", "--register-as", "asking", "--schedule", "30"]
    began = time.monotonic()
    done = place.finagent("train", *small_options(), *options, OPENAI_API_KEY=KEY)
    slowness.append(time.monotonic() - began)
    assert done.returncode in (0, 5), done.stderr
    return place


@pytest.fixture(scope="module")
def scheduled(
    place: Place, slowness: list[float], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Airflow]:
    variables = {
        "OPENAI_API_KEY": KEY,
        "FINAGENT_NEWS": str(place.folder / "news.jsonl"),
        "FINAGENT_DAG_SCHEDULE": f"0 {LATER} * * *",
        "FINAGENT_DAG_RETRIES": "1",
        "FINAGENT_DAG_RETRY_DELAY_S": "1",
        "FINAGENT_DAG_DECIDE_WITHIN_S": str(max(60, 6 * slowness[0])),
    }
    # A platform that refuses whatever comes, and quotes the token that came with it.
    with echo_server(401) as platform:
        variables |= {
            "FINAGENT_PLATFORM_URL": platform,
            "FINAGENT_PLATFORM_TOKEN": TOKEN,
            "FINAGENT_UPSTREAM_SOURCE": f"https://me:{PROXY_PASSWORD}@127.0.0.1:9/x.git",
        }
        with airflow(place, tmp_path_factory.mktemp("local") / "home", **variables) as server:
            yield server


@pytest.fixture(scope="module")
def hanging(scheduled: Airflow, llm: FakeProvider) -> str:
    """A run on FB, which a human is asked about, and AAPL, which hangs: only it has news. It is
    started first because it takes its time, in which the others run.
    """
    llm.requests.clear()
    llm.fail(Fault.HANG, agent="NewsAnalyst")
    return scheduled.start(symbols=["FB", "AAPL"], as_of=AS_OF, model=ASKING)


def rows(place: Place, query: str, *values: str) -> list[tuple[Any, ...]]:
    """Of MLflow's store."""
    with closing(sqlite3.connect(place.folder / "mlflow.db")) as db:
        return db.execute(query, values).fetchall()


def recorded(place: Place, run: str) -> tuple[str, str, dict[str, str]]:
    """Id and status of a DAG run's parent, and the statuses of the runs below it by name."""
    query = (
        "select r.run_uuid, r.status from runs r join tags t using (run_uuid) "
        "where t.key = 'finagent.dag_run' and t.value = ?"
    )
    [(parent, status)] = rows(place, query, f"{DAG}/{run}")
    below = (
        "select r.name, r.status from runs r join tags t using (run_uuid) "
        "where t.key = 'mlflow.parentRunId' and t.value = ? order by r.start_time"
    )
    return parent, status, dict(rows(place, below, parent))


def notes(place: Place, parent: str) -> dict[str, str]:
    query = "select key, value from tags where run_uuid = ? and key like 'finagent.failed/%'"
    return dict(rows(place, query, parent))


def signals(scheduled: Airflow, run: str) -> dict[str, dict[str, Any]]:
    """What the tasks that decided passed on, by symbol."""
    results = [
        scheduled.xcom(run, "inference.decide", index)
        for (task, index), ti in scheduled.tasks(run).items()
        if task == "inference.decide" and ti["state"] == "success"
    ]
    return {row["symbol"]: row for row in results}


def deferred(scheduled: Airflow, run: str, index: int) -> None:
    """Return once a symbol's task waits, and no worker is held by it."""
    task = f"inference.decide/{index}"
    describe = lambda: scheduled.told(run)  # noqa: E731
    until(lambda: scheduled.states(run).get(task) == "deferred", DONE_S, describe)


def settle(place: Place, verb: str, symbol: str) -> None:
    approvals = json.loads(place.finagent("approvals", "--json").stdout)
    [key] = [a["id"] for a in approvals if a["symbol"] == symbol and a["state"] == "pending"]
    assert place.finagent(verb, key).returncode == 0


def test_dag_api_refuses_bad_conf_with_what_is_allowed(scheduled: Airflow, hanging: str) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"mode": "dream"}, "'inference', 'train_backtest', 'both'"),
        ({"symbols": ["A" * 21]}, "A symbol as its source lists it"),
        ({"symbols": []}, "non-empty"),
        ({"as_of": "31.1.2013"}, "2012-06-29"),
        ({"as_of": "20130131"}, "2012-06-29"),
        ({"max_failed_share": 2}, "maximum of 1"),
    ]
    for conf, message in wrong:
        answer = scheduled.trigger(**conf)
        assert answer.status_code == 400
        assert message in answer.json()["detail"]
    assert [run["dag_run_id"] for run in scheduled.runs()] == [hanging]


def test_open_run_fails_on_bad_conf_without_retry(
    scheduled: Airflow,
) -> None:
    wrong = [
        (
            {"mode": "both", "train": {"candidate": 3}},
            "unknown parameter 'candidate'; did you mean 'candidates'?",
        ),
        ({"symbol": "GOOG"}, "there is: mode, symbols, as_of"),
    ]
    runs = [(scheduled.start(**conf), message) for conf, message in wrong]
    for run, message in runs:
        assert scheduled.ended(run) == "failed"
        assert scheduled.tasks(run)["open_run", -1]["try_number"] == 1
        assert set(scheduled.states(run).values()) == {"failed", "upstream_failed"}
        assert message in scheduled.told(run)


def test_dag_run_fails_above_max_failed_share(scheduled: Airflow, place: Place) -> None:
    run = scheduled.start(symbols=["FB", "NOPE"], as_of=AS_OF)
    assert scheduled.ended(run) == "failed"
    statuses = {symbol: row["status"] for symbol, row in signals(scheduled, run).items()}
    assert statuses == {"FB": "ok", "NOPE": "data_missing"}
    parent, status, below = recorded(place, run)
    assert (status, set(below.values())) == ("FAILED", {"FINISHED"})
    message = notes(place, parent)["finagent.failed/close_run"]
    assert message == "1 of 2 decisions failed, more than max_failed_share 0.2: NOPE data_missing"


def test_dag_both_updates_asset_of_the_model(scheduled: Airflow, place: Place) -> None:
    run = scheduled.start(
        mode="both", symbols=["FB"], as_of=AS_OF, train=TRAIN, execution_id="platform-7"
    )
    assert scheduled.ended(run) == "success", scheduled.told(run)
    assert signals(scheduled, run)["FB"]["model_version"] == "2"
    _, status, below = recorded(place, run)
    assert (status, below) == ("FINISHED", {"train FB": "FINISHED", "infer FB": "FINISHED"})
    query = "select count(*) from tags where key = 'finagent.workflow_execution_id' and value = ?"
    # The workflow's run, the training's, its backtest's and the decision's.
    assert rows(place, query, "platform-7") == [(4,)]

    until(lambda: scheduled.runs("after_training"), DONE_S, scheduled.text_of_logs)
    [follower] = scheduled.runs("after_training")
    assert scheduled.ended(follower["dag_run_id"], "after_training") == "success"
    uri = scheduled.xcom(follower["dag_run_id"], "tell", dag="after_training")
    assert uri == "models:/finagent/2"

    scheduled.clear(run, "train_backtest.register")
    assert scheduled.ended(run) == "success", scheduled.told(run)
    assert scheduled.tasks(run)["train_backtest.register", -1]["try_number"] == 2
    versions = json.loads(place.finagent("models", "--json").stdout)
    assert [row["version"] for row in versions] == ["2", "1"]


def test_dag_hanging_symbol_stops_no_other_symbol(
    scheduled: Airflow, place: Place, llm: FakeProvider, hanging: str
) -> None:
    run = hanging
    deferred(scheduled, run, 0)
    settle(place, "approve", "FB")
    assert scheduled.ended(run) == "failed"
    states = scheduled.states(run)
    assert (states["inference.decide/0"], states["inference.decide/1"]) == ("success", "failed")
    assert scheduled.tasks(run)["inference.decide", 1]["try_number"] == 2
    [(symbol, signal)] = signals(scheduled, run).items()
    assert (symbol, signal["status"], signal["action"]) == ("FB", "ok", "BUY")
    parent, status, _ = recorded(place, run)
    assert status == "FAILED"
    assert "Timeout" in notes(place, parent)["finagent.failed/inference.decide/1"]
    assert "no signal on AAPL" in notes(place, parent)["finagent.failed/close_run"]

    llm.recover()
    scheduled.clear(run, "inference.decide", 1)
    deferred(scheduled, run, 1)
    settle(place, "reject", "AAPL")
    assert scheduled.ended(run) == "success", scheduled.told(run)
    assert signals(scheduled, run)["AAPL"]["status"] == "approval_rejected"
    assert recorded(place, run)[:2] == (parent, "FINISHED")
    # Two symbols, four tries, two answers of humans; what was answered once was not asked again.
    counts = {agent: len(llm.requests_of(agent)) for agent in ("TechnicalAnalyst", "Executor")}
    assert counts == {"TechnicalAnalyst": 2, "Executor": 2}
    assert len(llm.requests_of("NewsAnalyst")) >= 3  # who hung is asked anew by each try


def test_dag_run_stopped_by_hand_leaves_no_running_run(scheduled: Airflow, place: Place) -> None:
    run = scheduled.start(symbols=["FB"], as_of="2013-02-20", model=ASKING)
    deferred(scheduled, run, 0)
    answer = scheduled.client.patch(f"dags/{DAG}/dagRuns/{run}", json={"state": "failed"})
    assert answer.status_code == 200, answer.text
    assert scheduled.ended(run) == "failed"
    _, status, below = recorded(place, run)
    assert (status, below) == ("FAILED", {})
    assert rows(place, "select name from runs where status = 'RUNNING'") == []


def test_dag_backfill_decides_as_of_each_day(scheduled: Airflow, place: Place) -> None:
    days = ["--from-date", "2013-02-01", "--to-date", "2013-02-03"]
    conf = json.dumps({"symbols": ["FB"]})
    done = scheduled.command("backfill", "create", "--dag-id", DAG, *days, "--dag-run-conf", conf)
    assert done.returncode == 0, done.stderr
    runs = sorted(
        (run["logical_date"][:10], run["dag_run_id"])
        for run in scheduled.runs()
        if run["run_type"] == "backfill"
    )
    assert [day for day, _ in runs] == ["2013-02-01", "2013-02-02"]
    by_day = {}
    for day, run in runs:
        assert scheduled.ended(run) == "success", scheduled.told(run)
        inputs = scheduled.xcom(run, "inference.resolve_inputs")
        assert inputs == {"as_of": day, "model_uri": "models:/finagent/2"}  # not @champion
        by_day[day] = signals(scheduled, run)["FB"]
    friday, saturday = by_day.values()
    assert friday["run_id"] != saturday["run_id"]
    assert (friday["action"], friday["status"]) == (saturday["action"], saturday["status"])


def test_dag_xcoms_are_small_without_keys_in_logs(scheduled: Airflow) -> None:
    assert scheduled.largest_xcom() < 2048
    assert list(scheduled.home.rglob("task_id=*/**/*.log"))
    logs = scheduled.text_of_logs()
    assert "answered HTTP 401: " in logs
    assert [secret for secret in (KEY, TOKEN, PROXY_PASSWORD) if secret in logs] == []
