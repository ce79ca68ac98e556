"""`finagent conversations sync`: what a database that was down has missed."""

from __future__ import annotations

import typer

from finagent_model.cli.terminal import NO_DATA, Json, print_json

conversations = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Conversations in the database of FINAGENT_DATABASE.",
)


@conversations.callback()
def _group() -> None:
    """A group, though it has one command."""


@conversations.command()
def sync(as_json: Json = False) -> None:
    """Write what is in runs but not in the database yet. Exit code 3 if some of it can't be."""
    from finagent_model.pipeline.conversations import sync as run
    from finagent_model.settings import Settings

    done = run(Settings.load())
    if as_json:
        print_json(done.row())
    else:
        typer.echo(f"{done.written} written, {done.already} there already, {done.failed} failed")
    if done.failed:
        raise typer.Exit(NO_DATA)
