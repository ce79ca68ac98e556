"""A judged package becomes a version: its verdict comes with it, then prompts, card and the run's
tags are told, and aliases move last. A process that dies leaves no alias; what it did not tell is
told when the training is asked again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finagent_model import registry
from finagent_model.agents.prompts import Prompts
from finagent_model.artifacts.model_card import FAMILY, FILE, Card
from finagent_model.domain.desk_config import DeskConfig
from finagent_model.domain.learned import Learned
from finagent_model.pipeline.provenance import (
    CODE,
    CONFIG,
    DIRTY,
    MODEL_ID,
    MODEL_URI,
    MODEL_VERSION,
    PACKAGE,
)
from finagent_model.prompt_versions import PromptVersion, register_prompts
from finagent_model.run_records import read_run
from finagent_model.serving.logged import Logged
from finagent_model.tracking import COMMIT, RunLog
from finagent_model.training.gate import GateReport
from finagent_model.training.request import TrainRequest


@dataclass(frozen=True)
class Judged:
    """A package that was logged, and what the gate said of it."""

    logged: Logged
    manifest: Mapping[str, Any]
    request: TrainRequest
    config: DeskConfig
    learned: Learned
    gate: GateReport
    metrics: Mapping[str, Mapping[str, float]]
    answers: Mapping[str, str]
    """A question that the package answers from its record."""


def register_version(run: RunLog, judged: Judged, champion: registry.Version | None) -> str:
    """The version's number. It is candidate, and champion where the gate let it pass. Raises
    GateRefusedError where another one became champion meanwhile.
    """
    name, logged, gate = judged.request.register_as, judged.logged, judged.gate
    content = str(judged.manifest["content_hash"])
    run.tags({MODEL_ID: logged.model_id, PACKAGE: content})
    tags = {
        registry.VERDICT: gate.verdict,
        registry.CONTENT: content,
        registry.EVIDENCE: gate.evidence.grade,
        registry.BESIDE: champion.version if champion else "",
    }
    version = registry.register(
        name, logged.uri, run.run_id, tags, model_id=logged.model_id, family=FAMILY
    )
    tell(run, judged, version)
    registry.settle(name, version)
    return version


def told(run: RunLog) -> bool:
    """Whether all was told of the version that the run made."""
    return run.tag(MODEL_URI) is not None


def tell(run: RunLog, judged: Judged, version: str) -> None:
    """Prompts, card and, once these are there, the run's tags of the version; told again, nothing
    is there twice.
    """
    name = judged.request.register_as
    card = _card(run.run_id, version, judged, _prompts(judged, run.run_id))
    run.text(FILE, card.text())
    registry.describe(name, version, card.description())
    run.tags({MODEL_URI: f"models:/{name}/{version}", MODEL_VERSION: version})


def _prompts(judged: Judged, run_id: str) -> list[PromptVersion]:
    """Of the desk's agents, each once."""
    texts, config = Prompts(judged.config.prompts), judged.config
    used = {row.prompt: texts.text(row.prompt) for row in config.agents}
    return register_prompts(judged.request.register_as, used, run_id, judged.logged.model_id)


def _card(run_id: str, version: str, judged: Judged, prompts: Sequence[PromptVersion]) -> Card:
    calibrations, run = judged.learned.calibrations, read_run(run_id)
    assert calibrations is not None  # a package was written
    known = {"code": CODE, "configuration": CONFIG, "git commit": COMMIT}
    hashes = {name: run.tags[tag] for name, tag in known.items() if tag in run.tags}
    if run.tags.get(DIRTY) == "true":
        hashes["git commit"] += " with changes"
    return Card(
        name=judged.request.register_as,
        version=version,
        run_id=run_id,
        config=judged.config,
        request=judged.request,
        gate=judged.gate,
        metrics=judged.metrics,
        last=calibrations.fits[-1],
        answers=judged.answers,
        first_fit=f"{judged.learned.policies.moments[0]:%Y-%m-%d}",
        datasets=run.datasets,
        prompts=[f"{each.name} version {each.version}" for each in prompts],
        hashes={"package": str(judged.manifest["content_hash"]), **hashes},
    )
