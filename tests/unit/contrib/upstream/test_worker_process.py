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

from finagent_model.contrib.upstream.analyst import read_reply
from finagent_model.contrib.upstream.worker_process import GIVE_UP, WorkerProcess
from finagent_model.errors import UpstreamError
from support.places import ROOT, TESTS
from support.upstream_worker import CODE, ask

pytestmark = pytest.mark.slow


def workers() -> set[int]:
    """Process ids of the children of this process."""
    task = Path(f"/proc/{os.getpid()}/task")
    listed = " ".join((t / "children").read_text() for t in task.iterdir())
    return {int(word) for word in listed.split()}


@pytest.fixture(scope="module")
def resident() -> Iterator[WorkerProcess]:
    held = WorkerProcess(lambda: CODE, call_s=30)
    yield held
    held.close()


def test_it_answers_and_stays(resident: WorkerProcess) -> None:
    first = ask(resident, "GOOG")
    before = workers()
    assert ask(resident, "GOOG") == first
    assert workers() == before
    assert read_reply(first.reply, "GOOG").rating == "buy"
    assert set(first.versions) == {"python", "numpy", "pandas", "ta", "network"}


@pytest.mark.parametrize(
    ("symbol", "said"),
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
def test_what_upstream_raises_is_an_answer_and_the_worker_lives(
    symbol: str, said: str, resident: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(resident, "GOOG")
    before = workers()
    with pytest.raises(UpstreamError) as caught:
        ask(resident, symbol)
    assert caught.value.code == "exception"
    assert said in str(caught.value)
    assert workers() == before


def test_what_it_prints_is_kept_and_harms_nothing(resident: WorkerProcess) -> None:
    noisy = ask(resident, "NOISE")
    assert noisy.log.splitlines() == ["a line that is no JSON", "nor is this one"]
    assert ask(resident, "GOOG").log == ""


@pytest.mark.parametrize(("symbol", "how"), [("EXIT", "ended with 7"), ("SEGV", "ended with -11")])
def test_a_worker_that_dies_is_started_again_once(symbol: str, how: str) -> None:
    resident = WorkerProcess(lambda: CODE)
    before = workers()
    try:
        with pytest.raises(UpstreamError, match=how) as caught:
            ask(resident, symbol)
        assert caught.value.code == "crash"
        assert workers() == before
        assert ask(resident, "GOOG").reply["final_decision"]["rating"] == "buy"
    finally:
        resident.close()
    assert workers() == before


def test_a_worker_that_hangs_is_killed_and_the_next_date_is_asked() -> None:
    resident = WorkerProcess(lambda: CODE, call_s=1.0)
    before = workers()
    try:
        with pytest.raises(UpstreamError, match="within 1 s") as caught:
            ask(resident, "HANG")
        assert caught.value.code == "timeout"
        assert workers() == before
        assert ask(resident, "GOOG").reply["final_decision"]["rating"] == "buy"
    finally:
        resident.close()


def test_one_that_always_dies_is_given_up() -> None:
    resident = WorkerProcess(lambda: CODE)
    for _ in range(GIVE_UP):
        with pytest.raises(UpstreamError):
            ask(resident, "EXIT")
    began = time.monotonic()
    with pytest.raises(UpstreamError, match="ended with 7"):
        ask(resident, "GOOG")
    assert time.monotonic() - began < 0.2  # no process was started


@pytest.mark.parametrize(
    "line",
    [
        "import nothing_of_that_name",
        "def broken(:",
        "open('left-behind.txt', 'w')",
        "import socket; socket.socket()",
    ],
)
def test_code_that_can_not_be_imported_is_tried_once(line: str, tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "technical_analysis.py").write_text(line + "\n")
    resident = WorkerProcess(lambda: tmp_path)
    for _ in range(2):
        with pytest.raises(UpstreamError) as caught:
            ask(resident, "GOOG")
        assert caught.value.code == "import"


def test_a_reply_that_is_no_line_of_json_ends_the_worker(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "technical_analysis.py").write_text(
        "import os\nasync def run_enhanced_technical_analysis(ticker_symbol):\n"
        "    for fd in range(3, 20):\n        try:\n            os.write(fd, b'rubbish\\n')\n"
        "        except OSError:\n            pass\n    return {}\n"
    )
    resident = WorkerProcess(lambda: tmp_path)
    with pytest.raises(UpstreamError) as caught:
        ask(resident, "GOOG")
    assert caught.value.code == "protocol"
    resident.close()


def test_nothing_is_left_in_the_source_or_behind(tmp_path: Path) -> None:
    resident = WorkerProcess(lambda: CODE)
    ask(resident, "GOOG")
    assert not list(CODE.rglob("__pycache__"))
    held = Path(resident._child._folder.name)  # type: ignore[union-attr]
    resident.close()
    assert not held.exists()


def test_the_worker_has_no_network_of_ours_where_it_says_so(resident: WorkerProcess) -> None:
    said = ask(resident, "GOOG").versions["network"]
    child = resident._child._process.pid  # type: ignore[union-attr]
    ours, its = (os.readlink(f"/proc/{process}/ns/net") for process in ("self", child))
    assert (said == "namespace") == (its != ours)
    assert said in ("namespace", "audit hook")


def test_two_workers_say_the_same_to_the_byte() -> None:
    one, other = WorkerProcess(lambda: CODE), WorkerProcess(lambda: CODE)
    try:
        assert ask(one, "GOOG").reply == ask(other, "GOOG").reply
    finally:
        one.close()
        other.close()


def test_an_object_that_is_forgotten_takes_its_worker_along() -> None:
    before = workers()
    resident = WorkerProcess(lambda: CODE)
    ask(resident, "GOOG")
    assert len(workers() - before) == 1
    del resident
    assert workers() == before


HANGING = f"""
import sys, threading, time
sys.path[:0] = [{str(ROOT)!r}, {str(TESTS)!r}]
from support.upstream_worker import CODE, ask
from finagent_model.contrib.upstream.worker_process import WorkerProcess
resident = WorkerProcess(lambda: CODE)
ask(resident, "GOOG")
print(resident._child._process.pid, flush=True)
ask(resident, "HANG")
"""


def test_no_worker_outlives_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", HANGING], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    time.sleep(0.3)  # until it hangs
    assert Path(f"/proc/{worker}").exists()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        state = Path(f"/proc/{worker}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the worker still runs")


def test_a_forked_child_starts_a_worker_of_its_own(resident: WorkerProcess) -> None:
    answer = ask(resident, "GOOG")
    child = os.fork()
    if child == 0:
        try:
            same = ask(resident, "GOOG").reply == answer.reply
            resident.close()
            os._exit(0 if same else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ask(resident, "GOOG") == answer
