"""What a server does when its model is slow, locked out or told to end: typed answers, and a server
that goes on working.
"""

from __future__ import annotations

import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from finagent_model.model.package import write_package
from finagent_model.model.wheel import code_hash
from finagent_model.testing import FakeLLM
from support.chat_model import KEY, config
from support.packages import book, trained_state
from support.places import Place, free_port, post
from support.serving import SAVE, serve

pytestmark = pytest.mark.slow
ROW = {"symbol": "GOOG", "as_of": "2012-06-29"}
ONE = {"dataframe_records": [ROW], "params": {"mode": "live"}}
TIMEOUT_S = 10
FOREVER_S = 600.0
"""What the chat model takes when it is slow; every test ends long before."""


@pytest.fixture(scope="module")
def chat() -> Iterator[FakeLLM]:
    with FakeLLM() as llm:
        yield llm


@pytest.fixture(autouse=True)
def _quick(chat: FakeLLM) -> None:
    chat.delay_s = 0.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, chat: FakeLLM) -> Place:
    """Where a model lies whose desk asks the chat model and counts what a day takes."""
    place = Place(tmp_path_factory.mktemp("chat"))
    chosen = config(chat, spending={"day_tokens": 10**9}, limits={"retries": 0})
    package = place.folder / "package"
    write_package(
        package,
        config=chosen,
        trained_state=trained_state(book()),
        replies={},
        backtest={"evidence": {"grade": "none"}},
        code_hash=code_hash(),
    )
    saved = place.python(SAVE)
    assert saved.returncode == 0, saved.stderr
    return place


def wait_for_the_client(address: str) -> None:
    """The first call of a process imports its chat client, which may outlast a deadline."""
    statuses = [post(address, ONE)[0]]
    while statuses[-1] != 200 and len(statuses) < 10:
        statuses.append(post(address, ONE)[0])
    assert statuses[-1] == 200, statuses


@pytest.fixture(scope="module")
def address(place: Place) -> Iterator[str]:
    port, env = free_port(), {"OPENAI_API_KEY": KEY, "FINAGENT_SERVE_THREADS": "20"}
    env["MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"] = str(TIMEOUT_S)
    with place.serving(*serve(port), port=port, **env) as url:
        wait_for_the_client(url)
        yield url


def test_serving_slow_model_is_504_in_time(address: str, chat: FakeLLM) -> None:
    chat.delay_s = FOREVER_S
    began = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: post(address, ONE), range(20)))
    assert time.monotonic() - began < FOREVER_S / 2
    assert {status for status, _ in answers} == {504}
    body = answers[0][1]
    assert body["error_code"] == "DEADLINE_EXCEEDED"
    assert body["message"].startswith(
        "not decided within 7.5 s (rows: 1), and the work was stopped"
    )
    chat.delay_s = 0.0
    status, body = post(address, ONE)
    assert (status, body["predictions"][0]["status"]) == (200, "ok")


def test_serving_locked_budget_file_is_503(address: str, place: Place) -> None:
    with sqlite3.connect(place.folder / "home" / "spending.sqlite", isolation_level=None) as other:
        other.execute("begin exclusive")
        try:
            status, body = post(address, ONE)
        finally:
            other.execute("rollback")
    assert (status, body["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert "can't be counted" in body["message"]
    assert post(address, ONE)[0] == 200


def test_serving_shutdown_answers_503_after_grace(place: Place, chat: FakeLLM) -> None:
    port, env = free_port(), {"OPENAI_API_KEY": KEY}
    with place.serving(*serve(port), port=port, **env) as address:
        wait_for_the_client(address)
        chat.delay_s = FOREVER_S
        with ThreadPoolExecutor(1) as pool:
            calls = len(chat.requests)
            waiting = pool.submit(post, address, ONE)
            chat.wait_for_requests(calls + 1)
            server = place.servers[port]
            server.send_signal(signal.SIGTERM)
            server.wait(FOREVER_S / 2)
            status, body = waiting.result()
    assert (status, body["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert "shutting down" in body["message"]


def test_serving_workers_go_on_after_one_was_killed(place: Place, chat: FakeLLM) -> None:
    port, env = free_port(), {"OPENAI_API_KEY": KEY}
    with place.serving(*serve(port), "--workers", "2", port=port, **env) as address:
        workers = psutil.Process(place.servers[port].pid).children()
        assert len(workers) == 2
        workers[0].kill()
        workers[0].wait(FOREVER_S / 10)
        # Its callers wait for the next one, so that none of these is refused.
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: post(address, ONE), range(16)))
        assert {(status, body["predictions"][0]["status"]) for status, body in answers} == {
            (200, "ok")
        }
        place.servers[port].send_signal(signal.SIGTERM)
        place.servers[port].wait(FOREVER_S / 10)
    assert not any(worker.is_running() for worker in workers)
    log = (place.folder / f"server-{port}.log").read_text()
    assert f"(process {workers[0].pid}) ended by signal SIGKILL; another takes its place" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({**ONE, "params": {"mdoe": "live"}}, "parameter 'mdoe' is unknown; known: mode, budget"),
        ({"dataframe_records": [ROW, {**ROW, "asof": 1}]}, "row 1: column 'asof' is unknown"),
        ({"dataframe_split": {"columns": ["symbol"], "data": [["GOOG"]]}}, "row 0: as_of is miss"),
        ({"dataframe_records": [{**ROW, "symbol": 5}]}, "row 0: symbol 5 is not a ticker"),
        (b"[" * 100_000, "the body is nested 100000 deep; at most 64"),
    ],
    ids=["parameter", "column", "split", "symbol", "nested"],
)
def test_serving_refuses_bad_request_in_one_sentence(
    address: str, body: object, message: str
) -> None:
    status, answer = post(address, body)
    assert (status, list(answer)) == (400, ["error_code", "message"])
    assert answer["message"].startswith(message)
    assert len(answer["message"]) < 250
    assert "\n" not in answer["message"]


def test_serving_broken_off_upload_is_one_line_of_log(address: str, place: Place) -> None:
    port = int(address.rpartition(":")[2])
    head = f"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 100\r\n"
    with socket.create_connection(("127.0.0.1", port)) as upload:
        upload.sendall(f"{head}Content-Type: application/json\r\n\r\n{{".encode())
    assert post(address, ONE)[0] == 200
    log = (place.folder / f"server-{port}.log").read_text()
    assert log.count("was broken off by its client after 1 bytes") == 1
    assert "Traceback" not in log
