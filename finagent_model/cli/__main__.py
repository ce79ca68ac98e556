"""Build the app of `finagent`, and run it as `python -m finagent_model.cli`.

Headings, and the commands below them, stand in the order of `COMMANDS` and `GROUPS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from finagent_model.cli._data_commands import bars
from finagent_model.cli._demo_command import demo
from finagent_model.cli._help import format_examples
from finagent_model.cli._predict_commands import graph, predict, serve, ui
from finagent_model.cli._recording_commands import audit, cassette
from finagent_model.cli._registry_commands import (
    lineage,
    models,
    promote,
    rollback,
    sign,
    signing_key,
)
from finagent_model.cli._store_commands import approvals, approve, db, outbox, reject
from finagent_model.cli._train_commands import (
    ablate,
    backtest,
    calibrate_gate,
    memory,
    train,
    verify,
)
from finagent_model.cli.options import TypedErrors
from finagent_model.config.analyst_registry import EXTERNAL_ANALYSTS, load_commands

app = typer.Typer(
    cls=TypedErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # Rich takes half a second to import for a help page
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train, serve and audit a multi-agent trading decision that is one MLflow model.",
    epilog=format_examples("finagent train", "finagent predict GOOG --as-of 2012-08-15"),
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        typer.echo(f"finagent {version('finagent_model')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Holds the options of `finagent` itself."""


COMMANDS: dict[str, list[tuple[Callable[..., None], str, list[str]]]] = {
    "Decide": [
        (
            predict,
            "predict",
            [
                "finagent predict GOOG --as-of 2012-08-15",
                "finagent predict GOOG --as-of 2012-08-15 --config desk.yaml --json",
            ],
        ),
        (demo, "demo", ["finagent demo"]),
        (serve, "serve", ["finagent serve --port 5001"]),
        (ui, "ui", ["finagent ui --port 5002"]),
        (approvals, "approvals", ["finagent approvals"]),
        (approve, "approve", ["finagent approve 4f1d2c --why 'earnings call read'"]),
        (reject, "reject", ["finagent reject 4f1d2c --why 'trading halt'"]),
    ],
    "Train and test": [
        (
            train,
            "train",
            [
                "finagent train",
                "finagent train --symbols GOOG,IBM --schedule 5",
                "finagent train --config desk.yaml --estimate",
            ],
        ),
        (
            backtest,
            "backtest",
            ["finagent backtest", "finagent backtest --rule sma:10,30 --symbols GOOG"],
        ),
        (ablate, "ablate", ["finagent ablate --model models:/finagent/1"]),
        (graph, "graph", ["finagent graph --preset debate"]),
    ],
    "Check and trace": [
        (verify, "verify", ["finagent verify", "finagent verify models:/finagent/1 --deep"]),
        (memory, "memory", ["finagent memory --estimate"]),
        (
            lineage,
            "lineage",
            ["finagent lineage 8c1f0d5e9b7a4c22", "finagent lineage --version 1"],
        ),
        (
            calibrate_gate,
            "calibrate-gate",
            ["finagent calibrate-gate --markets 18 --ratios 1.5 --jobs 2"],
        ),
    ],
    "Manage versions": [
        (models, "models", ["finagent models"]),
        (promote, "promote", ["finagent promote 2 --why 'better after costs'"]),
        (rollback, "rollback", ["finagent rollback --why 'wrong prices'"]),
        (sign, "sign", ["finagent sign 2"]),
        (signing_key, "signing-key", ["finagent signing-key"]),
    ],
}
"""Commands by heading, each with its name and examples, in the order of the help page."""
GROUPS: dict[str, tuple[str, typer.Typer]] = {
    "audit": ("Check and trace", audit),
    "bars": ("Manage data", bars),
    "cassette": ("Manage data", cassette),
    "db": ("Manage data", db),
    "outbox": ("Manage data", outbox),
}
for heading, commands in COMMANDS.items():
    for function, name, examples in commands:
        epilog = format_examples(*examples)
        app.command(name=name, epilog=epilog, rich_help_panel=heading)(function)
for name, (heading, group) in GROUPS.items():
    app.add_typer(group, name=name, rich_help_panel=heading)
# A plug-in that is not installed has no commands.
for name in EXTERNAL_ANALYSTS:
    if plug_in := load_commands(name):
        app.add_typer(plug_in, name=name, rich_help_panel="Manage data")

if __name__ == "__main__":
    app()
