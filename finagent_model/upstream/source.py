"""The upstream project's files on this machine: found, and held against the pin before a byte of
them is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from finagent_model.errors import UpstreamSourceError
from finagent_model.upstream.git_hash import blob_hash, tree_hash
from finagent_model.upstream.pin import Pin

LICENCE, NOTICE = "LICENSE", "NOTICE"
WHEEL = "finagent_upstream"
"""Name of the package that `finagent upstream wheel` makes of the source."""
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

    @property
    def code(self) -> Path:
        """The folder that goes on the worker's path."""
        return self.folder / self.pin.folder

    def files(self) -> dict[str, bytes]:
        """Every file by its path within the folder."""
        inside = [self.folder / LICENCE, self.folder / NOTICE, *sorted(self.code.rglob("*"))]
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in inside
            if path.is_file()
        }


def cached(home: Path, pin: Pin) -> Path:
    """Where `finagent upstream fetch` puts it."""
    return home / "upstream" / pin.tree


def at_hand(home: Path, pin: Pin) -> Path:
    """Where it is to be looked for: the wheel that was made of it, if that is installed, else the
    cache.
    """
    installed = find_spec(WHEEL)
    if installed is not None and installed.origin is not None:
        return Path(installed.origin).parent
    return cached(home, pin)


def source_at_hand(home: Path) -> Source:
    """What the pin of this code asks for. Raises UpstreamSourceError."""
    pin = Pin.load()
    return verified(at_hand(home, pin), pin)


def verified(folder: Path, pin: Pin) -> Source:
    """Raises UpstreamSourceError where it is missing or differs by a byte."""
    code, licence = folder / pin.folder, folder / LICENCE
    if not code.is_dir() or not licence.is_file():
        raise UpstreamSourceError(
            f"the source of {pin.repository} is not at {folder}; run `finagent upstream fetch`"
        )
    for what, found, wanted in (
        (pin.folder, tree_hash(code), pin.folder_tree),
        (LICENCE, blob_hash(licence.read_bytes()), pin.licence_blob),
    ):
        if found != wanted:
            raise UpstreamSourceError(
                f"{what} in {folder} hashes to {found}, the pin says {wanted}: it is not used; "
                "remove the folder and run `finagent upstream fetch`"
            )
    return Source(folder, pin)
