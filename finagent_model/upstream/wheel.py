"""The upstream project's files in an installed wheel: one archive, which fills the cache.

Loose files would not stay what the pin says: pip puts byte code beside each source it installs.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from finagent_model.errors import UpstreamSourceError
from finagent_model.upstream.cache import cached, keep
from finagent_model.upstream.pin import Pin
from finagent_model.upstream.source import FETCH, Source, verified

WHEEL = "finagent_upstream"
"""Name of the package that `finagent upstream wheel` makes of the source."""
ARCHIVE = "source.tar"
"""Its file that holds the source."""
CURE = f"install what `finagent upstream wheel` makes for this pin, or {FETCH}"


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
        raise UpstreamSourceError(f"{archive} can't be read: {error.strerror}; {CURE}") from None
    return keep(home, wanted, content, str(archive), CURE)
