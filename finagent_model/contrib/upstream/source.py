"""Git's hashes of files and folders, without Git: what is about to run can be held against the pin
on any machine.

Every file counts as an ordinary one (mode 100644): the pin has no other, and stores of artifacts
drop modes.

Which commit of the upstream project is used, and what it must hash to.

Where the upstream project's files lie in FINAGENT_HOME: the whole of them, or nothing.

A copy is made beside its place, held against the pin, and moved there in one step.

The pinned commit, brought here by Git.

The hash of the whole commit is compared before anything is taken out of it.

The upstream project's files in an installed wheel: one archive, which fills the cache.

Loose files would not stay what the pin says: pip puts byte code beside each source it installs.

The upstream project's files on this machine: found, and held against the pin before a byte of
them is used.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Self

from pydantic import Field

from finagent_model._base import FrozenModel
from finagent_model._redact import redact_addresses
from finagent_model.errors import UpstreamSourceError


def blob_hash(content: bytes) -> str:
    """Of one file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def tree_hash(folder: Path) -> str:
    """Of a folder with all that is in it, hidden files too; a symbolic link hashes as no file
    does.
    """
    entries = []
    for path in folder.iterdir():
        name = path.name.encode()
        if path.is_symlink():
            entries.append((name, b"120000", blob_hash(str(path.readlink()).encode())))
        elif path.is_dir():
            entries.append((name + b"/", b"40000", tree_hash(path)))
        else:
            entries.append((name, b"100644", blob_hash(path.read_bytes())))
    entries.sort()  # Git sorts a folder as if its name ended in a slash
    body = b"".join(
        mode + b" " + name.removesuffix(b"/") + b"\0" + bytes.fromhex(found)
        for name, mode, found in entries
    )
    return hashlib.sha1(b"tree %d\0" % len(body) + body, usedforsecurity=False).hexdigest()


_HASH = Field(pattern=r"^[0-9a-f]{40}$")


class Pin(FrozenModel):
    """All hashes are Git's own (SHA-1)."""

    repository: str
    commit: str = _HASH
    tree: str = _HASH
    """Of everything that the commit holds."""
    folder: str
    """The part that is used."""
    folder_tree: str = _HASH
    licence: str
    licence_blob: str = _HASH
    """Of the file LICENSE, which goes wherever the folder goes."""

    @classmethod
    def load(cls) -> Self:
        """As `upstream.lock` beside this file has it."""
        return cls.read((files(__package__) / "upstream.lock").read_text())

    @classmethod
    def read(cls, text: str) -> Self:
        """From TOML. Raises ValueError."""
        return cls.model_validate(tomllib.loads(text))

    @property
    def text(self) -> str:
        """The inverse, for a package."""
        return "".join(f'{name} = "{value}"\n' for name, value in self.model_dump().items())


def cached(home: Path, pin: Pin) -> Path:
    """Its place, by the hash of what it holds."""
    return home / "upstream" / pin.tree


def keep(home: Path, pin: Pin, archive: bytes, whence: str, cure: str) -> Source:
    """What a tar archive holds, if that is what the pin says; with a NOTICE of our own.

    Raises UpstreamSourceError that says `whence` it came, and the `cure`; then the cache is as it
    was.
    """
    place = cached(home, pin)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=place.parent, prefix=".fetching-")
    except OSError as error:
        raise UpstreamSourceError(
            f"{place.parent} can't be written: {error.strerror}; set FINAGENT_HOME to a folder "
            "that can"
        ) from None
    with scratch as folder:
        fresh = Path(folder) / "source"
        try:
            _unpack(archive, fresh)
        except tarfile.TarError as error:
            raise UpstreamSourceError(f"{whence} can't be unpacked: {error}; {cure}") from None
        (fresh / NOTICE).write_text(NOTICE_TEXT.format(**pin.model_dump()))
        if said := fault(fresh, pin):
            raise UpstreamSourceError(f"{whence}: {said}; nothing of it was installed; {cure}")
        try:
            fresh.rename(place)
        except OSError:  # another process was faster
            shutil.rmtree(fresh)
    return verified(place, pin)


def _unpack(archive: bytes, into: Path) -> None:
    """Its files, none of which lands outside; whatever else it holds raises TarError. (Python's own
    filter for that is not in every 3.11.)
    """
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for entry in tar:
            if entry.isdir():
                continue
            path = PurePosixPath(entry.name)
            held = tar.extractfile(entry) if entry.isfile() else None  # of a link it is its target
            if held is None or path.is_absolute() or ".." in path.parts:
                raise tarfile.TarError(f"{entry.name!r} is no file within it")
            file = into / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(held.read())


