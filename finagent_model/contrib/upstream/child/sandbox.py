"""What the worker takes from itself before it runs a foreign line: memory, files, network, and a
life longer than its parent's.

A blocked `socket` alone would be no wall, since compiled libraries open connections of their own.
Where the kernel allows it (Linux with user namespaces) the process has no network at all.

Python's audit events stop sockets, programs and writing of files everywhere, for code that goes
through Python's own functions: a guard against accidents in code that is pinned and was read, no
sandbox. Compiled code writes unseen, and so does what Python reports no event of, such as `mkfifo`.
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
    # the network
    *("socket.", "urllib."),
    # programs, processes
    *("subprocess.", "pty.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.kill"),
    "resource.",
    # files and folders: made, moved, emptied, removed; their modes, owners, times, attributes
    *("os.mkdir", "os.link", "os.symlink", "os.rename", "os.truncate", "os.remove", "os.rmdir"),
    *("os.chmod", "os.chown", "os.chflags", "os.lockf", "os.utime", "os.setxattr"),
    *("shutil.", "tempfile.", "fcntl.", "sqlite3.", "syslog."),
    # past Python
    "ctypes.",
)
"""Starts of the audit events that upstream code may not cause. What else Python's table has only
reads, touches this process alone, or comes with one of these.
"""
_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def sandbox(parent: int) -> str:
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
        if event == "open" and _writes(*arguments):
            raise PermissionError(f"upstream code may not write {arguments[0]!r}")

    sys.addaudithook(refuse)


def _writes(path: Any, mode: str | None, flags: int) -> bool:
    """By either: `os.open` names no mode, and C code that opens by mode no flags."""
    return bool(set(mode or "") & set("wax+") or flags & _WRITE)
