"""What is registered and which version is champion: `models`, `promote`, `rollback`.

A lineage as a tree that people read. All of it is in the JSON; long lists are cut here.

`finagent lineage`: where a signal came from, and what came of a version or of data.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text
from rich.tree import Tree

from finagent_model._base import Check
from finagent_model.audit.chain import HEAD
from finagent_model.cli.options import REFUSED, Json, Name, print_json
from finagent_model.data.snapshots import Dataset
from finagent_model.errors import BadInputError
from finagent_model.model.wheel import code_hash
from finagent_model.pipeline.datasets import DatasetComparison
from finagent_model.pipeline.lineage import (
    HASHES,
    DataLineage,
    SignalLineage,
    VersionLineage,
    VersionOrigin,
    named,
    signal_row,
)
from finagent_model.pipeline.run_metadata import MODEL_URI, REQUESTED_BY
from finagent_model.tracking.queries import RunRecord

if TYPE_CHECKING:
    from finagent_model.pipeline.lineage import DataLineage, SignalLineage, VersionLineage


def models(name: Name = "finagent", as_json: Json = False) -> None:
    """List the versions: aliases, run, and what the gate said."""
    from finagent_model.tracking import registry

    rows = registry.list_versions(name)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    if not rows:
        typer.echo(f"no version of {name} yet; `mlflow run . -e train` makes one", err=True)
    for row in rows:
        aliases = ", ".join(row.aliases) or "-"
        typer.echo(
            f"{row.version}  {aliases}  {row.verdict or 'no verdict'}, "
            f"evidence {row.evidence or 'not assessed'}  run {row.run_id}"
        )


def promote(
    version: Annotated[str, typer.Argument(help="A version that the gate let pass.")],
    name: Name = "finagent",
    force: Annotated[bool, typer.Option("--force", help="Whatever the gate said.")] = False,
    why: Annotated[str | None, typer.Option(help="Kept with who and when.")] = None,
    as_json: Json = False,
) -> None:
    """Make a version champion."""
    from finagent_model.tracking import registry

    _changed(asdict(registry.promote(name, version, force=force, why=why)), as_json)


def rollback(
    name: Name = "finagent",
    why: Annotated[str | None, typer.Option(help="Kept with who and when.")] = None,
    as_json: Json = False,
) -> None:
    """Make the champion's predecessor champion again."""
    from finagent_model.tracking import registry

    _changed(asdict(registry.rollback(name, why)), as_json)


