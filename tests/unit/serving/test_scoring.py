"""What `finagent serve` refuses, how it says so, and that it answers good rows beside bad ones."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from pydantic import SecretStr
from starlette.testclient import TestClient

from finagent_model.model.pyfunc import FinagentModel
from finagent_model.serving.scoring import MAX_BODY_BYTES, TRACES_GRACE_S, _Server, scoring_app
from finagent_model.settings import Settings
from support.hostile_questions import BAD_DATA, BAD_QUESTIONS, ROW
from support.serving import load_small_model

HERE, ELSEWHERE = "127.0.0.1", "192.0.2.7"
JSON = {"Content-Type": "application/json"}
TWO = {"dataframe_records": [ROW, ROW]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FinagentModel:
    return load_small_model(tmp_path_factory.mktemp("served"))


def client(
    model: FinagentModel, caller: str = HERE, host: str = HERE, **settings: object
) -> TestClient:
    app = scoring_app(model, "model", Settings.model_validate(settings))
    return TestClient(app, base_url=f"http://{host}", client=(caller, 50000))


@pytest.fixture(scope="module")
def http(model: FinagentModel) -> Iterator[TestClient]:
    with client(model) as http:
        yield http


def ask(http: TestClient, body: object) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body)
    return http.post("/invocations", content=content, headers=JSON)


def statuses(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text[:500]
    return [signal["status"] for signal in answer.json()["predictions"]]


@pytest.mark.parametrize("case", BAD_DATA)
def test_scoring_bad_data_is_status_of_its_row(http: TestClient, case: str) -> None:
    columns, message = BAD_DATA[case]
    answer = ask(http, {"dataframe_records": [{**ROW, **columns}, ROW]})
    assert statuses(answer) == ["data_missing", "ok"]
    assert message in answer.json()["predictions"][0]["reasoning"]
    assert len(answer.content) < 5000


@pytest.mark.parametrize("form", ["dataframe_records", "inputs"])
@pytest.mark.parametrize("case", BAD_QUESTIONS)
def test_scoring_bad_question_is_400_naming_row(http: TestClient, case: str, form: str) -> None:
    row, message = BAD_QUESTIONS[case]
    answer = ask(http, {form: [ROW, row]})
    assert (answer.status_code, list(answer.json())) == (400, ["error_code", "message"])
    assert answer.json()["message"].startswith("row 1: ")
    assert message in answer.json()["message"]
    assert len(answer.content) < 300


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"not json", 400, "the body is not JSON: Expecting value"),
        (b"[" * 100_000, 400, "the body is nested 100000 deep; at most 64"),
        (b'{"dataframe_records": [], "dataframe_records": []}', 400, "stands twice"),
        (b'{"inputs": [{"symbol": "A", "as_of": 1e999}]}', 400, "the number 1e999 is too large"),
        (b" " * (MAX_BODY_BYTES + 1), 413, "the body may have 8388608 bytes; send fewer rows"),
        ([ROW], 400, "the body is not a JSON object; send {"),
        ({}, 400, "send exactly one of dataframe_records, dataframe_split, inputs; got none"),
        ({"inputs": [ROW], **TWO}, 400, "got dataframe_records and inputs"),
        ({"instances": [ROW]}, 400, "key 'instances', which turns rows into columns, is unknown"),
        ({**TWO, "parms": {}}, 400, "key 'parms' is unknown; known: dataframe_records"),
        ({**TWO, "params": ["live"]}, 400, "params must be a JSON object, not [...]"),
        ({**TWO, "params": {"mdoe": 1}}, 400, "parameter 'mdoe' is unknown; known: mode, budget"),
        ({**TWO, "params": {"mode": "m" * 10**6}}, 400, "mode 'mmm"),
        ({**TWO, "params": {"budget_usd": "1"}}, 400, "budget_usd '1' must be 0"),
        ({**TWO, "params": {"max_rounds": True}}, 400, "max_rounds True must be a whole number"),
        ({"dataframe_records": []}, 400, "no rows; send at least one"),
        ({"dataframe_records": [ROW] * 2001}, 400, "has 2001 rows; at most 2000 at a time"),
        ({"dataframe_records": [None]}, 400, "dataframe_records must be a list of objects"),
        ({"inputs": ROW}, 400, "inputs must be a list of objects, one a row"),
        ({"dataframe_split": [ROW]}, 400, "must be an object with 'columns' and 'data'"),
        ({"dataframe_split": {"columns": ["symbol"], "data": [[]]}}, 400, "row 0: 0 values for 1"),
        ({"dataframe_split": {"columns": [1], "data": []}}, 400, "must be a list of names"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": []}}, 400, "names, each once"),
        ({"dataframe_split": {"columns": ["a"], "data": {}}}, 400, "data must be a list of lists"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_scoring_refuses_body_in_one_sentence(
    http: TestClient, body: object, status: int, message: str
) -> None:
    answer = ask(http, body)
    assert (answer.status_code, list(answer.json())) == (status, ["error_code", "message"])
    assert message in answer.json()["message"]
    assert len(answer.content) < 300


@pytest.mark.parametrize(
    "kind", ["text/csv", "application/vnd.apache.parquet", "application/json; charset=latin-1", ""]
)
def test_scoring_refuses_other_content_type(http: TestClient, kind: str) -> None:
    answer = http.post(
        "/invocations", content="symbol,as_of\nGOOG,2012-06-29\n", headers={"Content-Type": kind}
    )
    assert (answer.status_code, answer.json()["error_code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert "send JSON" in answer.json()["message"]


def test_scoring_batch_may_bring_news_for_some_rows(http: TestClient) -> None:
    news = [{"headline": "A headline", "published_at": "2012-06-28T12:00:00Z"}]
    rows = [{**ROW, "news": news}, {"symbol": "IBM", "as_of": "2012-06-29"}, {**ROW, "bars": None}]
    assert statuses(ask(http, {"dataframe_records": rows})) == ["ok"] * 3
    assert statuses(ask(http, {"inputs": rows})) == ["ok"] * 3


def test_scoring_forms_give_same_signals(http: TestClient) -> None:
    split = {"columns": [*ROW, "bars"], "index": [0], "data": [[*ROW.values(), None]]}
    forms = [{"dataframe_records": [ROW]}, {"inputs": [ROW]}, {"dataframe_split": split}]
    signals = [ask(http, form).json()["predictions"][0] for form in forms]
    for signal in signals:
        del signal["generated_at"]
    assert signals[0] == signals[1] == signals[2]


def test_scoring_takes_a_slot_before_it_reads(
    model: FinagentModel, http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "_slots", threading.BoundedSemaphore(1))
    with model.admit(None):
        answer = ask(http, b"[" * 100_000)
    assert (answer.status_code, answer.json()["error_code"]) == (429, "REQUEST_LIMIT_EXCEEDED")
    assert ask(http, b"[").status_code == 400


def test_scoring_deadline_stops_work_before_timeout(
    model: FinagentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr("finagent_model.serving.scoring.work_timeout_s", lambda limit: 0.0)
    with client(model) as http:
        answer = ask(http, TWO)
    assert (answer.status_code, answer.json()["error_code"]) == (504, "DEADLINE_EXCEEDED")
    assert answer.json()["message"].startswith("not decided within 0 s (rows: 2)")


@pytest.mark.parametrize(
    ("caller", "host"), [(ELSEWHERE, HERE), (HERE, "evil.example"), (ELSEWHERE, ELSEWHERE)]
)
def test_scoring_without_token_answers_this_machine(
    model: FinagentModel, caller: str, host: str
) -> None:
    with client(model, caller, host) as http:
        answer = ask(http, TWO)
        assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED")
        assert "FINAGENT_SERVE_TOKEN" in answer.json()["message"]
        refused = ("/version", "/approvals", "/openapi.json", "/docs")
        assert {http.get(path).status_code for path in refused} == {403}
        assert {http.get(path).status_code for path in ("/ping", "/health")} == {200}


def test_scoring_with_token_requires_it(model: FinagentModel) -> None:
    token = {"FINAGENT_SERVE_TOKEN": SecretStr("open-sesame-0123")}
    with client(model, ELSEWHERE, "desk.example", **token) as http:
        for header in ("", "Bearer sesame", "Basic open-sesame-0123"):
            answer = http.post("/invocations", json=TWO, headers={"Authorization": header})
            assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHENTICATED")
            assert "open-sesame-0123" not in answer.text
        right = {"Authorization": "Bearer open-sesame-0123"}
        assert statuses(http.post("/invocations", json=TWO, headers=right)) == ["ok", "ok"]
        # Approvals have a token of their own.
        assert http.get("/approvals", headers=right).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_scoring_refuses_page_of_another_site(http: TestClient, headers: dict[str, str]) -> None:
    for path in ("/invocations", "/approvals/0123456789ab/approve"):
        assert http.post(path, json=TWO, headers=headers).status_code == 403


def test_scoring_has_no_page_with_scripts(http: TestClient) -> None:
    assert [http.get(path).status_code for path in ("/docs", "/redoc")] == [404, 404]
    assert http.get("/nothing").json()["error_code"] == "NOT_FOUND"


@pytest.mark.parametrize("in_a_hurry", [False, True])
def test_server_that_ends_writes_its_last_traces(
    model: FinagentModel, monkeypatch: pytest.MonkeyPatch, in_a_hurry: bool
) -> None:
    waited = list[float]()
    monkeypatch.setattr(model, "stop", lambda: None)
    monkeypatch.setattr(model.predictor, "flush_traces", waited.append)
    config = uvicorn.Config(scoring_app(model, "model", Settings()))
    config.load()

    async def run() -> None:
        server = _Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup([])
        server.force_exit = in_a_hurry
        await server.shutdown([])

    asyncio.run(run())
    assert waited == ([] if in_a_hurry else [TRACES_GRACE_S])
