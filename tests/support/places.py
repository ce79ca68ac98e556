"""Working folders with a store and a home of their own, where tests run the real commands."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
TESTS = ROOT / "tests"
SMALL = {"symbols": "FB", "train_bars": "120", "test_bars": "30", "candidates": "24"}
"""FB has 196 bars: 71 out-of-sample days."""
AS_OF = "2013-01-31"
ACTED_ON = ("2012-11-30", "2012-12-05")
"""Days on which the small training acts; on `AS_OF` it holds."""

DEFAULT_STORE = {"MLFLOW_TRACKING_URI": ""}
"""Where none is named, MLflow's is `mlflow.db` in the working directory."""


def small_options() -> list[str]:
    return [text for k, v in SMALL.items() for text in (f"--{k.replace('_', '-')}", v)]


@dataclass(frozen=True)
class Place:
    """A working directory with an MLflow store and a home of its own."""

    folder: Path
    servers: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    """Those that are running, by port."""

    @property
    def env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("FINAGENT_", "OPENAI_"))}
        return {
            **kept,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "FINAGENT_HOME": str(self.folder / "home"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/mlflow.db",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    def run(
        self, *command: str, cwd: Path | None = None, **extra: str
    ) -> subprocess.CompletedProcess[str]:
        """The finished process; nothing is checked."""
        return subprocess.run(
            command,
            cwd=cwd or self.folder,
            env={**self.env, **extra},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def finagent(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """The finished command: a fork of a process that has imported everything, which saves the
        seconds of the imports; a process of its own where `extra` has another PYTHONPATH.
        """
        if "PYTHONPATH" in extra:
            return self.run(sys.executable, "-m", "finagent_model.cli", *arguments, **extra)
        return self._fork(*arguments, **extra)

    def python(
        self, script: str, *arguments: str, **extra: str
    ) -> subprocess.CompletedProcess[str]:
        """The finished script: a fork too, to which all of the package is imported already."""
        return self._fork(*arguments, script=script, **extra)

    def _fork(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        from support.command_forks import shared_forks

        forks = shared_forks()
        forks.give_store(self)
        done = forks.run(self, *arguments, timeout_s=600, **options)
        return subprocess.CompletedProcess(arguments, done.code, done.out, done.err)

    def signal(self, *arguments: str, **extra: str) -> dict[str, Any]:
        """What `finagent predict ... --json` prints."""
        done = self.finagent("predict", *arguments, "--json", **extra)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    @contextmanager
    def serving(self, *command: str, port: int, **extra: str) -> Iterator[str]:
        """A server for the time of the block; gives its address."""
        log = (self.folder / f"server-{port}.log").open("w")
        server = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**self.env, **extra},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        address = f"http://127.0.0.1:{port}"
        self.servers[port] = server
        try:
            for _ in range(240):
                assert server.poll() is None, Path(log.name).read_text()
                try:
                    urllib.request.urlopen(f"{address}/ping", timeout=5).close()
                    break
                except (urllib.error.URLError, OSError):
                    time.sleep(0.5)
            yield address
        finally:
            with suppress(ProcessLookupError):  # a test may have ended it
                os.killpg(server.pid, 15)
            server.wait(30)
            del self.servers[port]
            log.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def post(address: str, body: Any) -> tuple[int, Any]:
    """Status and JSON answer of a request to `/invocations`."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/invocations", data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode()
        # MLflow's own 504 says that it is JSON and is a bare sentence.
        return error.code, json.loads(text) if text.startswith("{") else text
