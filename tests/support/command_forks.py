"""Commands of `finagent` as forks of one process that has imported everything.

A fork begins in milliseconds where a new process needs seconds, so that hundreds of commands and
twenty kills of each are affordable, at moments that mean something.

As a script it is that process: it reads requests as lines of JSON and answers each with one.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

from support.mlflow_migrations import read_migrations_once
from support.places import DEFAULT_STORE, ROOT, TESTS, Place

POLL_S = 0.02
PRELOADED = (
    "IPython.core.display",
    "PIL.PngImagePlugin",
    "alembic.command",
    "git",
    "matplotlib.backends.backend_agg",
    "matplotlib.pyplot",
    "mlflow.models.display_utils",
    "mlflow.pyfunc.scoring_server",
    "mlflow.store.model_registry.sqlalchemy_workspace_store",
    "mlflow.store.tracking.sqlalchemy_workspace_store",
    "mlflow.tracing.otel.translation",
    "numba",
    "uvicorn",
    "finagent_model.cli.__main__",
    "finagent_model.pipeline.infer",
    "finagent_model.pipeline.train",
    "finagent_model.pipeline.verify",
    "finagent_model.serving.scoring",
)
ENDED, STOPPED, RUNNING = "ended", "stopped", "running"


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    """Negative: the signal that killed it."""
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The last line that it wrote: an error is one line."""
        return (self.err.strip() or self.out.strip()).split("\n")[-1]


@dataclass
class Fork:
    """A command that was started."""

    forks: CommandForks
    pid: int
    out: Path
    err: Path

    def state(self) -> dict[str, Any]:
        return self.forks.ask({"op": "state", "pid": self.pid})

    def wait(self, timeout_s: float = 240) -> Outcome:
        """Wait for the end of it, kill it where that takes too long."""
        deadline = time.monotonic() + timeout_s
        while (state := self.state())["state"] != ENDED:
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
            time.sleep(POLL_S)
        return Outcome(state["code"], self.out.read_text(), self.err.read_text())

    def wait_until_stopped(self, timeout_s: float = 240) -> None:
        """Wait until it has come to the call at which it stops."""
        deadline = time.monotonic() + timeout_s
        while (state := self.state())["state"] != STOPPED:
            assert state["state"] == RUNNING, self.err.read_text()
            assert time.monotonic() < deadline, self.err.read_text()
            time.sleep(POLL_S)

    def go_on(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    def kill(self) -> Outcome:
        os.killpg(self.pid, signal.SIGKILL)
        return self.wait()


@dataclass
class CommandForks:
    """The process that forks; a context manager."""

    folder: Path
    count: int = 0
    store: Path | None = None
    """An MLflow store that holds nothing, which takes seconds to make."""
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def __enter__(self) -> Self:
        env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{TESTS}"}
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**env, "MLFLOW_DISABLE_TELEMETRY": "true"},
            cwd=self.folder,
        )
        return self

    def __exit__(self, *_: object) -> None:
        process = self.process
        assert process is not None and process.stdin is not None and process.stdout is not None
        process.stdin.close()
        process.wait(60)
        process.stdout.close()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self.process
        assert process is not None and process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        return answer

    def give_store(self, place: Place) -> None:
        """Copy MLflow's empty tables to where `place` has none yet."""
        if self.store is None:
            first = Place(self.folder / "first")
            first.folder.mkdir()
            made = self.start(first, "models", **DEFAULT_STORE).wait()
            assert made.code == 0, made.err
            self.store = first.folder / "mlflow.db"
        if not (place.folder / "mlflow.db").exists():
            shutil.copy(self.store, place.folder)

    def start(self, place: Place, *argv: str, script: str = "", **options: Any) -> Fork:
        """Start `finagent ARGV` in `place`, or the Python `script` with these arguments.

        `stop_at` names a function (`module:name`) whose first call stops the command, before
        anything of it is done. `max_bytes` is the size that no file may exceed, as on a full disk.
        `clock_s` shifts its clock. Other options are environment variables.
        """
        special = {name: options.pop(name, None) for name in ("stop_at", "max_bytes", "clock_s")}
        self.count += 1
        out, err = (self.folder / f"{self.count}.{name}" for name in ("out", "err"))
        # The fork opens them a moment later; whoever started it may read them now.
        out.touch(0o600)
        err.touch(0o600)
        request = {
            "op": "start",
            "argv": argv,
            "script": script,
            "cwd": str(place.folder),
            "env": {**place.env, **options},
            "out": str(out),
            "err": str(err),
            **special,
        }
        return Fork(self, self.ask(request)["pid"], out, err)

    def run(self, place: Place, *argv: str, timeout_s: float = 240, **options: Any) -> Outcome:
        """Run `finagent ARGV` to its end."""
        return self.start(place, *argv, **options).wait(timeout_s)


