"""The pinned commit, brought here by Git.

The hash of the whole commit is compared before anything is taken out of it.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from finagent_model.domain.redact import without_private
from finagent_model.errors import UpstreamSourceError
from finagent_model.upstream.cache import cached, keep
from finagent_model.upstream.pin import Pin
from finagent_model.upstream.source import LICENCE, Source, verified

FETCH_S = 300
"""Seconds that a server may take."""
CURE = "give --from a folder or address that has the commit"


def fetch(home: Path, pin: Pin, origin: str | None = None) -> tuple[Source, bool]:
    """The verified source in the cache, and whether it had to be brought.

    `origin` is any Git address or folder that has the commit; None: the pin's own repository.
    Raises UpstreamSourceError, which names it without user and password; then the cache is as it
    was.
    """
    place = cached(home, pin)
    if place.exists():
        return verified(place, pin), False
    address = origin or pin.repository
    whence = f"commit {pin.commit} of {without_private(address)}"
    return keep(home, pin, _archive(pin, address, whence), whence, CURE), True


def _archive(pin: Pin, origin: str, whence: str) -> bytes:
    address = str(Path(origin).resolve()) if Path(origin).exists() else origin
    with tempfile.TemporaryDirectory(prefix="finagent-upstream-") as scratch:
        folder = Path(scratch)
        _git(folder, "init", "--quiet", "--bare", ".")
        _git(folder, "fetch", "--quiet", "--depth", "1", "--", address, pin.commit)
        tree = _git(folder, "rev-parse", f"{pin.commit}^{{tree}}").decode().strip()
        if tree != pin.tree:
            raise UpstreamSourceError(
                f"{whence}: its tree is {tree}, the pin says {pin.tree}; nothing of it was "
                f"installed; {CURE}"
            )
        return _git(folder, "archive", "--format=tar", pin.commit, pin.folder, LICENCE)


def _git(folder: Path, *arguments: str) -> bytes:
    quiet = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",  # the others are programs
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "-c", "core.autocrlf=false", "-c", "safe.directory=*", *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=kept | quiet,
            capture_output=True,
            timeout=FETCH_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise UpstreamSourceError("git is not installed; install it, or copy the cache") from None
    except subprocess.TimeoutExpired:
        raise UpstreamSourceError(
            f"git {arguments[0]} took more than {FETCH_S} s; try again, or give --from a clone"
        ) from None
    if done.returncode:
        said = without_private(" ".join(done.stderr.decode(errors="replace").split()))
        raise UpstreamSourceError(f"git {arguments[0]} failed: {said}; {CURE}")
    return done.stdout
