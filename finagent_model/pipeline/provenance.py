"""What every run says of where it came from, under one name each: who asked, by which code, with
which desk. One place opens runs for all stages; `pipeline/lineage.py` reads what is written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from finagent_model.desk import config_hash
from finagent_model.domain.desk_config import DeskConfig
from finagent_model.domain.execution import NOBODYS, Execution
from finagent_model.domain.signal import TradingSignal
from finagent_model.serving.answering import AnsweringDesk
from finagent_model.serving.checkout import checkout
from finagent_model.serving.wheel import code_hash
from finagent_model.tracking import COMMIT, STAGE, RunLog, open_run

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


def begin(
    stage: str,
    name: str,
    tags: Tags = NO_TAGS,
    *,
    execution: Execution = NOBODYS,
    parent: str | None = None,
    alone: bool = False,
) -> RunLog:
    """A run of `stage`, below `parent` if there is one, else below the execution's; `alone` says
    that nobody goes on with it if this process dies. Raises TrackingError.
    """
    known = {STAGE: stage, **asked_by(execution), **by_code(), **tags}
    return open_run(name, known, parent or execution.parent_run_id, alone=alone)


ASKED = {
    "execution_id": EXECUTION,
    "workflow_id": WORKFLOW,
    "dag_id": DAG,
    "dag_run_id": DAG_RUN,
    "task_id": TASK,
    "map_index": MAP_INDEX,
}
"""Fields of an `Execution`, and their tags."""


def asked_by(execution: Execution) -> dict[str, str]:
    """Only what is set."""
    named = {tag: getattr(execution, field) for field, tag in ASKED.items()}
    return {tag: str(value) for tag, value in named.items() if value is not None}


def asked_of(tags: Tags) -> Execution:
    """The inverse, but for the parent run."""
    given = {field: tags[tag] for field, tag in ASKED.items() if tag in tags}
    return Execution.model_validate(given)


def by_code() -> dict[str, str]:
    """The hash of the code at work, and in a checkout its commit."""
    found, tags = checkout(), {CODE: code_hash()}
    if found is None:
        return tags
    return tags | {COMMIT: found.commit, DIRTY: str(found.dirty).lower()}


def by_desk(config: DeskConfig) -> dict[str, str]:
    return {CONFIG: config_hash(config)}


def by_package(answering: AnsweringDesk, model_uri: str) -> dict[str, str]:
    """A packaged desk, asked for as `model_uri`; where that is an alias, its version is told."""
    package, lineage = answering.package, answering.lineage
    named = {
        MODEL_URI: lineage.model_uri or model_uri,
        MODEL_VERSION: lineage.model_version,
        MODEL_ID: lineage.model_id,
        TRAINING: lineage.run_id,
        PACKAGE: package.content_hash,
    }
    return by_desk(package.config) | {k: v for k, v in named.items() if v is not None}


def of_signal(signal: TradingSignal) -> dict[str, str]:
    return {
        SIGNAL: signal.signal_id,
        SYMBOL: signal.symbol,
        AS_OF: signal.as_of.isoformat(),
        STATUS: signal.status.value,
        ACTION: signal.action,
    }
