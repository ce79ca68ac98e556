"""Runs as MLflow has them, read back whole: what `tracking.py` and MLflow itself wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from mlflow.entities import DatasetInput, Run
from mlflow.exceptions import MlflowException
from mlflow.tracing.constant import TraceMetadataKey
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID

from finagent_model.domain.dataset import Dataset, Kind
from finagent_model.errors import UnknownRunError
from finagent_model.tracking import SOURCE, STAGE, all_pages, usable_store

KINDS: tuple[Kind, ...] = ("bars", "news", "fundamentals")


@dataclass(frozen=True)
class RunRecord:
    """One run."""

    run_id: str
    name: str
    experiment_id: str
    status: str
    """MLflow's: RUNNING, FINISHED, FAILED, KILLED or SCHEDULED."""
    started: datetime
    ended: datetime | None
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    datasets: tuple[Dataset, ...]
    """The data that it names as its inputs."""

    @property
    def stage(self) -> str | None:
        return self.tags.get(STAGE)

    @property
    def parent(self) -> str | None:
        return self.tags.get(MLFLOW_PARENT_RUN_ID)


def read_run(run_id: str) -> RunRecord:
    """Raises UnknownRunError, and TrackingError where the store can't be used."""
    with usable_store():
        try:
            return _record(MlflowClient().get_run(run_id))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise UnknownRunError(run_id) from None
            raise


def runs_where(query: str) -> list[RunRecord]:
    """Of all experiments, oldest first; `query` is in MLflow's language. Raises TrackingError."""
    with usable_store():
        client = MlflowClient()
        experiments = [found.experiment_id for found in all_pages(client.search_experiments)]
        order = ["start_time ASC"]
        search = partial(client.search_runs, experiments, query, order_by=order)
        runs = all_pages(search) if experiments else []
    return [_record(run) for run in runs]


def newest(query: str, limit: int) -> list[RunRecord]:
    """The same, at most `limit`, newest first."""
    with usable_store():
        client = MlflowClient()
        experiments = [found.experiment_id for found in all_pages(client.search_experiments)]
        search = partial(client.search_runs, experiments, query, max_results=limit)
        return [_record(run) for run in search(order_by=["start_time DESC"])] if experiments else []


def of_stage(stage: str, limit: int) -> list[RunRecord]:
    """The newest of this stage. Raises TrackingError."""
    return newest(f"tags.`{STAGE}` = '{stage}'", limit)


def running(limit: int) -> list[RunRecord]:
    """Runs of ours that have not ended, or whose process died. Raises TrackingError."""
    return [run for run in newest("attributes.status = 'RUNNING'", limit) if run.stage is not None]


def children(run: RunRecord) -> list[RunRecord]:
    """Oldest first. Raises TrackingError."""
    return runs_where(f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run.run_id}'")


def traces_of(run: RunRecord) -> tuple[str, ...]:
    """Ids of the traces that were left beside it. Raises TrackingError."""
    query = f"metadata.`{TraceMetadataKey.SOURCE_RUN}` = '{run.run_id}'"
    with usable_store():
        found = MlflowClient().search_traces(
            locations=[run.experiment_id], filter_string=query, include_spans=False
        )
    return tuple(str(trace.info.trace_id) for trace in found)


def _record(run: Run) -> RunRecord:
    return RunRecord(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        experiment_id=str(run.info.experiment_id),
        status=run.info.status,
        started=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        ended=datetime.fromtimestamp(run.info.end_time / 1000, UTC) if run.info.end_time else None,
        tags=run.data.tags,
        params=run.data.params,
        metrics=run.data.metrics,
        datasets=tuple(_ours(run.inputs.dataset_inputs)) if run.inputs else (),
    )


def _ours(inputs: list[DatasetInput]) -> Iterator[Dataset]:
    """Those that `RunLog.inputs` wrote; anybody may add others."""
    for each in inputs:
        symbol, _, word = each.dataset.name.rpartition(" ")
        kind = next((known for known in KINDS if known == word), None)
        context = any(tag.key == MLFLOW_DATASET_CONTEXT for tag in each.tags)
        if kind is None or not symbol or not context:
            continue
        profile = json.loads(each.dataset.profile or "{}")
        if "sha256" not in profile:
            continue
        yield Dataset(
            symbol=symbol,
            kind=kind,
            sha256=profile["sha256"],
            source=json.loads(each.dataset.source).get("tags", {}).get(SOURCE, "unknown"),
            rows=profile["rows"],
            first=datetime.fromisoformat(profile["first"]),
            last=datetime.fromisoformat(profile["last"]),
        )
