"""`finagent upstream`: the public project that a desk may hear, at its pinned commit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finagent_model.cli.options import NO_DATA, Json, print_json

commands = typer.Typer(
    no_args_is_help=True, help="The upstream project: fetch it, look at it, make a wheel of it."
)


@commands.command()
def fetch(
    origin: Annotated[
        str | None, typer.Option("--from", help="A clone or an address that has the commit.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring the pinned commit with git, and keep it once its hash was compared."""
    from finagent_model.contrib.upstream._distribution import fetch_upstream
    from finagent_model.settings import Settings

    source = fetch_upstream(Settings.load(), origin)
    if as_json:
        print_json(source.row())
        return
    how = "fetched and verified" if source.fetched else "here already, verified"
    typer.echo(f"{source.pin.repository} at {source.pin.commit[:12]}: {how}; {source.folder}")


@commands.command()
def status(as_json: Json = False) -> None:
    """Where the source is, and whether it is what the pin says; exit code 3 if not."""
    from finagent_model.contrib.upstream._distribution import inspect_upstream
    from finagent_model.settings import Settings

    source = inspect_upstream(Settings.load())
    if as_json:
        print_json(source.row())
    else:
        state = source.fault or f"verified; {source.folder}"
        typer.echo(f"{source.pin.repository} at {source.pin.commit[:12]}: {state}")
    if source.fault:
        raise typer.Exit(NO_DATA)


@commands.command()
def wheel(
    to: Annotated[Path, typer.Option(help="Folder to write it into.")] = Path("dist"),
    as_json: Json = False,
) -> None:
    """Make an installable wheel of the source that is here."""
    from finagent_model.contrib.upstream._distribution import build_upstream_wheel
    from finagent_model.settings import Settings

    path = build_upstream_wheel(Settings.load(), to)
    print_json({"wheel": str(path)}) if as_json else typer.echo(str(path))
