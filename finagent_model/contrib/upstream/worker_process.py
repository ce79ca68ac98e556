"""The parent's side of the worker: one process that stays, asked one date at a time.

What hangs is killed, what died is started again; one whose code can't be loaded, or that dies
`GIVE_UP` times with no answer between, is not tried any more. It ends with its input, with this
object, and with our process, however that ends.
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

from finagent_model.contrib.upstream._errors import UpstreamError

SCRIPT = Path(__file__).parent / "child" / "worker.py"
START_S, CALL_S = 60.0, 10.0
"""Seconds until it must be ready, and for one date."""
FLAGS = ("-I", "-B", "-u", "-W", "ignore")
"""Isolated, no byte code beside the source (it would change the package), nothing held back."""
GIVE_UP = 3
DEATHS = ("timeout", "crash", "protocol")
"""Ends of a worker. An exception is none: it was told by a worker that lives."""
LOG = 2000
"""Characters of the worker's log that are kept of one call."""
LONGEST_REPLY = 1 << 20


@dataclass(frozen=True)
class WorkerReply:
    """What came back for one date."""

    reply: Any
    """Upstream's own, as JSON reads it: NaN and all."""
    versions: dict[str, str]
    """Of Python and of the libraries that computed it."""
    log: str
    """What upstream printed on the way."""


class WorkerProcess:
    """A worker over the pinned code. Threads that share it take turns."""

    def __init__(
        self, code: Callable[[], Path], *, start_s: float = START_S, call_s: float = CALL_S
    ) -> None:
        """`code` gives the folder and is asked before each start of a worker, for it to be verified
        then.
        """
        self._code = code
        self._start_s, self._call_s = start_s, call_s
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._deaths = 0
        self._hopeless: UpstreamError | None = None

    def ask(self, symbol: str, clock_day: str, bars: list[list[Any]]) -> WorkerReply:
        """What upstream says on the evening before `clock_day` of bars that end then.

        Raises UpstreamError: `timeout`, `crash`, `import`, `exception`, `protocol`; and what `code`
        raises, before a worker is started.
        """
        request = json.dumps(
            {"symbol": symbol, "clock_day": clock_day, "bars": bars}, allow_nan=False
        )
        with self._lock:
            if self._hopeless is not None:
                raise self._hopeless
            for attempt in (1, 2):
                try:
                    answer = self._asked(request)
                except UpstreamError as error:
                    self._deaths = self._deaths + 1 if error.code in DEATHS else 0
                    if error.code == "import" or self._deaths >= GIVE_UP:
                        self._hopeless = error
                    if error.code != "crash" or attempt == 2 or self._hopeless:
                        raise
                else:
                    self._deaths = 0
                    return answer
            raise AssertionError

    def close(self) -> None:
        """End the worker; a later call starts another."""
        with self._lock:
            self._drop()

    def _asked(self, request: str) -> WorkerReply:
        child = self._running()
        try:
            line = child.exchange(request, self._call_s)
        except UpstreamError:
            self._drop()
            raise
        if "error" in line:
            said = line["error"]
            raise UpstreamError(
                "exception", f"{said['type']} at {said['where']}: {said['message']}"
            )
        if "reply" not in line:
            self._drop()
            raise UpstreamError("protocol", f"an answer without reply: {str(line)[:200]}")
        return WorkerReply(line["reply"], child.versions, child.log())

    def _running(self) -> _Child:
        if self._child is not None and self._child.pid_of_parent != os.getpid():
            self._drop()  # a fork: it belongs to the parent
        if self._child is None:
            self._child = _Child(self._code(), self._start_s)
        return self._child

    def _drop(self) -> None:
        if self._child is not None:
            self._child.kill()
        self._child = None


class _Child:
    """One process, from its start to its end."""

    def __init__(self, code: Path, start_s: float) -> None:
        self.pid_of_parent = os.getpid()
        self._folder = tempfile.TemporaryDirectory(prefix="finagent-upstream-")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, *FLAGS, str(SCRIPT), str(code.resolve()), str(os.getpid())],
            cwd=self._folder.name,
            env={
                "PATH": os.defpath,
                "HOME": self._folder.name,
                "LANG": "C.UTF-8",
                "TZ": "UTC",
                "OPENBLAS_NUM_THREADS": "1",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )
        self._rest = b""
        self._end = weakref.finalize(
            self, _end, self._process, self._folder, self._log, self.pid_of_parent
        )
        try:
            line = self._read(time.monotonic() + start_s, start_s)
        except UpstreamError:
            self.kill()
            raise
        if "failed" in line:
            said = line["failed"]
            self.kill()
            raise UpstreamError("import", f"{said['type']} at {said['where']}: {said['message']}")
        self.versions: dict[str, str] = {**line["ready"], "network": line["network"]}

    def exchange(self, request: str, within_s: float) -> dict[str, Any]:
        """One line for one line. Raises UpstreamError."""
        self._log.seek(0)
        self._log.truncate()
        deadline = time.monotonic() + within_s
        data = memoryview(request.encode() + b"\n")
        assert self._process.stdin is not None
        pipe = self._process.stdin.fileno()
        try:
            while data:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([], [pipe], [], left)[1]:
                    raise self._too_late(within_s)
                data = data[os.write(pipe, data[:4096]) :]
        except BrokenPipeError:
            raise self._died() from None
        return self._read(deadline, within_s)

    def log(self) -> str:
        """The end of what was printed since the last request."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-LOG:].strip()

    def kill(self) -> None:
        """Where it is another process's, only our ends of its pipes are closed."""
        self._end()

    def _read(self, deadline: float, within_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise self._too_late(within_s)
            part = os.read(pipe, 65536)
            if not part:
                raise self._died()
            self._rest += part
            if len(self._rest) > LONGEST_REPLY:
                raise UpstreamError("protocol", f"a reply of more than {LONGEST_REPLY} bytes")
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        if not isinstance(said, dict) or self._rest:
            raise UpstreamError("protocol", f"no JSON object a line: {line[:80]!r}")
        return said

    def _too_late(self, within_s: float) -> UpstreamError:
        return UpstreamError("timeout", f"no answer within {within_s:g} s; the worker was killed")

    def _died(self) -> UpstreamError:
        code = self._process.wait()
        last = self.log().splitlines()[-1:]
        return UpstreamError(
            "crash", f"the worker ended with {code}: {' '.join(last) or 'no word'}"
        )


def _end(
    process: subprocess.Popen[bytes],
    folder: tempfile.TemporaryDirectory[str],
    log: IO[bytes],
    parent: int,
) -> None:
    for file in (process.stdin, process.stdout, log):
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
    if os.getpid() != parent:  # a fork: the process and its folder are the parent's
        process.returncode = 0
        folder._finalizer.detach()  # type: ignore[attr-defined]
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    folder.cleanup()
