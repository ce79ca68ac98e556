"""Train and try versions: `train`, `backtest`, `ablate`, `verify`, `memory`, `calibrate-gate`.

Options of `train` are passed on as text: `TrainRequest` parses them for shell, REST and DAG alike.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finagent_model.cli.options import (
    CHAMPION,
    EXIT_NOT_OK,
    EXIT_REFUSED,
    MODE_HELP,
    SYMBOLS_HELP,
    Json,
    Model,
    echo,
    print_json,
    print_table,
    refuse_given,
    require_store,
    show_progress,
)
from finagent_model.config.analyst_registry import EXTERNAL_ANALYSTS
from finagent_model.errors import BadInputError, OtherCodeFailedError

if TYPE_CHECKING:
    from finagent_model._base import Check
    from finagent_model.pipeline.backtest import BacktestRerun
    from finagent_model.pipeline.estimate import Estimate
    from finagent_model.training.request import TrainRequest

RULE_HELP = f"Run this rule instead of a model: sma:FAST,SLOW or {', '.join(EXTERNAL_ANALYSTS)}."


def train(
    symbols: Annotated[
        str | None, typer.Option(help="Tickers, separated by commas. Default: GOOG.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="Desk to train: a preset or a YAML file. Default: default.")
    ] = None,
    mode: Annotated[str | None, typer.Option(help=f"{MODE_HELP} Default: cached.")] = None,
    train_bars: Annotated[
        str | None, typer.Option(help="Number of bars in each training window. Default: 504.")
    ] = None,
    test_bars: Annotated[
        str | None, typer.Option(help="Number of bars in each test window. Default: 126.")
    ] = None,
    purge_bars: Annotated[
        str | None,
        typer.Option(help="Number of bars left out between the two windows. Default: 5."),
    ] = None,
    pooled: Annotated[
        str | None,
        typer.Option(help="true: fit one policy for all symbols; false: one each. Default: true."),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="Bars between decisions, or 'change': when the policy's vote does. Default: 1."
        ),
    ] = None,
    candidates: Annotated[
        str | None, typer.Option(help="Number of policies that each fold scores. Default: 96.")
    ] = None,
    seed: Annotated[
        str | None, typer.Option(help="Random seed of the policy search. Default: 7.")
    ] = None,
    cash: Annotated[str | None, typer.Option(help="Starting capital. Default: 10000.")] = None,
    commission: Annotated[
        str | None,
        typer.Option(help="Commission as a fraction of each fill's value. Default: 0.001."),
    ] = None,
    slippage: Annotated[
        str | None,
        typer.Option(help="Slippage of market and stop fills, as a fraction. Default: 0.0005."),
    ] = None,
    allow_short: Annotated[
        str | None,
        typer.Option(
            help="true: SELL may open a short position; false: it only closes. Default: false."
        ),
    ] = None,
    register_as: Annotated[
        str | None,
        typer.Option(
            envvar="FINAGENT_MODEL_NAME", help="Register under this name. Default: finagent."
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, max=256, help="Number of folds and symbols to work on at once.")
    ] = 1,
    estimate: Annotated[
        bool,
        typer.Option("--estimate", help="Print the expected calls, tokens and cost, and stop."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train, backtest and register a desk; promote it if the gate passes.

    Exit code 5 where the gate refuses the version.
    """
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
    echo(trained.report)
    echo(
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
        echo(f"the evidence will be none: {needs.no_grade}")


def _print_needs(needs: Estimate, *, to_stderr: bool = False) -> None:
    money = "an unknown price" if needs.cost_usd is None else f"{needs.cost_usd:.2f} USD"
    echo(
        f"{needs.decisions} decisions by {needs.client}: about {needs.calls} calls, "
        f"{needs.prompt_tokens} prompt and {needs.completion_tokens} completion tokens, {money}; "
        "upper bound for full-length replies; cached replies are free, reformat retries are extra",
        err=to_stderr,
    )


def backtest(
    ctx: typer.Context,
    model: Model = CHAMPION,
    symbols: Annotated[str, typer.Option(help=SYMBOLS_HELP)] = "",
    mode: Annotated[str, typer.Option(help=MODE_HELP)] = "replay",
    rule: Annotated[str, typer.Option(help=RULE_HELP)] = "",
    bars: Annotated[str | None, typer.Option(help="Rule: CSV or Parquet file of bars.")] = None,
    cash: Annotated[
        str | None, typer.Option(help="Rule: starting capital. Default: 10000.")
    ] = None,
    commission: Annotated[
        str | None, typer.Option(help="Rule: fraction of each fill's value. Default: 0.001.")
    ] = None,
    slippage: Annotated[
        str | None,
        typer.Option(help="Rule: slippage of market and stop fills, as a fraction. Default: 0."),
    ] = None,
    stop: Annotated[
        str | None,
        typer.Option(help="Rule: stop distance from the fill price, as a fraction. Default: none."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Rule: target distance from the fill price, as a fraction. Default: none."
        ),
    ] = None,
    side: Annotated[
        str | None, typer.Option(help="Rule: long or long-short. Default: long.")
    ] = None,
    fill: Annotated[
        str | None, typer.Option(help="Rule: fill at next-open or close. Default: next-open.")
    ] = None,
    entry_bar_stops: Annotated[
        bool | None,
        typer.Option(
            "--entry-bar-stops/--no-entry-bar-stops",
            show_default=False,
            help="Rule: let a stop or target fill within the bar of the entry.",
        ),
    ] = None,
    fractional: Annotated[
        bool | None,
        typer.Option("--fractional/--whole-shares", help="Rule: trade fractions of a share."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Repeat a version's backtest and compare it with the registered one.

    With `--rule` it runs a plain trading rule through the same engine instead. Exit code 4 where
    every decision failed.
    """
    names = ("bars", "cash", "commission", "slippage", "stop", "target", "side", "fill")
    params = {k: v for k, v in locals().items() if k in names and v is not None}
    flags = {"entry_bar_stops": entry_bar_stops, "fractional": fractional}
    params |= {k: v for k, v in flags.items() if v is not None}
    if rule:
        refuse_given(
            ctx, ["model", "mode"], "belongs to a version and --rule needs none; leave it out"
        )
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
    require_store(model)
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
    echo(rerun.report)
    words = {True: "the registered ones", False: "NOT the registered ones", None: "new"}
    echo(f"  its signals are {words[rerun.same_as_registered]}; run {rerun.run_id}")
    for note in rerun.notes:
        echo(f"  note: {note}")


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
    echo(
        f"{row['symbol']}, {request.rule}: {request.cash:g} became {row['final_equity']:.2f} "
        f"(buy and hold {held}), {row['trades']} closed trades, "
        f"{'one' if is_open else 'none'} open, max drawdown {drawdown:.1%}"
    )
    for note in row["notes"]:
        echo(f"  note: {note}")


def ablate(
    model: Model = CHAMPION,
    symbols: Annotated[str, typer.Option(help=SYMBOLS_HELP)] = "",
    mode: Annotated[str, typer.Option(help=MODE_HELP)] = "cached",
    estimate: Annotated[
        bool,
        typer.Option("--estimate", help="Print the expected calls, tokens and cost, and stop."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure what each agent adds: repeat the backtest with agents left out."""
    from finagent_model.config.parsing import parse_mode
    from finagent_model.market.bars import parse_symbols
    from finagent_model.pipeline.ablation import prepare_ablation, run_ablation
    from finagent_model.reports.charts import (
        ABLATION_COLUMNS,
        ABLATION_DETAILS,
        ablation_cells,
        render_ablation_table,
    )
    from finagent_model.settings import Settings

    chosen, parsed_mode = parse_symbols(symbols), parse_mode(mode)
    require_store(model)
    plan = prepare_ablation(model, chosen, Settings.load(), parsed_mode)
    needs = plan.estimate()
    if estimate and as_json:
        row = asdict(needs)
        del row["no_grade"]  # a training's
        print_json({**row, "variants": list(plan.desks), "left_out": plan.left_out})
        return
    # On stderr before anything is asked: a run may be stopped here.
    if estimate or plan.asks_models:
        echo(f"{len(plan.desks)} variants: {', '.join(plan.desks)}", err=not estimate)
        _print_needs(needs, to_stderr=not estimate)
    if estimate:
        for name, reason in plan.left_out.items():
            echo(f"left out: {name}: {reason}")
        return
    with show_progress() as progress:
        ablation = run_ablation(plan, progress)
    if as_json:
        print_json(asdict(ablation))
    else:
        rows = asdict(ablation)["rows"]
        print_table(
            ABLATION_COLUMNS,
            ablation_cells(rows),
            render_ablation_table(rows, ablation.left_out).splitlines(),
            numbers=ABLATION_COLUMNS[1:],
            droppable=ABLATION_DETAILS,
        )
        if sys.stdout.isatty():
            for name, reason in ablation.left_out.items():
                echo(f"left out: {name}: {reason}")
        echo(f"{ablation.decisions} decisions each; run {ablation.run_id}")


def verify(
    model: Annotated[
        str, typer.Argument(envvar="FINAGENT_MODEL", help="URI of a model version.")
    ] = CHAMPION,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Also repeat the fitting and the accounting; slower."),
    ] = False,
    wheel: Annotated[
        Path | None,
        typer.Option("--with", help="Wheel of finagent_model whose code verifies, not ours."),
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="Hash that the wheel must have.")] = None,
    python: Annotated[
        Path | None,
        typer.Option(help="With --with: a Python that has the dependencies; else one is made."),
    ] = None,
    lock: Annotated[
        Path | None,
        typer.Option(help="With --with: a lock file with hashes, for the environment to make."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check that a version is unchanged, repeatable and free of look-ahead.

    Exit code 5 where a check fails.
    """
    if wheel is not None:
        require_store(model, is_short=True)
        _verify_with(model, wheel, deep, sha256, python, lock, as_json)
        return
    if given := [
        f"--{n}"
        for n, v in (("sha256", sha256), ("python", python), ("lock", lock))
        if v is not None
    ]:
        raise BadInputError(f"{given[0]} belongs to --with, which names the wheel")
    from finagent_model.pipeline.verify import verify as run

    require_store(model, is_short=True)
    with show_progress() as progress:
        done = run(model, progress, deep=deep)
    if as_json:
        print_json(done.row())
    else:
        _print_checks(done.checks)
    # After the output: a failed check is explained above.
    if not done.passed:
        raise typer.Exit(EXIT_REFUSED)


def _verify_with(
    model: str,
    wheel: Path,
    deep: bool,
    sha256: str | None,
    python: Path | None,
    lock: Path | None,
    as_json: bool,
) -> None:
    from finagent_model.pipeline.other_code import verify_with

    if python is not None and lock is not None:
        raise BadInputError("--python has its libraries already: leave --lock out")

    def on_install() -> None:
        echo("making an environment for the wheel's code, which may take minutes", err=True)

    try:
        # No bar around it: the other code shows its own.
        done = verify_with(
            model,
            wheel,
            deep=deep,
            sha256=sha256,
            python=python,
            lock=lock,
            on_install=on_install,
        )
    except OtherCodeFailedError as error:
        if not error.is_told:
            raise
        raise typer.Exit(error.exit_code) from None
    if as_json:
        print_json(done.row())
    else:
        _print_checks(done.checks)
        by = done.verified_by
        echo(
            f"verified by {by.wheel} ({by.version}, SHA-256 {by.sha256}), Python {by.python}, "
            f"libraries: {by.libraries}"
        )
        if by.differences:
            more = by.differences - len(by.differs_from_install)
            names = ", ".join(by.differs_from_install) + (f" and {more} more" if more else "")
            echo(f"its code differs from this install in {by.differences} files: {names}")
    if not done.passed:
        raise typer.Exit(EXIT_REFUSED)


def _print_checks(checks: Sequence[Check]) -> None:
    # One line each, so that what was found can't look like a further check.
    rows = [
        ("passed" if each.passed else "FAILED", each.name, " ".join(each.found.split()))
        for each in checks
    ]
    lines = (f"{result}  {name}: {found}" for result, name, found in rows)
    print_table(("RESULT", "CHECK", "FOUND"), rows, lines)


def memory(
    model: Annotated[str, typer.Argument(help="URI of a model version.")] = CHAMPION,
    days: Annotated[
        int, typer.Option(min=1, max=10_000, help="Number of backtest days to ask about.")
    ] = 120,
    retest: Annotated[
        int, typer.Option(min=1, max=10_000, help="Number of days to ask about twice.")
    ] = 40,
    budget_usd: Annotated[
        float | None, typer.Option(help="Spending limit in US dollars. Default: no limit.")
    ] = None,
    estimate: Annotated[
        bool,
        typer.Option("--estimate", help="Print the expected calls, tokens and cost, and stop."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Test whether a version's chat models remember the days of its backtest.

    Exit code 5 where there is a sign of it, or too few days to tell.
    """
    from finagent_model.pipeline.probe_memory import prepare_probes, probe_memory
    from finagent_model.settings import Settings

    require_store(model)
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
        echo(report.verdict)
        rows = [
            (
                "SIGN" if probe.is_sign else "none",
                probe.name,
                probe.found,
                "" if (value := probe.adjusted_p_value) is None else f"{value:.2g}",
            )
            for probe in report.probes
        ]
        lines = (
            f"{sign}  {name}: {found}{f' (adjusted p {p_value})' if p_value else ''}"
            for sign, name, found, p_value in rows
        )
        print_table(
            ("RESULT", "PROBE", "FOUND", "ADJUSTED P"), rows, lines, numbers=("ADJUSTED P",)
        )
        echo(report.power_sentence)
        echo(
            f"{len(report.days)} days that don't overlap, {report.questions} questions, "
            f"{done.calls} calls; memory.json of run {done.run_id}"
        )
    if not report.passed:
        raise typer.Exit(EXIT_REFUSED)


def calibrate_gate(
    markets: Annotated[
        int, typer.Option(min=1, help="Number of simulated markets of each kind.")
    ] = 100,
    ratios: Annotated[
        str,
        typer.Option(help="Annual information ratios of the planted skill, separated by commas."),
    ] = "0.5,1,1.5,2",
    config: Annotated[
        str, typer.Option(help="Desk whose gate is tried: a preset or a YAML file.")
    ] = "production",
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the simulation.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 1,
    as_json: Json = False,
) -> None:
    """Measure how often the gate errs, on simulated markets with known skill."""
    from finagent_model.config.desk_config import load_config
    from finagent_model.evaluation.gate_simulation import calibrate_gate as run

    try:
        planted = [float(text) for text in ratios.split(",")]
    except ValueError:
        raise BadInputError(
            f"--ratios {ratios!r}: write comma-separated numbers, such as 1,1.5"
        ) from None
    # Only the gate's rules: simulated markets know no agents.
    rules = load_config(config).gate
    with show_progress() as progress:
        rows = run(markets, planted, rules, seed=seed, jobs=jobs, progress=progress)
    if as_json:
        print_json([vars(row) for row in rows])
        return
    names = list(rows[0].passed)
    head = ["truth", "markets", "alpha over its risk", "weak or better", "strong", *names]
    echo(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        counts = (row.weak, row.strong, *row.passed.values())
        shares = [f"{count / row.markets:.1%}" for count in counts]
        cells = [row.truth, str(row.markets), f"{row.appraisal_ratio:.2f}", *shares]
        echo(f"| {' | '.join(cells)} |")
