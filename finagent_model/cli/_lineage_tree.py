"""Draw a lineage as a tree for people. The JSON has all of it; long lists are cut here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.text import Text
from rich.tree import Tree

from finagent_model._base import Check
from finagent_model.audit.chain import HEAD
from finagent_model.data.snapshots import Dataset
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
            f"{_dataset(each.recorded)}: {words[each.now]}{f', {each.why}' if each.why else ''}"
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
