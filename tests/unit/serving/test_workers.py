"""Worker processes of a server: started, replaced when they die, and ended together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from finagent_model.errors import BadInputError, ServerFailedError
from finagent_model.serving import workers
from finagent_model.serving.workers import (
    WorkerGroup,
    close_pooled_connections,
    open_sockets,
)
from support.places import free_port

HOST = "127.0.0.1"


def answer(listener: socket.socket) -> None:
    """Answer each connection by the process's number; end where it says `die`."""
    while True:
        connection, _ = listener.accept()
        with connection:
            if connection.recv(100) == b"die":
                os.kill(os.getpid(), signal.SIGKILL)
            connection.sendall(str(os.getpid()).encode())


def ask(port: int, text: bytes = b"who") -> int | None:
    """Return the process that answered; None where it died."""
    with socket.create_connection((HOST, port), timeout=10) as connection:
        connection.sendall(text)
        return int(connection.recv(100) or 0) or None


def ask_until(port: int, is_enough: Callable[[set[int]], bool]) -> set[int]:
    """Return the processes that answered, asked until there are enough of them."""
    pids = set[int]()
    deadline = time.monotonic() + 20
    while not is_enough(pids):
        assert time.monotonic() < deadline, pids
        pids.add(ask(port) or 0)
    return pids


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "RESTART_PAUSE_S", 0.01)


def run_while(port: int, count: int, work: Callable[[], None]) -> WorkerGroup:
    """Run a group of workers in this process, and `work` beside it; then end the group."""
    group = WorkerGroup(answer, open_sockets(HOST, port, count))
    errors: list[BaseException] = []

    def beside() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=beside)
    thread.start()
    group.run()
    thread.join()
    if errors:
        raise errors[0]
    return group


@pytest.mark.usefixtures("quick")
def test_worker_group_answers_in_several_processes() -> None:
    port, found = free_port(), set[int]()

    def work() -> None:
        found.update(ask_until(port, lambda pids: len(pids) == 2))

    run_while(port, 2, work)
    assert os.getpid() not in found
    for pid in found:  # all ended with the group
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.usefixtures("quick")
def test_worker_group_replaces_worker_that_was_killed(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()

    def work() -> None:
        first = ask(port)
        assert ask(port, b"die") is None
        ask_until(port, lambda pids: bool(pids - {first}))

    run_while(port, 1, work)
    assert "ended by signal SIGKILL; another takes its place" in caplog.text


@pytest.mark.usefixtures("quick")
def test_worker_group_gives_up_where_workers_end_at_once(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(listener: socket.socket) -> None:
        raise ValueError("no server of this test")

    with pytest.raises(ServerFailedError, match="5 workers in a row ended within 10 s"):
        WorkerGroup(fail, open_sockets(HOST, free_port(), 2)).run()
    assert "ended with code 1; another takes its place" in caplog.text


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Whether each of the next forks works; the later ones do."""
    left, fork = list[bool](), os.fork

    def try_fork() -> int:
        if left and not left.pop(0):
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return fork()

    monkeypatch.setattr(os, "fork", try_fork)
    yield left
    assert not left


def test_worker_group_says_that_no_worker_can_be_started(forks: list[bool]) -> None:
    forks += [True, False]
    group = WorkerGroup(answer, open_sockets(HOST, free_port(), 2))
    with pytest.raises(ServerFailedError, match="can't be started: Resource temporarily"):
        group.run()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(workers.STOP_SIGNALS)


@pytest.mark.usefixtures("quick")
def test_worker_group_tries_again_to_replace_worker(
    forks: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()

    def work() -> None:
        first = ask(port)
        forks.extend([False, False])
        assert ask(port, b"die") is None
        ask_until(port, lambda pids: bool(pids - {first}))

    run_while(port, 1, work)
    assert caplog.text.count("worker 1 can't be started, tried again: Resource") == 2


def test_workers_end_with_a_parent_that_was_killed() -> None:
    port = free_port()
    script = (
        "import runpy\n"
        f"here = runpy.run_path({__file__!r})\n"
        f"sockets = here['open_sockets'](here['HOST'], {port}, 1)\n"
        "here['WorkerGroup'](here['answer'], sockets).run()\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", script], env=env)
    try:
        pid = None
        while pid is None:
            try:
                pid = ask(port)
            except ConnectionRefusedError:
                assert parent.poll() is None
                time.sleep(0.05)
    finally:
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    raise AssertionError("the worker outlived its parent")


def test_open_sockets_refuses_port_that_is_taken() -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(BadInputError, match=f"can't listen on {HOST}:{port}: Address already"):
            open_sockets(HOST, port, 2)


def test_open_sockets_refuses_port_of_another_group() -> None:
    sockets = open_sockets(HOST, free_port(), 2)
    try:
        with pytest.raises(BadInputError, match="choose another --host or --port"):
            open_sockets(HOST, sockets[0].getsockname()[1], 2)
    finally:
        for each in sockets:
            each.close()


@pytest.mark.parametrize("host", ["a..b", "a" * 70])
def test_open_sockets_refuses_what_is_no_host(host: str) -> None:
    with pytest.raises(BadInputError, match="no host has that name; choose another --host"):
        open_sockets(host, free_port(), 2)


def test_pooled_connections_are_closed_before_workers_are_forked(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/any.db")
    with engine.connect():
        pass
    assert engine.pool.checkedin() == 1  # type: ignore[attr-defined]
    close_pooled_connections()
    assert engine.pool.checkedin() == 0  # type: ignore[attr-defined]
    with engine.connect() as connection:  # and may be used again
        assert connection.exec_driver_sql("select 1").scalar() == 1
    engine.dispose()
