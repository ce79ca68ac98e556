"""The pinned commit, brought here by Git.

Nothing is used before its hash was compared, and the cache has the whole of it or nothing: a copy
is made beside its place and moved there in one step.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from finagent_model.errors import UpstreamSourceError
from finagent_model.upstream.pin import Pin
from finagent_model.upstream.source import (
    LICENCE,
    NOTICE,
    NOTICE_TEXT,
    Source,
    cached,
    verified,
)

FETCH_S = 300
"""Seconds that a server may take."""


def fetch(home: Path, pin: Pin, origin: str | None = None) -> tuple[Source, bool]:
    """The verified source in the cache, and whether it had to be brought.

    `origin` is any Git address or folder that has the commit; None: the pin's own repository.
    Raises UpstreamSourceError; then the cache is as it was.
    """
    place = cached(home, pin)
    if place.exists():
        return verified(place, pin), False
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".fetching-") as scratch:
        fresh = Path(scratch) / "source"
        _bring(Path(scratch) / "git", fresh, pin, origin or pin.repository)
        (fresh / NOTICE).write_text(NOTICE_TEXT.format(**pin.model_dump()))
        verified(fresh, pin)
        try:
            fresh.rename(place)
        except OSError:  # another process was faster
            shutil.rmtree(fresh)
    return verified(place, pin), True


def _bring(git_folder: Path, into: Path, pin: Pin, origin: str) -> None:
    git_folder.mkdir()
    _git(git_folder, "init", "--quiet", "--bare", ".")
    address = str(Path(origin).resolve()) if Path(origin).exists() else origin
    _git(git_folder, "fetch", "--quiet", "--depth", "1", address, pin.commit)
    tree = _git(git_folder, "rev-parse", f"{pin.commit}^{{tree}}").decode().strip()
    if tree != pin.tree:
        raise UpstreamSourceError(
            f"commit {pin.commit} of {origin} holds tree {tree}, the pin says {pin.tree}; "
            "nothing of it was installed"
        )
    packed = _git(git_folder, "archive", "--format=tar", pin.commit, pin.folder, LICENCE)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(into, filter="data")


def _git(folder: Path, *arguments: str) -> bytes:
    quiet = {
        "GIT_TERMINAL_PROMPT": "0",
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
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise UpstreamSourceError(
            f"git {arguments[0]} failed: {said}; give --from a folder or address that has the "
            "commit"
        )
    return done.stdout
