"""llama.cpp's server on this machine: one for each model file, started at its first request.

It is a process of its own (`_llama_process`), so that a crash of it is one failed call, and the
next call starts another. It ends with our process: by Python's exit, and where that is killed, by
the end of its input. It listens on a free port of 127.0.0.1 and asks for a key that only we have.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import select
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path
from typing import IO, Any

from autogen_core.models import ChatCompletionClient

from finagent_model.agents._http_client import find_http
from finagent_model.errors import ConfigError

SCRIPT = Path(__file__).with_name("_llama_process.py")
PYTHON_FLAGS = ("-P", "-u", "-W", "ignore")
"""Without the script's folder on the path, whose modules could be taken for others; unbuffered."""
PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME")
"""Variables that the process gets. No key of ours is among them."""
START_TIMEOUT_S = 300.0
"""Seconds within which a model must be loaded; a large one from a cold disk takes minutes."""
SLOTS = 4
"""Requests that are answered side by side. Each slot keeps its last prompt, so that the system
message of an agent is read once.
"""
CONTEXT_TOKENS = 8192
"""Tokens of prompts and replies in all slots together."""
MAX_LINE_BYTES = 1 << 16
QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")


class LlamaServer:
    """The server of one model file; safe to share between threads."""

    def __init__(self, path: Path, *, start_timeout_s: float = START_TIMEOUT_S) -> None:
        self._path = path
        self._start_timeout_s = start_timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = os.getpid()
        self._address, self._key = "", ""
        self._log: IO[bytes] | None = None

    def ensure_running(self) -> tuple[str, str]:
        """Return the server's address and key; start it where it does not run.

        Raises ConfigError where it can't be started, and TimeoutError where that takes too long.
        """
        with self._lock:
            if not self._is_running():
                self._start()
            return self._address, self._key

    @property
    def pid(self) -> int | None:
        """The id of its process; None where none runs."""
        return self._process.pid if self._process and self._is_running() else None

    def stop(self) -> None:
        """End the process; a later request starts another."""
        with self._lock:
            if self._process is not None:
                self._finalizer()
            self._process = None

    def _is_running(self) -> bool:
        if self._pid != os.getpid():  # a fork: the process is our parent's
            self._pid, self._process = os.getpid(), None
        return self._process is not None and self._process.poll() is None

    def _start(self) -> None:
        self._key = secrets.token_urlsafe(24)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = process = subprocess.Popen(
            [sys.executable, *PYTHON_FLAGS, str(SCRIPT)],
            env={name: os.environ[name] for name in PASSED_ON if name in os.environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Control-C is for us; we end the server once the decision has ended.
            start_new_session=True,
        )
        # Runs when this object is collected, at the next start, or when Python exits.
        self._finalizer = weakref.finalize(self, _end_process, process, self._log, os.getpid())
        request = {
            "model": str(self._path),
            "key": self._key,
            "threads": free_cores(),
            "slots": SLOTS,
            "context": CONTEXT_TOKENS,
            "parent": os.getpid(),
        }
        try:
            self._address = self._exchange(process, request)
        except BaseException:
            self._finalizer()
            self._process = None
            raise

    def _exchange(self, process: subprocess.Popen[bytes], request: dict[str, Any]) -> str:
        """Send the request and return the server's address."""
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: its log says why
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        deadline, line, pipe = time.monotonic() + self._start_timeout_s, b"", process.stdout
        while not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0 or not select.select([pipe], [], [], remaining_s)[0]:
                raise TimeoutError(
                    f"llama.cpp did not load {self._path.name} within {self._start_timeout_s:g} s"
                )
            part = os.read(pipe.fileno(), MAX_LINE_BYTES)
            if not part:
                code = process.wait()
                raise ConfigError(self._failure(f"it ended with {code}"))
            line += part
        try:
            answer = json.loads(line)
            if "error" in answer:
                raise ConfigError(self._failure(str(answer["error"])))
            return str(answer["address"])
        except (ValueError, KeyError, TypeError):
            raise ConfigError(self._failure(f"it answered {line[:80]!r}")) from None

    def _failure(self, reason: str) -> str:
        assert self._log is not None
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace")[-10_000:].splitlines()
        # llama.cpp's first line of an error is its cause; what follows says who passed it on.
        errors = [line.split(" E ", 1)[1] for line in lines if " E " in line]
        last = (errors[:1] or [line for line in lines if line.strip()][-1:] or [""])[0]
        words = " ".join(f"{reason}: {last}".split()).rstrip(": ")[:300]
        return (
            f"llama.cpp can't serve {self._path}: {words}; is the file whole, and of a kind that "
            "this llama.cpp knows, and is there memory for it?"
        )


def _end_process(process: subprocess.Popen[bytes], log: IO[bytes], parent_pid: int) -> None:
    """Close the pipes and end the process; in a fork of the parent, only close our ends."""
    for file in (process.stdin, process.stdout, log):
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
    if os.getpid() != parent_pid:
        process.returncode = 0  # else Popen.__del__ would poll a child that is not ours
        return
    # It has nothing to save, and a reply that nobody waits for would keep it.
    process.kill()
    process.wait()


_SERVERS: dict[Path, LlamaServer] = {}
_SERVERS_LOCK = threading.Lock()


def find_server(path: Path) -> LlamaServer:
    """Return this process's server of a model file; it may not run yet."""
    with _SERVERS_LOCK:
        return _SERVERS.setdefault(path.resolve(), LlamaServer(path))


def free_cores() -> int:
    """Return how many cores this process may use and nobody uses now, at least 1."""
    # llama.cpp's threads wait for each other by spinning: one too many made a reply 15 times as
    # slow on two loaded cores.
    # macOS has no affinity.
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = float(len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1)
    with contextlib.suppress(OSError, ValueError):
        quota, period = QUOTA_FILE.read_text().split()
        cores = min(cores, float(quota) / float(period))  # "max": no quota
    return max(1, round(cores - os.getloadavg()[0]))


def route_to_server(client: ChatCompletionClient, server: LlamaServer) -> None:
    """Let a chat client send each request to `server`, which is started where needed."""
    # Not an address at the client's making: a server that was started anew has another.
    http = find_http(client)
    original = http.send

    async def send(request: Any, **options: Any) -> Any:
        # In a thread: loading a model takes seconds, and the loop serves other decisions.
        address, key = await asyncio.to_thread(server.ensure_running)
        host, _, port = address.removeprefix("http://").rstrip("/").rpartition(":")
        request.url = request.url.copy_with(host=host, port=int(port))
        request.headers["authorization"] = f"Bearer {key}"
        return await original(request, **options)

    http.send = send
