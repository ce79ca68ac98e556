"""The upstream project's source on this machine: brought, looked at, and made into a wheel.

It can't be installed by pip as it is: the repository has no build file. The wheel holds it,
verified and in one archive, so that an environment can carry the pin as a requirement.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finagent_model.contrib.upstream._errors import UpstreamSourceError
from finagent_model.contrib.upstream.source import (
    ARCHIVE,
    LICENCE,
    NOTICE,
    WHEEL,
    Pin,
    Source,
    cached,
    fetch,
    packed,
    source_at_hand,
)
from finagent_model.model.wheel import write_wheel
from finagent_model.settings import Settings

INIT = b'"""What finagent-model calls upstream: an unchanged copy, as an archive."""\n'


@dataclass(frozen=True)
class UpstreamStatus:
    """Where the source is looked for, and how it is there."""

    folder: Path
    pin: Pin
    fault: str | None
    """None: it is what the pin says."""
    fetched: bool = False
    """Just now."""

    def row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            **self.pin.model_dump(),
            "path": str(self.folder),
            "verified": self.fault is None,
            "fault": self.fault,
            "fetched": self.fetched,
        }


def fetch_upstream(settings: Settings, origin: str | None) -> UpstreamStatus:
    """Raises UpstreamSourceError."""
    pin = Pin.load()
    if origin is None and settings.upstream_source:
        origin = settings.upstream_source.get_secret_value()
    source, fresh = fetch(settings.home, pin, origin)
    return UpstreamStatus(source.folder, pin, None, fresh)


def upstream_status(settings: Settings) -> UpstreamStatus:
    """As it is now; nothing is brought but what an installed wheel has."""
    pin = Pin.load()
    try:
        source_at_hand(settings.home, pin)
    except UpstreamSourceError as error:
        return UpstreamStatus(cached(settings.home, pin), pin, str(error))
    return UpstreamStatus(cached(settings.home, pin), pin, None)


def build_upstream_wheel(settings: Settings, folder: Path) -> Path:
    """The same bytes for the same pin. Raises UpstreamSourceError without the source."""
    return wheel_of(source_at_hand(settings.home), folder)


def wheel_of(source: Source, folder: Path) -> Path:
    """A verified source as a wheel in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    held = source.files()
    content = {
        "__init__.py": INIT,
        LICENCE: held[LICENCE],
        NOTICE: held[NOTICE],
        ARCHIVE: packed(held),
    }
    files = {f"{WHEEL}/{name}": data for name, data in content.items()}
    about = f"License: {source.pin.licence}\nProject-URL: Source, {source.pin.repository}\n"
    return write_wheel(folder, WHEEL, f"0+g{source.pin.commit[:12]}", about, files)
