"""What the pages answer to whoever may not look, asks for nonsense, or asks by a script."""

from __future__ import annotations

from pathlib import Path

import pytest
from httpx import Response
from starlette.testclient import TestClient

from finagent_model.settings import Settings
from finagent_model.webui import _login as login
from finagent_model.webui._login import COOKIE, SESSION_S, Sessions
from finagent_model.webui.pages_app import ui_app
from support.pages import HERE, OURS, client, settings, write

pytestmark = pytest.mark.usefixtures("no_mlflow")
TOKEN = "FINAGENT_API_TOKEN"
SESAME = "open-sesame-0123"
HTMX = {"hx-request": "true", "hx-target": "thread"}


@pytest.mark.parametrize(
    "cookie",
    [
        "99999999999.é",
        "٣.0",
        "9" * 5000 + ".0",
        "9" * 90 + ".0",
        ".",
        "1.é" + "0" * 64,
        "99999999999.0000",
    ],
)
def test_auth_refuses_forged_session(tmp_path: Path, cookie: str) -> None:
    with client(settings(tmp_path, **{TOKEN: SESAME})) as pages:
        sent = {"cookie": f"{COOKIE}={cookie}".encode()}
        answer = pages.get("/", headers=sent, follow_redirects=False)  # type: ignore[arg-type]
        assert answer.status_code == 303


def test_auth_refuses_unreadable_origin(known: Settings) -> None:
    with client(known) as pages:
        answer = pages.post("/models/finagent/rollback", headers={"origin": "http://["})
        assert answer.status_code == 403


def log_in(pages: TestClient, token: str = SESAME) -> Response:
    return pages.post("/login", data={"token": token}, headers=OURS, follow_redirects=False)


def test_login_refuses_caller_after_many_wrong_tokens(tmp_path: Path) -> None:
    with client(settings(tmp_path, **{TOKEN: SESAME})) as pages:
        assert {log_in(pages, f"open-{n}").status_code for n in range(10)} == {401}
        refused = log_in(pages)
        assert refused.status_code == 429
        assert "not looked at; try again in 6 s" in refused.text
        assert refused.headers["retry-after"] == "6"


def test_login_is_open_to_others_under_wrong_tokens(tmp_path: Path) -> None:
    known = settings(tmp_path, **{TOKEN: SESAME})
    app = ui_app(known)
    stranger = TestClient(app, base_url=HERE, client=("10.0.0.7", 50000))
    owner = TestClient(app, base_url=HERE, client=("10.0.0.8", 50000))
    assert [log_in(stranger, "open").status_code for _ in range(40)][-1] == 429
    assert log_in(owner).status_code == 303


def test_login_knows_browser_that_logged_in_before(tmp_path: Path) -> None:
    app = ui_app(settings(tmp_path, **{TOKEN: SESAME}))
    stranger, owner = (TestClient(app, base_url=HERE, client=("10.0.0.7", 1)) for _ in range(2))
    assert log_in(owner).status_code == 303
    owner.post("/logout", headers=OURS)
    assert [log_in(stranger, "open").status_code for _ in range(40)][-1] == 429
    stranger.cookies.set("finagent_device", "mine." + "0" * 64)
    assert log_in(stranger).status_code == 429
    assert log_in(owner).status_code == 303


def test_logout_ends_session_on_server(tmp_path: Path) -> None:
    with client(settings(tmp_path, **{TOKEN: SESAME})) as pages:
        cookie = log_in(pages).cookies[COOKIE]
        assert SESAME not in cookie
        assert pages.get("/", follow_redirects=False).status_code == 200
        pages.post("/logout", headers=OURS)
        pages.cookies.set(COOKIE, cookie)
        assert pages.get("/", follow_redirects=False).status_code == 303


def test_sessions_end_by_time_and_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    first = sessions.open()
    assert sessions.is_open(first)
    now[0] = SESSION_S
    assert not sessions.is_open(first)
    monkeypatch.setattr(login, "MAX_SESSIONS", 2)
    second, third, fourth = (sessions.open() for _ in range(3))
    assert [sessions.is_open(each) for each in (second, third, fourth)] == [False, True, True]


def test_pages_answer_scripts_in_json(tmp_path: Path) -> None:
    known = settings(tmp_path, FINAGENT_BARS="nonsense")
    write(known, 1)
    with client(known) as pages:
        for path, status, said in (
            ("/signals/1/bars.json", 400, "FINAGENT_BARS 'nonsense' is unknown"),
            ("/signals/99/bars.json", 404, "no artifact 99"),
            ("/signals/x/bars.json", 422, "number"),
            ("/runs/equity.json", 400, "no run was chosen"),
            ("/nowhere.json", 404, "links"),
        ):
            answer = pages.get(path)
            assert answer.status_code == status, path
            assert said in answer.json()["message"], path
    with client(settings(tmp_path, **{TOKEN: SESAME})) as pages:
        answer = pages.get("/signals/1/bars.json")
        assert answer.status_code == 401
        assert "log in again" in answer.json()["message"]
    with client(known, "10.0.0.7") as pages:
        assert "FINAGENT_API_TOKEN" in pages.get("/signals/1/bars.json").json()["message"]


def test_pages_have_header_of_ours(known: Settings) -> None:
    with client(known) as pages:
        for path in ("/", "/nowhere", "/signals/99", "/live/now"):
            assert pages.get(path).headers["x-finagent"] == "ui"


def test_page_part_is_whole_page_without_scripts(known: Settings) -> None:
    write(known, 1)
    with client(known) as pages:
        for path, said in (
            ("/signals/1/conversation", "RiskManager"),
            (f"/runs/{'f' * 32}/reliability", "Its training can"),
        ):
            whole = pages.get(path)
            for mark in ("<title>", '<html lang="en">', "<nav", "<h1>", said):
                assert mark in whole.text, (path, mark)
            part = pages.get(path, headers=HTMX)
            assert "<html" not in part.text
            assert said in part.text


def test_conversation_page_falls_back_to_database(known: Settings) -> None:
    write(known, 1)
    with client(known) as pages:
        for headers in ({}, HTMX):
            answer = pages.get("/signals/1/conversation", headers=headers)
            assert answer.status_code == 404
            assert "The whole record can&#39;t be read" in answer.text.replace("'", "&#39;")
            assert answer.text.index("whole record can") < answer.text.index("TechnicalAnalyst")
            assert 'id="thread"' in answer.text
