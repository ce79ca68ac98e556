"""MLflow runs, written through a client by id: no global active run, so that tasks may share one.

Which store, which experiment and which run a project was given stay MLflow's own conventions
(MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, MLFLOW_RUN_ID); without any of them it is the SQLite
file in the working directory and the experiment `finagent`.
"""

from __future__ import annotations

import json
import math
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import mlflow
import requests
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    Metric,
    Param,
    RunTag,
)
from mlflow.environment_variables import (
    MLFLOW_EXPERIMENT_ID,
    MLFLOW_EXPERIMENT_NAME,
    MLFLOW_RUN_ID,
)
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_GIT_COMMIT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NAME,
    MLFLOW_RUN_NOTE,
)
from sqlalchemy.exc import SQLAlchemyError

from finagent_model._redact import redact_addresses
from finagent_model.data.snapshots import Dataset as Data
from finagent_model.errors import TrackingError

EXPERIMENT = "finagent"
STAGE, REQUEST, PROCESS = "finagent.stage", "finagent.request", "finagent.process"
COMMIT = MLFLOW_GIT_COMMIT
SOURCE = "finagent.source"
BATCH = 1000
"""Metrics, and data sets, that MLflow takes in one call."""
Context = Literal["training", "backtest", "inference"]
_OLDEST_FIRST = ["start_time ASC"]


class RunLog:
    """One run of the store, by id."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._client = MlflowClient()

    def log(
        self,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """All of it in one call of the store: each costs as much as the next.

        Of `params` those that `mlflow run` has not logged already, as it was given them; of
        `metrics` what is defined, since MLflow has no word for undefined.
        """
        given = MLFLOW_RUN_ID.get() == self.run_id and bool(params)
        known = self._client.get_run(self.run_id).data.params if given else {}
        self._client.log_batch(
            self.run_id,
            [Metric(k, v, 0, 0) for k, v in (metrics or {}).items() if math.isfinite(v)],
            [Param(k, str(v)) for k, v in (params or {}).items() if k not in known],
            [RunTag(k, v) for k, v in (tags or {}).items()],
        )

    def curve(self, name: str, values: Sequence[float], stamps: Sequence[int]) -> None:
        """One metric over steps; `stamps` are milliseconds since 1970 of the market's clock."""
        pairs = enumerate(zip(values, stamps, strict=True))
        self._batches([Metric(name, float(v), at, step) for step, (v, at) in pairs])

    def tags(self, values: Mapping[str, str]) -> None:
        self.log(tags=values)

    def inputs(
        self, datasets: Sequence[Data], context: Context, model_id: str | None = None
    ) -> None:
        """Name the data that the run looked at, and the logged model that it asked. The data
        themselves are not logged.
        """
        tag = InputTag(MLFLOW_DATASET_CONTEXT, context)
        given = [DatasetInput(_named(each), [tag]) for each in datasets]
        models = [LoggedModelInput(model_id)] if model_id else []
        for start in range(0, max(len(given), 1), BATCH):
            some = given[start : start + BATCH]
            try:
                self._client.log_inputs(self.run_id, some, models)
            except MlflowException:
                # Another run may name one for the first time at this moment; now it is there.
                self._client.log_inputs(self.run_id, some, models)

    def describe(self, text: str) -> None:
        """Markdown that MLflow's page of the run shows as its description."""
        self.tags({MLFLOW_RUN_NOTE: text})

    def text(self, name: str, text: str) -> None:
        """Write `text` as the artifact `name`."""
        self._client.log_text(self.run_id, text, name)

    def json(self, name: str, value: Any) -> None:
        self.text(name, as_json(value))

    def files(self, folder: Path, under: str | None = None) -> None:
        """Everything in `folder` becomes an artifact under its own name."""
        self._client.log_artifacts(self.run_id, str(folder), under)

    @property
    def experiment_id(self) -> str:
        return str(self._client.get_run(self.run_id).info.experiment_id)

    def tag(self, name: str) -> str | None:
        """Raises TrackingError when there is no such run."""
        try:
            value: str | None = self._client.get_run(self.run_id).data.tags.get(name)
        except MlflowException as error:
            raise TrackingError(
                f"run {self.run_id} can't be read from {mlflow.get_tracking_uri()}: {error}; "
                "set MLFLOW_TRACKING_URI to the store that has it"
            ) from None
        return value

    def has(self, name: str) -> bool:
        """Whether there is an artifact of that name, in no folder. Raises TrackingError."""
        with usable_store():
            return any(found.path == name for found in self._client.list_artifacts(self.run_id))

    def read(self, name: str) -> bytes:
        """The artifact's content. Raises TrackingError when it is not there."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = self._client.download_artifacts(self.run_id, name, folder)
            except (MlflowException, OSError) as error:
                raise TrackingError(
                    f"run {self.run_id} has no artifact {name!r}: {error}"
                ) from None
            return Path(path).read_bytes()

    def find(self, name: str) -> bytes | None:
        """The artifact's content; None where there is no such artifact, or no such run. Raises
        TrackingError where the store can't tell.
        """
        with usable_store():
            try:
                there = any(f.path == name for f in self._client.list_artifacts(self.run_id))
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise
        return self.read(name) if there else None

    def read_json(self, name: str) -> dict[str, Any]:
        """What `read` gives, of a JSON object."""
        value: dict[str, Any] = json.loads(self.read(name))
        return value

    def resume(self) -> None:
        """Somebody is at work on it again."""
        self._client.update_run(self.run_id, "RUNNING")

    def end(self, status: Literal["FINISHED", "FAILED"]) -> None:
        self._client.set_terminated(self.run_id, status)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Mark the run as failed if the block raises. TrackingError for what the store raised; one
        that is gone can't be told, and the next that works alone marks the run.
        """
        try:
            yield
        except BaseException as error:
            with suppress(*_troubles()):
                self.end("FAILED")
            if isinstance(error, _troubles()):
                raise _unusable(error) from None
            raise

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make it the process's active run for calls that need one; ends it."""
        with mlflow.start_run(run_id=self.run_id, nested=True):
            yield

    def _batches(self, metrics: list[Metric]) -> None:
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(self.run_id, metrics=metrics[start : start + BATCH])


