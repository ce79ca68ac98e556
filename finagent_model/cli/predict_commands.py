"""`finagent predict`: one decision.

`finagent serve` and `finagent graph`: the desk over HTTP, and as a drawing.

`finagent ui`: signals, versions and runs to look at in a browser.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finagent_model.cli.options import CHAMPION, NOT_OK, Json, Model, print_json
from finagent_model.errors import BadInputError

if TYPE_CHECKING:
    from finagent_model.decision.decision import Decision


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
    audit: Annotated[Path | None, typer.Option(help="Write the audit here.")] = None,
    log: Annotated[bool, typer.Option("--log", help="Keep the record in an MLflow run.")] = False,
    strict: Annotated[bool, typer.Option(help="Exit 4 where the desk failed.")] = False,
    as_json: Json = False,
) -> None:
    """Decide about one symbol as of a date, from the shell."""
    from finagent_model.pipeline.infer import predict as decide

    predicted = decide(
        symbol,
        as_of,
        model=model,
        config=config,
        mode=mode,
        budget_usd=budget_usd,
        max_rounds=max_rounds,
        log=log,
    )
    decision = predicted.decision
    if audit is not None:
        from finagent_model.pipeline.record import write_audit

        write_audit(predicted.audit, audit)
        typer.echo(f"audit {audit}: its head is {predicted.audit.head}", err=True)
    signal = decision.signal
    if predicted.run_id is not None:
        told = f"signal {signal.signal_id} is kept in run {predicted.run_id}"
        typer.echo(f"{told}; see `finagent lineage {signal.signal_id}`", err=True)
    if as_json:
        print_json(signal.model_dump(mode="json"))
    else:
        _describe(decision)
    if strict and signal.status.is_failure:
        raise typer.Exit(NOT_OK)


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


def graph(
    config: Annotated[
        str, typer.Option("--config", "--preset", help="A preset or a YAML file.")
    ] = "default",
    as_json: Json = False,
) -> None:
    """Print the agent graph as Mermaid."""
    from finagent_model.config.desk_config import load_config
    from finagent_model.reports.charts import render_mermaid

    desk = load_config(config)
    if as_json:
        print_json([row.model_dump(mode="json") for row in desk.roster])
    else:
        typer.echo(render_mermaid(desk), nl=False)


def ui(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5002,
) -> None:
    """Show signals, conversations, versions and runs; the REST of artifacts is at /api/artifacts.

    Any other host than this machine's needs FINAGENT_API_TOKEN, which the pages then ask for.
    """
    import os

    import uvicorn

    from finagent_model.serving.auth import is_loopback
    from finagent_model.settings import Settings

    settings = Settings.load()
    if settings.api_token is None and not is_loopback(host):
        raise BadInputError(
            f"--host {host} lets other machines in, and whoever reaches the pages could promote "
            "a version; set FINAGENT_API_TOKEN, or leave --host out"
        )
    # A page says that MLflow is away; it doesn't wait minutes for it.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from finagent_model.webui.pages_app import ui_app

    typer.echo(f"look at http://{host}:{port}", err=True)
    uvicorn.run(ui_app(settings), host=host, port=port, log_level="warning", server_header=False)
