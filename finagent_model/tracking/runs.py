"""Write MLflow runs through a client by run id, without a global active run.

Parallel tasks of one process can so write to different runs. Which store, which experiment and
which run to use stay MLflow's own conventions (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME,
MLFLOW_RUN_ID); without any of them it is the SQLite file in the working directory and the
experiment `finagent`. What MLflow raises leaves this package as TrackingError.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import socket
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import mlflow
import requests
from mlflow.artifacts import download_artifacts, list_artifacts
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    Metric,
    Param,
    Run,
    RunTag,
    ViewType,
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
from mlflow.utils.uri import append_to_uri_path
from sqlalchemy.exc import SQLAlchemyError

from finagent_model._base import dump_json
from finagent_model._local_files import ScratchFolder
from finagent_model._secrets import find_address_secrets, redact_message
from finagent_model.data.snapshots import Dataset as DataSnapshot
from finagent_model.errors import TrackingError
from finagent_model.tracking.local_store import open_client

log = logging.getLogger(__name__)
EXPERIMENT = "finagent"
DEFAULT_EXPERIMENT = "0"
"""Id of MLflow's experiment `Default`."""
STAGE, REQUEST, PROCESS = "finagent.stage", "finagent.request", "finagent.process"
COMMIT = MLFLOW_GIT_COMMIT
SOURCE = "finagent.source"
BATCH = 1000
"""Metrics, and data sets, that MLflow takes in one call."""
NO_SUCH_RUN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's error codes for an unknown run and for a malformed run id."""
Context = Literal["training", "backtest", "inference"]
_OLDEST_FIRST = ["start_time ASC"]
_FAILED_REQUEST = re.compile(r"API request to \S+ failed with exception (.*)")
_CONNECTION_TROUBLES = (
    ("NameResolutionError|Name or service not known", "no host of that name was found"),
    ("Connection refused", "nothing listens at that address (connection refused)"),
    ("[Cc]ertificate verify|CERTIFICATE_VERIFY", "its TLS certificate was not accepted"),
    ("SSLError|SSL:", "it does not speak TLS as this program does; is its address http://?"),
    ("Timeout|timed out", "it did not answer in time"),
    ("ConnectionReset|RemoteDisconnected|Connection aborted", "it closed the connection"),
)
"""Signs in the text of a failed request to MLflow's server, and what they mean."""


