"""The outbox: whatever a platform does, nothing is lost, doubled or out of order."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from pydantic import SecretStr
from typer.testing import CliRunner

from finagent_model.cli import app
from finagent_model.decision.decision import Execution
from finagent_model.settings import Settings
from finagent_model.store.api import api_app
from finagent_model.store.artifact_models import ArtifactFilter
from finagent_model.store.artifacts import ArtifactStore
from finagent_model.store.database import Database
from finagent_model.store.decisions import DecisionStore
from finagent_model.store.outbox import LEASE, MAX_ATTEMPTS, Outbox, OutboxReport
from finagent_model.store.platform import PlatformClient
from support.decisions import at, decision
from support.fake_platform import PlatformDouble, serving

pytestmark = pytest.mark.slow
STEPS = [
    "00_chart",
    "01_TechnicalAnalyst",
    "02_TechnicalAnalyst",
    "03_RiskManager",
    "04_Executor",
    "99_signal",
]
TOKEN = "open-sesame-0123"


@pytest.fixture
def platform() -> Iterator[PlatformDouble]:
    with PlatformDouble().up() as found:
        yield found


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Where it is the platform that matters, and not the kind of the database."""
    return f"sqlite:///{tmp_path}/finagent.db"


def decide(url: str, execution: str = "e1", run: str = "r1", **changes: Any) -> None:
    by = Execution(execution_id=execution)
    made = decision(**{"model_uri": "models:/finagent/1"} | changes)
    DecisionStore(Database(url), queue=True).write(made, run, by, "7", True)


def send(url: str, platform: PlatformDouble, **more: Any) -> OutboxReport:
    pauses: list[float] = more.pop("pauses", [])
    client = PlatformClient(platform.url, SecretStr(TOKEN), sleep=pauses.append)
    with closing(client):
        return Outbox(Database(url), **more).send(client)


def status(url: str) -> tuple[int, int, int]:
    """Waiting, sent, parked."""
    found = Outbox(Database(url)).status()
    return found["waiting"], found["sent"], found["parked"]


def first(times: int, answer: Response, step: str = "") -> Any:
    """Answers the first requests with `answer`, those about one step if that is named."""
    left = [times]

    def hook(method: str, body: dict[str, Any]) -> Response | None:
        if left[0] and step in body.get("step_name", ""):
            left[0] -= 1
            return answer
        return None

    return hook


def test_outbox_sends_in_order_signal_last(url: str, platform: PlatformDouble) -> None:
    decide(url)
    assert send(url, platform) == OutboxReport(sent=6)
    assert platform.steps == STEPS
    assert platform.tokens == {f"Bearer {TOKEN}"}
    signal = platform.rows[-1]
    assert (signal["action"], signal["confidence"], signal["execution_id"]) == ("BUY", 0.6, "e1")
    assert send(url, platform) == OutboxReport()
    assert status(url) == (0, 6, 0)


def test_outbox_keeps_rows_while_platform_is_down(file: str) -> None:
    platform = PlatformDouble()
    for n in range(3):
        decide(file, f"e{n}", f"r{n}", as_of=f"2012-06-0{n + 1}T20:00:00Z")
    down = send(file, platform)
    assert (down.sent, down.parked, down.waiting) == (0, 0, 18)
    assert down.why and "can't be reached" in down.why
    with platform.up():
        assert send(file, platform) == OutboxReport(sent=18)
    assert platform.steps == STEPS * 3


def test_outbox_lost_answer_stores_row_once(file: str, platform: PlatformDouble) -> None:
    decide(file)
    platform.after = first(1, JSONResponse({}, 502), "04_Executor")
    assert send(file, platform).sent == 6
    assert platform.steps == STEPS


