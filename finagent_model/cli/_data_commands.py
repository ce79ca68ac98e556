"""`finagent bars`: list, check and fetch the daily bars of the source FINAGENT_BARS.

Each stored reading of a vendor is a snapshot with a hash, so that a run can be repeated on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from finagent_model.cli.options import EXIT_REFUSED, Json, TypedErrors, print_json
from finagent_model.errors import BadInputError

if TYPE_CHECKING:
    from finagent_model.data.snapshots import BarsSnapshot
    from finagent_model.pipeline.datasets import BarsCheck


bars = typer.Typer(
    cls=TypedErrors,
    no_args_is_help=True,
    help="Look after daily bars: those of FINAGENT_BARS, and those that were kept.",
)


@bars.command(name="list")
def list_(as_json: Json = False) -> None:
    """The symbols of the source, and every reading that was kept. Asks no vendor for bars."""
    from finagent_model.pipeline import datasets
    from finagent_model.settings import Settings

    settings = Settings.load()
    name, symbols, reason = datasets.list_symbols(settings)
    stored = datasets.list_stored_bars(settings)
    if as_json:
        rows = {
            symbol: [snapshot.model_dump(mode="json") for snapshot in snapshots]
            for symbol, snapshots in stored
        }
        print_json({"source": name, "symbols": symbols, "why": reason, "kept": rows})
        return
    typer.echo(f"{name}: {reason or ' '.join(symbols or ())}")
    for symbol, snapshots in stored:
        for snapshot in snapshots:
            typer.echo(f"kept {symbol}  {_describe_snapshot(snapshot)}, from {snapshot.source}")


@bars.command()
def check(
    symbols: Annotated[list[str] | None, typer.Argument(help="Tickers.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that the source has.")] = False,
    as_json: Json = False,
) -> None:
    """Read bars and say which are good, which are refused and why, and what a vendor has changed
    since it was asked before. Exit code 5 where one is refused.
    """
    from finagent_model.pipeline import datasets
    from finagent_model.settings import Settings

    # Neither or both: a forgotten symbol must not turn into a run over all of a vendor's.
    if bool(symbols) == every:
        raise BadInputError("name the symbols to check, or --all")
    _print_checks(datasets.check_bars(Settings.load(), symbols or ()), as_json)


@bars.command(name="fetch")
def fetch_bars_command(
    symbols: Annotated[list[str], typer.Argument(help="Tickers.")],
    as_of: Annotated[
        str | None, typer.Option(help="A date: where what was kept reaches it, nobody is asked.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask the vendor for bars and keep them. Exit code 5 where some can't be had."""
    from finagent_model.market.bars import parse_as_of
    from finagent_model.pipeline import datasets
    from finagent_model.settings import Settings

    # Without a date the vendor is always asked, whatever is stored.
    until = parse_as_of(as_of) if as_of else None
    _print_checks(datasets.fetch_bars(Settings.load(), symbols, until), as_json)


def _print_checks(checks: list[BarsCheck], as_json: bool) -> None:
    """Print each symbol's bars or why they are refused; exit with 5 where some are."""
    refused = [check for check in checks if check.snapshot is None]
    if as_json:
        rows: list[dict[str, Any]] = [check.row() for check in checks]
        print_json({"good": len(checks) - len(refused), "refused": len(refused), "symbols": rows})
    else:
        for check in checks:
            if check.snapshot is None:
                typer.echo(f"REFUSED  {check.symbol}  {check.refused}")
                continue
            typer.echo(f"good  {check.symbol}  {_describe_snapshot(check.snapshot)}")
            for change in check.snapshot.changes:
                typer.echo(
                    f"  revised  {change.closed_at:%Y-%m-%d} {change.field}: "
                    f"{_number_text(change.before)} -> {_number_text(change.after)}"
                )
            # A snapshot lists its first changes only.
            if (more := check.snapshot.revised - len(check.snapshot.changes)) > 0:
                typer.echo(f"  and {more} more fields")
        typer.echo(f"{len(checks) - len(refused)} good, {len(refused)} refused")
    # After the output: the good ones are of use, whatever the exit code.
    if refused:
        raise typer.Exit(EXIT_REFUSED)


def _describe_snapshot(snapshot: BarsSnapshot) -> str:
    at = snapshot.fetched_at
    fetched = f", fetched {at:%Y-%m-%d %H:%M:%S} UTC" if at else ""
    return (
        f"{snapshot.bars} bars {snapshot.first:%Y-%m-%d} to {snapshot.last:%Y-%m-%d}, "
        f"hash {snapshot.content_hash[:12]}{fetched}"
    )


def _number_text(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"