FETCH_S = 300
"""Seconds that a server may take."""
FETCH_CURE = "give --from a folder or address that has the commit"


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
    whence = f"commit {pin.commit} of {redact_addresses(address)}"
    return keep(home, pin, _archive(pin, address, whence), whence, FETCH_CURE), True


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
                f"installed; {FETCH_CURE}"
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
        said = redact_addresses(" ".join(done.stderr.decode(errors="replace").split()))
        raise UpstreamSourceError(f"git {arguments[0]} failed: {said}; {FETCH_CURE}")
    return done.stdout


WHEEL = "finagent_upstream"
"""Name of the package that `finagent upstream wheel` makes of the source."""
ARCHIVE = "source.tar"
"""Its file that holds the source."""
FETCH = "run `finagent upstream fetch`"
WHEEL_CURE = f"install what `finagent upstream wheel` makes for this pin, or {FETCH}"


def packed(files: Mapping[str, bytes]) -> bytes:
    """Files by their path as an archive, the same bytes for the same files."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)  # of no time and nobody
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def installed() -> Path | None:
    """The archive of the wheel in this environment; None: there is no such wheel."""
    found = find_spec(WHEEL)
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / ARCHIVE


def source_at_hand(home: Path, pin: Pin | None = None) -> Source:
    """What the pin asks for, None being this code's own: from the cache, which an installed wheel
    fills where it is empty. Verified each time; raises UpstreamSourceError.
    """
    wanted = pin or Pin.load()
    place, archive = cached(home, wanted), installed()
    if archive is None or place.exists():
        return verified(place, wanted)
    try:
        content = archive.read_bytes()
    except OSError as error:
        raise UpstreamSourceError(
            f"{archive} can't be read: {error.strerror}; {WHEEL_CURE}"
        ) from None
    return keep(home, wanted, content, str(archive), WHEEL_CURE)


LICENCE, NOTICE = "LICENSE", "NOTICE"
NOTICE_TEXT = """\
{folder} and LICENSE are copied, unchanged, from {repository}
at commit {commit}, under the {licence} licence.

Its README says that parts are adapted from microsoft/Multi-Agent-Custom-Automation-Engine-Solution-
Accelerator (MIT) and from AI4Finance-Foundation/FinRobot (Apache License 2.0,
https://www.apache.org/licenses/LICENSE-2.0).
"""


@dataclass(frozen=True)
class Source:
    """A folder that is what the pin says."""

    folder: Path
    """Holds LICENSE, NOTICE and the pinned folder under its own path."""
    pin: Pin
    cure: str = FETCH
    """What brings it back where it is that no more."""

    @property
    def code(self) -> Path:
        """The folder that goes on the worker's path."""
        return self.folder / self.pin.folder

    def again(self) -> Source:
        """It, verified once more. Raises UpstreamSourceError."""
        return verified(self.folder, self.pin, self.cure)

    def files(self) -> dict[str, bytes]:
        """Every file by its path within the folder."""
        inside = [self.folder / LICENCE, self.folder / NOTICE, *sorted(self.code.rglob("*"))]
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in inside
            if path.is_file()
        }


def verified(folder: Path, pin: Pin, cure: str = FETCH) -> Source:
    """Raises UpstreamSourceError where it is missing or differs by a byte, with the `cure`."""
    if not folder.is_dir():
        raise UpstreamSourceError(f"the source of {pin.repository} is not at {folder}; {cure}")
    if said := fault(folder, pin):
        raise UpstreamSourceError(f"{folder}: {said}: it is not used; remove the folder and {cure}")
    return Source(folder, pin, cure)


def fault(folder: Path, pin: Pin) -> str | None:
    """How what is in the folder differs from the pin; None: by nothing."""
    code, licence = folder / pin.folder, folder / LICENCE
    if not code.is_dir() or not licence.is_file():
        return f"{pin.folder} or {LICENCE} is missing"
    for what, found, wanted in (
        (pin.folder, tree_hash(code), pin.folder_tree),
        (LICENCE, blob_hash(licence.read_bytes()), pin.licence_blob),
    ):
        if found != wanted:
            return f"{what} hashes to {found}, the pin says {wanted}"
    return None
