"""Runs as MLflow has them, read back whole: what `tracking.py` and MLflow itself wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType

from mlflow.entities import DatasetInput, Run
from mlflow.exceptions import MlflowException
from mlflow.tracing.constant import TraceMetadataKey
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID

from finagent_model.data.snapshots import Dataset, Kind
from finagent_model.errors import UnknownRunError
from finagent_model.tracking.runs import SOURCE, STAGE, all_pages, usable_store

KINDS: tuple[Kind, ...] = ("bars", "news", "fundamentals")
NO_TAGS: Mapping[str, str] = MappingProxyType({})


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


@dataclass(frozen=True)
class RunPage:
    """Some of the runs that were asked for, the newest first."""

    runs: tuple[RunRecord, ...]
    older: int | None
    """Milliseconds since 1970 before which those began that did not fit; None: there are none."""


def newest_runs(query: str, limit: int, before: int | None = None) -> RunPage:
    """At most `limit` of all experiments, of those that began `before`, in milliseconds since 1970,
    or of all. Raises TrackingError.
    """
    if before is not None:
        query += f" and attributes.start_time < {before}"
    with usable_store():
        client = MlflowClient()
        experiments = [found.experiment_id for found in all_pages(client.search_experiments)]
        order = ["start_time DESC"]
        search = partial(client.search_runs, experiments, query, order_by=order)
        found = list(search(max_results=limit + 1)) if experiments else []
    older = found[limit].info.start_time + 1 if len(found) > limit else None
    return RunPage(tuple(_record(run) for run in found[:limit]), older)


def of_stage(
    stage: str, limit: int, before: int | None = None, tags: Mapping[str, str] = NO_TAGS
) -> RunPage:
    """The newest of this stage that carry all the tags. Raises TrackingError."""
    wanted = {STAGE: stage, **tags}
    query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in wanted.items())
    return newest_runs(query, limit, before)


def running(limit: int) -> RunPage:
    """Runs of ours that have not ended, or whose process died. Raises TrackingError."""
    return newest_runs(f"attributes.status = 'RUNNING' and tags.`{STAGE}` LIKE '%'", limit)


def finished_below(run: RunRecord, stage: str, since: datetime | None = None) -> list[RunRecord]:
    """The runs of this stage whose parent it is that have finished, `since` then or ever; oldest
    first. Raises TrackingError.
    """
    query = (
        f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run.run_id}' and tags.`{STAGE}` = '{stage}' "
        "and attributes.status = 'FINISHED'"
    )
    if since is not None:
        query += f" and attributes.end_time >= {int(since.timestamp() * 1000)}"
    return runs_where(query)


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
