"""`finagent audit`: what was kept of the decisions, held against what was kept of it."""

from __future__ import annotations

from typing import Annotated

import typer

from finagent_model.cli.terminal import REFUSED, Json, print_json

SHOWN = 20
"""Faults; all of them are in the JSON."""

audit = typer.Typer(
    no_args_is_help=True,
    help="The audit of decisions: every line chained to the one before it.",
)


@audit.callback()
def _group() -> None:
    """Keeps `verify` a command of its own while it is the only one."""


@audit.command()
def verify(
    what: Annotated[str, typer.Argument(help="A file, or the id of a run in MLflow.")],
    head: Annotated[str | None, typer.Option(help="Hash of its last line, kept elsewhere.")] = None,
    as_json: Json = False,
) -> None:
    """Name every line that was changed, removed, swapped or added since the audit was written.
    Exit code 5 where there is one.
    """
    from finagent_model.pipeline.audit import verify_audit

    report = verify_audit(what, head)
    if as_json:
        print_json(report.row())
    else:
        for fault in report.faults[:SHOWN]:
            typer.echo(f"line {fault.line} {fault.what}: {fault.words}")
        if (more := len(report.faults) - SHOWN) > 0:
            typer.echo(f"and {more} more; --json has all")
        typer.echo(report.words)
    if not report.whole:
        raise typer.Exit(REFUSED)
