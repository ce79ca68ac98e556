"""`finagent upstream`: the public project that a desk may hear, at its pinned commit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finagent_model.cli.options import (
    EXIT_NO_DATA,
    HelpGroup,
    Json,
    echo,
    format_examples,
    print_json,
)

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
    from finagent_model.contrib.upstream._operations import fetch_upstream
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
    from finagent_model.contrib.upstream._operations import inspect_upstream
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
    from finagent_model.contrib.upstream._operations import build_upstream_wheel
    from finagent_model.settings import Settings

    path = build_upstream_wheel(Settings.load(), to)
    print_json({"wheel": str(path)}) if as_json else echo(str(path))
