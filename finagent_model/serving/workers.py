"""Several processes that answer at one address: forked, watched, and ended together.

They are forked from a process that has everything loaded, so a worker starts at once and shares its
memory. Each has a socket of its own, among which the system spreads connections. The parent keeps
the sockets: while a worker that died is replaced, its callers wait instead of being refused.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from finagent_model.errors import BadInputError, ServerFailedError

log = logging.getLogger(__name__)
MIN_LIFE_S = 10.0
"""A worker that ends earlier than that has hardly worked."""
MAX_EARLY_ENDS = 5
"""So many of them in a row, and the server gives up: another one would end the same way."""
RESTART_PAUSE_S = 0.5
BACKLOG = 2048
"""Connections that wait to be accepted, for each worker."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class WorkerGroup:
    """Runs `serve` in several processes until this one is told to end."""

    def __init__(
        self, serve: Callable[[socket.socket], None], sockets: list[socket.socket]
    ) -> None:
        """`serve` answers on the socket that it gets; there is one worker for each of `sockets`.

        They are closed once all have ended.
        """
        self._serve, self._sockets = serve, sockets
        self._workers: dict[int, tuple[int, float]] = {}
        """Number of the socket and moment of the start, by process."""
        self._stopping = False
        self._early_ends = 0
        self._alive, self._alive_end = os.pipe()

    def run(self) -> None:
        """Start the workers, replace those that die, and return once all have ended.

        Raises ServerFailedError where they die as soon as they are started.
        """
        handlers = {name: signal.signal(name, self._stop) for name in STOP_SIGNALS}
        failure: OSError | None = None
        try:
            try:
                for number in range(len(self._sockets)):
                    self._start(number)
            except OSError as error:
                failure = error
                self._stop()
            while self._workers:
                self._await_one()
        finally:
            for name, handler in handlers.items():
                signal.signal(name, handler)
            for each in self._sockets:
                each.close()
            os.close(self._alive)
            os.close(self._alive_end)
        if failure is not None:
            raise ServerFailedError(
                f"a worker can't be started: {failure.strerror}; allow this user more processes, "
                "or serve with fewer --workers"
            )
        if self._early_ends >= MAX_EARLY_ENDS:
            raise ServerFailedError(
                f"{MAX_EARLY_ENDS} workers in a row ended within {MIN_LIFE_S:g} s of their start; "
                "the lines above say how, and --workers 1 shows the error itself"
            )

    def _start(self, number: int) -> None:
        """Start a worker on that socket unless all are to end. Raises OSError."""
        # Held back meanwhile: the child must not take the parent's handler, nor the parent miss it.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            # Asked again, now that no signal comes in between: nobody would stop a worker of later.
            if not self._stopping:
                pid = os.fork()
                if pid == 0:
                    self._work(number)
                self._workers[pid] = number, time.monotonic()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _work(self, number: int) -> NoReturn:
        """Serve in the child, which ends here whatever happens."""
        code = 1
        try:
            for name in STOP_SIGNALS:
                signal.signal(name, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
            os.close(self._alive_end)
            for i, other in enumerate(self._sockets):
                if i != number:
                    other.close()
            threading.Thread(target=self._end_with_parent, daemon=True).start()
            self._serve(self._sockets[number])
            code = 0
        except BaseException:
            log.exception("a worker failed")
        finally:
            logging.shutdown()
            # Not `sys.exit`: the parent's cleanup is the parent's own.
            os._exit(code)

    def _end_with_parent(self) -> None:
        os.read(self._alive, 1)  # nobody writes: it returns when the parent is gone
        os.kill(os.getpid(), signal.SIGTERM)

    def _await_one(self) -> None:
        """Wait until a worker ends, and put another in its place unless all are to end."""
        pid, status = os.wait()
        if pid not in self._workers:
            return  # a child of a library
        number, started_at = self._workers.pop(pid)
        if self._stopping:
            return
        is_early = time.monotonic() - started_at < MIN_LIFE_S
        self._early_ends = self._early_ends + 1 if is_early else 0
        if self._early_ends >= MAX_EARLY_ENDS:
            self._stop()
            return
        log.error(
            "worker %d (process %d) ended %s; another takes its place",
            number + 1,
            pid,
            _describe_end(status),
        )
        self._replace(number)

    def _replace(self, number: int) -> None:
        """Start another worker on that socket, as soon as the system allows one."""
        while not self._stopping:
            time.sleep(RESTART_PAUSE_S)
            try:
                self._start(number)
                return
            except OSError as error:
                # The others still answer, so the server does not end.
                log.error("worker %d can't be started, tried again: %s", number + 1, error.strerror)

    def _stop(self, *_: object) -> None:
        self._stopping = True
        self._signal_workers()

    def _signal_workers(self) -> None:
        for pid in list(self._workers):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


def close_pooled_connections() -> None:
    """Close the idle database connections of this process, MLflow's too.

    A process that is forked would write into the same connection; it opens its own instead.
    """
    from sqlalchemy import Engine

    for each in gc.get_objects():
        # By the type itself: `isinstance` would import what stands in for a lazy module.
        if issubclass(type(each), Engine):
            each.dispose()


def open_sockets(host: str, port: int, count: int) -> list[socket.socket]:
    """Return so many sockets that listen at one address. Raises BadInputError."""
    sockets: list[socket.socket] = []
    try:
        [(family, *_, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # Sockets that share a port would also share it with a server that already listens there.
        with socket.socket(family) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(address)
        for _ in range(count):
            each = socket.socket(family)
            sockets.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            each.bind(address)
            each.listen(BACKLOG)
    except (OSError, UnicodeError) as error:
        for each in sockets:
            each.close()
        # A name that can't be one, such as `a..b`, does not reach the resolver.
        reason = error.strerror if isinstance(error, OSError) else "no host has that name"
        raise BadInputError(
            f"can't listen on {host}:{port}: {reason}; choose another --host or --port"
        ) from None
    return sockets


def _describe_end(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"by signal {signal.Signals(os.WTERMSIG(status)).name}"
    return f"with code {os.waitstatus_to_exitcode(status)}"
