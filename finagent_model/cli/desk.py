"""`finagent serve` and `finagent graph`: the desk over HTTP, and as a drawing."""

from __future__ import annotations

from typing import Annotated

import typer

from finagent_model.cli.terminal import CHAMPION, Json, Model, print_json


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
    from finagent_model.artifacts.mermaid import mermaid
    from finagent_model.presets import load_config

    desk = load_config(config)
    if as_json:
        print_json([row.model_dump(mode="json") for row in desk.roster])
    else:
        typer.echo(mermaid(desk), nl=False)
