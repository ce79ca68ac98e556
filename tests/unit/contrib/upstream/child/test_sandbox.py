"""What the worker takes from itself, tried in a process that has forbidden it to itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from finagent_model.contrib.upstream.worker_process import PYTHON_FLAGS, SCRIPT

LINES = {
    "open_to_write": "open('victim', 'w')",
    "open_to_append": "open('victim', 'ab')",
    "open_anew": "open('new', 'x')",
    "open_to_update": "open('victim', 'r+b')",
    "open_by_another_opener": "open('victim', 'w', opener=lambda p, f: os.open(p, f))",
    "os_open_and_empty": "os.open('victim', os.O_WRONLY | os.O_TRUNC)",
    "os_open_and_only_empty": "os.open('victim', os.O_RDONLY | os.O_TRUNC)",
    "os_open_to_write": "os.open('victim', os.O_WRONLY)",
    "os_open_to_update": "os.open('victim', os.O_RDWR)",
    "os_open_to_append": "os.open('victim', os.O_APPEND)",
    "os_open_anew": "os.open('new', os.O_CREAT)",
    "touch": "pathlib.Path('new').touch()",
    "write_text": "pathlib.Path('victim').write_text('')",
    "truncate": "os.truncate('victim', 0)",
    "ftruncate": "os.ftruncate(reading, 0)",
    "chmod": "os.chmod('victim', 0o600)",
    "fchmod": "os.fchmod(reading, 0o600)",
    "chown": "os.chown('victim', os.getuid(), os.getgid())",
    "lchown": "os.lchown('victim', os.getuid(), os.getgid())",
    "utime": "os.utime('victim', (0, 0))",
    "setxattr": "os.setxattr('victim', 'user.mark', b'1')",
    "removexattr": "os.removexattr('victim', 'user.mark')",
    "link": "os.link('victim', 'new')",
    "hardlink_to": "pathlib.Path('new').hardlink_to('victim')",
    "symlink": "os.symlink('victim', 'new')",
    "rename": "os.rename('victim', 'new')",
    "replace": "os.replace('victim', 'new')",
    "unlink": "os.unlink('victim')",
    "mkdir": "os.mkdir('new')",
    "rmdir": "os.rmdir('empty')",
    "lock": "fcntl.flock(reading, fcntl.LOCK_EX)",
    "copy": "shutil.copy('victim', 'new')",
    "move": "shutil.move('victim', 'new')",
    "rmtree": "shutil.rmtree('empty')",
    "archive": "shutil.make_archive('new', 'tar', '.')",
    "temporary_file": "tempfile.TemporaryFile(dir='.')",
    "temporary_folder": "tempfile.mkdtemp(dir='.')",
    "database": "sqlite3.connect('new')",
    "log": "syslog.syslog('a word')",
    "limit_of_another": "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (64, 64))",
    "socket": "socket.socket()",
    "system": "os.system('true')",
    "fork": "os.fork()",
    "program": "subprocess.run(['true'])",
    "spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "terminal": "pty.spawn(['true'])",
    "signal": "os.kill(os.getpid(), 0)",
    "library": "ctypes.CDLL(None)",
}
"""Each is an accident that would reach beyond the process."""
ALLOWED = {
    "read": "open('victim').read()",
    "os_open_to_read": "os.read(os.open('victim', os.O_RDONLY | os.O_CLOEXEC), 9)",
    "print": "print('a word', file=sys.stderr, flush=True)",
    "write_to_what_is_open": "os.write(2, b'a word')",
    "list": "os.listdir('.')",
    "import": "__import__('json.tool')",
    "ask_the_clock": "time.time()",
    "in_a_thread": "run(lambda: threading.Thread(target=print).start())",
    "asyncio": "runner.run(asyncio.sleep(0))",
}
"""What it needs, or may."""
CHILD = """
import json, sys
sys.path.insert(0, sys.argv[1])
import asyncio, ctypes, fcntl, os, pathlib, pty, resource, shutil, socket, sqlite3, subprocess
import syslog, tempfile, threading, time
from sandbox import forbid_side_effects
run, runner, reading = (lambda what: what()), asyncio.Runner(), os.open("victim", os.O_RDONLY)
runner.get_loop()
forbid_side_effects()
outcomes = {}
for name, line in json.load(sys.stdin).items():
    try:
        eval(line)
        outcomes[name] = "done"
    except Exception as error:
        outcomes[name] = f"{type(error).__name__}: {error}"
os.write(1, json.dumps(outcomes).encode())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a file that may be harmed, and an empty folder."""
    folder = tmp_path_factory.mktemp("confined")
    (folder / "victim").write_text("as it was")
    (folder / "empty").mkdir()
    return folder


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, str]:
    """What became of each line."""
    done = subprocess.run(
        [sys.executable, *PYTHON_FLAGS, "-c", CHILD, str(SCRIPT.parent)],
        cwd=folder,
        input=json.dumps(LINES | ALLOWED),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@pytest.mark.parametrize("name", LINES)
def test_sandbox_refuses_what_reaches_beyond_the_process(
    name: str, outcomes: dict[str, str]
) -> None:
    assert outcomes[name].startswith("PermissionError: upstream code may not")


@pytest.mark.parametrize("name", ALLOWED)
def test_sandbox_allows_what_the_worker_needs(name: str, outcomes: dict[str, str]) -> None:
    assert outcomes[name] == "done"


def test_sandbox_leaves_no_trace_of_refused_lines(outcomes: dict[str, str], folder: Path) -> None:
    assert outcomes
    assert sorted(os.listdir(folder)) == ["empty", "victim"]
    assert (folder / "victim").read_text() == "as it was"
