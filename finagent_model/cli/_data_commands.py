"""`finagent bars`: list, check, fetch and import bars, those of FINAGENT_BARS or of a file.

Each stored reading of a vendor is a snapshot with a hash, so that a run can be repeated on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finagent_model.cli.options import (
    EXIT_REFUSED,
    Json,
    TypedErrors,
    echo,
    format_examples,
    print_json,
)
from finagent_model.errors import MAX_LISTED, BadInputError

if TYPE_CHECKING:
    from finagent_model.data.snapshots import BarsSnapshot
    from finagent_model.pipeline.datasets import BarsCheck


bars = typer.Typer(
    cls=TypedErrors,
    no_args_is_help=True,
    help="List, check, fetch and import price bars.",
)


@bars.command(name="list", epilog=format_examples("finagent bars list"))
def list_(as_json: Json = False) -> None:
    """List the source's symbols and the stored snapshots.

    No vendor is asked for bars.
    """
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
    echo(f"{name}: {reason or ' '.join(symbols or ())}")
    for symbol, snapshots in stored:
        for snapshot in snapshots:
            echo(f"kept {symbol}  {_describe_snapshot(snapshot)}, from {snapshot.source}")


@bars.command(epilog=format_examples("finagent bars check GOOG", "finagent bars check --all"))
def check(
    symbols: Annotated[
        list[str] | None, typer.Argument(help="Tickers, separated by spaces.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Check every symbol of the source.")] = False,
    as_json: Json = False,
) -> None:
    """Validate bars, and report what a vendor has revised.

    Exit code 5 where a symbol's bars are refused.
    """
    from finagent_model.pipeline import datasets
    from finagent_model.settings import Settings

    # Neither or both: a forgotten symbol must not turn into a run over all of a vendor's.
    if bool(symbols) == every:
        raise BadInputError("name the symbols to check, or --all")
    if files := [symbol for symbol in symbols or () if "/" in symbol and Path(symbol).exists()]:
        # `BTC/USD` is a symbol, a path is where a source of bars is named.
        raise BadInputError(
            f"{files[0]!r} is a file or a folder, and symbols are checked; name it as the source: "
            f"FINAGENT_BARS={files[0]} finagent bars check --all"
        )
    settings = Settings.load()
    _print_checks(
        datasets.check_bars(settings, symbols or ()),
        as_json,
        # Named symbols were looked for, not files.
        datasets.list_passed_over(settings) if every else (),
    )


@bars.command(name="fetch", epilog=format_examples("finagent bars fetch GOOG IBM"))
def fetch_bars_command(
    symbols: Annotated[list[str], typer.Argument(help="Tickers, separated by spaces.")],
    as_of: Annotated[
        str | None,
        typer.Option(
            help="Fetch only where the stored bars end before this date. Default: fetch always."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch bars from the vendor and store a snapshot.

    Exit code 5 where some can't be had.
    """
    from finagent_model.market.bars import parse_as_of
    from finagent_model.pipeline import datasets
    from finagent_model.settings import Settings

    # Without a date the vendor is always asked, whatever is stored.
    until = parse_as_of(as_of) if as_of else None
    _print_checks(datasets.fetch_bars(Settings.load(), symbols, until), as_json)


