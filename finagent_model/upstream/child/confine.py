"""What the worker takes from itself before it runs a foreign line: memory, files, network, and a
life longer than its parent's.

A blocked `socket` alone would be no wall, since compiled libraries open connections of their own.
Where the kernel allows it (Linux with user namespaces) the process has no network at all. Elsewhere
Python's audit events still stop sockets, programs and writing of files, for Python code.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from typing import Any

MEMORY, WRITTEN = 4 << 30, 1 << 23
"""Bytes of address space, and of any one file."""
_NEW_USER, _NEW_NET, _DEATH_SIGNAL = 0x10000000, 0x40000000, 1
FORBIDDEN = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.kill",
    "shutil.",
    "ctypes.",
    "urllib.",
)
"""Starts of the audit events that upstream code may not cause."""


def confine(parent: int) -> str:
    """To be called before any thread exists. Says how the network was taken away: `namespace` or
    `audit hook`.
    """
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (WRITTEN, WRITTEN))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return "audit hook"
    kernel = ctypes.CDLL(None, use_errno=True)
    apart = kernel.unshare(_NEW_USER | _NEW_NET) == 0
    kernel.prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)  # after unshare, which forgets it
    if os.getppid() != parent:  # it died before we could ask to be told
        os._exit(1)
    return "namespace" if apart else "audit hook"


def forbid() -> None:
    """From here on, for good. What the libraries needed is imported by now."""

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(FORBIDDEN):
            raise PermissionError(f"upstream code may not: {event}")
        if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            raise PermissionError(f"upstream code may not write {arguments[0]!r}")

    sys.addaudithook(refuse)
