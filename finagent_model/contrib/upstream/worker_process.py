"""The parent's side of the worker: one process that stays, and is asked one date at a time.

A worker that hangs is killed, one that died is started again. Code that can't be loaded, and a
worker that dies `MAX_DEATHS` times with no answer between, are not tried any more. The worker ends
with its input, with its `WorkerProcess`, and with our process, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from finagent_model._local_files import ScratchFolder
from finagent_model.contrib.upstream.source import UpstreamError

SCRIPT = Path(__file__).parent / "child" / "worker.py"
START_TIMEOUT_S, CALL_TIMEOUT_S = 60.0, 10.0
"""Seconds until the worker must be ready, and for one date."""
PYTHON_FLAGS = ("-I", "-B", "-u", "-W", "ignore")
"""Isolated, without byte code beside the source (it would change the package), unbuffered."""
MAX_DEATHS = 3
DEATH_CODES = ("timeout", "crash", "protocol")
"""Errors that end a worker. An exception does not: a living worker has reported it."""
MAX_LOG_CHARS = 2000
"""Characters of the worker's log that are kept of one call."""
MAX_REPLY_BYTES = 1 << 20


@dataclass(frozen=True)
class WorkerReply:
    """What came back for one date."""

    reply: Any
    """Upstream's own reply as parsed JSON, NaN included."""
    versions: dict[str, str]
    """Of Python and of the libraries that computed it, and how the network was cut off."""
    log: str
    """What upstream printed on the way."""


