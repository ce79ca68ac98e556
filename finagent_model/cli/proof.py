"""`finagent verify` and `finagent calibrate-gate`: the version tried, and the gate."""

from __future__ import annotations

from typing import Annotated

import typer

from finagent_model.cli.terminal import CHAMPION, REFUSED, Json, print_json, progress
from finagent_model.errors import BadInputError


def verify(
    model: Annotated[str, typer.Argument(help="URI of a version.")] = CHAMPION,
    as_json: Json = False,
) -> None:
    """Prove by experiment that a version is as registered, repeats itself and can't see the
    future. Exit code 5 where it fails.
    """
    from finagent_model.pipeline.verify import verify as run

    with progress() as watch:
        done = run(model, watch)
    if as_json:
        print_json(done.row())
    else:
        for check in done.checks:
            typer.echo(f"{'passed' if check.passed else 'FAILED'}  {check.name}: {check.found}")
    if not done.passed:
        raise typer.Exit(REFUSED)


def calibrate_gate(
    markets: Annotated[int, typer.Option(min=3, help="Without edge; more are added with.")] = 1000,
    sharpes: Annotated[str, typer.Option(help="Planted, annual, by comma.")] = "0.5,1,1.5,2",
    config: Annotated[str, typer.Option(help="Whose gate: a preset or a file.")] = "production",
    seed: Annotated[int, typer.Option(min=0)] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    as_json: Json = False,
) -> None:
    """Try the gate on simulated markets whose truth is known: how often does it err?"""
    from finagent_model.pipeline.calibrate_gate import calibrate_gate as run
    from finagent_model.presets import load_config

    try:
        planted = [float(text) for text in sharpes.split(",")]
    except ValueError:
        raise BadInputError(
            f"--sharpes {sharpes!r}: write numbers by comma, such as 1,1.5"
        ) from None
    rules = load_config(config).gate
    with progress() as watch:
        rows = run(markets, planted, rules, seed=seed, jobs=jobs, watch=watch)
    if as_json:
        print_json([vars(row) for row in rows])
        return
    typer.echo("| truth | markets | weak or better | strong |\n|---|---|---|---|")
    for row in rows:
        weak, strong = (f"{n} ({n / row.markets:.1%})" for n in (row.weak, row.strong))
        typer.echo(f"| {row.truth} | {row.markets} | {weak} | {strong} |")
