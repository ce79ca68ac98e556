"""Tags that say where a run came from, and typed reading of what a run or a package holds.

`open_tagged_run` opens the runs of all stages: who asked, by which code, with which desk.
`pipeline/lineage.py` reads these tags. `TrainingState` is what the first stage of a training leaves
in its run for the stages after it, which may run on other machines. What another version wrote
raises TrackingError or PackageFormatError, never a traceback after hours of work.
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

from finagent_model.config.analyst_registry import EXTERNAL_ANALYSTS
from finagent_model.config.desk_config import DeskConfig, config_hash, find_preset
from finagent_model.config.roster import Price
from finagent_model.config.rules import DecisionLimits
from finagent_model.data.market import Market
from finagent_model.data.snapshots import BarsSnapshot
from finagent_model.decision.decision import NO_EXECUTION, Execution
from finagent_model.decision.signal import TradingSignal
from finagent_model.errors import (
    BadInputError,
    CorruptPackageError,
    PackageFormatError,
    TrackingError,
)
from finagent_model.evaluation.memory_probes import REPORT_FILE, MemoryReport
from finagent_model.market.bars import BarSeries
from finagent_model.model.package import Package
from finagent_model.model.predictor import Predictor
from finagent_model.model.wheel import code_hash, find_checkout
from finagent_model.pipeline.datasets import BARS, HASH, log_bar_snapshots, read_bar_snapshots
from finagent_model.policy.policy import PolicyBook
from finagent_model.tracking.queries import read_run
from finagent_model.tracking.runs import (
    COMMIT,
    REQUEST,
    STAGE,
    RunLog,
    open_run,
    search_all_experiments,
)
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import Trials

EXECUTION, WORKFLOW = "finagent.workflow_execution_id", "finagent.workflow_id"
PLATFORM_EXECUTION = "finagent.platform_execution_id"
DAG, DAG_RUN = "finagent.dag_id", "finagent.dag_run_id"
TASK, MAP_INDEX = "finagent.task_id", "finagent.map_index"
CODE, DIRTY = "finagent.code", "finagent.git_dirty"
"""Hash of the code; whether it differs from the commit that `mlflow.source.git.commit` names."""
CONFIG, PACKAGE = "finagent.config", "finagent.package"
"""Content hashes: of a desk's configuration, and of its package."""
MODEL_ID, TRAINING = "finagent.model_id", "finagent.training_run_id"
"""Ids of the logged model that decided, and of the run that trained it."""
MODEL_URI, MODEL_VERSION = "finagent.model_uri", "finagent.model_version"
SIGNAL, SYMBOL, STATUS = "finagent.signal_id", "finagent.symbol", "finagent.status"
AS_OF, ACTION = "finagent.as_of", "finagent.action"
REPLACES = "finagent.replaces"
"""Run of an earlier decision on the same question, made from less data."""
OWN_AGENTS = "own"
"""Value of the param `preset` for a desk whose agents are none of a preset's."""
FITTED = "finagent.fitted"
"""Tag of a training's run whose first stage is complete."""
REQUESTED_BY = {
    "execution_id": EXECUTION,
    "platform_execution_id": PLATFORM_EXECUTION,
    "workflow_id": WORKFLOW,
    "dag_id": DAG,
    "dag_run_id": DAG_RUN,
    "task_id": TASK,
    "map_index": MAP_INDEX,
}
"""Tag by field of an `Execution`."""
Tags = Mapping[str, str]
NO_TAGS: Tags = MappingProxyType({})


def open_tagged_run(
    stage: str,
    name: str,
    tags: Tags = NO_TAGS,
    *,
    execution: Execution = NO_EXECUTION,
    parent: str | None = None,
    single_process: bool = False,
) -> RunLog:
    """Open a run of `stage` below `parent`, else below the execution's run, else at the top.

    `single_process` says that no other process goes on with the run if this one dies. Raises
    TrackingError.
    """
    all_tags = {STAGE: stage, **execution_tags(execution), **code_tags(), **tags}
    parent_run_id = parent or execution.parent_run_id
    return open_run(name, all_tags, parent_run_id, single_process=single_process)


def execution_tags(execution: Execution) -> dict[str, str]:
    """Return the tags of an execution; fields that are None have none."""
    values = {tag: getattr(execution, field) for field, tag in REQUESTED_BY.items()}
    # By these names the platform looks for the run of an artifact.
    values |= {name: getattr(execution, name) for name in ("workflow_id", "execution_id")}
    return {tag: str(value) for tag, value in values.items() if value is not None}


