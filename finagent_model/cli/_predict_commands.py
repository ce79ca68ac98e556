"""Run a desk: `predict` decides once, `serve` answers over HTTP, `ui` shows pages, `graph` draws.

Imports are inside the functions: an untrained desk that logs nothing never imports MLflow.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finagent_model.cli.options import (
    CHAMPION,
    EXIT_NOT_OK,
    MODE_HELP,
    Json,
    Model,
    echo,
    print_json,
    print_summary,
    refuse_given,
    require_store,
)

if TYPE_CHECKING:
    from finagent_model.decision.signal import TradingSignal
    from finagent_model.model.predictor import Predictor
    from finagent_model.model.questions import Question
    from finagent_model.reports.signal_summary import Circumstances


def predict(
    ctx: typer.Context,
    symbol: Annotated[str, typer.Argument(help="Ticker, such as GOOG.")],
    as_of: Annotated[
        str,
        typer.Option(help="Last day of data (YYYY-MM-DD, up to its close), or a time with zone."),
    ],
    model: Model = CHAMPION,
    config: Annotated[
        Path | None, typer.Option(help="Use this untrained desk instead of a model: a YAML file.")
    ] = None,
    mode: Annotated[str, typer.Option(help=MODE_HELP)] = "cached",
    budget_usd: Annotated[
        float | None,
        typer.Option(min=0, help="Spending limit of this decision in US dollars; 0: no limit."),
    ] = None,
    max_rounds: Annotated[
        int | None, typer.Option(min=1, max=100, help="Limit on the messages of the conversation.")
    ] = None,
    audit: Annotated[
        Path | None, typer.Option(help="Write the audit log to this file (JSON lines).")
    ] = None,
    log: Annotated[
        bool, typer.Option("--log", help="Store the decision in an MLflow run.")
    ] = False,
    strict: Annotated[bool, typer.Option(help="Exit with 4 where the decision failed.")] = False,
    as_json: Json = False,
) -> None:
    """Decide about one symbol as of a date."""
    from finagent_model.config.parsing import parse_limits, parse_mode
    from finagent_model.market.bars import parse_as_of, parse_symbol
    from finagent_model.model.predictor import Predictor
    from finagent_model.model.questions import Question
    from finagent_model.settings import Settings

    if config is not None:
        refuse_given(ctx, ["model"], "names a version and --config a desk; give one of them")
    question = Question(parse_symbol(symbol), parse_as_of(as_of))
    chosen, limits = parse_mode(mode), parse_limits(max_rounds, budget_usd)
    # Parsed above, before a model is loaded: a typo is reported at once.
    if config is None:
        # MLflow takes seconds to import; an untrained desk that logs nothing needs none of it.
        from finagent_model.model.loading import load_predictor

        # A run that is to be kept is worth MLflow's own patience.
        require_store(model, is_short=not log)
        predictor = load_predictor(model)
    else:
        predictor = Predictor.from_config(config, Settings.load(), chosen)
    run_id = None
    if log:
        from finagent_model.pipeline.infer import infer

        name = model if config is None else str(config)
        inferred = infer(predictor, question, name, chosen, limits, missing_raises=True)
        signal, run_id, seconds = inferred.signal, inferred.run_id, inferred.seconds
        # What was decided before is in its run alone, so the audit is read from there.
        chain = inferred.audit if audit is not None else None
    else:
        # Unlike `decide_all`, this raises where there is nothing to decide on: exit code 3.
        [decision] = predictor.decide_views([predictor.view(question)], chosen, limits)
        predictor.trace(decision)
        signal, seconds = decision.signal, decision.seconds
        chain = predictor.audit(decision) if audit is not None else None
    if audit is not None and chain is not None:
        chain.write(audit)
        echo(f"audit {audit}: its head is {chain.head}", err=True)
    if run_id is not None:
        message = f"signal {signal.signal_id} is kept in run {run_id}"
        echo(
            f"{message}; see `finagent lineage {signal.signal_id}`, or its page in `finagent ui`: "
            f"/signals/key/{signal.signal_id}",
            err=True,
        )
    elif config is not None:
        echo("not kept: --log keeps it in a run and on a page of `finagent ui`", err=True)
    if as_json:
        print_json(signal.model_dump(mode="json"))
    else:
        print_signal(signal, describe_circumstances(predictor, question, seconds))
    # Last, so that `--strict` changes the exit code and nothing else.
    if strict and signal.status.is_failure:
        raise typer.Exit(EXIT_NOT_OK)


def describe_circumstances(
    predictor: Predictor, question: Question, seconds: float | None
) -> Circumstances:
    """Return what a summary says beside the signal: its data's last day, and how long it took."""
    from contextlib import suppress

    from finagent_model.errors import FinagentError
    from finagent_model.reports.signal_summary import Circumstances

    base_share, last_bar = None, None
    if predictor.is_packaged:
        base_share = predictor.package.backtest["evidence"].get("numbers", {}).get("came_true")
    # A decision from before is printed also where its data are away now.
    with suppress(FinagentError):
        last_bar = predictor.view(question).bars.day(-1)
    return Circumstances(base_share=base_share, seconds=seconds, last_bar=last_bar)