def open_run(
    name: str, tags: Mapping[str, str], parent: str | None = None, *, alone: bool = False
) -> RunLog:
    """A new run, or the one that `mlflow run` opened for us. Raises TrackingError.

    `alone` says that this process does all of it, and that nobody goes on if it dies: who comes
    next marks the run as killed.
    """
    given = MLFLOW_RUN_ID.get() if parent is None else None
    if alone:
        _kill_orphaned_runs()
        tags = {**tags, PROCESS: f"{socket.gethostname()}:{os.getpid()}"}
    with usable_store():
        if given:
            log = RunLog(given)
            log.tags({**tags, MLFLOW_RUN_NAME: name})
            return log
        above = {MLFLOW_PARENT_RUN_ID: parent} if parent else {}
        run = MlflowClient().create_run(_experiment(), run_name=name, tags={**tags, **above})
        return RunLog(run.info.run_id)


def as_json(value: Any) -> str:
    """As every JSON artifact is written."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _named(data: Data) -> Dataset:
    """MLflow's word for it; its page shows the source, and the profile beside the name."""
    profile = {name: data.row()[name] for name in ("sha256", "rows", "first", "last")}
    source = {"tags": {SOURCE: data.source}}
    return Dataset(data.name, data.digest, "code", json.dumps(source), profile=json.dumps(profile))