def read_execution_tags(tags: Tags) -> Execution:
    """Return the execution that a run's tags name; its `parent_run_id` is None."""
    # MLflow keeps the parent in a tag of its own, `mlflow.parentRunId`.
    fields = {field: tags[tag] for field, tag in REQUESTED_BY.items() if tag in tags}
    return Execution.model_validate(fields)


def code_tags() -> dict[str, str]:
    """Return the tags of the running code: its hash, and in a Git checkout the commit."""
    # An installed wheel has no commit; the code's hash names it as well.
    repository, tags = find_checkout(), {CODE: code_hash()}
    if repository is None:
        return tags
    return tags | {COMMIT: repository.commit, DIRTY: str(repository.dirty).lower()}


def desk_tags(config: DeskConfig) -> dict[str, str]:
    """Return the tag that names a desk's configuration by its hash."""
    return {CONFIG: config_hash(config)}


def desk_params(config: DeskConfig, limits: DecisionLimits | None = None) -> dict[str, str]:
    """Return the params by which runs are filtered and compared: who decides, within which limits.

    `limits` are those of a call that narrows the desk's own. A desk of rules has no prices.
    """
    limits = limits or config.limits
    names = [model.model for model in config.distinct_models]
    prices = {name: config.prices[name] for name in names if name in config.prices}
    dates = [price.as_of for price in prices.values() if price.as_of is not None]
    return {
        "client": config.client,
        "model": config.model_used,
        "preset": find_preset(config) or OWN_AGENTS,
        "team": ",".join(row.name for row in config.roster),
        "max_rounds": str(limits.max_rounds),
        "debate_rounds": str(config.debate_rounds),
        "max_tokens": str(limits.max_tokens),
        "budget_usd": f"{limits.budget_usd:g}",
        "wall_clock_s": f"{limits.wall_clock_s:g}",
        # The oldest of the price list's dates: no cost is newer than that.
        **({"prices_as_of": min(dates).isoformat()} if dates else {}),
        **({"prices": describe_prices(prices)} if prices else {}),
    }


def describe_prices(prices: Mapping[str, Price]) -> str:
    """Return prices in words: model, USD a million tokens of prompt and completion, and origin."""
    return ", ".join(
        f"{name} {price.prompt:g}/{price.completion:g} ({price.source or price.as_of})"
        for name, price in prices.items()
    )


def bars_params(market: Market, bars: BarSeries | None) -> dict[str, str]:
    """Return the params that say where bars came from, and the day of the last one, if any."""
    params = {"bars": market.source.name}
    return params if bars is None else params | {"bars_until": f"{bars.close_time(-1):%Y-%m-%d}"}


def predictor_tags(predictor: Predictor, name: str) -> dict[str, str]:
    """Return the tags that say who decided: the configuration, and of a package its version.

    `name` is the URI that the caller gave.
    """
    tags = desk_tags(predictor.config)
    if not predictor.is_packaged:
        return tags
    lineage = predictor.lineage
    # A model that is logged but not registered has no version.
    optional = {
        # An alias moves, so the tag holds the version's own URI where there is one.
        MODEL_URI: lineage.model_uri or name,
        MODEL_VERSION: lineage.model_version,
        MODEL_ID: lineage.model_id,
        TRAINING: lineage.run_id,
        PACKAGE: predictor.identity,
    }
    return tags | {tag: value for tag, value in optional.items() if value is not None}


def signal_tags(signal: TradingSignal) -> dict[str, str]:
    """Return the tags by which a decision's run is searched."""
    return {
        SIGNAL: signal.signal_id,
        SYMBOL: signal.symbol,
        AS_OF: signal.as_of.isoformat(),
        STATUS: signal.status.value,
        ACTION: signal.action,
    }


@contextmanager
def schema_errors_as_tracking_error(run_id: str) -> Iterator[None]:
    """Raise TrackingError where the block can't read what another version wrote.

    A TrackingError of the block itself passes unchanged.
    """
    try:
        yield
    except TrackingError:
        # The store failed: that says nothing about the schema.
        raise
    except (ValidationError, YAMLError, BadInputError, CorruptPackageError) as error:
        raise _other_version_error(run_id, str(error)) from None
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
        # `repr`, since the text of a KeyError is the bare key.
        raise _other_version_error(run_id, repr(error)) from None


