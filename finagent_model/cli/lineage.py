"""`finagent lineage`: where a signal came from, and what came of a version or of data."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from finagent_model.cli.terminal import REFUSED, Json, Name, print_json
from finagent_model.errors import BadInputError

if TYPE_CHECKING:
    from finagent_model.pipeline.lineage import DataLineage, SignalLineage, VersionLineage

WIDE = 1000
"""Columns; what is longer is cut."""


def lineage(
    signal_id: Annotated[str | None, typer.Argument(help="Id of a signal that was logged.")] = None,
    version: Annotated[str | None, typer.Option(help="A version: what came of it.")] = None,
    data: Annotated[str | None, typer.Option(help="SHA-256 of data: what came of them.")] = None,
    name: Name = "finagent",
    as_json: Json = False,
) -> None:
    """From a signal to its run, version, training and data, each held against what is kept today;
    with --version or --data the way back. Exit code 5 where something is not as it was written.
    """
    if sum(given is not None for given in (signal_id, version, data)) != 1:
        raise BadInputError("name one: the id of a signal, --version N or --data SHA256")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    found = _found(signal_id, version, data, name)
    if as_json:
        print_json(found.row())
    else:
        from rich.console import Console

        from finagent_model.cli.lineage_tree import tree

        # A line is never broken or cut: ids are for copying.
        Console(highlight=False, width=WIDE).print(tree(found), soft_wrap=True)
    if not getattr(found, "whole", True):
        raise typer.Exit(REFUSED)


def _found(
    signal_id: str | None, version: str | None, data: str | None, name: str
) -> SignalLineage | VersionLineage | DataLineage:
    from finagent_model.pipeline import lineage as read
    from finagent_model.settings import Settings

    if signal_id is not None:
        return read.of_signal(signal_id, Settings.load())
    if version is not None:
        return read.of_version(name, version, Settings.load())
    return read.of_data(str(data))