def runs_tagged(name: str, value: str) -> list[RunLog]:
    """The runs of all experiments that carry the tag, oldest first. Raises TrackingError."""
    with usable_store():
        client = MlflowClient()
        experiments = [found.experiment_id for found in all_pages(client.search_experiments)]
        query = f"tags.`{name}` = '{value}'"
        search = partial(client.search_runs, experiments, query, order_by=_OLDEST_FIRST)
        runs = all_pages(search) if experiments else []
    return [RunLog(run.info.run_id) for run in runs]


def runs_below(parent: str, tags: Mapping[str, str]) -> list[RunLog]:
    """The runs whose parent it is that carry all the tags, oldest first. Raises TrackingError."""
    wanted = {MLFLOW_PARENT_RUN_ID: parent, **tags}
    query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in wanted.items())
    with usable_store():
        client, experiments = MlflowClient(), [_experiment()]
        search = partial(client.search_runs, experiments, query, order_by=_OLDEST_FIRST)
        return [RunLog(run.info.run_id) for run in all_pages(search)]


def all_pages(search: Callable[..., PagedList[Any]]) -> list[Any]:
    """Whatever a search of MLflow finds, beyond its first page."""
    page = search()
    found = list(page)
    while page.token:
        page = search(page_token=page.token)
        found += page
    return found


@contextmanager
def usable_store() -> Iterator[None]:
    """Raises TrackingError for whatever MLflow raises in the block."""
    try:
        yield
    except _troubles(OSError) as error:
        raise _unusable(error) from None


def as_tracking_error(error: Exception) -> TrackingError | None:
    """The same, for an error that got away; None where it is not of MLflow."""
    return _unusable(error) if isinstance(error, _troubles()) else None


def _troubles(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What MLflow raises, or the client of its object store where this process talks to one."""
    kinds: list[type[Exception]] = [MlflowException, SQLAlchemyError, requests.RequestException]
    kinds += more
    if "boto3" in sys.modules:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        kinds += [Boto3Error, BotoCoreError, ClientError]
    return tuple(kinds)


def _unusable(error: Exception) -> TrackingError:
    said = f"the MLflow store {mlflow.get_tracking_uri()} can't be used: {error}; "
    return TrackingError(
        redact_addresses(said)
        + "set MLFLOW_TRACKING_URI to one that can be written, or run the command again once it can"
    )


def _kill_orphaned_runs() -> None:
    """Mark runs as killed whose process, on this host, is gone, and with each the runs below it
    that it left running.
    """
    query = f"tags.`{PROCESS}` LIKE '{socket.gethostname()}:%' and attributes.status = 'RUNNING'"
    with usable_store():
        client = MlflowClient()
        for run in client.search_runs([_experiment()], query):
            if is_process_dead(run.data.tags.get(PROCESS, "")):
                kill_children(run.info.run_id)
                client.set_terminated(run.info.run_id, "KILLED")


def is_process_dead(process: str) -> bool:
    """Whether it was one of this host, by its tag, and has ended."""
    host, _, pid = process.rpartition(":")
    return host == socket.gethostname() and pid.isdigit() and not _process_exists(int(pid))


def kill_children(run_id: str) -> None:
    """Mark as killed what was left running below a run, on which nobody is at work any more."""
    query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}' and attributes.status = 'RUNNING'"
    with usable_store():
        client = MlflowClient()
        for child in all_pages(partial(client.search_runs, [_experiment()], query)):
            kill_children(child.info.run_id)
            client.set_terminated(child.info.run_id, "KILLED")


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # there, and somebody else's
    return True


def experiment_id() -> str:
    """Of the experiment to write to, created if it isn't there yet. Raises TrackingError."""
    with usable_store():
        return _experiment()


def _experiment() -> str:
    """Created once, whoever comes first."""
    if given := MLFLOW_EXPERIMENT_ID.get():
        return str(given)
    name = MLFLOW_EXPERIMENT_NAME.get() or EXPERIMENT
    client = MlflowClient()
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:
        # Another process was faster, or the store refuses; the lookup tells which.
        if found := client.get_experiment_by_name(name):
            return str(found.experiment_id)
        raise
