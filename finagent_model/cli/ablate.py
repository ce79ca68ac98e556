"""`finagent ablate`: what each agent is good for."""

from __future__ import annotations

from typing import Annotated

import typer

from finagent_model.cli.terminal import CHAMPION, Json, Model, print_json, progress


def ablate(
    model: Model = CHAMPION,
    symbols: Annotated[str, typer.Option(help="Tickers; none: those it was trained on.")] = "",
    mode: Annotated[str, typer.Option(help="cached, live or replay.")] = "cached",
    as_json: Json = False,
) -> None:
    """Run a packaged desk's backtest with agents left out, alone, and with or without a debate."""
    from finagent_model.artifacts.ablation import table
    from finagent_model.pipeline.ablate import ablate as run
    from finagent_model.pipeline.requests import read_mode, read_symbols
    from finagent_model.settings import Settings

    chosen, how = read_symbols(symbols), read_mode(mode)
    with progress() as watch:
        found = run(model, chosen, Settings.load(), how, watch)
    if as_json:
        print_json(found.row())
    else:
        typer.echo(table(found.row()["rows"]), nl=False)
        typer.echo(f"{found.decisions} decisions each; run {found.run_id}")
