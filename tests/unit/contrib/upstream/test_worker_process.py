"""The worker: whatever upstream's code does, its parent goes on and says what happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from finagent_model.contrib.upstream.source import UpstreamError
from finagent_model.contrib.upstream.upstream_report import read_reply
from finagent_model.contrib.upstream.worker_process import MAX_DEATHS, WorkerProcess
from support.places import ROOT, TESTS
from support.upstream_worker import CODE, ask

pytestmark = pytest.mark.slow


def child_pids() -> set[int]:
    """Process ids of the children of this process."""
    task = Path(f"/proc/{os.getpid()}/task")
    listed = " ".join((t / "children").read_text() for t in task.iterdir())
    return {int(word) for word in listed.split()}


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerProcess]:
    process = WorkerProcess(lambda: CODE, call_timeout_s=30)
    yield process
    process.close()


def test_worker_stays_between_dates(worker: WorkerProcess) -> None:
    first = ask(worker, "GOOG")
    before = child_pids()
    assert ask(worker, "GOOG") == first
    assert child_pids() == before
    assert read_reply(first.reply, "GOOG").rating == "buy"
    assert set(first.versions) == {"python", "numpy", "pandas", "ta", "network"}


@pytest.mark.parametrize(
    ("symbol", "message"),
    [
        ("RAISE", "IndexError at technical_analysis.py"),
        ("QUIT", "SystemExit"),
        ("TABLE", "TypeError"),
        ("MEMORY", "MemoryError"),
        ("FLOOD", "File too large"),
        ("NETWORK", "PermissionError"),
        ("KERNEL", "PermissionError"),
        ("WRITE", "PermissionError"),
        ("PLANT", "PermissionError"),
        ("ASK", "EOFError"),
        ("FUTURE", "asked for bars until 2012-07-01, and today is 2012-06-30"),
        ("OTHER", "asked for 'GOOG', not for 'OTHER'"),
        ("CLOCK", ": 2012-06-30 2012-06-30"),
        ("SEEN", "261 bars from 2011-07-01 to 2012-06-29"),
        ("FOLDER", ": []"),
        ("SECRETS", ": HOME LANG OPENBLAS_NUM_THREADS PATH TZ"),
    ],
)
def test_worker_survives_what_upstream_raises(
    symbol: str, message: str, worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(worker, "GOOG")
    before = child_pids()
    with pytest.raises(UpstreamError) as caught:
        ask(worker, symbol)
    assert caught.value.code == "exception"
    assert message in str(caught.value)
    assert child_pids() == before


def test_worker_log_keeps_what_upstream_prints(worker: WorkerProcess) -> None:
    noisy = ask(worker, "NOISE")
    assert noisy.log.splitlines() == ["a line that is no JSON", "nor is this one"]
    assert ask(worker, "GOOG").log == ""


@pytest.mark.parametrize(("symbol", "how"), [("EXIT", "ended with 7"), ("SEGV", "ended with -11")])
def test_worker_that_crashes_is_restarted_once(symbol: str, how: str) -> None:
    worker = WorkerProcess(lambda: CODE)
    before = child_pids()
    try:
        with pytest.raises(UpstreamError, match=how) as caught:
            ask(worker, symbol)
        assert caught.value.code == "crash"
        assert child_pids() == before
        assert ask(worker, "GOOG").reply["final_decision"]["rating"] == "buy"
    finally:
        worker.close()
    assert child_pids() == before


def test_worker_that_hangs_is_killed_for_the_next_date() -> None:
    worker = WorkerProcess(lambda: CODE, call_timeout_s=5.0)
    before = child_pids()
    try:
        with pytest.raises(UpstreamError, match="within 5 s") as caught:
            ask(worker, "HANG")
        assert caught.value.code == "timeout"
        assert child_pids() == before
        assert ask(worker, "GOOG").reply["final_decision"]["rating"] == "buy"
    finally:
        worker.close()


def test_worker_that_always_dies_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = WorkerProcess(lambda: CODE)
    for _ in range(MAX_DEATHS):
        with pytest.raises(UpstreamError):
            ask(worker, "EXIT")

    def no_process(*args: object, **options: object) -> None:
        pytest.fail("a process was started")

    monkeypatch.setattr(subprocess, "Popen", no_process)
    with pytest.raises(UpstreamError, match="ended with 7"):
        ask(worker, "GOOG")


@pytest.mark.parametrize(
    "line",
    [
        "import nothing_of_that_name",
        "def broken(:",
        "open('left-behind.txt', 'w')",
        "import socket; socket.socket()",
    ],
)
def test_worker_import_error_is_tried_once(line: str, tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "technical_analysis.py").write_text(line + "\n")
    worker = WorkerProcess(lambda: tmp_path)
    for _ in range(2):
        with pytest.raises(UpstreamError) as caught:
            ask(worker, "GOOG")
        assert caught.value.code == "import"


def test_worker_reply_that_is_no_json_line_ends_it(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "technical_analysis.py").write_text(
        "import os\nasync def run_enhanced_technical_analysis(ticker_symbol):\n"
        "    for fd in range(3, 20):\n        try:\n            os.write(fd, b'rubbish\\n')\n"
        "        except OSError:\n            pass\n    return {}\n"
    )
    worker = WorkerProcess(lambda: tmp_path)
    with pytest.raises(UpstreamError) as caught:
        ask(worker, "GOOG")
    assert caught.value.code == "protocol"
    worker.close()


def test_worker_leaves_no_file_behind(tmp_path: Path) -> None:
    worker = WorkerProcess(lambda: CODE)
    ask(worker, "GOOG")
    assert not list(CODE.rglob("__pycache__"))
    process = worker._child._folder.path  # type: ignore[union-attr]
    worker.close()
    assert not process.exists()


def test_worker_network_namespace_is_its_own_if_reported(worker: WorkerProcess) -> None:
    message = ask(worker, "GOOG").versions["network"]
    child = worker._child._process.pid  # type: ignore[union-attr]
    ours, its = (os.readlink(f"/proc/{process}/ns/net") for process in ("self", child))
    assert (message == "namespace") == (its != ours)
    assert message in ("namespace", "audit hook")


def test_workers_give_equal_replies() -> None:
    one, other = WorkerProcess(lambda: CODE), WorkerProcess(lambda: CODE)
    try:
        assert ask(one, "GOOG").reply == ask(other, "GOOG").reply
    finally:
        one.close()
        other.close()


def test_worker_ends_with_its_object() -> None:
    before = child_pids()
    worker = WorkerProcess(lambda: CODE)
    ask(worker, "GOOG")
    assert len(child_pids() - before) == 1
    del worker
    assert child_pids() == before


HANGING = f"""
import sys, threading, time
sys.path[:0] = [{str(ROOT)!r}, {str(TESTS)!r}]
from support.upstream_worker import CODE, ask
from finagent_model.contrib.upstream.worker_process import WorkerProcess
worker = WorkerProcess(lambda: CODE)
ask(worker, "GOOG")
print(worker._child._process.pid, flush=True)
ask(worker, "HANG")
"""


def test_worker_ends_with_a_killed_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", HANGING], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    time.sleep(0.3)  # until it hangs
    assert Path(f"/proc/{worker}").exists()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(1200):
        state = Path(f"/proc/{worker}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the worker still runs")


def test_worker_of_a_forked_child_is_its_own(worker: WorkerProcess) -> None:
    answer = ask(worker, "GOOG")
    child = os.fork()
    if child == 0:
        try:
            same = ask(worker, "GOOG").reply == answer.reply
            worker.close()
            os._exit(0 if same else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ask(worker, "GOOG") == answer
