"""Fetch and inspect the upstream project's source, and build a wheel of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finagent_model.contrib.upstream.source import (
    ARCHIVE,
    LICENCE,
    NOTICE,
    WHEEL,
    PinnedSource,
    SourcePin,
    UpstreamSourceError,
    cache_folder,
    fetch_source,
    find_source,
    pack_files,
)
from finagent_model.model.wheel import write_wheel
from finagent_model.settings import Settings

INIT = b'"""What finagent-model calls upstream: an unchanged copy, as an archive."""\n'


@dataclass(frozen=True)
class SourceStatus:
    """Where the source is looked for, and in which state it is."""

    folder: Path
    pin: SourcePin
    fault: str | None
    """Why it can't be used; None: it is what the pin says."""
    fetched: bool = False
    """Whether this very command fetched it."""

    def row(self) -> dict[str, Any]:
        """Return the status as JSON for `--json`."""
        return {
            **self.pin.model_dump(),
            "path": str(self.folder),
            "verified": self.fault is None,
            "fault": self.fault,
            "fetched": self.fetched,
        }


def fetch_upstream(settings: Settings, origin: str | None) -> SourceStatus:
    """Fetch the pinned commit from `origin`, else from FINAGENT_UPSTREAM_SOURCE, else from its own
    repository. Raises UpstreamSourceError.
    """
    pin = SourcePin.load()
    if origin is None and settings.upstream_source:
        origin = settings.upstream_source.get_secret_value()
    source, fetched = fetch_source(settings.home, pin, origin)
    return SourceStatus(source.folder, pin, None, fetched)


def inspect_upstream(settings: Settings) -> SourceStatus:
    """Return the source's present state; fetches nothing, but takes an installed wheel's files."""
    pin = SourcePin.load()
    folder = cache_folder(settings.home, pin)
    try:
        find_source(settings.home, pin)
    except UpstreamSourceError as error:
        return SourceStatus(folder, pin, str(error))
    return SourceStatus(folder, pin, None)


def build_upstream_wheel(settings: Settings, folder: Path) -> Path:
    """Write this machine's source as a wheel into `folder`. Raises UpstreamSourceError."""
    return build_wheel(find_source(settings.home), folder)


def build_wheel(source: PinnedSource, folder: Path) -> Path:
    """Write a verified source as a wheel into `folder`; the same pin gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = source.files()
    package = {
        "__init__.py": INIT,
        LICENCE: contents[LICENCE],
        NOTICE: contents[NOTICE],
        ARCHIVE: pack_files(contents),
    }
    files = {f"{WHEEL}/{name}": content for name, content in package.items()}
    about = f"License: {source.pin.licence}\nProject-URL: Source, {source.pin.repository}\n"
    return write_wheel(folder, WHEEL, f"0+g{source.pin.commit[:12]}", about, files)
