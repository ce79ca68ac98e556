"""Draw a lineage as a tree for the shell. Long lists are cut here; the JSON has all of it.

In a file of its own, since it imports MLflow, and `finagent --help` must not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from rich.text import Text
from rich.tree import Tree

from finagent_model._base import Check
from finagent_model.audit.chain import HEAD
from finagent_model.cli.options import escape_controls, shorten_hash
from finagent_model.data.snapshots import Dataset
from finagent_model.market.bars import show_as_of
from finagent_model.model.wheel import code_hash
from finagent_model.pipeline.datasets import DatasetComparison
from finagent_model.pipeline.lineage import (
    HASHES,
    DataLineage,
    SignalLineage,
    VersionLineage,
    VersionOrigin,
    select_tags,
    signal_row,
)
from finagent_model.pipeline.run_metadata import MODEL_URI, REQUESTED_BY
from finagent_model.tracking.queries import RunRecord

MAX_LINES = 20
"""Lines of one list."""


def draw_lineage(lineage: SignalLineage | VersionLineage | DataLineage) -> Tree:
    """Return the tree of a signal's, a version's or a data set's lineage."""
    if isinstance(lineage, SignalLineage):
        return _draw_signal(lineage)
    if isinstance(lineage, VersionLineage):
        return _draw_version(lineage)
    return _draw_data(lineage)


def _draw_signal(lineage: SignalLineage) -> Tree:
    top = _new_tree(f"signal {_describe_signal(signal_row(lineage.run))}")
    branch = _add_line(top, _describe_run(lineage.run))
    _add_run_facts(branch, lineage.run)
    # An idempotent decision may be recorded by several runs; the tree shows the newest.
    if lineage.earlier:
        runs = len(lineage.earlier) + 1
        _add_line(branch, f"the last of {runs} runs that gave it; --json has all")
    for trace_id in lineage.traces:
        _add_line(branch, f"trace {trace_id}")
    if HEAD in lineage.run.tags:
        _add_line(branch, f"audit head {lineage.run.tags[HEAD]}")
    _add_datasets(branch, "data it saw", lineage.data)
    # `predict --config` decides without a package.
    if lineage.origin is None:
        _add_line(top, "no version: the desk of a configuration's file decided")
    else:
        _add_origin(top, lineage.origin)
    _add_checks(top, lineage.every_check)
    return top


def _draw_version(lineage: VersionLineage) -> Tree:
    top = _new_tree(f"what came of {lineage.origin.uri}")
    _add_origin(top, lineage.origin)
    _add_results(top, lineage.signals, lineage.backtests)
    _add_checks(top, lineage.origin.checks)
    return top


def _draw_data(lineage: DataLineage) -> Tree:
    top = _new_tree("what came of " + ", ".join(_describe_dataset(each) for each in lineage.data))
    _add_list(
        top,
        "trainings",
        (
            f"{_describe_run(run)}: {run.tags.get(MODEL_URI, 'no version')}"
            for run in lineage.trainings
        ),
    )
    _add_results(top, lineage.signals, lineage.backtests)
    return top


def _add_results(top: Tree, signals: Iterable[RunRecord], backtests: Iterable[RunRecord]) -> None:
    _add_list(top, "signals", (_describe_signal(signal_row(run)) for run in signals))
    _add_list(top, "backtests", (_describe_run(run) for run in backtests))


def _add_origin(top: Tree, origin: VersionOrigin) -> None:
    """Add the version's aliases and verdict, and its training below."""
    version, training = origin.version, origin.training
    if version is None:
        branch = _add_line(top, f"{origin.uri}: no registered version")
    else:
        aliases = ", ".join(version.aliases) or "no alias"
        verdict = f"gate {version.verdict or 'not asked'}, evidence {version.evidence or 'unknown'}"
        branch = _add_line(top, f"{origin.uri} ({aliases}): {verdict}")
    if training is None:
        _add_line(branch, f"training: {origin.why}")
        return
    run = _add_line(branch, f"trained by {_describe_run(training.run)}")
    _add_run_facts(run, training.run)
    _add_datasets(run, "data it was given", training.data)
    prompts = (f"{each.name} version {each.version}" for each in training.prompts)
    _add_list(run, "prompts", prompts)


def _add_run_facts(branch: Tree, run: RunRecord) -> None:
    """Add who requested a run, and the hashes of its code, commit, package and configuration."""
    requester, hashes = select_tags(run, REQUESTED_BY), select_tags(run, HASHES)
    if requester:
        _add_line(branch, "asked by " + ", ".join(f"{k} {v}" for k, v in requester.items()))
    # Popped: whether the checkout was dirty belongs to its commit, and is no hash.
    dirty = " with changes" if hashes.pop("dirty", "") == "true" else ""
    installed = ", as installed here" if hashes.get("code") == code_hash() else ""
    suffixes = {"commit": dirty, "code": installed}
    for name, value in hashes.items():
        # A head is what somebody kept elsewhere, to compare with: all of it.
        shown = value if name == "audit head" else shorten_hash(value)
        _add_line(branch, f"{name} {shown}{suffixes.get(name, '')}")


def _add_datasets(branch: Tree, title: str, data: Iterable[DatasetComparison]) -> None:
    """Add each data set, and whether the source still has it unchanged."""
    words = {"same": "the same today", "changed": "CHANGED since", "not at hand": "NOT at hand"}
    _add_list(
        branch,
        title,
        (
            f"{_describe_dataset(each.recorded)}: {words[each.now]}"
            + (f", {each.why}" if each.why else "")
            for each in data
        ),
    )


def _add_checks(top: Tree, checks: Iterable[Check]) -> None:
    _add_list(
        top, "checks", (f"{'passed' if c.passed else 'FAILED'} {c.name}: {c.found}" for c in checks)
    )


def _describe_dataset(data: Dataset) -> str:
    dates = f"{data.first:%Y-%m-%d} to {data.last:%Y-%m-%d}"
    return f"{data.name} {data.digest}, {data.rows} rows from {data.source}, {dates}"


def _describe_run(run: RunRecord) -> str:
    return (
        f"run {run.run_id} ({run.name}, {run.status.lower()}, {run.started_at:%Y-%m-%d %H:%M} UTC)"
    )


def _describe_signal(row: Mapping[str, str]) -> str:
    as_of = show_as_of(datetime.fromisoformat(row["as_of"]))
    summary = f"{row['symbol']} as of {as_of}: {row['action']}, {row['status']}"
    return f"{row['signal_id']}  {summary}"


def _add_list(branch: Tree, title: str, lines: Iterable[str]) -> None:
    """Add a titled branch with the first `MAX_LINES` lines; nothing where there are none."""
    all_lines = list(lines)
    if not all_lines:
        return
    titled = _add_line(branch, title)
    for line in all_lines[:MAX_LINES]:
        _add_line(titled, line)
    if (more := len(all_lines) - MAX_LINES) > 0:
        _add_line(titled, f"and {more} more; --json has all")


def _add_line(branch: Tree, line: str) -> Tree:
    # As text, never as markup: a run's name is somebody's text, and may hold brackets.
    return branch.add(Text(escape_controls(line)))


def _new_tree(line: str) -> Tree:
    return Tree(Text(escape_controls(line)))
