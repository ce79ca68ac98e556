"""The life of llama.cpp's server process, with a stand-in of the library in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from finagent_model.agents import local_server
from finagent_model.agents.local_server import LlamaServer, find_server
from finagent_model.decision.decision import Decision
from finagent_model.decision.signal import Status
from finagent_model.errors import ConfigError
from finagent_model.market.bars import parse_as_of
from finagent_model.model.predictor import Predictor
from finagent_model.model.questions import Question
from finagent_model.settings import Settings
from support.places import TESTS

pytestmark = pytest.mark.slow
FAKE = TESTS / "support" / "fake_llama"


@pytest.fixture(autouse=True)
def fake_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-in, here and in the server processes, which end with the test."""
    monkeypatch.syspath_prepend(str(FAKE))
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    monkeypatch.setattr(local_server, "_SERVERS", {})
    yield
    for server in local_server._SERVERS.values():
        server.stop()


def model_file(folder: Path, word: str = "good") -> Path:
    path = folder / f"smollm2-{word}.gguf"
    path.write_bytes(b"GGUF" + word.encode())
    return path


def predictor(folder: Path, word: str = "good", more: str = "") -> Predictor:
    path = folder / "desk.yaml"
    path.write_text(
        f"preset: local\nmodel: {model_file(folder, word)}\nlimits: {{retries: 1}}\n{more}"
    )
    return Predictor.from_config(
        path, Settings.load({"FINAGENT_HOME": str(folder / "home")}), "live"
    )


def decide(desk: Predictor) -> Decision:
    view = desk.view(Question("GOOG", parse_as_of("2012-06-29")))
    [decision] = desk.decide_views([view], "live")
    return decision


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int) -> bool:
    end = time.monotonic() + 30
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not is_alive(pid)


@pytest.mark.parametrize(
    "keys", ["stream: true", "stream: false", "transport: http"], ids=["streamed", "whole", "http"]
)
def test_local_desk_decides_and_counts_tokens(tmp_path: Path, keys: str) -> None:
    decision = decide(predictor(tmp_path, more=keys))
    signal = decision.signal
    assert (signal.status, signal.action, signal.confidence_score) == (Status.OK, "BUY", 65)
    assert (signal.tokens, signal.cost_usd, decision.calls) == (1180, 0.0, 2)
    assert signal.model_used == "smollm2-good"
    assert signal.knowledge_cutoff == "unknown"


def test_local_desk_keeps_to_a_budget_in_money(tmp_path: Path) -> None:
    desk = predictor(tmp_path, more="spending: {run_usd: 0.01}")
    assert decide(desk).signal.status is Status.OK


def test_local_server_is_shared_by_desks(tmp_path: Path) -> None:
    first, second = predictor(tmp_path), predictor(tmp_path)
    decide(first), decide(second)
    [server] = local_server._SERVERS.values()
    assert server.pid is not None
    assert server.ensure_running() == server.ensure_running()


def test_local_server_gets_no_key_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-key-of-ours")
    server = find_server(model_file(tmp_path))
    _, key = server.ensure_running()
    seen = json.loads((tmp_path / "smollm2-good.seen").read_text())
    assert "OPENAI_API_KEY" not in seen["environ"]
    command = Path(f"/proc/{server.pid}/cmdline").read_text()
    assert key not in command and len(key) >= 32


def test_local_server_that_dies_is_started_again(tmp_path: Path) -> None:
    # It answers the analyst, dies of the executor's request, and its successor answers that.
    decision = decide(predictor(tmp_path, "mortal"))
    assert decision.signal.status is Status.OK
    [retry] = [event for event in decision.events if event.kind == "retry"]
    assert "the connection broke" in retry.body["why"]


def test_killed_local_server_is_started_again(tmp_path: Path) -> None:
    desk = predictor(tmp_path)
    decide(desk)
    [server] = local_server._SERVERS.values()
    first = server.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert wait_until_gone(first)
    assert decide(desk).signal.status is Status.OK
    assert server.pid not in (None, first)


def test_file_that_llama_refuses_is_one_clear_sentence(tmp_path: Path) -> None:
    decision = decide(predictor(tmp_path, "refuse"))
    assert decision.signal.status is Status.MODEL_ERROR
    assert "llama.cpp can't serve" in decision.signal.reasoning
    assert "bad GGUF version: 0; is the file whole" in decision.signal.reasoning
    assert not [event for event in decision.events if event.kind == "retry"]


def test_local_server_that_dies_while_it_loads_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"smollm2-die.gguf: it ended with 7; is the file whole"):
        LlamaServer(model_file(tmp_path, "die")).ensure_running()


def test_local_server_that_hangs_while_it_loads_is_ended(tmp_path: Path) -> None:
    server = LlamaServer(model_file(tmp_path, "hang"), start_timeout_s=0.5)
    with pytest.raises(TimeoutError, match=r"did not load smollm2-hang.gguf within 0.5 s"):
        server.ensure_running()
    assert server.pid is None


def test_python_without_the_library_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('no such library')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ConfigError, match="ImportError: no such library"):
        LlamaServer(model_file(tmp_path)).ensure_running()


@pytest.mark.parametrize(
    "how", [signal.SIGTERM, signal.SIGKILL, None], ids=["TERM", "KILL", "exit"]
)
def test_local_server_ends_with_its_parent(tmp_path: Path, how: signal.Signals | None) -> None:
    script = f"""
import sys
from pathlib import Path
from finagent_model.agents.local_server import find_server
server = find_server(Path({str(model_file(tmp_path))!r}))
server.ensure_running()
print(server.pid, flush=True)
sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None and parent.stdin is not None
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.stdin.close() if how is None else parent.send_signal(how)
        parent.wait(30)
    assert wait_until_gone(child)


def test_local_server_ends_although_a_sibling_holds_its_input(tmp_path: Path) -> None:
    script = f"""
import os, sys, time
from pathlib import Path
from finagent_model.agents.local_server import find_server
server = find_server(Path({str(model_file(tmp_path))!r}))
server.ensure_running()
sibling = os.fork()
if not sibling:
    os.close(1)
    time.sleep(600)
print(server.pid, sibling, flush=True)
sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        child, sibling = map(int, parent.stdout.readline().split())
        parent.kill()
    gone = wait_until_gone(child)
    os.kill(sibling, signal.SIGKILL)
    assert gone


def test_fork_starts_a_local_server_of_its_own(tmp_path: Path) -> None:
    server = find_server(model_file(tmp_path))
    server.ensure_running()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        server.ensure_running()
        os.write(write, str(server.pid).encode())
        server.stop()
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(read, 20)) != server.pid
    assert server.pid is not None and is_alive(server.pid)
    os.close(read), os.close(write)
