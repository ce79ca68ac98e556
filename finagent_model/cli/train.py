"""`finagent train`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from finagent_model.cli.terminal import Json, print_json, progress

if TYPE_CHECKING:
    from finagent_model.training.request import TrainRequest


def train(
    symbols: Annotated[str | None, typer.Option(help="Tickers, by comma. Default: GOOG.")] = None,
    config: Annotated[str | None, typer.Option(help="A preset or a YAML file.")] = None,
    mode: Annotated[str | None, typer.Option(help="cached, live or replay.")] = None,
    train_bars: Annotated[str | None, typer.Option(help="Bars a fit looks at.")] = None,
    test_bars: Annotated[str | None, typer.Option(help="Unseen bars it decides on.")] = None,
    purge_bars: Annotated[str | None, typer.Option(help="Bars left out between.")] = None,
    pooled: Annotated[str | None, typer.Option(help="One policy for all symbols.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Bars, or 'change'.")] = None,
    candidates: Annotated[str | None, typer.Option(help="Policies scored a fold.")] = None,
    seed: Annotated[str | None, typer.Option(help="Of the search.")] = None,
    cash: Annotated[str | None, typer.Option(help="Money to start with.")] = None,
    commission: Annotated[str | None, typer.Option(help="Fraction of every fill.")] = None,
    slippage: Annotated[str | None, typer.Option(help="Fraction of market fills.")] = None,
    allow_short: Annotated[str | None, typer.Option(help="true or false.")] = None,
    register_as: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    jobs: Annotated[int, typer.Option(min=1, max=256, help="Fits and symbols at a time.")] = 1,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only say what it would take; train nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fit, backtest, package, register; move `champion` if the gate lets the version pass."""
    words = {k: v for k, v in locals().items() if k not in ("as_json", "estimate", "jobs")}
    from finagent_model.training.request import TrainRequest

    request = TrainRequest.read(**{k: v for k, v in words.items() if v is not None})
    if estimate:
        _estimate(request, as_json)
        return
    from finagent_model.pipeline.train import train as run_training
    from finagent_model.settings import Settings

    with progress() as watch:
        trained = run_training(request, Settings.load(), watch, jobs)
    if as_json:
        print_json(vars(trained))
        return
    typer.echo(trained.report)
    typer.echo(
        f"registered {trained.name} version {trained.version}, gate: {trained.verdict}, "
        f"run {trained.run_id}"
    )


def _estimate(request: TrainRequest, as_json: bool) -> None:
    from finagent_model.pipeline.estimate import estimate
    from finagent_model.settings import Settings

    found = estimate(request, Settings.load())
    if as_json:
        print_json(found.row())
        return
    money = "an unknown price" if found.cost_usd is None else f"{found.cost_usd:.2f} USD"
    typer.echo(
        f"{found.decisions} decisions by {found.client}: about {found.calls} calls, "
        f"{found.prompt_tokens} prompt and {found.completion_tokens} completion tokens, {money}; "
        "replies taken as long as allowed, recorded ones cost nothing, repairs come on top"
    )
