"""Train and try versions: `train`, `backtest`, `ablate`, `verify`, `memory`, `calibrate-gate`.

Options of `train` are passed on as text: `TrainRequest` parses them for shell, REST and DAG alike.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finagent_model.cli.options import (
    CHAMPION,
    EXIT_NOT_OK,
    EXIT_REFUSED,
    Json,
    Model,
    print_json,
    show_progress,
)
from finagent_model.config.analyst_registry import EXTERNAL_ANALYSTS
from finagent_model.errors import BadInputError

if TYPE_CHECKING:
    from finagent_model.pipeline.backtest import BacktestRerun
    from finagent_model.pipeline.estimate import Estimate
    from finagent_model.training.request import TrainRequest

RULE_HELP = f"Instead of a model: sma:FAST,SLOW or {', '.join(EXTERNAL_ANALYSTS)}."


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
    register_as: Annotated[
        str | None, typer.Option(envvar="FINAGENT_MODEL_NAME", help="Name of the model.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=256, help="Fits and symbols at a time.")] = 1,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only say what it would take; train nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fit, backtest, package, register; move `champion` if the gate lets the version pass."""
    # First of all: from here on `locals` would hold more than the options.
    options = {k: v for k, v in locals().items() if k not in ("as_json", "estimate", "jobs")}
    from finagent_model.training.request import TrainRequest

    request = TrainRequest.parse(**{k: v for k, v in options.items() if v is not None})
    # An estimate trains nothing: no store, no model and no key is needed.
    if estimate:
        _print_estimate(request, as_json)
        return
    from finagent_model.pipeline.train import train as run_training
    from finagent_model.settings import Settings

    with show_progress() as progress:
        trained = run_training(request, Settings.load(), progress, jobs)
    if as_json:
        print_json(vars(trained))
        return
    typer.echo(trained.report)
    typer.echo(
        f"registered {trained.name} version {trained.version}, gate: {trained.verdict}, "
        f"run {trained.run_id}"
    )


def _print_estimate(request: TrainRequest, as_json: bool) -> None:
    from finagent_model.pipeline.estimate import estimate
    from finagent_model.settings import Settings

    needs = estimate(request, Settings.load())
    if as_json:
        print_json(vars(needs))
        return
    _print_needs(needs)
    if needs.no_grade:
        typer.echo(f"the evidence will be none: {needs.no_grade}")


def _print_needs(needs: Estimate, *, to_stderr: bool = False) -> None:
    money = "an unknown price" if needs.cost_usd is None else f"{needs.cost_usd:.2f} USD"
    typer.echo(
        f"{needs.decisions} decisions by {needs.client}: about {needs.calls} calls, "
        f"{needs.prompt_tokens} prompt and {needs.completion_tokens} completion tokens, {money}; "
        "replies taken as long as allowed, recorded ones cost nothing, repairs come on top",
        err=to_stderr,
    )


