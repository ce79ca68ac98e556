"""Artifacts over HTTP: who may, what is refused and how, and that no answer is a stack trace."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from finagent_model.settings import Settings
from finagent_model.store.api import MAX_BODY_BYTES, api_app
from finagent_model.store.database import Database
from finagent_model.store.decisions import DecisionStore
from support.decisions import decision
from support.platform_tables import narrow

HERE, ELSEWHERE = "127.0.0.1", "192.0.2.7"
NOTE = {"name": "note", "type": "llm", "response": "yes", "metadata": {"key": "k"}}
TOKEN = "open-sesame-0123"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return served(tmp_path)


def served(folder: Path, **environ: str) -> FastAPI:
    return api_app(Settings.load({"FINAGENT_HOME": str(folder), **environ}))


@contextmanager
def caller(app: FastAPI, host: str = HERE, asked: str = HERE) -> Iterator[TestClient]:
    with TestClient(
        app, base_url=f"http://{asked}", client=(host, 50000), raise_server_exceptions=False
    ) as found:
        yield found


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with caller(app) as found:
        yield found


def fill(folder: Path) -> None:
    DecisionStore(Database(f"sqlite:///{folder}/finagent.db")).write(decision(), "r1")


def test_api_page_is_newest_first_with_total(tmp_path: Path, client: TestClient) -> None:
    fill(tmp_path)
    page = client.get("/api/artifacts", params={"limit": 2, "offset": 1}).json()
    assert [row["step_name"] for row in page["artifacts"]] == [
        "03_RiskManager",
        "02_TechnicalAnalyst",
    ]
    assert (page["total"], page["limit"], page["offset"]) == (5, 2, 1)


def test_api_page_filter_in_order_of_steps(tmp_path: Path, client: TestClient) -> None:
    fill(tmp_path)
    asked = {"run_id": "r1", "as_of_from": "2012-06-29", "as_of_to": "2012-06-29", "order": "step"}
    rows = client.get("/api/artifacts", params=asked).json()["artifacts"]
    assert [row["type"] for row in rows] == ["llm", "llm", "llm", "llm", "signal"]
    [signal] = client.get("/api/artifacts?status=ok&action=BUY").json()["artifacts"]
    assert client.get(f"/api/artifacts/{signal['id']}").json() == signal


def test_api_page_is_limited_by_bytes(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finagent_model.store.api.MAX_PAGE_BYTES", 100_000)
    sizes = (30_000, 30_000, 30_000, 200_000, 60_000)
    for n, size in enumerate(sizes):
        client.post("/api/artifacts", json={"name": f"{n}", "type": "llm", "response": "x" * size})
    seen: list[list[str]] = []
    while sum(map(len, seen)) < len(sizes):
        asked = {"offset": sum(map(len, seen)), "limit": 1000, "order": "oldest"}
        page = client.get("/api/artifacts", params=asked).json()
        assert page["total"] == len(sizes)
        seen.append([row["name"] for row in page["artifacts"]])
    assert seen == [["0", "1", "2"], ["3"], ["4"]]


def test_api_post_is_idempotent(client: TestClient) -> None:
    first, again = (client.post("/api/artifacts", json=NOTE) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json()["response_length"] == 3


def test_api_patch_changes_in_place(client: TestClient) -> None:
    number = client.post("/api/artifacts", json=NOTE).json()["id"]
    changed = client.patch(f"/api/artifacts/{number}", json={"response": "no"}).json()
    assert (changed["id"], changed["response"], changed["name"]) == (number, "no", "note")
    assert changed["updated_at"] is not None


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error", "said"),
    [
        ("GET", "/api/artifacts/41", None, 404, "not_found", "no artifact 41"),
        ("PATCH", "/api/artifacts/41", {}, 404, "not_found", "no artifact 41"),
        ("GET", "/api/nothing", None, 404, "not_found", "Not Found"),
        ("DELETE", "/api/artifacts/1", None, 405, "method_not_allowed", "Not Allowed"),
        ("POST", "/api/artifacts", NOTE | {"response": "no"}, 409, "conflict", "has the key 'k'"),
        ("GET", "/api/artifacts/one", None, 422, "invalid", "path.number.*got 'one'"),
        ("GET", "/api/artifacts/99999999999", None, 422, "invalid", "path.number"),
        ("GET", "/api/artifacts?limit=0", None, 422, "invalid", "query.limit.*got '0'"),
        ("GET", "/api/artifacts?typ=llm", None, 422, "invalid", "query.typ.*got 'llm'"),
        ("GET", "/api/artifacts?as_of_to=soon", None, 422, "invalid", "as_of_to.*got 'soon'"),
        (
            "GET",
            "/api/artifacts?as_of_to=2012-06-29T20:00",
            None,
            422,
            "invalid",
            "time with its zone",
        ),
        ("GET", "/api/artifacts?symbol=%00", None, 422, "invalid", "query.symbol.*NUL"),
        (
            "GET",
            "/api/artifacts?as_of_from=0001-01-01T00:00:00%2B14:00",
            None,
            422,
            "invalid",
            "as_of_from.*years 2 to 9998",
        ),
        ("GET", "/api/artifacts?created_to=9999-12-31", None, 422, "invalid", "years 2 to 9998"),
        ("GET", "/api/artifacts?status=fine", None, 422, "invalid", "query.status.*'fine'"),
        ("POST", "/api/artifacts", {"name": "x"}, 422, "invalid", "body.type: is missing"),
        ("POST", "/api/artifacts", NOTE | {"type": "order"}, 422, "invalid", "got 'order'"),
        ("POST", "/api/artifacts", NOTE | {"confidence": 85}, 422, "invalid", "got 85"),
        ("POST", "/api/artifacts", NOTE | {"prompt": "\0"}, 422, "invalid", "NUL"),
        ("POST", "/api/artifacts", NOTE | {"chart_data": {"a": "\0"}}, 422, "invalid", "NUL"),
        (
            "POST",
            "/api/artifacts",
            NOTE | {"metadata": {"as_of": 3}},
            422,
            "invalid",
            "not a moment",
        ),
        (
            "POST",
            "/api/artifacts",
            NOTE | {"metadata": {"as_of": "0001-01-01T00:00:00+14:00"}},
            422,
            "invalid",
            "years 2 to 9998",
        ),
        (
            "POST",
            "/api/artifacts",
            NOTE | {"metadata": {"key": 3}},
            422,
            "invalid",
            "key is not text",
        ),
        ("POST", "/api/artifacts", NOTE | {"id": 3}, 422, "invalid", "body.id.*got 3"),
        ("PATCH", "/api/artifacts/1", {"confidence": "high"}, 422, "invalid", "got 'high'"),
        ("PATCH", "/api/artifacts/1", {"id": 3}, 422, "invalid", "body.id.*got 3"),
    ],
)
def test_api_error_names_field_with_value(
    client: TestClient, method: str, path: str, body: Any, status: int, error: str, said: str
) -> None:
    client.post("/api/artifacts", json=NOTE)
    answer = client.request(method, path, json=body)
    assert answer.status_code == status
    assert answer.json()["error"] == error
    assert re.search(said, answer.json()["message"])


@pytest.mark.slow
def test_api_error_names_too_narrow_column(tmp_path: Path, postgres: Callable[[], str]) -> None:
    url = postgres()
    narrow(url)
    with caller(served(tmp_path, FINAGENT_DATABASE=url)) as client:
        answer = client.post("/api/artifacts", json=NOTE | {"model_name": "m" * 150})
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid")
    [wrong] = answer.json()["fields"]
    assert (wrong["field"], wrong["value"]) == ("body.model_name", repr("m" * 150))
    assert "its column takes 100" in wrong["message"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b'{"name": ', 422),
        (b"[" * 100_000, 422),
        (b'{"name": "x", "type": "llm", "name": "y"}', 422),
        (b'{"name": "x", "type": "llm", "confidence": 1e999}', 422),
        (b'{"name": "x", "type": "llm", "chart_data": ' + b"[" * 500 + b"]" * 500 + b"}", 422),
        (b'{"name": "x", "type": "llm", "chart_data": [NaN]}', 422),
        (b'{"name": "x", "type": "llm", "metadata": {"a": "\\ud800"}}', 422),
        (b"\xff\xfe", 422),
        (b" " * (MAX_BODY_BYTES + 1), 413),
    ],
)
def test_api_refuses_unreadable_body(client: TestClient, content: bytes, status: int) -> None:
    answer = client.post("/api/artifacts", content=content, headers=JSON)
    assert (answer.status_code, "message" in answer.json()) == (status, True)
    assert len(answer.content) < 2000
    assert client.get("/api/artifacts").json()["total"] == 0


def test_api_limits_body_without_length(client: TestClient) -> None:
    pieces = (b" " * 100_000 for _ in range(MAX_BODY_BYTES // 100_000 + 1))
    answer = client.post("/api/artifacts", content=pieces, headers=JSON)
    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")


def test_api_refuses_form_of_browser(client: TestClient) -> None:
    answer = client.post(
        "/api/artifacts", content=json.dumps(NOTE), headers={"Content-Type": "text/plain"}
    )
    assert answer.status_code == 422
    assert client.get("/api/artifacts").json()["total"] == 0


@pytest.mark.parametrize(("host", "asked"), [(ELSEWHERE, HERE), (HERE, "evil.example")])
def test_api_without_token_answers_this_machine(app: FastAPI, host: str, asked: str) -> None:
    with caller(app, host, asked) as client:
        answer = client.post("/api/artifacts", json=NOTE)
        assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")
        assert "FINAGENT_API_TOKEN" in answer.json()["message"]
        assert client.patch("/api/artifacts/1", json={}).status_code == 403
        assert client.get("/api/artifacts").status_code == 403
        assert client.get("/api/openapi.json").status_code == 403


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_api_refuses_write_of_another_sites_page(
    client: TestClient, headers: dict[str, str]
) -> None:
    answer = client.post("/api/artifacts", json=NOTE, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")
    assert client.get("/api/artifacts").json()["total"] == 0


def test_api_with_token_refuses_other_callers(tmp_path: Path) -> None:
    with caller(served(tmp_path, FINAGENT_API_TOKEN=TOKEN), ELSEWHERE) as client:
        for headers in ({}, {"Authorization": "Bearer nope"}, {"Authorization": TOKEN}):
            for method, path in (("GET", ""), ("GET", "/1"), ("POST", ""), ("PATCH", "/1")):
                answer = client.request(method, f"/api/artifacts{path}", json=NOTE, headers=headers)
                assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
                assert TOKEN not in answer.text
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert client.post("/api/artifacts", json=NOTE, headers=right).status_code == 201
        assert client.get("/api/artifacts", headers=right).json()["total"] == 1


READ, WRITE = "FINAGENT_API_READ_TOKEN", "FINAGENT_API_WRITE_TOKEN"
READER, WRITER = "reader-0123456789", "writer-0123456789"


@pytest.mark.parametrize(
    ("tokens", "sent", "read", "write"),
    [
        ({READ: READER}, READER, 200, 403),
        ({READ: READER}, "", 401, 403),
        ({WRITE: WRITER}, WRITER, 200, 201),
        ({WRITE: WRITER}, "", 401, 401),
        ({READ: READER, WRITE: WRITER}, READER, 200, 401),
        ({READ: READER, WRITE: WRITER}, WRITER, 200, 201),
        ({READ: READER, "FINAGENT_API_TOKEN": TOKEN}, READER, 200, 401),
        ({READ: READER, "FINAGENT_API_TOKEN": TOKEN}, TOKEN, 200, 201),
        ({WRITE: WRITER, "FINAGENT_API_TOKEN": TOKEN}, TOKEN, 200, 201),
    ],
)
def test_api_read_token_writes_nothing(
    tmp_path: Path, tokens: dict[str, str], sent: str, read: int, write: int
) -> None:
    headers = {"Authorization": f"Bearer {sent}"}
    with caller(served(tmp_path, **tokens)) as client:
        answer = client.post("/api/artifacts", json=NOTE, headers=headers)
        assert answer.status_code == write
        assert client.get("/api/artifacts", headers=headers).status_code == read


def test_api_sets_the_origin_itself(tmp_path: Path, client: TestClient) -> None:
    fill(tmp_path)
    [ours] = client.get("/api/artifacts?type=signal").json()["artifacts"]
    planted = {"name": "x", "type": "signal", "metadata": {"key": ours["metadata"]["key"]}}
    answer = client.post("/api/artifacts", json=planted)
    assert (answer.status_code, answer.json()["origin"]) == (201, "rest")
    assert client.post("/api/artifacts", json=planted | {"origin": "finagent"}).status_code == 422
    [found] = client.get("/api/artifacts?type=signal&origin=finagent").json()["artifacts"]
    assert found == ours


@pytest.mark.parametrize(
    "change",
    [{"response": "BUY"}, {"image_path": "x"}, {"type": "signal"}, {"metadata": {"key": "k"}}],
)
def test_api_patch_refuses_what_our_row_says(
    tmp_path: Path, client: TestClient, change: dict[str, Any]
) -> None:
    fill(tmp_path)
    [*_, reply] = client.get("/api/artifacts?type=llm&order=step").json()["artifacts"]
    answer = client.patch(f"/api/artifacts/{reply['id']}", json=change)
    assert (answer.status_code, answer.json()["error"]) == (409, "conflict")
    assert client.patch(f"/api/artifacts/{reply['id']}", json={"name": "y"}).status_code == 200


def test_api_is_503_while_database_is_down(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "later"
    with caller(served(tmp_path, FINAGENT_DATABASE=f"sqlite:///{folder}/finagent.db")) as client:
        answer = client.get("/api/artifacts")
        assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
        assert str(folder) not in answer.text
        assert str(folder) in caplog.text
        folder.mkdir()
        assert client.get("/api/artifacts").status_code == 200


def test_api_bug_is_500_without_stack_trace(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finagent_model.store.artifacts.ArtifactStore.get", None)
    answer = client.get("/api/artifacts/1")
    assert (answer.status_code, answer.json()["error"]) == (500, "internal_server_error")
    assert "NoneType" not in answer.text


def test_api_openapi_names_every_answer(
    client: TestClient,
) -> None:
    paths = client.get("/api/openapi.json").json()["paths"]
    answers = {
        f"{method} {path}": set(call["responses"])
        for path, calls in paths.items()
        for method, call in calls.items()
    }
    always = {"200", "401", "403", "422", "429", "503"}
    assert answers == {
        "get /api/artifacts": always,
        "get /api/artifacts/{number}": always | {"404"},
        "post /api/artifacts": always | {"201", "409", "413"},
        "patch /api/artifacts/{number}": always | {"404", "409", "413"},
    }
