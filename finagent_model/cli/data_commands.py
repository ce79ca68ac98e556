"""`finagent bars`: what the source of FINAGENT_BARS has, whether it is good, and what was kept.

`finagent upstream`: the public project that a desk may hear, at its pinned commit.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finagent_model.cli.options import NO_DATA, REFUSED, Json, TypedErrors, print_json
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
    name, symbols, why = work.existing_symbols(settings)
    kept = work.stored_bars(settings)
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
    refused = [each for each in checked if each.seen is None]
    if as_json:
        rows: list[dict[str, Any]] = [each.row() for each in checked]
        print_json({"good": len(checked) - len(refused), "refused": len(refused), "symbols": rows})
    else:
        for each in checked:
            if each.seen is None:
                typer.echo(f"REFUSED  {each.symbol}  {each.refused}")
                continue
            typer.echo(f"good  {each.symbol}  {_told(each.seen)}")
            for change in each.seen.changes:
                typer.echo(
                    f"  revised  {change.closed_at:%Y-%m-%d} {change.field}: "
                    f"{_number(change.before)} -> {_number(change.after)}"
                )
            if (more := each.seen.revised - len(each.seen.changes)) > 0:
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


upstream = typer.Typer(
    no_args_is_help=True, help="The upstream project: fetch it, look at it, make a wheel of it."
)


@upstream.command(name="fetch")
def fetch_upstream_command(
    origin: Annotated[
        str | None, typer.Option("--from", help="A clone or an address that has the commit.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring the pinned commit with git, and keep it once its hash was compared."""
    from finagent_model.pipeline.upstream_source import fetch_upstream
    from finagent_model.settings import Settings

    found = fetch_upstream(Settings.load(), origin)
    if as_json:
        print_json(found.row())
        return
    how = "fetched and verified" if found.fetched else "here already, verified"
    typer.echo(f"{found.pin.repository} at {found.pin.commit[:12]}: {how}; {found.folder}")


@upstream.command()
def status(as_json: Json = False) -> None:
    """Where the source is, and whether it is what the pin says; exit code 3 if not."""
    from finagent_model.pipeline.upstream_source import upstream_status
    from finagent_model.settings import Settings

    found = upstream_status(Settings.load())
    if as_json:
        print_json(found.row())
    else:
        said = found.fault or f"verified; {found.folder}"
        typer.echo(f"{found.pin.repository} at {found.pin.commit[:12]}: {said}")
    if found.fault:
        raise typer.Exit(NO_DATA)


@upstream.command()
def wheel(
    to: Annotated[Path, typer.Option(help="Folder to write it into.")] = Path("dist"),
    as_json: Json = False,
) -> None:
    """Make an installable wheel of the source that is here."""
    from finagent_model.pipeline.upstream_source import build_upstream_wheel
    from finagent_model.settings import Settings

    path = build_upstream_wheel(Settings.load(), to)
    print_json({"wheel": str(path)}) if as_json else typer.echo(str(path))