def backtest(
    model: Model = CHAMPION,
    symbols: Annotated[str, typer.Option(help="Tickers; none: those it was trained on.")] = "",
    mode: Annotated[str, typer.Option(help="replay (free), cached or live.")] = "replay",
    rule: Annotated[str, typer.Option(help=RULE_HELP)] = "",
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
    `--rule`, run a plain rule through the same engine. Exit code 4 where every decision failed.
    """
    names = ("bars", "cash", "commission", "slippage", "stop", "target", "side", "fill")
    params = {k: v for k, v in locals().items() if k in names and v is not None}
    flags = {"entry_bar_stops": entry_bar_stops, "fractional": fractional}
    params |= {k: v for k, v in flags.items() if v is not None}
    if rule:
        _backtest_rule({"rule": rule, **params}, symbols, as_json)
        return
    # A package's costs and fills are registered with it: an option here would be ignored.
    if params:
        option = next(iter(params)).replace("_", "-")
        raise BadInputError(f"--{option} belongs to a rule; add --rule sma:10,30, or leave it out")
    from finagent_model.config.parsing import parse_mode
    from finagent_model.market.bars import parse_symbols
    from finagent_model.pipeline.backtest import backtest as run_backtest
    from finagent_model.settings import Settings

    chosen, parsed_mode = parse_symbols(symbols), parse_mode(mode)
    with show_progress() as progress:
        reruns = run_backtest(model, chosen, Settings.load(), parsed_mode, progress)
    if as_json:
        print_json([rerun.row() for rerun in reruns])
    else:
        for rerun in reruns:
            _print_rerun(rerun)
    # Last, so that what failed is explained above.
    if any(rerun.has_failed for rerun in reruns):
        raise typer.Exit(EXIT_NOT_OK)


def _print_rerun(rerun: BacktestRerun) -> None:
    typer.echo(rerun.report)
    words = {True: "the registered ones", False: "NOT the registered ones", None: "new"}
    typer.echo(f"  its signals are {words[rerun.same_as_registered]}; run {rerun.run_id}")
    for note in rerun.notes:
        typer.echo(f"  note: {note}")


def _backtest_rule(params: dict[str, Any], symbols: str, as_json: bool) -> None:
    from finagent_model.market.bars import parse_symbols
    from finagent_model.pipeline.evaluate import RuleRequest, run_rule_backtest
    from finagent_model.settings import Settings

    names = parse_symbols(symbols)
    # A rule has no portfolio: each symbol would need cash of its own.
    if len(names) > 1:
        raise BadInputError(f"a rule runs on one symbol at a time; got {', '.join(names)}")
    request = RuleRequest.parse(**params, symbol=names[0] if names else None)
    with show_progress() as progress:
        done = run_rule_backtest(request, Settings.load(), progress)
    if as_json:
        print_json(done.row())
        return
    row = done.row()
    is_open, drawdown = row["open_position"], row["metrics"]["max_drawdown"]
    is_held = row["buy_and_hold"]["total_return"] is not None
    held = f"{done.benchmark.equity[-1]:.2f}" if is_held else "undefined"
    typer.echo(
        f"{row['symbol']}, {request.rule}: {request.cash:g} became {row['final_equity']:.2f} "
        f"(buy and hold {held}), {row['trades']} closed trades, "
        f"{'one' if is_open else 'none'} open, deepest drawdown {drawdown:.1%}"
    )
    for note in row["notes"]:
        typer.echo(f"  note: {note}")


def ablate(
    model: Model = CHAMPION,
    symbols: Annotated[str, typer.Option(help="Tickers; none: those it was trained on.")] = "",
    mode: Annotated[str, typer.Option(help="cached, live or replay.")] = "cached",
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only say what it would take; ask nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a packaged desk's backtest with agents left out, alone, and with or without a debate."""
    from finagent_model.config.parsing import parse_mode
    from finagent_model.market.bars import parse_symbols
    from finagent_model.pipeline.ablation import prepare_ablation, run_ablation
    from finagent_model.reports.charts import render_ablation_table
    from finagent_model.settings import Settings

    chosen, parsed_mode = parse_symbols(symbols), parse_mode(mode)
    plan = prepare_ablation(model, chosen, Settings.load(), parsed_mode)
    needs = plan.estimate()
    if estimate and as_json:
        row = asdict(needs)
        del row["no_grade"]  # a training's
        print_json({**row, "variants": list(plan.desks), "left_out": plan.left_out})
        return
    # On stderr before anything is asked: a run may be stopped here.
    if estimate or plan.asks_models:
        typer.echo(f"{len(plan.desks)} variants: {', '.join(plan.desks)}", err=not estimate)
        _print_needs(needs, to_stderr=not estimate)
    if estimate:
        for name, reason in plan.left_out.items():
            typer.echo(f"left out: {name}: {reason}")
        return
    with show_progress() as progress:
        ablation = run_ablation(plan, progress)
    if as_json:
        print_json(asdict(ablation))
    else:
        typer.echo(render_ablation_table(asdict(ablation)["rows"], ablation.left_out), nl=False)
        typer.echo(f"{ablation.decisions} decisions each; run {ablation.run_id}")


def verify(
    model: Annotated[
        str, typer.Argument(envvar="FINAGENT_MODEL", help="URI of a version.")
    ] = CHAMPION,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also fit and account for everything again: minutes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Prove by experiment that a version is as registered, repeats itself and can't see the
    future. Exit code 5 where it fails.
    """
    from finagent_model.pipeline.verify import verify as run

    with show_progress() as progress:
        done = run(model, progress, deep=deep)
    if as_json:
        print_json(done.row())
    else:
        for check in done.checks:
            typer.echo(f"{'passed' if check.passed else 'FAILED'}  {check.name}: {check.found}")
    # After the output: a failed check is explained above.
    if not done.passed:
        raise typer.Exit(EXIT_REFUSED)


def memory(
    model: Annotated[str, typer.Argument(help="URI of a version.")] = CHAMPION,
    days: Annotated[int, typer.Option(min=1, max=10_000, help="Days of its ledger.")] = 120,
    retest: Annotated[
        int, typer.Option(min=1, max=10_000, help="Days that are asked about twice.")
    ] = 40,
    budget_usd: Annotated[
        float | None, typer.Option(help="Most that may be spent; none: no limit in money.")
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only say what it would take; ask nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Probe whether a version's chat models remember the days of its backtest. Exit code 5 where
    there is a sign of it, or too few days to say.
    """
    from finagent_model.pipeline.probe_memory import prepare_probes, probe_memory
    from finagent_model.settings import Settings

    plan = prepare_probes(model, Settings.load(), days, retest, budget_usd)
    needs = plan.estimate()
    if estimate and as_json:
        row = asdict(needs)
        del row["no_grade"]  # a training's
        print_json(row)
        return
    # On stderr before anything is asked: a run may be stopped here.
    _print_needs(needs, to_stderr=not estimate)
    if estimate:
        return
    with show_progress() as progress:
        done = probe_memory(plan, progress)
    report = done.report
    if as_json:
        print_json(done.row())
    else:
        typer.echo(report.verdict)
        for probe in report.probes:
            value = probe.adjusted_p_value
            p_text = "" if value is None else f" (adjusted p {value:.2g})"
            typer.echo(
                f"{'SIGN' if probe.is_sign else 'none'}  {probe.name}: {probe.found}{p_text}"
            )
        typer.echo(report.power_sentence)
        typer.echo(
            f"{len(report.days)} days that don't overlap, {report.questions} questions, "
            f"{done.calls} calls; memory.json of run {done.run_id}"
        )
    if not report.passed:
        raise typer.Exit(EXIT_REFUSED)


def calibrate_gate(
    markets: Annotated[int, typer.Option(min=1, help="Of each truth.")] = 100,
    ratios: Annotated[
        str, typer.Option(help="Planted information ratios, annual, by comma.")
    ] = "0.5,1,1.5,2",
    config: Annotated[str, typer.Option(help="Whose gate: a preset or a file.")] = "production",
    seed: Annotated[int, typer.Option(min=0)] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    as_json: Json = False,
) -> None:
    """Try the gate on simulated markets whose truth is known: how often does it err?"""
    from finagent_model.config.desk_config import load_config
    from finagent_model.evaluation.gate_simulation import calibrate_gate as run

    try:
        planted = [float(text) for text in ratios.split(",")]
    except ValueError:
        raise BadInputError(f"--ratios {ratios!r}: write numbers by comma, such as 1,1.5") from None
    # Only the gate's rules: simulated markets know no agents.
    rules = load_config(config).gate
    with show_progress() as progress:
        rows = run(markets, planted, rules, seed=seed, jobs=jobs, progress=progress)
    if as_json:
        print_json([vars(row) for row in rows])
        return
    names = list(rows[0].passed)
    head = ["truth", "markets", "alpha over its risk", "weak or better", "strong", *names]
    typer.echo(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        counts = (row.weak, row.strong, *row.passed.values())
        shares = [f"{count / row.markets:.1%}" for count in counts]
        cells = [row.truth, str(row.markets), f"{row.appraisal_ratio:.2f}", *shares]
        typer.echo(f"| {' | '.join(cells)} |")
