"""Approvals through the real commands: a killed wait goes on, humans answer from elsewhere."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from support.places import ACTED_ON, Place, free_port, post, small_options

pytestmark = pytest.mark.slow

RULES = "approval: {below_confidence: 100, timeout_s: %s}\n"
DAYS = ("2012-06-29", "2012-06-28", "2012-06-27")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("approvals"))


def desk(place: Place, timeout_s: float) -> str:
    path = place.folder / f"desk-{timeout_s:g}.yaml"
    path.write_text(RULES % timeout_s)
    return str(path)


def waiting(place: Place, day: str, config: str) -> subprocess.Popen[str]:
    """A `finagent predict` that has said that it waits."""
    command = ["finagent_model.cli", "predict", "GOOG", "--as-of", day, "--config", config]
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "--json"],
        cwd=place.folder,
        env=place.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "finagent approve" in process.stderr.readline()
    return process


def answer_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    result: dict[str, Any] = json.loads(out)
    return result


def pending(place: Place) -> list[dict[str, Any]]:
    done = place.finagent("approvals", "--json")
    assert done.returncode == 0, done.stderr
    return [row for row in json.loads(done.stdout) if row["state"] == "pending"]


def test_approval_wait_resumes_after_kill(
    place: Place,
) -> None:
    config = desk(place, 600)
    first = waiting(place, DAYS[0], config)
    [asked] = pending(place)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert (asked["symbol"], asked["as_of"][:10], asked["action"]) == ("GOOG", DAYS[0], "SELL")

    second = waiting(place, DAYS[0], config)
    [again] = pending(place)
    assert (again["id"], again["deadline"]) == (asked["id"], asked["deadline"])
    assert again["remaining_s"] < asked["remaining_s"]
    approved = place.finagent("approve", asked["id"], "--why", "agreed", "--json")
    assert approved.returncode == 0, approved.stderr
    assert json.loads(approved.stdout)["state"] == "approved"
    result = answer_of(second)
    assert (result["status"], result["action"]) == ("ok", "SELL")
    assert result["position_size_percent"] == asked["position_size_percent"]
    assert f"approval {asked['id']}: approved by " in result["warnings"][-1]

    late = place.finagent("reject", asked["id"])
    assert (late.returncode, late.stdout) == (2, "")
    assert "was approved by" in late.stderr
    unknown = place.finagent("approve", "000000000000")
    assert unknown.returncode == 2
    assert "no approval '000000000000'" in unknown.stderr


def test_approval_counts_after_process_died(place: Place) -> None:
    config = desk(place, 600)
    process = waiting(place, DAYS[2], config)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    [asked] = pending(place)
    assert place.finagent("approve", asked["id"]).returncode == 0
    result = place.signal("GOOG", "--as-of", DAYS[2], "--config", config)
    assert (result["status"], result["action"]) == ("ok", asked["action"])


def test_approval_rejection_is_no_strict_failure(place: Place) -> None:
    config = desk(place, 600)
    process = waiting(place, DAYS[1], config)
    [asked] = pending(place)
    assert place.finagent("reject", asked["id"], "--why", "earnings").returncode == 0
    result = answer_of(process)
    assert (result["status"], result["action"]) == ("approval_rejected", "HOLD")
    assert result["reasoning"].endswith(": earnings")
    strict = place.finagent("predict", "GOOG", "--as-of", DAYS[1], "--config", config, "--strict")
    assert strict.returncode == 0, strict.stderr


def test_approval_expired_can_not_be_approved(place: Place) -> None:
    result = place.signal("GOOG", "--as-of", DAYS[0], "--config", desk(place, 0.3))
    assert (result["status"], result["action"]) == ("approval_expired", "HOLD")
    done = place.finagent("approvals", "--json")
    [expired] = [row for row in json.loads(done.stdout) if row["state"] == "expired"]
    late = place.finagent("approve", expired["id"])
    assert late.returncode == 2
    assert "expired at" in late.stderr


def test_approval_applies_over_rest_but_not_in_training(place: Place) -> None:
    config = desk(place, 3600)
    started = time.monotonic()
    done = place.finagent("train", *small_options(), "--config", config, "--json")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 1800
    assert pending(place) == []

    port = free_port()
    command = ["python", "-m", "finagent_model.cli", "serve", "--port", str(port)]
    short = {"MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": "10"}
    rows = [{"symbol": "FB", "as_of": day} for day in ACTED_ON]
    with place.serving(*command, port=port, **short) as address, ThreadPoolExecutor(1) as pool:
        replayed = post(address, {"dataframe_records": rows, "params": {"mode": "replay"}})
        acts = [s["action"] != "HOLD" for s in replayed[1]["predictions"]]
        assert any(acts)
        assert post(address, {"dataframe_records": rows})[0] == 504
        asked = sorted(listed(address), key=lambda row: str(row["as_of"]))
        assert [row["state"] for row in asked] == ["pending"] * sum(acts)
        again = pool.submit(post, address, {"dataframe_records": rows})
        for number, row in enumerate(asked):
            verb = "reject" if number else "approve"
            assert settled(address, row["id"], verb, {"by": "ann"})[0] == 200
        assert settled(address, asked[0]["id"], "reject", {"by": "bob"})[0] == 409
        again.result()
        status, body = post(address, {"dataframe_records": rows})
    assert status == 200
    ways = [s["status"] for s, act in zip(body["predictions"], acts, strict=True) if act]
    assert ways == ["ok"] + ["approval_rejected"] * (len(ways) - 1)


def listed(address: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{address}/approvals", timeout=30) as answer:
        result: list[dict[str, Any]] = json.load(answer)
    return [row for row in result if row["symbol"] == "FB"]


def settled(address: str, key: str, verb: str, body: dict[str, str]) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"{address}/approvals/{key}/{verb}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
