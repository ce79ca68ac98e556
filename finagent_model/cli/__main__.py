"""Build the app of `finagent`, and run it as `python -m finagent_model.cli`.

The order of registration is the order of the help page.
"""

from __future__ import annotations

import typer

from finagent_model.cli._data_commands import bars
from finagent_model.cli._demo_command import demo
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
    help="A multi-agent trading decision that is one versioned model.",
)
app.command()(train)
app.command()(backtest)
app.command()(ablate)
app.command()(predict)
app.command()(demo)
app.command()(serve)
app.command()(ui)
app.command()(graph)
app.command()(models)
app.command()(promote)
app.command()(rollback)
app.command()(sign)
app.command(name="signing-key")(signing_key)
app.command()(lineage)
app.command()(approvals)
app.command()(approve)
app.command()(reject)
app.command()(verify)
app.command()(memory)
app.command(name="calibrate-gate")(calibrate_gate)
app.add_typer(bars, name="bars")
app.add_typer(cassette, name="cassette")
app.add_typer(audit, name="audit")
# A plug-in that is not installed has no commands.
for name in EXTERNAL_ANALYSTS:
    if commands := load_commands(name):
        app.add_typer(commands, name=name)
app.add_typer(db, name="db")
app.add_typer(outbox, name="outbox")

if __name__ == "__main__":
    app()
