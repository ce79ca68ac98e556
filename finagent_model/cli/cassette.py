"""`finagent cassette`: what is recorded on this machine, or in any other file of recordings."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from finagent_model.cli.terminal import REFUSED, Json, TypedErrors, print_json
from finagent_model.errors import BadInputError

if TYPE_CHECKING:
    from finagent_model.pipeline.cassette import Redact

File = Annotated[
    Path | None, typer.Argument(help="Recordings; default: replies.sqlite in FINAGENT_HOME.")
]

cassette = typer.Typer(
    cls=TypedErrors,
    no_args_is_help=True,
    help="Look after recorded replies: files ending in .sqlite or .jsonl.",
)


@cassette.command()
def stats(file: File = None, as_json: Json = False) -> None:
    """Count replies, errors and tokens by model."""
    from finagent_model.pipeline import cassette as work

    found = work.stats(file or _at_home())
    if as_json:
        print_json(asdict(found))
        return
    typer.echo(
        f"{found.file}: {found.replies} replies, {found.errors} errors, {found.distinct} distinct, "
        f"{found.damaged} damaged, {found.bytes} bytes"
    )
    for group in found.models:
        name = " ".join(filter(None, (group.client, group.model))) or "rules, or of unknown models"
        typer.echo(
            f"  {name}: {group.replies} replies, {group.errors} errors, {group.prompt_tokens} "
            f"prompt and {group.completion_tokens} completion tokens"
        )


@cassette.command()
def merge(
    into: Annotated[Path, typer.Argument(help="Made where it is missing.")],
    sources: Annotated[list[Path], typer.Argument(metavar="FROM...")],
    keep: Annotated[
        str | None, typer.Option(help="ours or theirs, where replies to a request differ.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Add what other files have recorded; all of it or, where replies conflict, nothing."""
    from finagent_model.pipeline import cassette as work

    choice = next((known for known in get_args(work.Keep) if known == keep), None)
    if choice is None and keep is not None:
        raise BadInputError(f"--keep {keep!r} is unknown; use ours or theirs")
    done = work.merge(into, sources, choice)
    if as_json:
        print_json(asdict(done))
    else:
        typer.echo(
            f"{done.file}: {done.added} added, {done.replaced} replaced, {done.same} the same, "
            f"{done.kept} others not taken"
        )


@cassette.command()
def prune(
    file: File = None,
    errors: Annotated[bool, typer.Option("--errors", help="Drop recorded failures.")] = False,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Drop rows that verify finds wrong.")
    ] = False,
    packaged: Annotated[
        str | None, typer.Option(help="Drop what this model carries: its URI or package folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Drop recordings and give back their room."""
    from finagent_model.pipeline import cassette as work

    carried = None if packaged is None else work.packaged_replies(packaged)
    path = file or _at_home()
    done = work.prune(path, _redact(), errors=errors, damaged=damaged, packaged=carried)
    if as_json:
        print_json(asdict(done))
    else:
        typer.echo(
            f"{done.file}: {done.dropped} dropped, {done.left} left, "
            f"{done.bytes_before} bytes before, {done.bytes_after} now"
        )


@cassette.command()
def export(
    to: Annotated[Path, typer.Option(help="A new file, .jsonl or .sqlite.")],
    file: File = None,
    as_json: Json = False,
) -> None:
    """Write all recordings into a new file, sorted."""
    from finagent_model.pipeline import cassette as work

    done = work.export(file or _at_home(), to)
    if as_json:
        print_json(asdict(done))
    else:
        typer.echo(f"{done.recordings} recordings of {done.file} written to {done.to}")


@cassette.command()
def verify(file: File = None, as_json: Json = False) -> None:
    """Check that every row is as it was recorded and that none holds a key. Exit code 5 where it
    fails.
    """
    from finagent_model.pipeline import cassette as work

    done = work.verify(file or _at_home(), _redact())
    if as_json:
        print_json(done.row())
    else:
        for fault in done.faults:
            typer.echo(f"FAILED  {fault}")
        typer.echo(f"{done.file}: {done.rows} rows, {len(done.faults)} faults")
    if not done.passed:
        raise typer.Exit(REFUSED)


def _at_home() -> Path:
    from finagent_model.cassette.cassette import REPLIES
    from finagent_model.settings import Settings

    return Settings.load().home / REPLIES


def _redact() -> Redact:
    from finagent_model.domain.redact import redactor
    from finagent_model.settings import Settings

    return redactor(Settings.load().secrets)
