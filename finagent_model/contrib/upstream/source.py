"""The upstream project's files: one pinned commit, fetched by Git or taken from an installed wheel.

Not a byte of them is used before it was compared with the pin. They lie in a cache below
FINAGENT_HOME, whole or not at all: a copy is made beside its place, verified, and moved there in
one step.

Git's own hashes are computed here without Git, so that any machine can verify. Each file counts as
an ordinary one (mode 100644): the pin has no other, and artifact stores drop modes.
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
from finagent_model._local_files import ScratchFolder, make_private_folder
from finagent_model._redact import redact_addresses
from finagent_model.errors import ExternalAnalystError, ExternalSourceError

NAME = "upstream"
"""What a desk, a package, a record's key and the shell call the project."""


class UpstreamSourceError(ExternalSourceError):
    """The upstream project's files are missing, or are not what the pin says."""


class UpstreamError(ExternalAnalystError):
    """The upstream project's code gave nothing that can be used; `code` is one word for how."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(NAME, code, reason)


LICENCE, NOTICE, LOCK = "LICENSE", "NOTICE", "upstream.lock"
NOTICE_TEXT = """\
{folder} and LICENSE are copied, unchanged, from {repository}
at commit {commit}, under the {licence} licence.

Its README says that parts are adapted from microsoft/Multi-Agent-Custom-Automation-Engine-Solution-
Accelerator (MIT) and from AI4Finance-Foundation/FinRobot (Apache License 2.0,
https://www.apache.org/licenses/LICENSE-2.0).
"""
WHEEL = "finagent_upstream"
"""Name of the package that `finagent upstream wheel` makes of the source."""
ARCHIVE = "source.tar"
"""Its file that holds the source. Loose files would not stay what the pin says: pip puts byte code
beside each source that it installs.
"""
GIT_TIMEOUT_S = 300
"""Seconds that one Git command, and so a server, may take."""
FETCH_REMEDY = "run `finagent upstream fetch`"
ORIGIN_REMEDY = "give --from a folder or address that has the commit"
WHEEL_REMEDY = f"install what `finagent upstream wheel` makes for this pin, or {FETCH_REMEDY}"
_SHA1 = Field(pattern=r"^[0-9a-f]{40}$")


class SourcePin(FrozenModel):
    """The commit of the upstream project that is used, and Git's hashes (SHA-1) of its content."""

    repository: str
    commit: str = _SHA1
    tree: str = _SHA1
    """Of everything that the commit holds."""
    folder: str
    """The part that is used."""
    folder_tree: str = _SHA1
    licence: str
    licence_blob: str = _SHA1
    """Of the file LICENSE, which goes wherever the folder goes."""

    @classmethod
    def load(cls) -> Self:
        """Return this code's own pin, `upstream.lock` beside this file."""
        return cls.read((files(__package__) / LOCK).read_text())

    @classmethod
    def read(cls, text: str) -> Self:
        """Parse a pin from TOML. Raises ValueError."""
        return cls.model_validate(tomllib.loads(text))

    @property
    def text(self) -> str:
        """The pin as TOML, for a package."""
        return "".join(f'{name} = "{value}"\n' for name, value in self.model_dump().items())


@dataclass(frozen=True)
class PinnedSource:
    """A folder that was verified to be what the pin says."""

    folder: Path
    """Holds LICENSE, NOTICE and the pinned folder under its own path."""
    pin: SourcePin
    remedy: str = FETCH_REMEDY
    """What an error tells the user to do where the folder is no longer what the pin says."""

    @property
    def code(self) -> Path:
        """The folder that goes on the worker's import path."""
        return self.folder / self.pin.folder

    def verify(self) -> PinnedSource:
        """Return this source, verified once more. Raises UpstreamSourceError."""
        return verify_source(self.folder, self.pin, self.remedy)

    def files(self) -> dict[str, bytes]:
        """Return every file's content by its path within the folder."""
        inside = [self.folder / LICENCE, self.folder / NOTICE, *sorted(self.code.rglob("*"))]
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in inside
            if path.is_file()
        }

    def package_files(self) -> dict[str, bytes]:
        """Return every file and the pin, by path within a package's folder."""
        return {**self.files(), LOCK: self.pin.text.encode()}


