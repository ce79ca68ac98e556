"""The git checkout that this code runs from, if it does.

Our own code as a wheel, byte for byte the same for the same code, so that a model carries what
it was trained with.

Built from the installed package itself: a training may run from a checkout, from a wheel or in an
Airflow worker.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import finagent_model

PATIENCE_S = 10.0


@dataclass(frozen=True)
class GitCheckout:
    """As git tells it."""

    commit: str
    dirty: bool
    """Whether a file of the package differs from the commit, or is new."""


@cache
def checkout(package: Path | None = None) -> GitCheckout | None:
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
    return GitCheckout(commit, bool(changed.strip()))


def _git(where: Path, *arguments: str) -> str:
    # Without optional locks: looking must not get into the way of somebody who commits.
    command = ("git", "--no-optional-locks", "-C", str(where), *arguments)
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    ).stdout


NAME = "finagent_model"
PAGES = f"{NAME}/webui/"
EPOCH = (1980, 1, 1, 0, 0, 0)


def code_files() -> dict[str, bytes]:
    """Every file of the package by its path in the wheel, sorted."""
    root = Path(finagent_model.__file__).parent
    found = sorted(
        path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )
    return {f"{NAME}/{path.relative_to(root).as_posix()}": path.read_bytes() for path in found}


@cache
def code_hash() -> str:
    """SHA-256 over names and contents of the package's files, but for the pages that people look
    at, from which no decision comes. Read once a process: its code is loaded by then.
    """
    digest = hashlib.sha256()
    for name, content in code_files().items():
        if name.startswith(PAGES):
            continue
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def build_wheel(folder: Path) -> Path:
    """Write the wheel into `folder` and return its path."""
    entry = b"[console_scripts]\nfinagent = finagent_model.cli:app\n"
    version, about = finagent_model.__version__, "Requires-Python: >=3.11,<3.12\n"
    return write_wheel(folder, NAME, version, f"{about}License: Apache-2.0\n", code_files(), entry)


def write_wheel(
    folder: Path,
    name: str,
    version: str,
    about: str,
    content: Mapping[str, bytes],
    entry_points: bytes | None = None,
) -> Path:
    """A wheel of `content`, by path; `about` are further lines of its metadata."""
    info = f"{name}-{version}.dist-info"
    head = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
    files = dict(content) | {
        f"{info}/METADATA": (head + about).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: finagent_model\n"
        b"Root-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if entry_points is not None:
        files[f"{info}/entry_points.txt"] = entry_points
    record = "".join(f"{path},sha256={_b64(data)},{len(data)}\n" for path, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name_inside, data in files.items():
            entry = zipfile.ZipInfo(name_inside, EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(entry, data)
    return path


def _b64(content: bytes) -> str:
    digest = hashlib.sha256(content).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
