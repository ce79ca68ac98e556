"""The git checkout that this code runs from, if it does."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import finagent_model

PATIENCE_S = 10.0


@dataclass(frozen=True)
class Checkout:
    """As git tells it."""

    commit: str
    dirty: bool
    """Whether a file of the package differs from the commit, or is new."""


@cache
def checkout(package: Path | None = None) -> Checkout | None:
    """None where the package lies in no checkout of its own, or git can't be asked. Asked once a
    process: its code is loaded by then.
    """
    package = package or Path(finagent_model.__file__).parent
    # Not found by its parents: an environment inside another project is no checkout of ours.
    if not (package.parent / ".git").exists():
        return None
    try:
        commit = _git(package.parent, "rev-parse", "HEAD").strip()
        changed = _git(package.parent, "status", "--porcelain", "--", package.name)
    except (OSError, subprocess.SubprocessError):
        return None
    return Checkout(commit, bool(changed.strip()))


def _git(where: Path, *arguments: str) -> str:
    # Without optional locks: looking must not get into the way of somebody who commits.
    command = ("git", "--no-optional-locks", "-C", str(where), *arguments)
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    ).stdout
