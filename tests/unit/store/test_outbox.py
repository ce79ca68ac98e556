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
from finagent_model.store.artifacts import ArtifactFilter, ArtifactStore
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
TOKEN = "open-sesame"


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


def send(url: str, platform: PlatformDouble, within_s: float = 30, **more: Any) -> OutboxReport:
    pauses: list[float] = more.pop("pauses", [])
    client = PlatformClient(platform.url, SecretStr(TOKEN), sleep=pauses.append)
    with closing(client):
        return Outbox(Database(url), **more).send(client, within_s)


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


def test_what_was_decided_is_sent_in_the_order_of_its_steps_the_signal_last(
    url: str, platform: PlatformDouble
) -> None:
    decide(url)
    assert send(url, platform) == OutboxReport(sent=6)
    assert platform.steps == STEPS
    assert platform.tokens == {f"Bearer {TOKEN}"}
    signal = platform.rows[-1]
    assert (signal["action"], signal["confidence"], signal["execution_id"]) == ("BUY", 0.6, "e1")
    assert send(url, platform) == OutboxReport()
    assert status(url) == (0, 6, 0)


def test_nothing_is_lost_while_the_platform_is_down(file: str) -> None:
    platform = PlatformDouble()
    for n in range(3):
        decide(file, f"e{n}", f"r{n}", as_of=f"2012-06-0{n + 1}T20:00:00Z")
    down = send(file, platform, within_s=0.2)
    assert (down.sent, down.parked, down.waiting) == (0, 0, 18)
    assert down.why and "can't be reached" in down.why
    with platform.up():
        assert send(file, platform) == OutboxReport(sent=18)
    assert platform.steps == STEPS * 3


def test_a_row_whose_answer_was_lost_is_not_stored_twice(
    file: str, platform: PlatformDouble
) -> None:
    decide(file)
    platform.after = first(1, JSONResponse({}, 502), "04_Executor")
    assert send(file, platform).sent == 6
    assert platform.steps == STEPS


def test_nor_where_the_sender_died_before_it_could_say_so(
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


def test_what_the_platform_refuses_is_parked_with_its_reason_and_the_rest_goes_on(
    file: str, platform: PlatformDouble
) -> None:
    decide(file)
    platform.before = first(1, JSONResponse({"detail": "name is odd"}, 400), "01_")
    assert send(file, platform) == OutboxReport(sent=5, parked=1)
    assert platform.steps == [STEPS[0], *STEPS[2:]]
    [parked] = Outbox(Database(file)).status()["parked_rows"]
    assert "answered HTTP 400" in parked["reason"] and "name is odd" in parked["reason"]
    assert send(file, platform) == OutboxReport()
    assert Outbox(Database(file)).unpark() == 1
    assert send(file, platform) == OutboxReport(sent=1)


def test_a_row_that_breaks_the_platform_holds_up_its_own_execution_and_is_parked_in_the_end(
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


def test_a_platform_that_stumbles_over_everything_is_left_alone_and_nothing_is_parked(
    file: str, platform: PlatformDouble
) -> None:
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


def test_a_wrong_token_parks_nothing_and_names_the_variables(
    file: str, platform: PlatformDouble, caplog: pytest.LogCaptureFixture
) -> None:
    decide(file)
    platform.before = lambda method, body: JSONResponse({"detail": "no"}, 401)
    with caplog.at_level(logging.DEBUG):
        done = send(file, platform)
    assert (done.waiting, platform.asked) == (6, ["POST"])
    assert done.why and "FINAGENT_PLATFORM_TOKEN" in done.why
    assert TOKEN not in caplog.text + done.why


def test_an_address_that_is_not_the_platforms_parks_nothing(file: str) -> None:
    decide(file)
    platform = PlatformDouble()
    with serving(FastAPI(), platform.port):
        done = send(file, platform)
    assert (done.waiting, done.parked) == (6, 0)
    assert done.why and "HTTP 404" in done.why and "FINAGENT_PLATFORM_URL" in done.why


def test_the_platform_is_left_alone_for_as_long_as_it_asks(
    file: str, platform: PlatformDouble
) -> None:
    decide(file)
    pauses: list[float] = []
    platform.before = first(1, JSONResponse({}, 429, {"Retry-After": "7"}))
    assert send(file, platform, pauses=pauses) == OutboxReport(sent=6)
    assert len(pauses) == 1 and pauses[0] >= 7
    assert platform.steps == STEPS


def test_longer_than_there_is_time_it_is_not_waited_for(
    file: str, platform: PlatformDouble
) -> None:
    decide(file)
    pauses: list[float] = []
    platform.before = lambda method, body: JSONResponse({}, 503, {"Retry-After": "3600"})
    assert send(file, platform, pauses=pauses).waiting == 6
    assert pauses == []


def test_a_failed_signal_that_is_replaced_is_changed_in_its_place_there(
    url: str, platform: PlatformDouble
) -> None:
    failed = {"status": "model_error", "action": "HOLD", "confidence": "LOW"}
    decide(url, **failed, confidence_score=0)
    send(url, platform)
    decide(url, "e2", "r2", generated_at=at(60))
    assert send(url, platform) == OutboxReport(sent=6)
    assert platform.steps == STEPS + STEPS[:-1]
    signal = platform.rows[5]
    assert (signal["action"], signal["run_id"], signal["execution_id"]) == ("BUY", "r2", "e2")
    assert platform.asked.count("PATCH") == 1


def test_two_senders_at_once_send_each_row_once(url: str, platform: PlatformDouble) -> None:
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


def test_our_own_rest_can_be_the_platform(file: str, tmp_path: Path) -> None:
    theirs = Settings.load({"FINAGENT_HOME": str(tmp_path / "theirs"), "FINAGENT_API_TOKEN": TOKEN})
    platform = PlatformDouble()
    decide(file)
    with serving(api_app(theirs), platform.port):
        assert send(file, platform) == OutboxReport(sent=6)
    here, there = (
        ArtifactStore(database).page(ArtifactFilter(), order="step").artifacts
        for database in (Database(file), Database.of(theirs))
    )
    known = ("key", "type", "symbol", "run_id", "response", "signal_data", "metadata")
    for ours, copy in zip(here, there, strict=True):
        assert [getattr(ours, n) for n in known] == [getattr(copy, n) for n in known]


def command(line: str, **environ: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, line.split(), env=environ)
    return done.exit_code, done.stdout, done.stderr


def test_the_commands_count_and_send(file: str) -> None:
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