def count_earlier_trainings(run_id: str) -> int:
    """Return how many other trainings of such a desk on the same bars began before this one.

    Such a desk: the same registered name and the same `desk_family`. Deleted runs count too, since
    whoever threw them away had seen the result. Trainings whose desk, code and request were equal
    are one, and a repetition of this one is none. Raises TrackingError.
    """
    run = read_run(run_id)
    family = desk_family(run.params)
    wanted = {
        f"tags.`{STAGE}`": "train",
        f"tags.`{FITTED}`": "yes",
        f"tags.`{HASH}`": run.tags.get(HASH),
        "params.register_as": run.params.get("register_as"),
    }
    query = " and ".join(f"{key} = '{value}'" for key, value in wanted.items())
    started = int(run.started_at.timestamp() * 1000)
    earlier = search_all_experiments(f"{query} and attributes.start_time < {started}", deleted=True)
    alike = [each for each in earlier if desk_family(each.data.params) == family]
    requests = {each.data.tags.get(REQUEST) for each in alike}
    return len(requests - {run.tags.get(REQUEST), None})


def desk_family(params: Mapping[str, str]) -> tuple[str, ...]:
    """Return who decides in a training: rules or chat models, and which external analyst.

    `params` are those of its run. No finer: another model, client or agent is another try at the
    same question, and whoever tries them all searches among them.
    """
    # The desk's own client is not asked: agents may name models of their own.
    names = set(params.get("model", params.get("client", "")).split("+"))
    external = names & EXTERNAL_ANALYSTS.keys()
    kind = "rules" if names - external <= {"rules"} else "chat models"
    return (kind, *sorted(external))


def find_memory_report(run_id: str) -> MemoryReport | None:
    """Return what `finagent memory` found last of an equal training, or of this one.

    Equal are desk, code, request and bars. None: it was not run on any. Raises TrackingError.
    """
    tags = read_run(run_id).tags
    wanted = {STAGE: "train", FITTED: "yes", HASH: tags.get(HASH), REQUEST: tags.get(REQUEST)}
    if None in wanted.values():
        return None
    query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in wanted.items())
    for each in reversed(search_all_experiments(query)):
        run = RunLog(each.info.run_id)
        if (content := run.find_artifact(REPORT_FILE)) is not None:
            with schema_errors_as_tracking_error(run.run_id):
                return MemoryReport.model_validate_json(content)
    return None


def read_request(package: Package) -> TrainRequest:
    """Return the training request in a package. Raises PackageFormatError for another schema."""
    try:
        return TrainRequest.parse(**package.backtest["request"])
    except (BadInputError, KeyError, TypeError) as error:
        raise PackageFormatError(
            f"backtest.json of the package has a request that this code can't read: {error}; "
            "load the model in its own environment (--env-manager uv) or train again"
        ) from None


def _other_version_error(run_id: str, message: str) -> TrackingError:
    one_line = " ".join(message.split())
    return TrackingError(
        f"run {run_id} was recorded by another version: {one_line}; start the training again"
    )


@dataclass(frozen=True)
class TrainingState:
    """A training after its first stage: request, desk, fitted policies and the bars they saw."""

    request: TrainRequest
    config: DeskConfig
    policies: PolicyBook
    trials: Trials
    bars: dict[str, BarsSnapshot]
    """Snapshot by symbol: the stages after it read the same bars, however late they run."""

    def write(self, run: RunLog) -> None:
        """Log the state as artifacts of `run`. Raises TrackingError."""
        run.log_json("request.json", self.request.model_dump(mode="json"))
        config = self.config.model_dump(mode="json")
        # Unsorted: the roster of agents stays readable in the order of the configuration's fields.
        run.log_text("config.yaml", yaml.safe_dump(config, sort_keys=False))
        run.log_json("policy.json", self.policies.model_dump(mode="json"))
        run.log_json("trials.json", self.trials.model_dump(mode="json"))
        log_bar_snapshots(run, self.bars)

    @classmethod
    def read(cls, run: RunLog) -> Self:
        """Return the state that `write` logged. Raises TrackingError for another schema."""
        with schema_errors_as_tracking_error(run.run_id):
            return cls(
                request=TrainRequest.parse(**run.read_json("request.json")),
                config=DeskConfig.model_validate(yaml.safe_load(run.read_artifact("config.yaml"))),
                policies=PolicyBook.model_validate(run.read_json("policy.json")),
                trials=Trials.model_validate(run.read_json("trials.json")),
                bars=read_bar_snapshots(run.read_json(BARS)),
            )
