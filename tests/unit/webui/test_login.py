"""What the pages answer to whoever may not look, asks for nonsense, or asks by a script."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from finagent_model.settings import Settings
from finagent_model.webui import _login as login
from finagent_model.webui._login import COOKIE
from support.pages import OURS, client, settings, write

pytestmark = pytest.mark.usefixtures("no_mlflow")
TOKEN = "FINAGENT_API_TOKEN"
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
    with client(settings(tmp_path, **{TOKEN: "sesame"})) as pages:
        sent = {"cookie": f"{COOKIE}={cookie}".encode()}
        answer = pages.get("/", headers=sent, follow_redirects=False)  # type: ignore[arg-type]
        assert answer.status_code == 303


def test_auth_refuses_unreadable_origin(known: Settings) -> None:
    with client(known) as pages:
        answer = pages.post("/models/finagent/rollback", headers={"origin": "http://["})
        assert answer.status_code == 403


def test_login_wrong_tokens_are_rate_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login, "FAILED_LOGIN_DELAY_S", 0.06)
    with client(settings(tmp_path, **{TOKEN: "sesame"})) as pages:

        def guess() -> None:
            told = pages.post("/login", data={"token": "open"}, headers=OURS)
            assert told.status_code == 401

        threads = [threading.Thread(target=guess) for _ in range(12)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - began >= 12 * 0.06
        right = pages.post("/login", data={"token": "sesame"}, headers=OURS)
        assert right.status_code == 200


def test_login_refuses_when_too_many_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "MAX_WAITING", 0)
    with client(settings(tmp_path, **{TOKEN: "sesame"})) as pages:
        answer = pages.post("/login", data={"token": "sesame"}, headers=OURS)
        assert answer.status_code == 429
        assert "was not looked at" in answer.text


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
    with client(settings(tmp_path, **{TOKEN: "sesame"})) as pages:
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
