"""`finagent backtest`: a package, or a plain rule."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from finagent_model.cli.terminal import CHAMPION, Json, Model, print_json, progress
from finagent_model.errors import BadInputError


def backtest(
    model: Model = CHAMPION,
    symbols: Annotated[str, typer.Option(help="Tickers; none: those it was trained on.")] = "",
    mode: Annotated[str, typer.Option(help="replay (free), cached or live.")] = "replay",
    rule: Annotated[str, typer.Option(help="Instead of a model: sma:FAST,SLOW or upstream.")] = "",
    bars: Annotated[str | None, typer.Option(help="Rule: a CSV or Parquet file.")] = None,
    cash: Annotated[str | None, typer.Option(help="Rule: money to start with, 10000.")] = None,
    commission: Annotated[str | None, typer.Option(help="Rule: of every fill, 0.001.")] = None,
    slippage: Annotated[str | None, typer.Option(help="Rule: of market fills, 0.")] = None,
    stop: Annotated[str | None, typer.Option(help="Rule: distance from the fill.")] = None,
    target: Annotated[str | None, typer.Option(help="Rule: distance from the fill.")] = None,
    side: Annotated[str | None, typer.Option(help="Rule: long or long-short.")] = None,
    fill: Annotated[str | None, typer.Option(help="Rule: next-open or close.")] = None,
    entry_bar_stops: Annotated[
        bool | None, typer.Option("--entry-bar-stops/--no-entry-bar-stops", show_default=False)
    ] = None,
    fractional: Annotated[bool | None, typer.Option("--fractional/--whole-shares")] = None,
    as_json: Json = False,
) -> None:
    """Run a packaged desk over its unseen bars again and compare with what was registered; or, with
    `--rule`, run a plain rule through the same engine.
    """
    own = ("bars", "cash", "commission", "slippage", "stop", "target", "side", "fill")
    given = {k: v for k, v in locals().items() if k in own and v is not None}
    flags = {"entry_bar_stops": entry_bar_stops, "fractional": fractional}
    given |= {k: v for k, v in flags.items() if v is not None}
    if rule:
        _backtest_rule({"rule": rule, **given}, symbols, as_json)
        return
    if given:
        option = next(iter(given)).replace("_", "-")
        raise BadInputError(f"--{option} belongs to a rule; add --rule sma:10,30, or leave it out")
    from finagent_model.pipeline.backtest import backtest as run_backtest
    from finagent_model.pipeline.requests import read_mode, read_symbols
    from finagent_model.settings import Settings

    chosen, how = read_symbols(symbols), read_mode(mode)
    with progress() as watch:
        reruns = run_backtest(model, chosen, Settings.load(), how, watch)
    if as_json:
        print_json([rerun.row() for rerun in reruns])
        return
    for rerun in reruns:
        typer.echo(rerun.report)
        said = {True: "the registered ones", False: "NOT the registered ones", None: "new"}
        typer.echo(f"  its signals are {said[rerun.same_as_registered]}; run {rerun.run_id}")


def _backtest_rule(given: dict[str, Any], symbols: str, as_json: bool) -> None:
    from finagent_model.pipeline.requests import read_symbols
    from finagent_model.pipeline.rule import RuleRequest, run
    from finagent_model.settings import Settings

    names = read_symbols(symbols)
    if len(names) > 1:
        raise BadInputError(f"a rule runs on one symbol at a time; got {', '.join(names)}")
    request = RuleRequest.read(**given, symbol=names[0] if names else None)
    with progress() as watch:
        done = run(request, Settings.load(), watch)
    if as_json:
        print_json(done.row())
        return
    row = done.row()
    held, drawdown = row["open_position"], row["metrics"]["max_drawdown"]
    typer.echo(
        f"{row['symbol']}, {request.rule}: {request.cash:g} became {row['final_equity']:.2f} "
        f"(buy and hold {done.benchmark.equity[-1]:.2f}), {row['trades']} closed trades, "
        f"{'one' if held else 'none'} open, deepest drawdown {drawdown:.1%}"
    )
