"""`finagent db`, `finagent outbox` and approvals: the database, the platform, and humans.

`db` migrates, copies and synchronises the tables. `outbox` shows and retries what the platform of
FINAGENT_PLATFORM_URL has not received, dead letters ("parked") included. `approvals`, `approve` and
`reject` settle decisions that wait for a human.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finagent_model.cli.options import (
    EXIT_NO_DATA,
    HelpGroup,
    Json,
    echo,
    format_examples,
    print_json,
    print_summary,
    print_table,
)

if TYPE_CHECKING:
    from finagent_model.approvals import ApprovalStore
    from finagent_model.config.rules import ApprovalRequest, ApprovalVerdict


db = typer.Typer(
    cls=HelpGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Inspect, upgrade and repair the database of signals and conversations.",
)


@db.command(epilog=format_examples("finagent db current"))
def current(as_json: Json = False) -> None:
    """Print the tables' schema revision and the one that this code needs."""
    from finagent_model.settings import Settings
    from finagent_model.store.database import Database, newest_revision

    database = Database.from_settings(Settings.load())
    row = {
        "database": str(database),
        "revision": database.read_revision(),
        "newest": newest_revision(),
    }
    if as_json:
        print_json(row)
    else:
        echo(f"{row['revision'] or 'no tables yet'} (newest: {newest_revision()}) in {database}")


@db.command(epilog=format_examples("finagent db upgrade"))
def upgrade(as_json: Json = False) -> None:
    """Migrate the tables to the newest revision.

    Back up the database first.
    """
    from finagent_model.settings import Settings
    from finagent_model.store.database import Database

    database = Database.from_settings(Settings.load())
    # Read first: afterwards nobody can tell what the tables were.
    before = database.read_revision()
    database.upgrade()
    after = database.read_revision()
    if as_json:
        print_json({"database": str(database), "before": before, "revision": after})
    else:
        echo(f"{before or 'no tables'} -> {after} in {database}")


@db.command(epilog=format_examples("finagent db copy finagent.db"))
def copy(
    source: Annotated[Path, typer.Argument(help="SQLite file to copy from, such as finagent.db.")],
    as_json: Json = False,
) -> None:
    """Copy a SQLite file's rows into FINAGENT_DATABASE, which must be empty."""
    from finagent_model.settings import Settings
    from finagent_model.store.database import Database
    from finagent_model.store.database import copy_database as run

    target = Database.from_settings(Settings.load())
    rows = run(source, target)
    if as_json:
        print_json(rows)
    else:
        echo(f"{sum(rows.values())} rows of {source} are in {target}")


@db.command(epilog=format_examples("finagent db sync"))
def sync(as_json: Json = False) -> None:
    """Restore decisions that are missing in the database from the MLflow runs.

    Exit code 3 where a run can't be read or has changed.
    """

    from finagent_model.pipeline.record import sync_decisions as run
    from finagent_model.settings import Settings

    done = run(Settings.load())
    if as_json:
        print_json(asdict(done))
    else:
        echo(f"{done.written} written, {done.already} there already, {done.failed} failed")
    # They stay in their runs, and the log says why.
    if done.failed:
        raise typer.Exit(EXIT_NO_DATA)


outbox = typer.Typer(
    cls=HelpGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Inspect and retry deliveries to the external trading platform.",
)


@outbox.command(epilog=format_examples("finagent outbox status"))
def status(as_json: Json = False) -> None:
    """Count the waiting, sent and parked deliveries, with the reasons."""
    from finagent_model.settings import Settings
    from finagent_model.store.database import Database
    from finagent_model.store.outbox import Outbox

    settings = Settings.load()
    counts = {"platform": settings.platform_url} | Outbox(Database.from_settings(settings)).status()
    if as_json:
        print_json(counts)
        return
    since = f" (since {counts['oldest_waiting']})" if counts["oldest_waiting"] else ""
    echo(
        f"{counts['waiting']} waiting{since}, {counts['sent']} sent, {counts['parked']} parked; "
        f"platform: {counts['platform'] or 'none'}"
    )
    if counts["why"]:
        echo(f"  {counts['why']}")
    for row in counts["parked_rows"]:
        echo(f"  artifact {row['artifact_id']} of {row['execution']}: {row['reason']}")
    # The status lists the first dead letters only.
    if more := counts["parked"] - len(counts["parked_rows"]):
        echo(f"  and {more} more")


