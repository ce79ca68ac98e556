"""Decisions that wait for a human: `approvals`, `approve`, `reject`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from finagent_model.cli.terminal import Json, print_json

if TYPE_CHECKING:
    from finagent_model.domain.approval import Verdict
    from finagent_model.serving.approvals import Approvals

Id = Annotated[str, typer.Argument(help="As `finagent approvals` lists it.")]
Why = Annotated[str | None, typer.Option(help="Kept with who and when, and told by the signal.")]


def approvals(as_json: Json = False) -> None:
    """List what waits for an approval, then what was settled last."""
    found, now = _approvals().listed()
    if as_json:
        print_json([asked.row(now) for asked in found])
        return
    if not found:
        typer.echo("no decision waits for an approval", err=True)
    for asked in found:
        remaining = asked.remaining_s(now)
        how = f"by {asked.by}" if asked.by else f"at {asked.deadline:%Y-%m-%d %H:%M:%S} UTC"
        left = how if remaining is None else f"{remaining:.0f} s left"
        typer.echo(f"{asked.id}  {asked.state}  {left}  {asked.proposal} ({asked.reason})")


def approve(key: Id, why: Why = None, as_json: Json = False) -> None:
    """Let a decision that waits go out as it was proposed."""
    _settle(key, "approved", why, as_json)


def reject(key: Id, why: Why = None, as_json: Json = False) -> None:
    """Turn a decision that waits into HOLD."""
    _settle(key, "rejected", why, as_json)


def _settle(key: str, verdict: Verdict, why: str | None, as_json: bool) -> None:
    asked = _approvals().settle(key, verdict, _me(), why)
    if as_json:
        print_json(asked.row(asked.at or asked.deadline))
    else:
        typer.echo(f"{asked.id} {asked.state}: {asked.proposal}")


def _me() -> str:
    import getpass
    import os

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"


def _approvals() -> Approvals:
    from finagent_model.serving.approvals import APPROVALS, Approvals
    from finagent_model.settings import Settings

    return Approvals(Settings.load().home / APPROVALS)
