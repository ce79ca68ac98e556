"""`finagent upstream`: the public project that a desk may hear, at its pinned commit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finagent_model.cli.terminal import NO_DATA, Json, print_json

upstream = typer.Typer(
    no_args_is_help=True, help="The upstream project: fetch it, look at it, make a wheel of it."
)


@upstream.command()
def fetch(
    origin: Annotated[
        str | None, typer.Option("--from", help="A clone or an address that has the commit.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring the pinned commit with git, and keep it once its hash was compared."""
    from finagent_model.pipeline.upstream import fetch_upstream
    from finagent_model.settings import Settings

    found = fetch_upstream(Settings.load(), origin)
    if as_json:
        print_json(found.row())
        return
    how = "fetched and verified" if found.fetched else "here already, verified"
    typer.echo(f"{found.pin.repository} at {found.pin.commit[:12]}: {how}; {found.folder}")


@upstream.command()
def status(as_json: Json = False) -> None:
    """Where the source is, and whether it is what the pin says; exit code 3 if not."""
    from finagent_model.pipeline.upstream import standing
    from finagent_model.settings import Settings

    found = standing(Settings.load())
    if as_json:
        print_json(found.row())
    else:
        said = found.fault or f"verified; {found.folder}"
        typer.echo(f"{found.pin.repository} at {found.pin.commit[:12]}: {said}")
    if found.fault:
        raise typer.Exit(NO_DATA)


@upstream.command()
def wheel(
    to: Annotated[Path, typer.Option(help="Folder to write it into.")] = Path("dist"),
    as_json: Json = False,
) -> None:
    """Make an installable wheel of the source that is here."""
    from finagent_model.pipeline.upstream import build_upstream_wheel
    from finagent_model.settings import Settings

    path = build_upstream_wheel(Settings.load(), to)
    print_json({"wheel": str(path)}) if as_json else typer.echo(str(path))