class RunLog:
    """One run of the store, written and read by its id."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._client = open_client()

    @property
    def experiment_id(self) -> str:
        return str(self._client.get_run(self.run_id).info.experiment_id)

    def log(
        self,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log params, metrics and tags in one `log_batch` (one round trip).

        Metrics that are not finite are left out: MLflow has no value for undefined. Secrets are
        redacted in params.
        """
        # `mlflow run` has logged its parameters already, as text that it was called with; MLflow
        # refuses a second value that differs.
        given = params or {}
        is_given_run = MLFLOW_RUN_ID.get() == self.run_id and bool(given)
        logged = self._client.get_run(self.run_id).data.params if is_given_run else {}
        self._client.log_batch(
            self.run_id,
            [Metric(k, v, 0, 0) for k, v in (metrics or {}).items() if math.isfinite(v)],
            [Param(k, redact_message(str(v))) for k, v in given.items() if k not in logged],
            [RunTag(k, v) for k, v in (tags or {}).items()],
        )

    def log_missing_params(self, params: Mapping[str, Any]) -> None:
        """Log those of `params` that the run has no value of yet: MLflow refuses another one."""
        logged = self._client.get_run(self.run_id).data.params
        self.log(params={name: value for name, value in params.items() if name not in logged})

    def log_series(self, name: str, values: Sequence[float], stamps: Sequence[int]) -> None:
        """Log one metric over steps; `stamps` are milliseconds since 1970 of the market's clock."""
        rows = enumerate(zip(values, stamps, strict=True))
        metrics = [Metric(name, float(value), at, step) for step, (value, at) in rows]
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(self.run_id, metrics=metrics[start : start + BATCH])

    def log_inputs(
        self, datasets: Sequence[DataSnapshot], context: Context, model_id: str | None = None
    ) -> None:
        """Log which data the run used, and which logged model; the data themselves are not logged.

        `context` is MLflow's word for what the data were used for.
        """
        tag = InputTag(MLFLOW_DATASET_CONTEXT, context)
        inputs = [DatasetInput(_mlflow_dataset(each), [tag]) for each in datasets]
        models = [LoggedModelInput(model_id)] if model_id else []
        for start in range(0, max(len(inputs), 1), BATCH):
            batch = inputs[start : start + BATCH]
            try:
                self._client.log_inputs(self.run_id, batch, models)
            except MlflowException:
                # Retry once: another run may have named a data set for the first time at this
                # moment, and the store refuses the second insert. Now the row is there.
                self._client.log_inputs(self.run_id, batch, models)

    def log_text(self, name: str, text: str) -> None:
        """Write `text` as the artifact `name`."""
        self._client.log_text(self.run_id, text, name)

    def log_json(self, name: str, value: Any) -> None:
        """Write `value` as the JSON artifact `name`."""
        self.log_text(name, dump_json(value))

    def log_files(self, folder: Path, artifact_path: str | None = None) -> None:
        """Write every file in `folder` as an artifact under its own name."""
        self._client.log_artifacts(self.run_id, str(folder), artifact_path)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, replacing earlier values."""
        self.log(tags=tags)

    def set_description(self, text: str) -> None:
        """Set the Markdown that MLflow's page of the run shows as its description."""
        self.set_tags({MLFLOW_RUN_NOTE: text})

    def get_tag(self, name: str) -> str | None:
        """Return the tag, None where the run has none. Raises TrackingError for an unknown run."""
        try:
            value: str | None = self._client.get_run(self.run_id).data.tags.get(name)
        except MlflowException as error:
            raise TrackingError(
                f"run {self.run_id} can't be read from {_tracking_address()}: "
                f"{describe_store_error(error)}; "
                "set MLFLOW_TRACKING_URI to the store that has it"
            ) from None
        return value

    def has_artifact(self, name: str) -> bool:
        """Return whether there is an artifact of that name, in no folder. Raises TrackingError."""
        with raise_tracking_errors():
            return self._has_artifact(name)

    def read_artifact(self, name: str) -> bytes:
        """Return the artifact's content. Raises TrackingError when it is not there."""
        with ScratchFolder() as folder:
            try:
                path = self._client.download_artifacts(self.run_id, name, str(folder))
            except store_errors(OSError) as error:
                raise TrackingError(
                    f"run {self.run_id} has no artifact {name!r}: {describe_store_error(error)}"
                ) from None
            return Path(path).read_bytes()

    def find_artifact(self, name: str) -> bytes | None:
        """Return the artifact's content, None for no such artifact or no such run.

        Raises TrackingError where the store can't tell.
        """
        with raise_tracking_errors():
            try:
                exists = self._has_artifact(name)
            except MlflowException as error:
                if error.error_code in NO_SUCH_RUN:
                    return None
                raise
        return self.read_artifact(name) if exists else None

    def find_artifacts(self, names: Collection[str]) -> dict[str, bytes]:
        """Return the contents, by name, of those artifacts that the run has in no folder.

        Raises TrackingError where the store can't tell.
        """
        with raise_tracking_errors(), ScratchFolder() as folder:
            # By address: by run id each file would read the run twice.
            root = str(self._client.get_run(self.run_id).info.artifact_uri)
            listed = list_artifacts(artifact_uri=root) or []
            present = {PurePosixPath(file.path).name for file in listed if not file.is_dir}
            return {
                name: Path(
                    download_artifacts(append_to_uri_path(root, name), dst_path=str(folder))
                ).read_bytes()
                for name in names
                if name in present
            }

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the JSON object in the artifact. Raises TrackingError when it is not there."""
        value: dict[str, Any] = json.loads(self.read_artifact(name))
        return value

    def resume(self) -> None:
        """Mark the run as running again."""
        self._client.update_run(self.run_id, "RUNNING")

    def end(self, status: Literal["FINISHED", "FAILED"]) -> None:
        """Mark the run as ended."""
        self._client.set_terminated(self.run_id, status)

    @contextmanager
    def failed_on_error(self) -> Iterator[None]:
        """Mark the run as failed if the block raises, and raise on.

        Raises TrackingError for what the store raised.
        """
        try:
            yield
        except BaseException as error:
            # A store that is gone can't be told, and must not hide the first error. The next
            # process that works alone marks the run (`_kill_orphaned_runs`).
            with suppress(*store_errors()):
                self.end("FAILED")
            if isinstance(error, store_errors()):
                raise _tracking_error(error) from None
            raise

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this the process's active run, for calls of MLflow that need one; then end it."""
        with mlflow.start_run(run_id=self.run_id, nested=True):
            yield

    def _has_artifact(self, name: str) -> bool:
        return any(file.path == name for file in self._client.list_artifacts(self.run_id))


