"""`finagent outbox`: what the platform of FINAGENT_PLATFORM_URL is still to have."""

from __future__ import annotations

from typing import Annotated

import typer

from finagent_model.cli.terminal import NO_DATA, Json, print_json

outbox = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Artifacts that a trading platform elsewhere is still to have.",
)


@outbox.command()
def status(as_json: Json = False) -> None:
    """Count what waits, was sent and is parked, with the reasons."""
    from finagent_model.settings import Settings
    from finagent_model.store.database import Database
    from finagent_model.store.outbox import Outbox

    settings = Settings.load()
    found = {"platform": settings.platform_url} | Outbox(Database.of(settings)).status()
    if as_json:
        print_json(found)
        return
    since = f" (since {found['oldest_waiting']})" if found["oldest_waiting"] else ""
    typer.echo(
        f"{found['waiting']} waiting{since}, {found['sent']} sent, {found['parked']} parked; "
        f"platform: {found['platform'] or 'none'}"
    )
    if found["why"]:
        typer.echo(f"  {found['why']}")
    for row in found["parked_rows"]:
        typer.echo(f"  artifact {row['artifact_id']} of {row['execution']}: {row['reason']}")
    if more := found["parked"] - len(found["parked_rows"]):
        typer.echo(f"  and {more} more")


@outbox.command()
def send(
    parked: Annotated[
        bool, typer.Option("--parked", help="Also what was refused before, or asked to wait.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send what waits. Exit code 3 if some of it still waits, or was refused."""
    from finagent_model.errors import BadInputError
    from finagent_model.pipeline.keep import send as run
    from finagent_model.settings import Settings
    from finagent_model.store.database import Database
    from finagent_model.store.outbox import Outbox

    settings = Settings.load()
    if settings.platform_url is None:
        raise BadInputError("there is no platform to send to; set FINAGENT_PLATFORM_URL")
    if parked:
        Outbox(Database.of(settings)).unpark()
    done = run(settings)
    if as_json:
        print_json(done.row())
    else:
        typer.echo(f"{done.sent} sent, {done.parked} refused, {done.waiting} waiting")
        if done.why:
            typer.echo(done.why, err=True)
    if done.waiting or done.parked:
        raise typer.Exit(NO_DATA)
