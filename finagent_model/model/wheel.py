"""Build a wheel of the running code, hash that code, and find the git commit it comes from.

A model carries the wheel, so that it decides with the code that trained it. The wheel is built from
the imported package itself, since training may run from a checkout, from a wheel or in an Airflow
worker; equal code gives equal bytes.
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

NAME = "finagent_model"
UI_PREFIX = f"{NAME}/webui/"
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can hold."""
GIT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class GitCheckout:
    """The state of the git checkout that a package lies in."""

    commit: str
    dirty: bool
    """Whether a file of the package differs from the commit, or is new."""


# Cached, as `code_hash` is: the process has loaded its code, whatever happens to the files later.
@cache
def find_checkout(package: Path | None = None) -> GitCheckout | None:
    """Return the git checkout of the package's folder; None without one, or without git.

    The folder is that of `finagent_model` unless another is named.
    """
    package = package or Path(finagent_model.__file__).parent
    # Git would search all parents: an environment inside another project is no checkout of ours.
    if not (package.parent / ".git").exists():
        return None
    try:
        commit = _git(package.parent, "rev-parse", "HEAD").strip()
        changed = _git(package.parent, "status", "--porcelain", "--", package.name)
    except (OSError, subprocess.SubprocessError):
        return None
    return GitCheckout(commit, bool(changed.strip()))


def _git(folder: Path, *arguments: str) -> str:
    """Return git's output. Raises OSError without git, and SubprocessError."""
    # Without optional locks: `git status` must not block somebody's commit.
    command = ("git", "--no-optional-locks", "-C", str(folder), *arguments)
    return subprocess.run(
        command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True
    ).stdout


def read_code_files() -> dict[str, bytes]:
    """Return the content of every file of the package by its path in the wheel, sorted."""
    root = Path(finagent_model.__file__).parent
    paths = sorted(
        path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )
    return {f"{NAME}/{path.relative_to(root).as_posix()}": path.read_bytes() for path in paths}


@cache
def code_hash() -> str:
    """Return the SHA-256 of the package's code, without the web pages."""
    digest = hashlib.sha256()
    for name, content in read_code_files().items():
        # No decision comes from a page: a new colour must not look like other code.
        if name.startswith(UI_PREFIX):
            continue
        # The length keeps name and content apart: no two trees give the same stream.
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def build_wheel(folder: Path) -> Path:
    """Write the wheel into `folder` and return its path."""
    entry = b"[console_scripts]\nfinagent = finagent_model.cli:app\n"
    version, about = finagent_model.__version__, "Requires-Python: >=3.11,<3.12\n"
    files = read_code_files()
    return write_wheel(folder, NAME, version, f"{about}License: Apache-2.0\n", files, entry)


def write_wheel(
    folder: Path,
    name: str,
    version: str,
    about: str,
    content: Mapping[str, bytes],
    entry_points: bytes | None = None,
) -> Path:
    """Write a wheel into `folder` and return its path.

    `content` is by path inside the wheel; `about` are further lines of its metadata.
    """
    info = f"{name}-{version}.dist-info"
    head = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
    files = dict(content) | {
        f"{info}/METADATA": (head + about).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: finagent_model\n"
        b"Root-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if entry_points is not None:
        files[f"{info}/entry_points.txt"] = entry_points
    # RECORD lists itself without a hash: https://packaging.python.org/specifications/
    record = "".join(
        f"{path},sha256={record_hash(data)},{len(data)}\n" for path, data in files.items()
    )
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name_inside, data in files.items():
            # Fixed times and modes: the same files are the same bytes on every machine.
            entry = zipfile.ZipInfo(name_inside, ZIP_EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(entry, data)
    return path


def record_hash(content: bytes) -> str:
    """Return the SHA-256 of `content` as RECORD writes it."""
    digest = hashlib.sha256(content).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