@cache
def shared_forks() -> CommandForks:
    """Return the forks of this test process, which end with it."""
    folder = tempfile.TemporaryDirectory(prefix="forks")
    forks = CommandForks(Path(folder.name)).__enter__()
    atexit.register(folder.cleanup)
    atexit.register(forks.__exit__)
    return forks


def main() -> None:
    """Fork what is asked for, and tell what became of it."""
    answers = os.fdopen(os.dup(1), "w")
    preload()
    ended: dict[int, int] = {}
    stopped: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "start":
            answer: dict[str, Any] = {"pid": fork(request)}
        else:
            answer = look(request["pid"], ended, stopped)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def preload() -> None:
    """Import what the commands import."""
    for name in PRELOADED:
        importlib.import_module(name)
    # What is installed, which MLflow looks up once a process for its warnings.
    importlib.import_module("mlflow.utils.requirements_utils")._init_packages_to_modules_map()
    read_migrations_once()


def look(pid: int, ended: dict[int, int], stopped: set[int]) -> dict[str, Any]:
    """Return the state of a child."""
    if pid not in ended:
        found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
        if found and os.WIFSTOPPED(status):
            stopped.add(pid)
        elif found and os.WIFCONTINUED(status):
            stopped.discard(pid)
        elif found:
            ended[pid] = os.waitstatus_to_exitcode(status)
    if pid in ended:
        return {"state": ENDED, "code": ended[pid]}
    return {"state": STOPPED if pid in stopped else RUNNING}


def fork(request: dict[str, Any]) -> int:
    """Fork a child that runs the command."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        # The requests come by standard input: they are not the command's.
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        if request["stop_at"]:
            stop_at(request["stop_at"])
        if request["clock_s"]:
            shift_clock(request["clock_s"])
        if request["max_bytes"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["max_bytes"],) * 2)
        code = command(request["argv"], request["script"])
    finally:
        os._exit(code)


def command(argv: list[str], script: str) -> int:
    """Run the command or the script; return its exit code."""
    import traceback

    from finagent_model.cli.__main__ import app

    sys.argv = ["-c" if script else "finagent", *argv]
    try:
        if script:
            exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})
        else:
            app(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def stop_at(target: str) -> None:
    """Let the first call of `module:name` stop this process."""
    import pkgutil

    owner_name, _, name = target.rpartition(".")
    owner = pkgutil.resolve_name(owner_name)
    original = getattr(owner, name)

    def stop(*given: Any, **named: Any) -> Any:
        setattr(owner, name, original)
        os.kill(os.getpid(), signal.SIGSTOP)
        return original(*given, **named)

    setattr(owner, name, stop)


def shift_clock(seconds: float) -> None:
    """Shift the clocks that are read: `time.time`, and `datetime.now` in the package's modules."""
    import datetime as module

    real, real_ns, class_ = time.time, time.time_ns, module.datetime

    class Shifted(class_):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return class_.now(tz) + module.timedelta(seconds=seconds)

    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + int(seconds * 1e9)
    for name in ("tracking.registry", "tracking._champion_lock", "store.artifacts", "approvals"):
        loaded = sys.modules[f"finagent_model.{name}"]
        if getattr(loaded, "datetime", None) is class_:
            loaded.datetime = Shifted  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
