"""`finagent cassette` and `finagent audit`: look after recorded replies, and verify audit logs.

A cassette is a file of LLM replies, `.sqlite` or `.jsonl`; an audit is a hash chain of a decision's
events. Both verify commands name every fault and exit with 5.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from finagent_model.cli.options import (
    EXIT_REFUSED,
    HelpGroup,
    Json,
    TypedErrors,
    echo,
    format_examples,
    print_json,
    require_store,
)
from finagent_model.errors import BadInputError

if TYPE_CHECKING:
    from finagent_model.pipeline.recordings import Redact


File = Annotated[
    Path | None,
    typer.Argument(help="File of recorded replies. Default: replies.sqlite in FINAGENT_HOME."),
]
cassette = typer.Typer(
    cls=TypedErrors,
    no_args_is_help=True,
    help="Inspect, merge and prune files of recorded model replies.",
)


@cassette.command(epilog=format_examples("finagent cassette stats"))
def stats(file: File = None, as_json: Json = False) -> None:
    """Count replies, errors and tokens by model."""
    from finagent_model.pipeline import recordings

    stats = recordings.recording_stats(file or _default_file())
    if as_json:
        print_json(asdict(stats))
        return
    echo(
        f"{stats.file}: {stats.replies} replies, {stats.errors} errors, {stats.distinct} distinct, "
        f"{stats.damaged} damaged, {stats.bytes} bytes"
    )
    for group in stats.models:
        name = " ".join(filter(None, (group.client, group.model))) or "rules, or of unknown models"
        echo(
            f"  {name}: {group.replies} replies, {group.errors} errors, {group.prompt_tokens} "
            f"prompt and {group.completion_tokens} completion tokens"
        )


@cassette.command(epilog=format_examples("finagent cassette merge all.sqlite replies.sqlite"))
def merge(
    into: Annotated[Path, typer.Argument(help="File to add to; created if it is missing.")],
    sources: Annotated[list[Path], typer.Argument(metavar="FROM...", help="Files to read.")],
    keep: Annotated[
        str | None, typer.Option(help="Which reply to keep where two files differ: ours or theirs.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Add the replies of other files.

    Where replies to the same request differ, nothing is added unless --keep says which to keep.
    """
    from finagent_model.pipeline import recordings

    choice = next((choice for choice in get_args(recordings.ConflictSide) if choice == keep), None)
    # Checked here and not by Typer, so that the error is one line, as all others are.
    if choice is None and keep is not None:
        raise BadInputError(f"--keep {keep!r} is unknown; use ours or theirs")
    done = recordings.merge_recordings(into, sources, choice)
    if as_json:
        print_json(asdict(done))
    else:
        echo(
            f"{done.file}: {done.added} added, {done.replaced} replaced, {done.same} the same, "
            f"{done.kept} others not taken"
        )


@cassette.command(epilog=format_examples("finagent cassette prune --errors"))
def prune(
    file: File = None,
    errors: Annotated[bool, typer.Option("--errors", help="Delete recorded failures.")] = False,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Delete rows that `verify` reports.")
    ] = False,
    packaged: Annotated[
        str | None,
        typer.Option(help="Delete replies that this model contains: its URI or package folder."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Delete recordings and free their disk space."""
    from finagent_model.pipeline import recordings

    require_store(packaged or "", is_short=True)
    replies = None if packaged is None else recordings.packaged_replies(packaged)
    path = file or _default_file()
    # The redactor finds rows with a key of this machine in them: those count as damaged.
    done = recordings.prune_recordings(
        path, _make_redactor(), errors=errors, damaged=damaged, packaged=replies
    )
    if as_json:
        print_json(asdict(done))
    else:
        echo(
            f"{done.file}: {done.dropped} dropped, {done.left} left, "
            f"{done.bytes_before} bytes before, {done.bytes_after} now"
        )


@cassette.command(epilog=format_examples("finagent cassette export --to replies.jsonl"))
def export(
    to: Annotated[Path, typer.Option(help="New file to write, .jsonl or .sqlite.")],
    file: File = None,
    as_json: Json = False,
) -> None:
    """Write all recordings into a new file, sorted by cache key."""
    from finagent_model.pipeline import recordings

    done = recordings.export_recordings(file or _default_file(), to)
    if as_json:
        print_json(asdict(done))
    else:
        echo(f"{done.recordings} recordings of {done.file} written to {done.to}")


@cassette.command(name="verify", epilog=format_examples("finagent cassette verify"))
def verify_recordings_command(file: File = None, as_json: Json = False) -> None:
    """Check that each row is unchanged and holds no API key.

    Exit code 5 where one isn't.
    """
    from finagent_model.pipeline import recordings

    done = recordings.verify_recordings(file or _default_file(), _make_redactor())
    if as_json:
        print_json(done.row())
    else:
        for fault in done.faults:
            echo(f"FAILED  {fault}")
        echo(f"{done.file}: {done.rows} rows, {len(done.faults)} faults")
    if not done.passed:
        raise typer.Exit(EXIT_REFUSED)


def _default_file() -> Path:
    from finagent_model.cassette.cassette import REPLIES
    from finagent_model.settings import Settings

    return Settings.load().home / REPLIES


def _make_redactor() -> Redact:
    from finagent_model._redact import make_redactor
    from finagent_model.settings import Settings

    # The values of this machine's keys, beside whatever looks like a key.
    return make_redactor(Settings.load().secrets)


MAX_FAULTS = 20
"""Faults that are printed; the JSON has all."""
audit = typer.Typer(
    cls=HelpGroup,
    no_args_is_help=True,
    help="Check audit logs, whose lines form a hash chain.",
)


# With one command only, Typer would drop the word `verify`.
@audit.callback()
def _group() -> None:
    """Keeps `verify` a command of its own while it is the only one."""


@audit.command(name="verify", epilog=format_examples("finagent audit verify audit.jsonl"))
def verify_audit_command(
    what: Annotated[str, typer.Argument(help="Audit file, or id of an MLflow run.")],
    head: Annotated[
        str | None, typer.Option(help="Expected hash of the last line, from a copy kept elsewhere.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the lines of an audit log that were changed, removed, swapped or added.

    Exit code 5 where there is one.
    """
    from finagent_model.pipeline.record import verify_audit

    if not Path(what).exists():
        require_store(is_short=True)
    report = verify_audit(what, head)
    if as_json:
        print_json(report.row())
    else:
        for fault in report.faults[:MAX_FAULTS]:
            echo(f"line {fault.line} {fault.what}: {fault.words}")
        if (more := len(report.faults) - MAX_FAULTS) > 0:
            echo(f"and {more} more; --json has all")
        echo(report.summary)
    if not report.is_intact:
        raise typer.Exit(EXIT_REFUSED)
