"""`finagent ui`: signals, versions and runs to look at in a browser."""

from __future__ import annotations

from typing import Annotated

import typer

from finagent_model.errors import BadInputError


def ui(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5002,
) -> None:
    """Show signals, conversations, versions and runs; the REST of artifacts is at /api/artifacts.

    Any other host than this machine's needs FINAGENT_API_TOKEN, which the pages then ask for.
    """
    import os

    import uvicorn

    from finagent_model.serving.callers import is_loopback
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
    from finagent_model.webui.app import ui_app

    typer.echo(f"look at http://{host}:{port}", err=True)
    uvicorn.run(ui_app(settings), host=host, port=port, log_level="warning", server_header=False)