def _changed(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(row)
    else:
        typer.echo(f"version {row['version']} is champion")


SHOWN = 20
"""Of a list."""


def tree(found: SignalLineage | VersionLineage | DataLineage) -> Tree:
    """By what was asked for."""
    if isinstance(found, SignalLineage):
        return _signal(found)
    if isinstance(found, VersionLineage):
        return _version(found)
    return _data(found)


def _signal(found: SignalLineage) -> Tree:
    top = _tree(f"signal {_said(signal_row(found.run))}")
    run = _add(top, _run(found.run))
    _facts(run, found.run)
    if found.earlier:
        _add(run, f"the last of {len(found.earlier) + 1} runs that gave it; --json has all")
    for trace_id in found.traces:
        _add(run, f"trace {trace_id}")
    if HEAD in found.run.tags:
        _add(run, f"audit head {found.run.tags[HEAD]}")
    _compared(run, "data it saw", found.data)
    if found.origin is None:
        _add(top, "no version: the desk of a configuration's file decided")
    else:
        _origin(top, found.origin)
    _checks(top, found.every_check)
    return top


def _version(found: VersionLineage) -> Tree:
    top = _tree(f"what came of {found.origin.uri}")
    _origin(top, found.origin)
    _outcome(top, found.signals, found.backtests)
    _checks(top, found.origin.checks)
    return top


def _data(found: DataLineage) -> Tree:
    top = _tree("what came of " + ", ".join(_dataset(each) for each in found.data))
    _some(
        top,
        "trainings",
        (f"{_run(run)}: {run.tags.get(MODEL_URI, 'no version')}" for run in found.trainings),
    )
    _outcome(top, found.signals, found.backtests)
    return top


def _outcome(top: Tree, signals: Iterable[RunRecord], backtests: Iterable[RunRecord]) -> None:
    _some(top, "signals", (_said(signal_row(run)) for run in signals))
    _some(top, "backtests", (_run(run) for run in backtests))


def _origin(top: Tree, origin: VersionOrigin) -> None:
    version, training = origin.version, origin.training
    if version is None:
        branch = _add(top, f"{origin.uri}: no registered version")
    else:
        aliases = ", ".join(version.aliases) or "no alias"
        verdict = f"gate {version.verdict or 'not asked'}, evidence {version.evidence or 'unknown'}"
        branch = _add(top, f"{origin.uri} ({aliases}): {verdict}")
    if training is None:
        _add(branch, f"training: {origin.why}")
        return
    run = _add(branch, f"trained by {_run(training.run)}")
    _facts(run, training.run)
    _compared(run, "data it was given", training.data)
    _some(run, "prompts", (f"{each.name} version {each.version}" for each in training.prompts))


def _facts(branch: Tree, run: RunRecord) -> None:
    """Who asked, and by which code and desk."""
    asked, hashes = named(run, REQUESTED_BY), named(run, HASHES)
    if asked:
        _add(branch, "asked by " + ", ".join(f"{k} {v}" for k, v in asked.items()))
    dirty = " with changes" if hashes.pop("dirty", "") == "true" else ""
    installed = ", as installed here" if hashes.get("code") == code_hash() else ""
    told = {"commit": dirty, "code": installed}
    for name, value in hashes.items():
        _add(branch, f"{name} {value}{told.get(name, '')}")


def _compared(branch: Tree, title: str, data: Iterable[DatasetComparison]) -> None:
    words = {"same": "the same today", "changed": "CHANGED since", "not at hand": "NOT at hand"}
    _some(
        branch,
        title,
        (
            f"{_dataset(each.was)}: {words[each.now]}{f', {each.why}' if each.why else ''}"
            for each in data
        ),
    )


def _dataset(data: Dataset) -> str:
    dates = f"{data.first:%Y-%m-%d} to {data.last:%Y-%m-%d}"
    return f"{data.name} {data.digest}, {data.rows} rows from {data.source}, {dates}"


def _checks(top: Tree, checks: Iterable[Check]) -> None:
    _some(
        top, "checks", (f"{'passed' if c.passed else 'FAILED'} {c.name}: {c.found}" for c in checks)
    )


def _run(run: RunRecord) -> str:
    return (
        f"run {run.run_id} ({run.name}, {run.status.lower()}, {run.started_at:%Y-%m-%d %H:%M} UTC)"
    )


def _said(row: Mapping[str, str]) -> str:
    said = f"{row['symbol']} as of {row['as_of'][:10]}: {row['action']}, {row['status']}"
    return f"{row['signal_id']}  {said}"


def _some(branch: Tree, title: str, lines: Iterable[str]) -> None:
    """A branch of its own, and none where there is nothing."""
    listed = list(lines)
    if not listed:
        return
    own = _add(branch, title)
    for line in listed[:SHOWN]:
        _add(own, line)
    if (more := len(listed) - SHOWN) > 0:
        _add(own, f"and {more} more; --json has all")


def _add(branch: Tree, line: str) -> Tree:
    return branch.add(Text(line))  # never markup: a name is somebody's text


def _tree(line: str) -> Tree:
    return Tree(Text(line))


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
        return read.lineage_of_signal(signal_id, Settings.load())
    if version is not None:
        return read.lineage_of_version(name, version, Settings.load())
    return read.lineage_of_data(str(data))