def open_run(
    name: str,
    tags: Mapping[str, str],
    parent: str | None = None,
    *,
    single_process: bool = False,
) -> RunLog:
    """Create a run, or take over the one that `mlflow run` opened. Raises TrackingError.

    `single_process` says that this process does all of the run's work. If the process dies, nobody
    goes on, and the next such process on this host marks the run as killed.
    """
    given_run = MLFLOW_RUN_ID.get() if parent is None else None
    if single_process:
        _kill_orphaned_runs()
        tags = {**tags, PROCESS: f"{socket.gethostname()}:{os.getpid()}"}
    with raise_tracking_errors():
        if given_run:
            run = RunLog(given_run)
            run.set_tags({**tags, MLFLOW_RUN_NAME: name})
            _say_where(run)
            return run
        if parent:
            tags = {**tags, MLFLOW_PARENT_RUN_ID: parent}
        created = open_client().create_run(_experiment(), run_name=name, tags=dict(tags))
        return RunLog(created.info.run_id)


def _say_where(run: RunLog) -> None:
    """Log a warning where `mlflow run` opened the run outside the experiment of all others."""
    # MLflow opens it before this code starts, and a run can't be moved.
    if run.experiment_id == DEFAULT_EXPERIMENT and MLFLOW_EXPERIMENT_NAME.get() is None:
        log.warning(
            "run %s is in MLflow's experiment Default, where `mlflow run` opened it; "
            "`mlflow run --experiment-name %s`, or MLFLOW_EXPERIMENT_NAME=%s in the environment, "
            "puts the next one beside the others. Pages, lineage and gate find it in any",
            run.run_id,
            EXPERIMENT,
            EXPERIMENT,
        )


def find_runs_by_tag(name: str, value: str) -> list[RunLog]:
    """Return the runs of all experiments that have the tag, oldest first. Raises TrackingError."""
    return [RunLog(run.info.run_id) for run in search_all_experiments(f"tags.`{name}` = '{value}'")]


def find_child_runs(parent: str, tags: Mapping[str, str]) -> list[RunLog]:
    """Return the children of run `parent` that have all the tags, oldest first. Raises
    TrackingError.
    """
    filters = {MLFLOW_PARENT_RUN_ID: parent, **tags}
    query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in filters.items())
    # In any experiment: `mlflow run` may have opened the parent in another one.
    return [RunLog(run.info.run_id) for run in search_all_experiments(query)]


def search_all_experiments(query: str, *, deleted: bool = False) -> list[Run]:
    """Return MLflow's runs of all experiments, oldest first; `query` is in MLflow's language.

    `deleted` includes runs that were deleted and not yet purged. Raises TrackingError.
    """
    view = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY
    with raise_tracking_errors():
        client = open_client()
        experiments = experiment_ids(client)
        search = partial(client.search_runs, experiments, query, view, order_by=_OLDEST_FIRST)
        return all_pages(search) if experiments else []


def experiment_ids(client: MlflowClient) -> list[str]:
    """Return the ids of all experiments."""
    return [each.experiment_id for each in all_pages(client.search_experiments)]


def experiment_id() -> str:
    """Return the id of the experiment to write to, created if missing. Raises TrackingError."""
    with raise_tracking_errors():
        return _experiment()


def all_pages(search: Callable[..., PagedList[Any]]) -> list[Any]:
    """Return every row of a search of MLflow, beyond its first page."""
    page = search()
    rows = list(page)
    while page.token:
        page = search(page_token=page.token)
        rows += page
    return rows