@bars.command(
    name="import",
    epilog=format_examples("finagent bars import export.csv --out bars --vendor tiingo"),
)
def import_bars_command(
    file: Annotated[Path, typer.Argument(help="File of bars in the vendor's format.")],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    vendor: Annotated[str | None, typer.Option(help="Vendor whose format the file has.")] = None,
    dates: Annotated[
        str | None,
        typer.Option(help="Order in dates such as 01/02/2020: day-first or month-first."),
    ] = None,
    decimal: Annotated[str | None, typer.Option(help="Decimal mark, . or a comma.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="Length of a bar, such as 1h.")] = None,
    calendar: Annotated[
        str | None,
        typer.Option(help="Trading calendar: weekdays, 24/7 or an exchange such as XNYS."),
    ] = None,
    zone: Annotated[
        str | None,
        typer.Option(help="Time zone of times that state none, such as America/New_York."),
    ] = None,
    stamps: Annotated[
        str | None, typer.Option(help="Meaning of a bar's time: open or close.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert a vendor's file into one CSV file per symbol.

    No file is overwritten.
    """
    from finagent_model.data.bar_columns import Hints
    from finagent_model.data.bar_files import read_hints
    from finagent_model.pipeline import datasets

    given = {
        "vendor": vendor,
        "dates": dates,
        "decimal": decimal,
        "timeframe": timeframe,
        "calendar": calendar,
        "zone": zone,
        "stamps": stamps,
    }
    given = {name: value for name, value in given.items() if value is not None}
    hints = Hints.parse(**(read_hints(file).model_dump(include=set(Hints.model_fields)) | given))
    written = datasets.import_bars(file, out, hints)
    if as_json:
        print_json([{"file": str(path)} | row.model_dump(mode="json") for path, row in written])
        return
    for path, snapshot in written:
        echo(f"{path}  {_describe_snapshot(snapshot)}")
        _print_warnings(snapshot)


def _print_checks(checks: list[BarsCheck], as_json: bool, passed_over: Sequence[str] = ()) -> None:
    """Print each symbol's bars or why they are refused; exit with 5 where some are."""
    from finagent_model.market.timeframe import parse_timeframe

    refused = [check for check in checks if check.snapshot is None]
    if as_json:
        rows: list[dict[str, Any]] = [check.row() for check in checks]
        counts = {"good": len(checks) - len(refused), "refused": len(refused)}
        print_json({**counts, "passed_over": list(passed_over), "symbols": rows})
    else:
        for check in checks:
            if check.snapshot is None:
                echo(f"REFUSED  {check.symbol}  {check.refused}")
                continue
            echo(f"good  {check.symbol}  {_describe_snapshot(check.snapshot)}")
            form = parse_timeframe(check.snapshot.timeframe).time_format
            for change in check.snapshot.changes:
                echo(
                    f"  revised  {change.closed_at:{form}} {change.field}: "
                    f"{_number_text(change.before)} -> {_number_text(change.after)}"
                )
            # A snapshot lists its first changes only.
            if (more := check.snapshot.revised - len(check.snapshot.changes)) > 0:
                echo(f"  and {more} more fields")
            _print_warnings(check.snapshot)
        if passed_over:
            count = f"{len(passed_over)} file{'s' if len(passed_over) > 1 else ''}"
            more_files = ", ..." if len(passed_over) > MAX_LISTED else ""
            echo(f"{count} passed over: {', '.join(passed_over[:MAX_LISTED])}{more_files}")
        echo(f"{len(checks) - len(refused)} good, {len(refused)} refused")
    # After the output: the good ones are of use, whatever the exit code.
    if refused:
        raise typer.Exit(EXIT_REFUSED)


def _print_warnings(snapshot: BarsSnapshot) -> None:
    for text in snapshot.warnings:
        echo(f"  warning  {text}")


def _describe_snapshot(snapshot: BarsSnapshot) -> str:
    from finagent_model.market.calendar import WEEKDAYS
    from finagent_model.market.timeframe import DAILY, parse_timeframe

    at = snapshot.fetched_at
    fetched = f", fetched {at:%Y-%m-%d %H:%M:%S} UTC" if at else ""
    timeframe = parse_timeframe(snapshot.timeframe)
    # Days without weekends are the rule, and not said.
    length = "" if timeframe == DAILY else f" of {timeframe.label}"
    hours = "" if snapshot.calendar == WEEKDAYS.name else f", {snapshot.calendar}"
    form = timeframe.time_format
    return (
        f"{snapshot.bars} bars{length} {snapshot.first:{form}} to {snapshot.last:{form}}{hours}, "
        f"hash {snapshot.content_hash[:12]}{fetched}"
    )


def _number_text(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"