def test_outbox_killed_sender_stores_row_once(
    url: str, platform: PlatformDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(url)
    whole = PlatformClient.put

    def killed(client: PlatformClient, *given: Any, **how: Any) -> str:
        whole(client, *given, **how)
        raise KeyboardInterrupt

    monkeypatch.setattr(PlatformClient, "put", killed)
    monkeypatch.setattr(Outbox, "_release", lambda *_: None)  # nor let its rows go
    with pytest.raises(KeyboardInterrupt):
        send(url, platform)
    monkeypatch.undo()
    assert (platform.steps, send(url, platform).sent) == (STEPS[:1], 0)
    later = datetime.now(UTC) + LEASE + timedelta(seconds=1)
    assert send(url, platform, clock=lambda: later) == OutboxReport(sent=6)
    assert platform.steps == STEPS


def test_outbox_dead_letters_refused_row(file: str, platform: PlatformDouble) -> None:
    decide(file)
    platform.before = first(1, JSONResponse({"detail": "name is odd"}, 400), "01_")
    assert send(file, platform) == OutboxReport(sent=5, parked=1)
    assert platform.steps == [STEPS[0], *STEPS[2:]]
    [parked] = Outbox(Database(file)).status()["parked_rows"]
    assert "answered HTTP 400" in parked["reason"] and "name is odd" in parked["reason"]
    assert send(file, platform) == OutboxReport()
    assert Outbox(Database(file)).retry_failed() == 1
    assert send(file, platform) == OutboxReport(sent=1)


def test_outbox_dead_letters_row_after_five_server_errors(
    file: str, platform: PlatformDouble
) -> None:
    decide(file, "e1", "r1")
    decide(file, "e2", "r2", as_of="2012-06-28T20:00:00Z")
    platform.before = lambda method, body: (
        JSONResponse({"detail": "boom"}, 500)
        if (body["execution_id"], body["step_name"]) == ("e1", "00_chart")
        else None
    )
    for _ in range(MAX_ATTEMPTS - 1):
        assert send(file, platform).parked == 0
    assert platform.steps == STEPS
    assert status(file) == (6, 6, 0)
    assert send(file, platform) == OutboxReport(sent=5, parked=1)
    assert platform.steps == STEPS + STEPS[1:]


def test_outbox_server_errors_of_all_rows_park_none(file: str, platform: PlatformDouble) -> None:
    for n in range(4):
        decide(file, f"e{n}", f"r{n}", as_of=f"2012-06-0{n + 1}T20:00:00Z")
    platform.before = lambda method, body: JSONResponse({"detail": "no database"}, 500)
    for _ in range(MAX_ATTEMPTS + 1):
        assert send(file, platform).parked == 0
    assert "no database" in Outbox(Database(file)).status()["why"]
    assert platform.steps == []
    platform.before = lambda method, body: None
    assert send(file, platform) == OutboxReport(sent=24)
    assert platform.steps == STEPS * 4


def test_outbox_wrong_token_parks_nothing(
    file: str, platform: PlatformDouble, caplog: pytest.LogCaptureFixture
) -> None:
    decide(file)
    platform.before = lambda method, body: JSONResponse({"detail": "no"}, 401)
    with caplog.at_level(logging.DEBUG):
        done = send(file, platform)
    assert (done.waiting, platform.asked) == (6, ["POST"])
    assert done.why and "FINAGENT_PLATFORM_TOKEN" in done.why
    assert TOKEN not in caplog.text + done.why


def test_outbox_wrong_address_parks_nothing(file: str) -> None:
    decide(file)
    platform = PlatformDouble()
    with serving(FastAPI(), platform.port):
        done = send(file, platform)
    assert (done.waiting, done.parked) == (6, 0)
    assert done.why and "HTTP 404" in done.why and "FINAGENT_PLATFORM_URL" in done.why


def test_outbox_waits_for_retry_after(file: str, platform: PlatformDouble) -> None:
    decide(file)
    pauses: list[float] = []
    platform.before = first(1, JSONResponse({}, 429, {"Retry-After": "7"}))
    assert send(file, platform, pauses=pauses) == OutboxReport(sent=6)
    assert len(pauses) == 1 and pauses[0] >= 7
    assert platform.steps == STEPS


def test_outbox_does_not_wait_beyond_timeout(file: str, platform: PlatformDouble) -> None:
    decide(file)
    pauses: list[float] = []
    platform.before = lambda method, body: JSONResponse({}, 503, {"Retry-After": "3600"})
    assert send(file, platform, pauses=pauses).waiting == 6
    assert pauses == []


def test_outbox_patches_replaced_signal(url: str, platform: PlatformDouble) -> None:
    failed = {"status": "model_error", "action": "HOLD", "confidence": "LOW"}
    decide(url, **failed, confidence_score=0)
    send(url, platform)
    decide(url, "e2", "r2", generated_at=at(60))
    assert send(url, platform) == OutboxReport(sent=6)
    assert platform.steps == STEPS + STEPS[:-1]
    signal = platform.rows[5]
    assert (signal["action"], signal["run_id"], signal["execution_id"]) == ("BUY", "r2", "e2")
    assert platform.asked.count("PATCH") == 1


def test_outbox_concurrent_senders_send_each_row_once(url: str, platform: PlatformDouble) -> None:
    for n in range(6):
        decide(url, f"e{n}", f"r{n}", as_of=f"2012-06-0{n + 1}T20:00:00Z")
    done: list[OutboxReport] = []
    senders = [threading.Thread(target=lambda: done.append(send(url, platform))) for _ in range(3)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert sum(sent.sent for sent in done) == 36
    for n in range(6):
        mine = [row["step_name"] for row in platform.rows if row["execution_id"] == f"e{n}"]
        assert mine == STEPS


def test_outbox_sends_to_our_own_api(file: str, tmp_path: Path) -> None:
    theirs = Settings.load({"FINAGENT_HOME": str(tmp_path / "theirs"), "FINAGENT_API_TOKEN": TOKEN})
    platform = PlatformDouble()
    decide(file)
    with serving(api_app(theirs), platform.port):
        assert send(file, platform) == OutboxReport(sent=6)
    here, there = (
        ArtifactStore(database).list_artifacts(ArtifactFilter(), order="step").artifacts
        for database in (Database(file), Database.from_settings(theirs))
    )
    known = ("key", "type", "symbol", "run_id", "response", "signal_data", "metadata")
    for ours, copy in zip(here, there, strict=True):
        assert [getattr(ours, n) for n in known] == [getattr(copy, n) for n in known]


def command(line: str, **environ: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, line.split(), env=environ)
    return done.exit_code, done.stdout, done.stderr


def test_cli_outbox_status_then_send(file: str) -> None:
    platform = PlatformDouble()
    decide(file)
    environ = {"FINAGENT_DATABASE": file, "FINAGENT_PLATFORM_URL": ""}
    code, _, said = command("outbox send", **environ)
    assert (code, "set FINAGENT_PLATFORM_URL" in said) == (2, True)
    environ["FINAGENT_PLATFORM_URL"] = platform.url
    code, out, _ = command("outbox status --json", **environ)
    assert (code, json.loads(out)["waiting"]) == (0, 6)
    code, out, _ = command("outbox send --json", **environ)
    assert (code, json.loads(out)["waiting"]) == (3, 6)
    with platform.up():
        code, out, _ = command("outbox send --parked --json", **environ)
    assert code == 0
    assert json.loads(out) == {"sent": 6, "parked": 0, "waiting": 0, "why": None}
    code, out, _ = command("outbox status", **environ)
    assert out == f"0 waiting, 6 sent, 0 parked; platform: {platform.url}\n"