def kill_children(run_id: str) -> None:
    """Mark the running descendants of a run as killed. Raises TrackingError."""
    query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}' and attributes.status = 'RUNNING'"
    with raise_tracking_errors():
        client = open_client()
        for child in search_all_experiments(query):
            kill_children(child.info.run_id)
            client.set_terminated(child.info.run_id, "KILLED")


def is_process_dead(process: str) -> bool:
    """Return whether `process`, a run's tag `host:pid`, names a process of this host that ended."""
    host, _, pid = process.rpartition(":")
    return host == socket.gethostname() and pid.isdigit() and not _process_exists(int(pid))


@contextmanager
def raise_tracking_errors() -> Iterator[None]:
    """Turn whatever MLflow raises in the block into TrackingError."""
    try:
        yield
    except store_errors(OSError) as error:
        raise _tracking_error(error) from None


def as_tracking_error(error: Exception) -> TrackingError | None:
    """Return the TrackingError for an error of MLflow's store, None for any other."""
    return _tracking_error(error) if isinstance(error, store_errors()) else None


def store_errors(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """Return the exception classes that MLflow's store and its artifact store raise, and `more`."""
    stores = (MlflowException, SQLAlchemyError, requests.RequestException)
    return (*stores, *_object_store_errors(), *more)


def describe_store_error(error: Exception) -> str:
    """Return an error of the store in one line, without the credentials of the store's address."""
    # Python code may have set the address: then no variable of the environment has its password.
    # Without SQLAlchemy's links to its manual.
    text = re.sub(r"\(Background on this error at: \S+\)", "", str(error))
    line = " ".join(text.split()) or type(error).__name__
    if match := _FAILED_REQUEST.search(line):
        # The rest is the HTTP library's nest of exceptions, which says no more.
        causes = (words for sign, words in _CONNECTION_TROUBLES if re.search(sign, match[1]))
        line = next(causes, line)
    return redact_message(line, find_address_secrets(mlflow.get_tracking_uri()))


def _kill_orphaned_runs() -> None:
    """Mark runs of dead processes of this host as killed, with the runs below them."""
    query = f"tags.`{PROCESS}` LIKE '{socket.gethostname()}:%' and attributes.status = 'RUNNING'"
    with raise_tracking_errors():
        client = open_client()
        for run in search_all_experiments(query):
            if is_process_dead(run.data.tags.get(PROCESS, "")):
                kill_children(run.info.run_id)
                client.set_terminated(run.info.run_id, "KILLED")


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # there, and somebody else's
    return True


def _experiment() -> str:
    """Return the id of the experiment to write to, created if it isn't there."""
    if given_id := MLFLOW_EXPERIMENT_ID.get():
        return str(given_id)
    name = MLFLOW_EXPERIMENT_NAME.get() or EXPERIMENT
    client = open_client()
    if experiment := client.get_experiment_by_name(name):
        return str(experiment.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:
        # Another process was faster, or the store refuses; the second lookup tells which.
        if experiment := client.get_experiment_by_name(name):
            return str(experiment.experiment_id)
        raise


def _mlflow_dataset(data: DataSnapshot) -> Dataset:
    """Return MLflow's record of a data set: its page shows the source, and the profile."""
    profile = {name: data.row()[name] for name in ("sha256", "rows", "first", "last")}
    source = {"tags": {SOURCE: data.source}}
    return Dataset(data.name, data.digest, "code", json.dumps(source), profile=json.dumps(profile))


def _object_store_errors() -> tuple[type[Exception], ...]:
    # boto3 takes long to import. If nobody has imported it, it can't have raised anything.
    if "boto3" not in sys.modules:
        return ()
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    return Boto3Error, BotoCoreError, ClientError


def _tracking_error(error: Exception) -> TrackingError:
    if isinstance(error, _object_store_errors()):
        return TrackingError(
            f"the object store can't be used: {describe_store_error(error)}; see its keys "
            "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) and its address (MLFLOW_S3_ENDPOINT_URL)"
        )
    return TrackingError(
        f"the MLflow store {_tracking_address()} can't be used: {describe_store_error(error)}; "
        "set MLFLOW_TRACKING_URI to one that can be written, or run the command again once it can"
    )


def _tracking_address() -> str:
    uri = mlflow.get_tracking_uri()
    return redact_message(uri, find_address_secrets(uri))
