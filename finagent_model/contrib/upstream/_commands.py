"""`finagent upstream`: the public project that a desk may hear, at its pinned commit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from finagent_model.cli.options import (
    EXIT_NO_DATA,
    HelpGroup,
    Json,
    echo,
    format_examples,
    print_json,
)
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


commands = typer.Typer(
    cls=HelpGroup,
    no_args_is_help=True,
    help="Fetch and check akshata29/finagent, an optional analyst.",
)


@commands.command(epilog=format_examples("finagent upstream fetch"))
def fetch(
    origin: Annotated[
        str | None, typer.Option("--from", help="Clone or Git URL that has the commit.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch the pinned commit with Git and check its hash."""
    from finagent_model.settings import Settings

    source = fetch_upstream(Settings.load(), origin)
    if as_json:
        print_json(source.row())
        return
    how = "fetched and verified" if source.fetched else "here already, verified"
    echo(f"{source.pin.repository} at {source.pin.commit[:12]}: {how}; {source.folder}")


@commands.command(epilog=format_examples("finagent upstream status"))
def status(as_json: Json = False) -> None:
    """Print where the source is and whether it matches the pin.

    Exit code 3 where it does not.
    """
    from finagent_model.settings import Settings

    source = inspect_upstream(Settings.load())
    if as_json:
        print_json(source.row())
    else:
        state = source.fault or f"verified; {source.folder}"
        echo(f"{source.pin.repository} at {source.pin.commit[:12]}: {state}")
    if source.fault:
        raise typer.Exit(EXIT_NO_DATA)


@commands.command(epilog=format_examples("finagent upstream wheel --to dist"))
def wheel(
    to: Annotated[Path, typer.Option(help="Folder to write it into.")] = Path("dist"),
    as_json: Json = False,
) -> None:
    """Build an installable wheel of the fetched source."""
    from finagent_model.settings import Settings

    path = build_upstream_wheel(Settings.load(), to)
    print_json({"wheel": str(path)}) if as_json else echo(str(path))
