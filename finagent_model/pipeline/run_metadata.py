"""What every run says of where it came from, under one name each: who asked, by which code, with
which desk. One place opens runs for all stages; `pipeline/lineage.py` reads what is written here.

What a run or a package holds, read again: another schema is a typed error, never a traceback
after hours of work.

What the first stage of a training leaves in its run for the stages after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import yaml
from pydantic import ValidationError
from yaml import YAMLError

from finagent_model.config.desk_config import DeskConfig
from finagent_model.data.snapshots import BarsSnapshot
from finagent_model.decision.decision import NO_EXECUTION, Execution
from finagent_model.decision.signal import TradingSignal
from finagent_model.desk.desk import config_hash
from finagent_model.errors import (
    BadInputError,
    CorruptPackageError,
    PackageFormatError,
    TrackingError,
)
from finagent_model.model.package import Package
from finagent_model.model.predictor import Predictor
from finagent_model.model.wheel import code_hash, find_checkout
from finagent_model.pipeline.datasets import BARS, log_bar_snapshots, read_bar_snapshots
from finagent_model.policy.policy import PolicyBook
from finagent_model.tracking.runs import COMMIT, STAGE, RunLog, open_run
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import Trials

EXECUTION, WORKFLOW = "finagent.workflow_execution_id", "finagent.workflow_id"
DAG, DAG_RUN = "finagent.dag_id", "finagent.dag_run_id"
TASK, MAP_INDEX = "finagent.task_id", "finagent.map_index"
CODE, DIRTY = "finagent.code", "finagent.git_dirty"
"""Hash of the code; whether it differs from the commit that `mlflow.source.git.commit` names."""
CONFIG, PACKAGE = "finagent.config", "finagent.package"
"""Hash of a desk's configuration; content hash of its package."""
MODEL_ID, TRAINING = "finagent.model_id", "finagent.training_run_id"
"""The logged model that spoke, and the run that trained it."""
MODEL_URI, MODEL_VERSION = "finagent.model_uri", "finagent.model_version"
SIGNAL, SYMBOL, STATUS = "finagent.signal_id", "finagent.symbol", "finagent.status"
AS_OF, ACTION = "finagent.as_of", "finagent.action"
REPLACES = "finagent.replaces"
"""The run of an earlier decision on the same question, made while less was known."""
Tags = Mapping[str, str]
NO_TAGS: Tags = MappingProxyType({})


def open_tagged_run(
    stage: str,
    name: str,
    tags: Tags = NO_TAGS,
    *,
    execution: Execution = NO_EXECUTION,
    parent: str | None = None,
    alone: bool = False,
) -> RunLog:
    """A run of `stage`, below `parent` if there is one, else below the execution's; `alone` says
    that nobody goes on with it if this process dies. Raises TrackingError.
    """
    known = {STAGE: stage, **execution_tags(execution), **code_tags(), **tags}
    return open_run(name, known, parent or execution.parent_run_id, single_process=alone)


REQUESTED_BY = {
    "execution_id": EXECUTION,
    "workflow_id": WORKFLOW,
    "dag_id": DAG,
    "dag_run_id": DAG_RUN,
    "task_id": TASK,
    "map_index": MAP_INDEX,
}
"""Fields of an `Execution`, and their tags."""


def execution_tags(execution: Execution) -> dict[str, str]:
    """Only what is set."""
    named = {tag: getattr(execution, field) for field, tag in REQUESTED_BY.items()}
    return {tag: str(value) for tag, value in named.items() if value is not None}


def execution_of_tags(tags: Tags) -> Execution:
    """The inverse, but for the parent run."""
    given = {field: tags[tag] for field, tag in REQUESTED_BY.items() if tag in tags}
    return Execution.model_validate(given)


def code_tags() -> dict[str, str]:
    """The hash of the code at work, and in a checkout its commit."""
    found, tags = find_checkout(), {CODE: code_hash()}
    if found is None:
        return tags
    return tags | {COMMIT: found.commit, DIRTY: str(found.dirty).lower()}


def desk_tags(config: DeskConfig) -> dict[str, str]:
    return {CONFIG: config_hash(config)}


def predictor_tags(predictor: Predictor, name: str) -> dict[str, str]:
    """Return the tags that say who decided: the configuration, and of a package its version.

    `name` is what the caller asked for; where that is an alias, the version's own name stands here.
    """
    tags = desk_tags(predictor.config)
    if not predictor.is_packaged:
        return tags
    lineage = predictor.lineage
    optional = {
        MODEL_URI: lineage.model_uri or name,
        MODEL_VERSION: lineage.model_version,
        MODEL_ID: lineage.model_id,
        TRAINING: lineage.run_id,
        PACKAGE: predictor.identity,
    }
    return tags | {tag: value for tag, value in optional.items() if value is not None}


def signal_tags(signal: TradingSignal) -> dict[str, str]:
    return {
        SIGNAL: signal.signal_id,
        SYMBOL: signal.symbol,
        AS_OF: signal.as_of.isoformat(),
        STATUS: signal.status.value,
        ACTION: signal.action,
    }


@contextmanager
def schema_errors_as_tracking_error(run_id: str) -> Iterator[None]:
    """Raises TrackingError where what the block reads was written by another version."""
    try:
        yield
    except TrackingError:
        raise
    except (ValidationError, YAMLError, BadInputError, CorruptPackageError) as error:
        raise _another(run_id, str(error)) from None
    except (ValueError, KeyError, TypeError) as error:
        raise _another(run_id, repr(error)) from None


def read_request(package: Package) -> TrainRequest:
    """The request that led to a package. Raises PackageFormatError."""
    try:
        return TrainRequest.parse(**package.backtest["request"])
    except (BadInputError, KeyError, TypeError) as error:
        raise PackageFormatError(
            f"backtest.json of the package has a request that this code can't read: {error}; "
            "load the model in its own environment (--env-manager uv) or train again"
        ) from None


def _another(run_id: str, said: str) -> TrackingError:
    told = " ".join(said.split())
    return TrackingError(
        f"run {run_id} was recorded by another version: {told}; start the training again"
    )


@dataclass(frozen=True)
class TrainingState:
    """A training whose policies are fitted."""

    request: TrainRequest
    config: DeskConfig
    policies: PolicyBook
    trials: Trials
    bars: dict[str, BarsSnapshot]
    """What was read of each symbol, for the stages after it: they see the same, however late."""

    def write(self, run: RunLog) -> None:
        run.log_json("request.json", self.request.model_dump(mode="json"))
        config = self.config.model_dump(mode="json")
        run.log_text("config.yaml", yaml.safe_dump(config, sort_keys=False))
        run.log_json("policy.json", self.policies.model_dump(mode="json"))
        run.log_json("trials.json", self.trials.model_dump(mode="json"))
        log_bar_snapshots(run, self.bars)

    @classmethod
    def read(cls, run: RunLog) -> Self:
        """Raises TrackingError for what another version wrote."""
        with schema_errors_as_tracking_error(run.run_id):
            return cls(
                request=TrainRequest.parse(**run.read_json("request.json")),
                config=DeskConfig.model_validate(yaml.safe_load(run.read_artifact("config.yaml"))),
                policies=PolicyBook.model_validate(run.read_json("policy.json")),
                trials=Trials.model_validate(run.read_json("trials.json")),
                bars=read_bar_snapshots(run.read_json(BARS)),
            )
