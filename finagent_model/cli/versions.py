"""What is registered and which version is champion: `models`, `promote`, `rollback`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from finagent_model.cli.terminal import Json, Name, print_json


def models(name: Name = "finagent", as_json: Json = False) -> None:
    """List the versions: aliases, run, and what the gate said."""
    from finagent_model import registry

    rows = registry.versions(name)
    if as_json:
        print_json([row.row() for row in rows])
        return
    if not rows:
        typer.echo(f"no version of {name} yet; `mlflow run . -e train` makes one", err=True)
    for row in rows:
        aliases = ", ".join(row.aliases) or "-"
        typer.echo(
            f"{row.version}  {aliases}  {row.verdict or 'no verdict'}, "
            f"evidence {row.evidence or 'not assessed'}  run {row.run_id}"
        )


def promote(
    version: Annotated[str, typer.Argument(help="A version that the gate let pass.")],
    name: Name = "finagent",
    force: Annotated[bool, typer.Option("--force", help="Whatever the gate said.")] = False,
    why: Annotated[str | None, typer.Option(help="Kept with who and when.")] = None,
    as_json: Json = False,
) -> None:
    """Make a version champion."""
    from finagent_model import registry

    _changed(registry.promote(name, version, force=force, why=why).row(), as_json)


def rollback(
    name: Name = "finagent",
    why: Annotated[str | None, typer.Option(help="Kept with who and when.")] = None,
    as_json: Json = False,
) -> None:
    """Make the champion's predecessor champion again."""
    from finagent_model import registry

    _changed(registry.rollback(name, why).row(), as_json)


def _changed(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(row)
    else:
        typer.echo(f"version {row['version']} is champion")
