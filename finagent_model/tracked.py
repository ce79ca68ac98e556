"""What MLflow knows of our runs, for those who only look: trainings, ablations, what is at work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from finagent_model.errors import UnknownRunError
from finagent_model.tracking import STAGE, usable_store


@dataclass(frozen=True)
class Tracked:
    """One run, as the store had it when it was asked."""

    run_id: str
    experiment_id: str
    name: str
    stage: str | None
    status: str
    """MLflow's: RUNNING, FINISHED, FAILED, KILLED or SCHEDULED."""
    started: datetime | None
    ended: datetime | None
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def parent_id(self) -> str | None:
        return self.tags.get(MLFLOW_PARENT_RUN_ID)


def runs_of(stage: str, limit: int) -> list[Tracked]:
    """The newest of this stage, of every experiment. Raises TrackingError."""
    return _search(f"tags.`{STAGE}` = '{stage}'", limit)


def running(limit: int) -> list[Tracked]:
    """Runs of ours that have not ended, or whose process died. Raises TrackingError."""
    found = _search("attributes.status = 'RUNNING'", limit)
    return [run for run in found if run.stage is not None]


def run_of(run_id: str) -> Tracked:
    """Raises UnknownRunError, and TrackingError where the store can't be used."""
    with usable_store():
        try:
            return _tracked(MlflowClient().get_run(run_id))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise UnknownRunError(run_id) from None
            raise


def children(run: Tracked) -> list[Tracked]:
    """Oldest first. Raises TrackingError."""
    query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run.run_id}'"
    with usable_store():
        found = MlflowClient().search_runs([run.experiment_id], query)
    return sorted((_tracked(each) for each in found), key=lambda each: str(each.started))


def _search(query: str, limit: int) -> list[Tracked]:
    with usable_store():
        client = MlflowClient()
        experiments = [each.experiment_id for each in client.search_experiments()]
        search = partial(client.search_runs, experiments, query, max_results=limit)
        found: Sequence[Run] = search(order_by=["start_time DESC"]) if experiments else []
        return [_tracked(run) for run in found]


def _tracked(run: Run) -> Tracked:
    info, data = run.info, run.data
    return Tracked(
        run_id=info.run_id,
        experiment_id=str(info.experiment_id),
        name=info.run_name or info.run_id,
        stage=data.tags.get(STAGE),
        status=info.status,
        started=_moment(info.start_time),
        ended=_moment(info.end_time),
        params=dict(data.params),
        metrics=dict(data.metrics),
        tags=dict(data.tags),
    )


def _moment(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
