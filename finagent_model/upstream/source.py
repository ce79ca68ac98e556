"""The upstream project's files on this machine: found, and held against the pin before a byte of
them is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finagent_model.errors import UpstreamSourceError
from finagent_model.upstream.git_hash import blob_hash, tree_hash
from finagent_model.upstream.pin import Pin

LICENCE, NOTICE = "LICENSE", "NOTICE"
FETCH = "run `finagent upstream fetch`"
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