def print_signal(signal: TradingSignal, circumstances: Circumstances) -> None:
    """Print a signal on stdout, as people read it."""
    from finagent_model.market.bars import show_as_of
    from finagent_model.reports.signal_summary import SignalSummary

    summary = SignalSummary.from_signal(signal, circumstances)
    print_summary(f"{signal.symbol} as of {show_as_of(signal.as_of)}", summary)
    echo(f"  {signal.reasoning}")
    if signal.action != "HOLD":
        echo(
            f"  entry {signal.suggested_entry_price:g}, "
            f"stop {_price(signal.suggested_stop_loss)}, "
            f"target {_price(signal.suggested_take_profit)}"
        )
    for note in (*signal.clamps, *signal.warnings):
        echo(f"  note: {note}")
    echo(f"  decided by {signal.model_used}")


def _price(price: float | None) -> str:
    # A rule may name no level.
    return "none" if price is None else f"{price:g}"


def serve(
    model: Model = CHAMPION,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", "-p", min=1, max=65535, help="Port to listen on.")
    ] = 5001,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Processes that answer; one a core is enough.")
    ] = 1,
) -> None:
    """Serve a model version over REST.

    A host other than 127.0.0.1 needs FINAGENT_SERVE_TOKEN, which every caller must then send.
    """
    from finagent_model.serving.auth import require_token_for_host
    from finagent_model.settings import Settings

    settings = Settings.load()
    risk = "the desk could spend its budget"
    require_token_for_host(host, settings.serve_token, "FINAGENT_SERVE_TOKEN", risk)
    from finagent_model.serving.scoring import serve as run_server

    require_store(model)
    echo(f"serving {model} on http://{host}:{port} (POST /invocations)", err=True)
    run_server(model, settings, host, port, workers)


def graph(
    config: Annotated[
        str, typer.Option("--config", "--preset", help="Desk to draw: a preset or a YAML file.")
    ] = "default",
    as_json: Json = False,
) -> None:
    """Print a desk's agent graph as a Mermaid diagram."""
    from finagent_model.config.desk_config import load_config
    from finagent_model.reports.charts import render_mermaid

    desk = load_config(config)
    if as_json:
        print_json([row.model_dump(mode="json") for row in desk.roster])
    else:
        echo(render_mermaid(desk), nl=False)


def ui(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", "-p", min=1, max=65535, help="Port to listen on.")
    ] = 5002,
) -> None:
    """Show signals, conversations, versions and runs in the browser.

    The same server answers the REST API at /api/artifacts. A host other than 127.0.0.1 needs
    FINAGENT_API_TOKEN, which the pages then ask for.
    """
    import uvicorn

    from finagent_model.serving.auth import require_token_for_host
    from finagent_model.settings import Settings, shorten_mlflow_waits

    settings = Settings.load()
    # The pages can promote versions and settle approvals: without a token they stay local.
    risk = "the pages could promote a version"
    require_token_for_host(host, settings.api_token, "FINAGENT_API_TOKEN", risk)
    # Fewer retries: a page shall say that MLflow is down, not wait minutes for it.
    shorten_mlflow_waits()
    from finagent_model.webui.pages_app import ui_app

    echo(f"look at http://{host}:{port}", err=True)
    uvicorn.run(ui_app(settings), host=host, port=port, log_level="warning", server_header=False)
