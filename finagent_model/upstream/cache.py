"""Where the upstream project's files lie in FINAGENT_HOME: the whole of them, or nothing.

A copy is made beside its place, held against the pin, and moved there in one step.
"""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from finagent_model.errors import UpstreamSourceError
from finagent_model.upstream.pin import Pin
from finagent_model.upstream.source import NOTICE, NOTICE_TEXT, Source, fault, verified


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