def verify_source(folder: Path, pin: SourcePin, remedy: str = FETCH_REMEDY) -> PinnedSource:
    """Return the source in `folder`.

    Raises UpstreamSourceError, with the `remedy`, where it is missing or differs by a byte.
    """
    if not folder.is_dir():
        raise UpstreamSourceError(f"the source of {pin.repository} is not at {folder}; {remedy}")
    if mismatch := find_mismatch(folder, pin):
        raise UpstreamSourceError(
            f"{folder}: {mismatch}: it is not used; remove the folder and {remedy}"
        )
    return PinnedSource(folder, pin, remedy)


def find_mismatch(folder: Path, pin: SourcePin) -> str | None:
    """Return how the folder's content differs from the pin; None where it doesn't."""
    code, licence = folder / pin.folder, folder / LICENCE
    if not code.is_dir() or not licence.is_file():
        return f"{pin.folder} or {LICENCE} is missing"
    for what, actual, expected in (
        (pin.folder, hash_tree(code), pin.folder_tree),
        (LICENCE, hash_blob(licence.read_bytes()), pin.licence_blob),
    ):
        if actual != expected:
            return f"{what} hashes to {actual}, the pin says {expected}"
    return None


def hash_blob(content: bytes) -> str:
    """Return Git's hash of one file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def hash_tree(folder: Path) -> str:
    """Return Git's hash of a folder with everything in it, hidden files too."""
    entries = []
    for path in folder.iterdir():
        name = path.name.encode()
        if path.is_symlink():
            # A mode of its own, so that a link never passes for the file that it leads to.
            entries.append((name, b"120000", hash_blob(str(path.readlink()).encode())))
        elif path.is_dir():
            entries.append((name + b"/", b"40000", hash_tree(path)))
        else:
            entries.append((name, b"100644", hash_blob(path.read_bytes())))
    entries.sort()  # Git sorts a folder as if its name ended in a slash
    body = b"".join(
        mode + b" " + name.removesuffix(b"/") + b"\0" + bytes.fromhex(digest)
        for name, mode, digest in entries
    )
    return hashlib.sha1(b"tree %d\0" % len(body) + body, usedforsecurity=False).hexdigest()


def cache_folder(home: Path, pin: SourcePin) -> Path:
    """Return where the cache keeps the pinned files: a folder named by their hash."""
    return home / "upstream" / pin.tree


def find_source(home: Path, pin: SourcePin | None = None) -> PinnedSource:
    """Return the files of `pin`, None being this code's own, verified each time.

    They come from the cache; an installed wheel fills the cache where it is empty. Raises
    UpstreamSourceError.
    """
    pin = pin or SourcePin.load()
    folder, archive = cache_folder(home, pin), find_wheel_archive()
    if archive is None or folder.exists():
        return verify_source(folder, pin)
    try:
        content = archive.read_bytes()
    except OSError as error:
        raise UpstreamSourceError(
            f"{archive} can't be read: {error.strerror}; {WHEEL_REMEDY}"
        ) from None
    return install_archive(home, pin, content, str(archive), WHEEL_REMEDY)


def find_wheel_archive() -> Path | None:
    """Return the archive of the wheel in this environment; None if none is installed."""
    spec = find_spec(WHEEL)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / ARCHIVE


def fetch_source(
    home: Path, pin: SourcePin, origin: str | None = None
) -> tuple[PinnedSource, bool]:
    """Return the verified source in the cache, and whether Git had to fetch it.

    `origin` is any Git address or folder that has the commit; None: the pin's own repository.
    Raises UpstreamSourceError, which names the address without user and password; then the cache is
    unchanged.
    """
    folder = cache_folder(home, pin)
    if folder.exists():
        return verify_source(folder, pin), False
    address = origin or pin.repository
    provenance = f"commit {pin.commit} of {redact_addresses(address)}"
    archive = _fetch_archive(pin, address, provenance)
    return install_archive(home, pin, archive, provenance, ORIGIN_REMEDY), True


