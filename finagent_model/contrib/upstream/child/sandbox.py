"""Take memory, files, network, and a life longer than its parent's from the worker process, before
it runs a line of foreign code.

Blocking `socket` alone would not do, since compiled libraries open connections of their own. Where
the kernel allows it (Linux with user namespaces) the process has no network at all.

Python's audit events stop sockets, programs and writing of files everywhere, for code that goes
through Python's own functions. That guards against accidents in code that is pinned and was read;
it is no sandbox against an attacker. Compiled code writes unseen, and so does what Python reports
no event of, such as `mkfifo`.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from typing import Any

MAX_MEMORY_BYTES, MAX_FILE_BYTES = 4 << 30, 1 << 23
"""Of address space, and of any one file."""
CLONE_NEWUSER, CLONE_NEWNET, PR_SET_PDEATHSIG = 0x10000000, 0x40000000, 1
FORBIDDEN_EVENTS = (
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
"""Prefixes of the audit events that upstream code may not cause. The rest of Python's table only
reads, touches this process alone, or comes with one of these.
"""
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def confine_process(parent_pid: int) -> str:
    """Limit this process and cut off its network, before any thread exists.

    Returns how the network was cut off: `namespace` or `audit hook`.
    """
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return "audit hook"
    kernel = ctypes.CDLL(None, use_errno=True)
    isolated = kernel.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0
    # After unshare, which clears the signal that the kernel sends when the parent dies.
    kernel.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before the signal was asked for
        os._exit(1)
    return "namespace" if isolated else "audit hook"


def forbid_side_effects() -> None:
    """Refuse the forbidden audit events from here on, for good."""

    # An audit hook can't be removed, so whatever the libraries need must be imported by now.
    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(FORBIDDEN_EVENTS):
            raise PermissionError(f"upstream code may not: {event}")
        if event == "open" and _writes(*arguments):
            raise PermissionError(f"upstream code may not write {arguments[0]!r}")

    sys.addaudithook(refuse)


def _writes(path: Any, mode: str | None, flags: int) -> bool:
    # Either tells: `os.open` names no mode, and C code that opens by mode no flags.
    return bool(set(mode or "") & set("wax+") or flags & _WRITE_FLAGS)
