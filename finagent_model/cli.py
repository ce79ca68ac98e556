"""The command line. Results go to stdout, words and progress to stderr.

Heavy imports stay inside the commands, so that `--help` is quick. Exit codes: 0 a result was
produced (a signal's `status` says how it went), 2 bad input, 3 no data, 4 the model could not be
loaded (or, with `--strict`, a signal that is not `ok` or `abstained`), 5 the gate refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from finagent_model.errors import BadInputError, FinagentError

if TYPE_CHECKING:
    from finagent_model.domain.decision import Decision
    from finagent_model.training.request import TrainRequest

NOT_OK, REFUSED = 4, 5


class _TypedErrors(TyperGroup):
    """Turns this package's errors into one line on stderr and their exit code."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except FinagentError as error:
            typer.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)


app = typer.Typer(
    cls=_TypedErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # Rich takes half a second to import for a help page
    help="A multi-agent trading decision that is one versioned model.",
)

Json = Annotated[bool, typer.Option("--json", help="The result alone, as JSON, on stdout.")]
Model = Annotated[str, typer.Option(help="URI of a logged or registered model.")]
Name = Annotated[str, typer.Option(help="Name of the registered model.")]
Given = Annotated[str | None, typer.Option(show_default=False)]
CHAMPION = "models:/finagent@champion"


@app.command()
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

    with _progress() as watch:
        trained = run_training(request, Settings.load(), watch, jobs)
    if as_json:
        _print(vars(trained))
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
        _print(found.row())
        return
    money = "an unknown price" if found.cost_usd is None else f"{found.cost_usd:.2f} USD"
    typer.echo(
        f"{found.decisions} decisions by {found.client}: about {found.calls} calls, "
        f"{found.prompt_tokens} prompt and {found.completion_tokens} completion tokens, {money}; "
        "replies taken as long as allowed, recorded ones cost nothing, repairs come on top"
    )


@app.command()
def backtest(
    model: Model = CHAMPION,
    symbols: Annotated[str, typer.Option(help="Tickers; none: those it was trained on.")] = "",
    mode: Annotated[str, typer.Option(help="replay (free), cached or live.")] = "replay",
    rule: Annotated[str, typer.Option(help="Instead of a model: sma:FAST,SLOW.")] = "",
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
    with _progress() as watch:
        reruns = run_backtest(model, chosen, Settings.load(), how, watch)
    if as_json:
        _print([rerun.row() for rerun in reruns])
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
    done = run(request, Settings.load())
    if as_json:
        _print(done.row())
        return
    row = done.row()
    held, drawdown = row["open_position"], row["metrics"]["max_drawdown"]
    typer.echo(
        f"{row['symbol']}, {request.rule}: {request.cash:g} became {row['final_equity']:.2f} "
        f"(buy and hold {done.benchmark.equity[-1]:.2f}), {row['trades']} closed trades, "
        f"{'one' if held else 'none'} open, deepest drawdown {drawdown:.1%}"
    )


@app.command()
def predict(
    symbol: Annotated[str, typer.Argument(help="Ticker, such as GOOG.")],
    as_of: Annotated[str, typer.Option(help="Date (its whole day) or time with zone.")],
    model: Model = CHAMPION,
    config: Annotated[
        Path | None, typer.Option(help="Decide with this unpackaged, untrained desk instead.")
    ] = None,
    mode: Annotated[str, typer.Option(help="cached, live or replay.")] = "cached",
    budget_usd: Annotated[float | None, typer.Option(min=0, help="0: no limit.")] = None,
    max_rounds: Annotated[int | None, typer.Option(min=1, max=100)] = None,
    audit: Annotated[Path | None, typer.Option(help="Write the conversation here.")] = None,
    log: Annotated[bool, typer.Option("--log", help="Keep the record in an MLflow run.")] = False,
    strict: Annotated[bool, typer.Option(help="Exit 4 unless ok or abstained.")] = False,
    as_json: Json = False,
) -> None:
    """Decide about one symbol as of a date, from the shell."""
    from finagent_model.pipeline.predict import predict as decide

    decision = decide(
        symbol,
        as_of,
        model=model,
        config=config,
        mode=mode,
        budget_usd=budget_usd,
        max_rounds=max_rounds,
        log=log,
    )
    if audit is not None:
        _write_audit(audit, decision)
    signal = decision.signal
    if as_json:
        _print(signal.model_dump(mode="json"))
    else:
        _describe(decision)
    if strict and signal.status.is_failure:
        raise typer.Exit(NOT_OK)


@app.command()
def serve(
    model: Model = CHAMPION,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5001,
) -> None:
    """Serve a model over HTTP, wide enough to wait on chat models."""
    from finagent_model.serving.scoring import serve as run_server
    from finagent_model.settings import Settings

    typer.echo(f"serving {model} on http://{host}:{port} (POST /invocations)", err=True)
    run_server(model, Settings.load(), host, port)


@app.command()
def graph(
    config: Annotated[str, typer.Option(help="A preset or a YAML file.")] = "default",
    as_json: Json = False,
) -> None:
    """Print the agent graph as Mermaid."""
    from finagent_model.artifacts.mermaid import mermaid
    from finagent_model.presets import load_config

    desk = load_config(config)
    if as_json:
        _print([row.model_dump(mode="json") for row in desk.agents])
    else:
        typer.echo(mermaid(desk), nl=False)


@app.command()
def models(name: Name = "finagent", as_json: Json = False) -> None:
    """List the versions: aliases, run, and what the gate said."""
    from finagent_model import registry

    rows = registry.versions(name)
    if as_json:
        _print([row.row() for row in rows])
        return
    if not rows:
        typer.echo(f"no version of {name} yet; `mlflow run . -e train` makes one", err=True)
    for row in rows:
        aliases = ", ".join(row.aliases) or "-"
        typer.echo(
            f"{row.version}  {aliases}  {row.verdict or 'no verdict'}, "
            f"evidence {row.evidence or 'not assessed'}  run {row.run_id}"
        )


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="A version that the gate let pass.")],
    name: Name = "finagent",
    force: Annotated[bool, typer.Option("--force", help="Whatever the gate said.")] = False,
    why: Annotated[str | None, typer.Option(help="Kept with who and when.")] = None,
    as_json: Json = False,
) -> None:
    """Make a version champion."""
    from finagent_model import registry

    _changed(registry.promote(name, version, force=force, why=why).row(), as_json)