def install_archive(
    home: Path, pin: SourcePin, archive: bytes, provenance: str, remedy: str
) -> PinnedSource:
    """Move the content of a tar archive into the cache, with a NOTICE of our own, if it is what the
    pin says.

    Raises UpstreamSourceError with the archive's `provenance` and the `remedy`; then the cache is
    unchanged.
    """
    place = cache_folder(home, pin)
    try:
        make_private_folder(place.parent)
        scratch = tempfile.TemporaryDirectory(dir=place.parent, prefix=".fetching-")
    except OSError as error:
        raise UpstreamSourceError(
            f"{place.parent} can't be written: {error.strerror}; set FINAGENT_HOME to a folder "
            "that can"
        ) from None
    with scratch as folder:
        copy = Path(folder) / "source"
        try:
            _extract(archive, copy)
        except tarfile.TarError as error:
            raise UpstreamSourceError(
                f"{provenance} can't be unpacked: {error}; {remedy}"
            ) from None
        (copy / NOTICE).write_text(NOTICE_TEXT.format(**pin.model_dump()))
        if mismatch := find_mismatch(copy, pin):
            raise UpstreamSourceError(
                f"{provenance}: {mismatch}; nothing of it was installed; {remedy}"
            )
        try:
            copy.rename(place)
        except OSError:  # another process was faster
            shutil.rmtree(copy)
    return verify_source(place, pin)


def pack_files(contents: Mapping[str, bytes]) -> bytes:
    """Return a tar archive of contents by path; equal contents give equal bytes."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)  # its time is 0 and its owner is nobody
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def _extract(archive: bytes, folder: Path) -> None:
    """Write an archive's files into `folder`. Raises TarError for anything but a file within it."""
    # Not every Python 3.11 has `tarfile.data_filter`, which refuses what leads outside.
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for entry in tar:
            if entry.isdir():
                continue
            path = PurePosixPath(entry.name)
            # `extractfile` of a link gives the link's target, so a link counts as no file.
            content = tar.extractfile(entry) if entry.isfile() else None
            if content is None or path.is_absolute() or ".." in path.parts:
                raise tarfile.TarError(f"{entry.name!r} is not a file within it")
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.read())


def _fetch_archive(pin: SourcePin, origin: str, provenance: str) -> bytes:
    """Fetch the commit, compare its tree's hash, and only then return the pinned files as tar."""
    address = str(Path(origin).resolve()) if Path(origin).exists() else origin
    with ScratchFolder() as folder:
        _git(folder, "init", "--quiet", "--bare", ".")
        # `--`: an address that starts with a dash is no option.
        _git(folder, "fetch", "--quiet", "--depth", "1", "--", address, pin.commit)
        tree = _git(folder, "rev-parse", f"{pin.commit}^{{tree}}").decode().strip()
        if tree != pin.tree:
            raise UpstreamSourceError(
                f"{provenance}: its tree is {tree}, the pin says {pin.tree}; nothing of it was "
                f"installed; {ORIGIN_REMEDY}"
            )
        return _git(folder, "archive", "--format=tar", pin.commit, pin.folder, LICENCE)


def _git(folder: Path, *arguments: str) -> bytes:
    """Run Git without the user's configuration and without prompts; returns its stdout."""
    settings = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",  # the others are programs
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "-c", "core.autocrlf=false", "-c", "safe.directory=*", *arguments]
    try:
        process = subprocess.run(
            command,
            cwd=folder,
            env=environment | settings,
            capture_output=True,
            timeout=GIT_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise UpstreamSourceError("git is not installed; install it, or copy the cache") from None
    except subprocess.TimeoutExpired:
        raise UpstreamSourceError(
            f"git {arguments[0]} took more than {GIT_TIMEOUT_S} s; try again, or give --from a "
            "clone"
        ) from None
    if process.returncode:
        message = redact_addresses(" ".join(process.stderr.decode(errors="replace").split()))
        raise UpstreamSourceError(f"git {arguments[0]} failed: {message}; {ORIGIN_REMEDY}")
    return process.stdout
