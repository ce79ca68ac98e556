"""`finagent bars`: what the source of FINAGENT_BARS has, whether it is good, and what was kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from finagent_model.cli.options import REFUSED, Json, TypedErrors, print_json
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
    from finagent_model.pipeline import datasets as work
    from finagent_model.settings import Settings

    settings = Settings.load()
    name, symbols, why = work.list_symbols(settings)
    kept = work.list_stored_bars(settings)
    if as_json:
        rows = {symbol: [seen.model_dump(mode="json") for seen in each] for symbol, each in kept}
        print_json({"source": name, "symbols": symbols, "why": why, "kept": rows})
        return
    typer.echo(f"{name}: {why or ' '.join(symbols or ())}")
    for symbol, each in kept:
        for seen in each:
            typer.echo(f"kept {symbol}  {_told(seen)}, from {seen.source}")


@bars.command()
def check(
    symbols: Annotated[list[str] | None, typer.Argument(help="Tickers.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that the source has.")] = False,
    as_json: Json = False,
) -> None:
    """Read bars and say which are good, which are refused and why, and what a vendor has changed
    since it was asked before. Exit code 5 where one is refused.
    """
    from finagent_model.pipeline import datasets as work
    from finagent_model.settings import Settings

    if bool(symbols) == every:
        raise BadInputError("name the symbols to check, or --all")
    _show(work.check_bars(Settings.load(), symbols or ()), as_json)


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
    from finagent_model.pipeline import datasets as work
    from finagent_model.settings import Settings

    until = parse_as_of(as_of) if as_of else None
    _show(work.fetch_bars(Settings.load(), symbols, until), as_json)


def _show(checked: list[BarsCheck], as_json: bool) -> None:
    refused = [each for each in checked if each.snapshot is None]
    if as_json:
        rows: list[dict[str, Any]] = [each.row() for each in checked]
        print_json({"good": len(checked) - len(refused), "refused": len(refused), "symbols": rows})
    else:
        for each in checked:
            if each.snapshot is None:
                typer.echo(f"REFUSED  {each.symbol}  {each.refused}")
                continue
            typer.echo(f"good  {each.symbol}  {_told(each.snapshot)}")
            for change in each.snapshot.changes:
                typer.echo(
                    f"  revised  {change.closed_at:%Y-%m-%d} {change.field}: "
                    f"{_number(change.before)} -> {_number(change.after)}"
                )
            if (more := each.snapshot.revised - len(each.snapshot.changes)) > 0:
                typer.echo(f"  and {more} more fields")
        typer.echo(f"{len(checked) - len(refused)} good, {len(refused)} refused")
    if refused:
        raise typer.Exit(REFUSED)


def _told(seen: BarsSnapshot) -> str:
    when = f", fetched {seen.fetched_at:%Y-%m-%d %H:%M:%S} UTC" if seen.fetched_at else ""
    return (
        f"{seen.bars} bars {seen.first:%Y-%m-%d} to {seen.last:%Y-%m-%d}, "
        f"hash {seen.content_hash[:12]}{when}"
    )


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"