@outbox.command(epilog=format_examples("finagent outbox send --parked"))
def send(
    parked: Annotated[
        bool, typer.Option("--parked", help="Also retry parked deliveries (dead letters).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send the waiting deliveries.

    Exit code 3 where some still wait or were refused.
    """
    from finagent_model.errors import BadInputError
    from finagent_model.pipeline.record import send_outbox as run
    from finagent_model.settings import Settings
    from finagent_model.store.database import Database
    from finagent_model.store.outbox import Outbox

    settings = Settings.load()
    if settings.platform_url is None:
        raise BadInputError("there is no platform to send to; set FINAGENT_PLATFORM_URL")
    # Dead letters go back into the queue, and a pause that the platform asked for ends.
    if parked:
        Outbox(Database.from_settings(settings)).retry_failed()
    done = run(settings)
    if as_json:
        print_json(asdict(done))
    else:
        echo(f"{done.sent} sent, {done.parked} refused, {done.waiting} waiting")
        if done.why:
            echo(done.why, err=True)
    if done.waiting or done.parked:
        raise typer.Exit(EXIT_NO_DATA)


Id = Annotated[str, typer.Argument(help="Id of the request, as `finagent approvals` prints it.")]
Why = Annotated[
    str | None,
    typer.Option(help="Reason, stored with the user and the time and shown on the signal."),
]


def approvals(as_json: Json = False) -> None:
    """List the decisions that wait for approval, then the latest settled ones."""
    requests, now = _approval_store().list_approvals()
    if as_json:
        print_json([request.to_json(now) for request in requests])
        return
    if not requests:
        echo("no decision waits for an approval", err=True)
    rows = []
    for request in requests:
        remaining = request.remaining_s(now)
        # One that nobody settled ended at its deadline.
        end = f"by {request.by}" if request.by else f"at {request.deadline:%Y-%m-%d %H:%M:%S} UTC"
        time = end if remaining is None else f"{remaining:.0f} s left"
        row = (request.id, request.state, time, request.summary, request.reason)
        if remaining is None:
            rows.append(row)
        else:
            echo(_approval_line(row))
            _print_proposal(request)
    # Those that wait come first, and each with what its human needs.
    head = ("ID", "STATE", "SETTLED", "DECISION", "WHY IT WAITED")
    if rows:
        print_table(head, rows, map(_approval_line, rows))


def _approval_line(row: tuple[str, str, str, str, str]) -> str:
    key, state, time, summary, reason = row
    return f"{key}  {state}  {time}  {summary} ({reason})"


def _print_proposal(request: ApprovalRequest) -> None:
    """Print what a human needs to settle a request: the summary, and who disagreed."""
    from datetime import UTC, datetime

    from finagent_model.market.bars import show_as_of
    from finagent_model.reports.signal_summary import Circumstances, SignalSummary

    circumstances = Circumstances(waits_until=request.deadline, now=datetime.now(UTC))
    signal = request.signal
    summary = SignalSummary.from_signal(signal, circumstances)
    print_summary(f"  {signal.symbol} as of {show_as_of(signal.as_of)}", summary)
    for opinion in request.opinions or ():
        if opinion.dissents(signal.action):
            echo(f"  {opinion.agent} disagrees: {opinion.line or 'gave no reason'}")


def approve(key: Id, why: Why = None, as_json: Json = False) -> None:
    """Approve a waiting decision."""
    _settle(key, "approved", why, as_json)


def reject(key: Id, why: Why = None, as_json: Json = False) -> None:
    """Reject a waiting decision, which turns it into HOLD."""
    _settle(key, "rejected", why, as_json)


def _settle(key: str, verdict: ApprovalVerdict, why: str | None, as_json: bool) -> None:
    request = _approval_store().settle(key, verdict, _user_name(), why)
    if as_json:
        print_json(request.to_json(request.at or request.deadline))
    else:
        echo(f"{request.id} {request.state}: {request.summary}")


def _user_name() -> str:
    import getpass
    import os

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"


def _approval_store() -> ApprovalStore:
    from finagent_model.approvals import APPROVALS_FILE, ApprovalStore
    from finagent_model.settings import Settings

    return ApprovalStore(Settings.load().home / APPROVALS_FILE)
