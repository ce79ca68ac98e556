"""`finagent db`: the tables' revision, a copy, and what the database missed while it was down."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finagent_model.cli.terminal import NO_DATA, Json, print_json

db = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The database of artifacts and conversations: FINAGENT_DATABASE, or a file of our own.",
)


@db.command()
def current(as_json: Json = False) -> None:
    """Say which revision the tables have, and which this code needs."""
    from finagent_model.settings import Settings
    from finagent_model.store.database import Database
    from finagent_model.store.migrate import newest

    database = Database.of(Settings.load())
    found = {"database": str(database), "revision": database.revision(), "newest": newest()}
    if as_json:
        print_json(found)
    else:
        typer.echo(f"{found['revision'] or 'no tables yet'} (newest: {newest()}) in {database}")


@db.command()
def upgrade(as_json: Json = False) -> None:
    """Bring the tables to the newest revision; save the database before."""
    from finagent_model.settings import Settings
    from finagent_model.store.database import Database

    database = Database.of(Settings.load())
    before = database.revision()
    database.upgrade()
    after = database.revision()
    if as_json:
        print_json({"database": str(database), "before": before, "revision": after})
    else:
        typer.echo(f"{before or 'no tables'} -> {after} in {database}")


@db.command()
def copy(
    source: Annotated[Path, typer.Argument(help="A finagent.db, in use or not.")],
    as_json: Json = False,
) -> None:
    """Copy a SQLite file's rows into the database of FINAGENT_DATABASE, which must be empty."""
    from finagent_model.settings import Settings
    from finagent_model.store.copying import copy as run
    from finagent_model.store.database import Database

    target = Database.of(Settings.load())
    rows = run(source, target)
    if as_json:
        print_json(rows)
    else:
        typer.echo(f"{sum(rows.values())} rows of {source} are in {target}")


@db.command()
def sync(as_json: Json = False) -> None:
    """Write what is in runs but not in the database yet. Exit code 3 if some of it can't be."""
    from finagent_model.pipeline.keep import sync as run
    from finagent_model.settings import Settings

    done = run(Settings.load())
    if as_json:
        print_json(done.row())
    else:
        typer.echo(f"{done.written} written, {done.already} there already, {done.failed} failed")
    if done.failed:
        raise typer.Exit(NO_DATA)
