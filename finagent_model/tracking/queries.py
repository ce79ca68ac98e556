"""Read MLflow runs back whole, as records that need no further call of the store.

Every function raises TrackingError where the store can't be used. Pages of runs are cut by start
time in milliseconds since 1970, as MLflow has it; records have UTC datetimes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType

from mlflow.entities import DatasetInput, LifecycleStage, Run
from mlflow.exceptions import MlflowException
from mlflow.tracing.constant import TraceMetadataKey
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID

from finagent_model.data.snapshots import Dataset, Kind
from finagent_model.errors import UnknownRunError
from finagent_model.tracking.local_store import open_client
from finagent_model.tracking.runs import (
    NO_SUCH_RUN,
    SOURCE,
    STAGE,
    experiment_ids,
    raise_tracking_errors,
    search_all_experiments,
)

KINDS: tuple[Kind, ...] = ("bars", "news", "fundamentals")
NO_TAGS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class RunRecord:
    """One run of MLflow's, read whole."""

    run_id: str
    name: str
    experiment_id: str
    status: str
    """MLflow's: RUNNING, FINISHED, FAILED, KILLED or SCHEDULED."""
    started_at: datetime
    ended_at: datetime | None
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    datasets: tuple[Dataset, ...]
    """The data that it names as its inputs."""
    is_deleted: bool = False
    """Whether it was thrown away in MLflow; a purge of deleted runs removes it for good."""

    @property
    def stage(self) -> str | None:
        return self.tags.get(STAGE)

    @property
    def parent_run_id(self) -> str | None:
        return self.tags.get(MLFLOW_PARENT_RUN_ID)


@dataclass(frozen=True)
class RunPage:
    """One page of runs, newest first."""

    runs: tuple[RunRecord, ...]
    older: int | None
    """The `before` of the next page, in milliseconds since 1970; None on the last page."""


def read_run(run_id: str) -> RunRecord:
    """Return the run. Raises UnknownRunError, and TrackingError where the store can't be used."""
    with raise_tracking_errors():
        try:
            return _run_record(open_client().get_run(run_id))
        except MlflowException as error:
            if error.error_code in NO_SUCH_RUN:
                raise UnknownRunError(run_id) from None
            raise


def read_runs(run_ids: Sequence[str]) -> dict[str, RunRecord]:
    """Return some runs by id in one call of the store; those that are gone are left out."""
    if not run_ids:
        return {}
    listed = ", ".join(f"'{run_id}'" for run_id in run_ids)
    return {run.run_id: run for run in search_runs(f"attributes.run_id IN ({listed})")}


def search_runs(query: str) -> list[RunRecord]:
    """Return the runs of all experiments, oldest first; `query` is in MLflow's language."""
    return [_run_record(run) for run in search_all_experiments(query)]


def list_newest_runs(query: str, limit: int, before: int | None = None) -> RunPage:
    """Return at most `limit` runs of all experiments that began `before`, newest first.

    `before` is in milliseconds since 1970; None for the first page.
    """
    if before is not None:
        query += f" and attributes.start_time < {before}"
    with raise_tracking_errors():
        client = open_client()
        experiments = experiment_ids(client)
        order = ["start_time DESC"]
        search = partial(client.search_runs, experiments, query, order_by=order)
        # One more than asked for tells whether there is another page.
        rows = list(search(max_results=limit + 1)) if experiments else []
    # Plus one, so that a run of the same millisecond that did not fit is on the next page.
    older = rows[limit].info.start_time + 1 if len(rows) > limit else None
    return RunPage(tuple(_run_record(run) for run in rows[:limit]), older)


def list_stage_runs(
    stage: str, limit: int, before: int | None = None, tags: Mapping[str, str] = NO_TAGS
) -> RunPage:
    """Return the newest runs of a stage that have all the tags, as `list_newest_runs` does."""
    filters = {STAGE: stage, **tags}
    query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in filters.items())
    return list_newest_runs(query, limit, before)


def list_running_runs(limit: int) -> RunPage:
    """Return the newest of this package's runs that have not ended, or whose process died."""
    return list_newest_runs(f"attributes.status = 'RUNNING' and tags.`{STAGE}` LIKE '%'", limit)


def find_finished_children(
    run: RunRecord, stage: str, since: datetime | None = None
) -> list[RunRecord]:
    """Return the finished children of `run` of this stage, oldest first; with `since`, only those
    that ended then or later.
    """
    query = (
        f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run.run_id}' and tags.`{STAGE}` = '{stage}' "
        "and attributes.status = 'FINISHED'"
    )
    if since is not None:
        query += f" and attributes.end_time >= {int(since.timestamp() * 1000)}"
    return search_runs(query)


def find_trace_ids(run: RunRecord) -> tuple[str, ...]:
    """Return the ids of the traces whose source run is `run`."""
    query = f"metadata.`{TraceMetadataKey.SOURCE_RUN}` = '{run.run_id}'"
    with raise_tracking_errors():
        traces = open_client().search_traces(
            locations=[run.experiment_id], filter_string=query, include_spans=False
        )
    return tuple(str(trace.info.trace_id) for trace in traces)


def _run_record(run: Run) -> RunRecord:
    end_time = run.info.end_time
    return RunRecord(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        experiment_id=str(run.info.experiment_id),
        status=run.info.status,
        started_at=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        ended_at=datetime.fromtimestamp(end_time / 1000, UTC) if end_time else None,
        tags=run.data.tags,
        params=run.data.params,
        metrics=run.data.metrics,
        datasets=tuple(_read_datasets(run.inputs.dataset_inputs)) if run.inputs else (),
        is_deleted=run.info.lifecycle_stage == LifecycleStage.DELETED,
    )


def _read_datasets(inputs: list[DatasetInput]) -> Iterator[Dataset]:
    """Yield the data sets that `RunLog.log_inputs` wrote."""
    for each in inputs:
        symbol, _, word = each.dataset.name.rpartition(" ")
        kind = next((kind for kind in KINDS if kind == word), None)
        context = any(tag.key == MLFLOW_DATASET_CONTEXT for tag in each.tags)
        # Anybody may add inputs to a run; those of another form are not ours.
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
