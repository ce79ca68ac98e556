"""Where a version came from: the training that made it, what that was given, and whether what is
kept today is what was registered then.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finagent_model import registry
from finagent_model.domain.check import Check
from finagent_model.errors import BadInputError, ModelLoadError, TrackingError
from finagent_model.market import Market
from finagent_model.pipeline.inputs import Compared, compare
from finagent_model.pipeline.provenance import ASKED, CODE, CONFIG, DIRTY, PACKAGE
from finagent_model.prompt_versions import PromptVersion, as_registered, linked
from finagent_model.run_records import RunRecord, read_run
from finagent_model.serving.logged import manifest_of
from finagent_model.serving.package import content_hash
from finagent_model.tracking import COMMIT

HASHES = {"config": CONFIG, "package": PACKAGE, "code": CODE, "commit": COMMIT, "dirty": DIRTY}


@dataclass(frozen=True)
class Training:
    """A training as its run tells it."""

    run: RunRecord
    data: tuple[Compared, ...]
    prompts: tuple[PromptVersion, ...]

    def row(self) -> dict[str, Any]:
        return {
            **run_row(self.run),
            "params": dict(self.run.params),
            "data": [each.row() for each in self.data],
            "prompts": [each.row() for each in self.prompts],
        }


@dataclass(frozen=True)
class Origin:
    """A version, or a logged model that was never registered, and its training."""

    uri: str
    version: registry.Version | None
    """None: it is registered no longer, or never was."""
    training: Training | None
    why: str
    """Why the training is not known; empty where it is."""
    checks: tuple[Check, ...]

    def row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "uri": self.uri,
            "version": None if self.version is None else self.version.row(),
            "training": None if self.training is None else self.training.row(),
            "why": self.why,
            "checks": [each.model_dump() for each in self.checks],
        }


def origin(
    uri: str, market: Market, training_run: str | None = None, package: str | None = None
) -> Origin:
    """Of the model at `uri`; a decision of it names the run that trained it and its package."""
    version = _version(uri)
    run_id = training_run or (version.run_id if version else None)
    training, why = None, "" if run_id else f"nothing names the run that made {uri}"
    if run_id:
        try:
            training = _training(run_id, market)
        except TrackingError as error:
            why = str(error)
    told = {
        "the version's tag": version.content_hash if version else None,
        "the training's tag": training.run.tags.get(PACKAGE) if training else None,
        "the decision's tag": package,
    }
    known = {who: said for who, said in told.items() if said}
    checks = [_package(uri, known)]
    if training and training.prompts:
        checks.append(_prompts(training.prompts))
    return Origin(uri, version, training, why, tuple(checks))


def run_row(run: RunRecord) -> dict[str, Any]:
    """What is told of a run, whatever it is."""
    return {
        "run_id": run.run_id,
        "experiment_id": run.experiment_id,
        "parent_run_id": run.parent,
        "name": run.name,
        "stage": run.stage,
        "status": run.status,
        "started": run.started.isoformat(),
        "asked_by": named(run, ASKED),
        "hashes": named(run, HASHES),
    }


def named(run: RunRecord, tags: dict[str, str]) -> dict[str, str]:
    """Those that the run has, by their short names."""
    return {name: run.tags[tag] for name, tag in tags.items() if tag in run.tags}


def _version(uri: str) -> registry.Version | None:
    found = re.fullmatch(r"models:/([^/@]+)/(\d+)", uri)
    if not found:
        return None
    try:
        return registry.find(*found.groups())
    except BadInputError:
        return None


def _training(run_id: str, market: Market) -> Training:
    """Raises TrackingError."""
    run = read_run(run_id)
    return Training(run, tuple(compare(run.datasets, market)), tuple(linked(run.tags)))


def _prompts(versions: Sequence[PromptVersion]) -> Check:
    """Whether the registry still has the texts that it was given."""
    words = {False: "has another text", None: "is gone"}
    found = {each: as_registered(each) for each in versions}
    wrong = [f"{p.name} version {p.version} {words[ok]}" for p, ok in found.items() if not ok]
    said = "; ".join(wrong) or f"{len(found)} prompts have the texts of their hashes"
    return Check(name="prompts_as_registered", passed=not wrong, found=said)


def _package(uri: str, told: dict[str, str]) -> Check:
    """Whether the package that is kept is the one that was registered."""
    name = "package_as_registered"
    try:
        manifest = manifest_of(uri)
    except ModelLoadError as error:
        return Check(name=name, passed=False, found=str(error))
    stated, true = str(manifest.get("content_hash")), content_hash(manifest.get("files", {}))
    if stated != true:
        words = f"the manifest of {uri} states {stated[:12]}, and its files hash to {true[:12]}"
        return Check(name=name, passed=False, found=words)
    other = [f"{who} says {said[:12]}" for who, said in told.items() if said != true]
    if other:
        words = f"the manifest of {uri} says {true[:12]}, but {', '.join(other)}"
        return Check(name=name, passed=False, found=words)
    agree = ", ".join(told) or "nobody else"
    return Check(name=name, passed=True, found=f"{true[:12]}, as say the manifest, {agree}")