@app.command()
def verify(
    model: Annotated[str, typer.Argument(help="URI of a version.")] = CHAMPION,
    as_json: Json = False,
) -> None:
    """Prove by experiment that a version is as registered, repeats itself and can't see the
    future. Exit code 5 where it fails.
    """
    from finagent_model.pipeline.verify import verify as run

    with _progress() as watch:
        done = run(model, watch)
    if as_json:
        _print(done.row())
    else:
        for check in done.checks:
            typer.echo(f"{'passed' if check.passed else 'FAILED'}  {check.name}: {check.found}")
    if not done.passed:
        raise typer.Exit(REFUSED)


@app.command(name="calibrate-gate")
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
    with _progress() as watch:
        rows = run(markets, planted, rules, seed=seed, jobs=jobs, watch=watch)
    if as_json:
        _print([vars(row) for row in rows])
        return
    typer.echo("| truth | markets | weak or better | strong |\n|---|---|---|---|")
    for row in rows:
        weak, strong = (f"{n} ({n / row.markets:.1%})" for n in (row.weak, row.strong))
        typer.echo(f"| {row.truth} | {row.markets} | {weak} | {strong} |")


@app.command()
def rollback(
    name: Name = "finagent",
    why: Annotated[str | None, typer.Option(help="Kept with who and when.")] = None,
    as_json: Json = False,
) -> None:
    """Make the champion's predecessor champion again."""
    from finagent_model import registry

    _changed(registry.rollback(name, why).row(), as_json)


def _changed(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print(row)
    else:
        typer.echo(f"version {row['version']} is champion")


def _print(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))


def _describe(decision: Decision) -> None:
    signal = decision.signal
    typer.echo(f"{signal.symbol} as of {signal.as_of:%Y-%m-%d}: {signal.action}", nl=False)
    if signal.status != "ok":
        typer.echo(f" ({signal.status}: no decision)")
    else:
        typer.echo(f", confidence {signal.confidence} ({signal.confidence_score:g})")
    typer.echo(f"  {signal.reasoning}")
    if signal.action != "HOLD":
        typer.echo(
            f"  entry {signal.suggested_entry_price:g}, stop {signal.suggested_stop_loss:g}, "
            f"target {signal.suggested_take_profit:g}, size {signal.position_size_percent:g} %"
        )
    for note in (*signal.clamps, *signal.warnings):
        typer.echo(f"  note: {note}")
    cost = "unknown cost" if signal.cost_usd is None else f"{signal.cost_usd:g} USD"
    typer.echo(f"  by {signal.model_used}, {signal.tokens} tokens, {cost}")


def _write_audit(path: Path, decision: Decision) -> None:
    from finagent_model.artifacts.conversation import conversation_lines

    try:
        path.write_text(conversation_lines([decision]))
    except OSError as error:
        raise BadInputError(f"audit {path}: can't be written: {error.strerror}") from None


def _progress() -> Any:
    """Bars on stderr, MLflow's own off; a context that gives the `watch` of the pipeline."""
    import os
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

    @contextmanager
    def shown() -> Any:
        text, done = TextColumn("{task.description}"), MofNCompleteColumn()
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        with Progress(text, BarColumn(), done, *times, console=console) as progress:

            def watch(name: str, steps: int) -> Callable[[], object]:
                task = progress.add_task(name, total=steps)
                return lambda: progress.advance(task)

            yield watch

    return shown()


if __name__ == "__main__":
    app()