class WorkerProcess:
    """A worker over the pinned code. Threads that share it take turns."""

    def __init__(
        self,
        find_code: Callable[[], Path],
        *,
        start_timeout_s: float = START_TIMEOUT_S,
        call_timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        """`find_code` returns the verified folder; it is called before each start of a worker."""
        self._find_code = find_code
        self._start_timeout_s, self._call_timeout_s = start_timeout_s, call_timeout_s
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._deaths = 0
        """In a row, with no answer and no exception between."""
        self._final_error: UpstreamError | None = None
        """Once set, no worker is started any more."""

    def ask(self, symbol: str, clock_day: str, bars: list[list[Any]]) -> WorkerReply:
        """Return what upstream says of `bars` while its clock shows `clock_day` (ISO date).

        Raises UpstreamError: `timeout`, `crash`, `import`, `exception`, `protocol`; and what
        `find_code` raises.
        """
        request = json.dumps(
            {"symbol": symbol, "clock_day": clock_day, "bars": bars}, allow_nan=False
        )
        with self._lock:
            if self._final_error is not None:
                raise self._final_error
            for attempt in (1, 2):
                try:
                    reply = self._exchange(request)
                except UpstreamError as error:
                    self._deaths = self._deaths + 1 if error.code in DEATH_CODES else 0
                    if error.code == "import" or self._deaths >= MAX_DEATHS:
                        self._final_error = error
                    # Only a crash is retried: a date that hangs would cost its whole timeout again.
                    if error.code != "crash" or attempt == 2 or self._final_error:
                        raise
                else:
                    self._deaths = 0
                    return reply
            raise AssertionError

    def close(self) -> None:
        """End the worker; a later call starts another."""
        with self._lock:
            self._stop_child()

    def _exchange(self, request: str) -> WorkerReply:
        child = self._ensure_child()
        try:
            line = child.exchange(request, self._call_timeout_s)
        except UpstreamError:
            self._stop_child()
            raise
        if "error" in line:
            error = line["error"]
            raise UpstreamError(
                "exception", f"{error['type']} at {error['where']}: {error['message']}"
            )
        if "reply" not in line:
            self._stop_child()
            raise UpstreamError("protocol", f"an answer without reply: {str(line)[:200]}")
        return WorkerReply(line["reply"], child.versions, child.read_log())

    def _ensure_child(self) -> _Child:
        if self._child is not None and self._child.parent_pid != os.getpid():
            self._stop_child()  # after a fork the child belongs to the parent
        if self._child is None:
            self._child = _Child(self._find_code(), self._start_timeout_s)
        return self._child

    def _stop_child(self) -> None:
        if self._child is not None:
            self._child.kill()
        self._child = None


class _Child:
    """One worker process, from its start to its end."""

    def __init__(self, code: Path, timeout_s: float) -> None:
        self.parent_pid = os.getpid()
        self._folder = ScratchFolder()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, *PYTHON_FLAGS, str(SCRIPT), str(code.resolve()), str(os.getpid())],
            cwd=self._folder.path,
            env={  # nothing of ours: keys are in the environment
                "PATH": os.defpath,
                "HOME": str(self._folder.path),
                "LANG": "C.UTF-8",
                "TZ": "UTC",
                "OPENBLAS_NUM_THREADS": "1",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )
        self._buffer = b""
        # Runs when this object is collected or Python exits, and never twice.
        self._finalizer = weakref.finalize(
            self, _end_process, self._process, self._folder, self._log, self.parent_pid
        )
        try:
            line = self._read_line(time.monotonic() + timeout_s, timeout_s)
        except UpstreamError:
            self.kill()
            raise
        if "failed" in line:
            error = line["failed"]
            self.kill()
            raise UpstreamError(
                "import", f"{error['type']} at {error['where']}: {error['message']}"
            )
        self.versions: dict[str, str] = {**line["ready"], "network": line["network"]}

    def exchange(self, request: str, timeout_s: float) -> dict[str, Any]:
        """Send one line and return the next one, parsed. Raises UpstreamError."""
        self._log.seek(0)
        self._log.truncate()
        deadline = time.monotonic() + timeout_s
        data = memoryview(request.encode() + b"\n")
        assert self._process.stdin is not None
        pipe = self._process.stdin.fileno()
        try:
            while data:
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0 or not select.select([], [pipe], [], remaining_s)[1]:
                    raise self._timeout_error(timeout_s)
                # At most PIPE_BUF bytes: a larger write may block although select said ready.
                data = data[os.write(pipe, data[:4096]) :]
        except BrokenPipeError:
            raise self._crash_error() from None
        return self._read_line(deadline, timeout_s)

    def read_log(self) -> str:
        """Return the end of what was printed since the last request."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-MAX_LOG_CHARS:].strip()

    def kill(self) -> None:
        """End the process; in a fork of the parent, only close our ends of its pipes."""
        self._finalizer()

    def _read_line(self, deadline: float, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0 or not select.select([pipe], [], [], remaining_s)[0]:
                raise self._timeout_error(timeout_s)
            part = os.read(pipe, 65536)
            if not part:
                raise self._crash_error()
            self._buffer += part
            if len(self._buffer) > MAX_REPLY_BYTES:
                raise UpstreamError("protocol", f"a reply of more than {MAX_REPLY_BYTES} bytes")
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        # Bytes after the line: something else writes into the pipe, so no line can be trusted.
        if not isinstance(message, dict) or self._buffer:
            raise UpstreamError("protocol", f"no JSON object a line: {line[:80]!r}")
        return message

    def _timeout_error(self, timeout_s: float) -> UpstreamError:
        return UpstreamError("timeout", f"no answer within {timeout_s:g} s; the worker was killed")

    def _crash_error(self) -> UpstreamError:
        code = self._process.wait()
        last_line = self.read_log().splitlines()[-1:]
        return UpstreamError(
            "crash", f"the worker ended with {code}: {' '.join(last_line) or 'no word'}"
        )


def _end_process(
    process: subprocess.Popen[bytes],
    folder: ScratchFolder,
    log: IO[bytes],
    parent_pid: int,
) -> None:
    """Close the pipes, kill the worker's whole session, and remove its folder."""
    for file in (process.stdin, process.stdout, log):
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
    if os.getpid() != parent_pid:  # a fork: the process and its folder are the parent's
        process.returncode = 0  # else Popen.__del__ would poll a child that is not ours
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    folder.remove()
