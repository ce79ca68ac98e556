"""Wrap a predictor as an MLflow model: a DataFrame of questions in, a DataFrame of signals out.

The output columns follow `TradingSignal` field by field, so that the two can't drift apart. Every
exception becomes a typed MLflow error, so that a server answers with one sentence and no stack
trace: 400 for bad input, 429 above the concurrency limit, 503 while the desk can't work or shuts
down, 504 after the request's timeout.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.environment_variables import (
    _MLFLOW_IS_IN_SERVING_ENVIRONMENT,
    MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT,
)
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import (
    DEADLINE_EXCEEDED,
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    REQUEST_LIMIT_EXCEEDED,
    TEMPORARILY_UNAVAILABLE,
)
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array

from finagent_model._event_loop import Deadline
from finagent_model._secrets import redact_message
from finagent_model.config.desk_config import DeskConfig
from finagent_model.decision.signal import TradingSignal, signal_columns
from finagent_model.errors import (
    BadInputError,
    CorruptPackageError,
    DeadlineError,
    FinagentError,
    LocalStateError,
    ShutdownError,
)
from finagent_model.model.anchor import ModelCheck, check_model
from finagent_model.model.model_folder import PACKAGE_FOLDER
from finagent_model.model.package import WAY_OUT
from finagent_model.model.predictor import Predictor
from finagent_model.model.questions import NESTED_COLUMNS, REQUIRED_COLUMNS, Question, parse_table
from finagent_model.settings import Settings

log = logging.getLogger(__name__)
# MLflow would check nested columns value by value, for a millisecond each, before the model is even
# asked; and it refuses the nan that pandas puts where a row brings none. So it passes them as one
# value, and `Question` checks them.
INPUT_SCHEMA = Schema(
    [
        *(ColSpec(DataType.string, name) for name in REQUIRED_COLUMNS),
        *(ColSpec(AnyType(), name, required=False) for name in NESTED_COLUMNS),
    ]
)
_COLUMN_TYPES: dict[str, DataType | Array] = {
    "string": DataType.string,
    "number": DataType.double,
    "integer": DataType.long,
    "boolean": DataType.boolean,
    "array": Array(DataType.string),
}
CHECKED: ContextVar[ModelCheck | None] = ContextVar("checked", default=None)
"""The check of the model that is being loaded, where `load_model` made it before."""
PACKAGE_ARTIFACT = "package"
"""Name of the artifact that holds the package."""
MAX_ROWS = 2_000
"""Rows of a request to a server; a batch in a notebook or a job may have any number."""
ANSWER_MARGIN_S = 5.0
"""Seconds of a server's timeout that are kept for stopping the work and answering."""
BYTECODE_FOLDER = "__pycache__"
BYTECODE_POLL_S, BYTECODE_POLLS = 0.02, 10
"""Pause, and number of pauses, while another process may load the same folder."""
ERROR_CODES: tuple[tuple[type[FinagentError], int], ...] = (
    (DeadlineError, DEADLINE_EXCEEDED),
    (ShutdownError, TEMPORARILY_UNAVAILABLE),
    (LocalStateError, TEMPORARILY_UNAVAILABLE),
    (BadInputError, INVALID_PARAMETER_VALUE),
    (FinagentError, INTERNAL_ERROR),
)
"""MLflow's code of each error class; the first that fits counts."""


def _check_folder(folder: Path, settings: Settings) -> ModelCheck:
    """Return the check of a model that other processes may load from the same folder.

    Raises as `check_model` does.
    """
    for _ in range(BYTECODE_POLLS):
        try:
            return check_model(folder, settings)
        except CorruptPackageError:
            # Python writes the bytecode of `model_code.py` there, by a passing name at first, and
            # that file's first line removes it. What stays for longer is refused.
            if not (folder / BYTECODE_FOLDER).is_dir():
                raise
        time.sleep(BYTECODE_POLL_S)
    return check_model(folder, settings)


def make_signature(config: DeskConfig) -> ModelSignature:
    """Return the model's signature, with the packaged desk's own limits as defaults."""
    return ModelSignature(
        inputs=INPUT_SCHEMA,
        outputs=Schema(_output_columns()),
        params=ParamSchema(
            [
                ParamSpec("mode", DataType.string, "cached"),
                ParamSpec("budget_usd", DataType.double, config.limits.budget_usd),
                ParamSpec("max_rounds", DataType.long, config.limits.max_rounds),
            ]
        ),
    )


def _output_columns() -> list[ColSpec | TensorSpec]:
    return [
        ColSpec(_COLUMN_TYPES[column.kind], column.name, required=not column.optional)
        for column in signal_columns()
    ]


class FinagentModel(PythonModel):
    """Load a package and answer its questions; safe to call from many threads."""

    predictor: Predictor

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` is the model's own, which holds its `model_code.py`; older ones did not say."""
        self._folder = folder

    def load_context(self, context: PythonModelContext) -> None:
        """Check the model's files and load its package. Raises ModelLoadError."""
        settings, package = Settings.load(), Path(context.artifacts[PACKAGE_ARTIFACT])
        folder = self._folder or package.parent.parent
        if not package.is_dir() or not package.samefile(folder / PACKAGE_FOLDER):
            raise CorruptPackageError(
                f"MLmodel names a package that is not {PACKAGE_FOLDER} of this model; {WAY_OUT}"
            )
        # MLflow's own loaders (`mlflow models serve`, Spark) come straight here: the check is the
        # first thing that the model's code does.
        checked = CHECKED.get()
        if checked is None:
            checked = _check_folder(folder, settings)
        self.predictor = Predictor.open(package, settings, checked)
        # Clients are imported now, so that the first request doesn't wait for it.
        self.predictor.desk.preload()
        self._slots = threading.BoundedSemaphore(settings.serve_threads)

    def stop(self) -> None:
        """Refuse new requests from now on: the process is about to end."""
        self.predictor.shutdown_requested.set()

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Return one signal a row, in the rows' order; undefined values are None, never NaN.

        Raises MlflowException with the code that a server turns into an HTTP status.
        """
        with self.admit(_mlflow_timeout_s()) as deadline:
            signals = self.signals(parse_table(model_input), params, deadline)
            rows = [signal.model_dump(mode="json") for signal in signals]
        # dtype object: pandas would turn None into NaN, which is no JSON.
        return pd.DataFrame(rows, dtype=object)

    def signals(
        self, questions: Sequence[Question], params: dict[str, Any] | None, deadline: Deadline
    ) -> list[TradingSignal]:
        """Return one signal a question, in their order. Call it within `admit`."""
        # A deadline means a server: all views of a request are in memory at once.
        if deadline.timeout_s is not None and len(questions) > MAX_ROWS:
            raise BadInputError(
                f"the request has {len(questions)} rows; at most {MAX_ROWS} at a time"
            )
        try:
            return self.predictor.signals(questions, params, deadline)
        except DeadlineError:
            raise _timeout_error(deadline, len(questions)) from None

    @contextmanager
    def admit(self, timeout_s: float | None) -> Iterator[Deadline]:
        """Hold one of the concurrency limit's slots, and yield the deadline, `timeout_s` from now.

        A server calls it before it parses a request. Every exception of the block becomes an
        MlflowException.
        """
        with _errors_as_mlflow(), self._slot():
            yield Deadline.after(timeout_s)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Hold one of the concurrency limit's slots; refuse at once where none is free."""
        if self.predictor.shutdown_requested.is_set():
            raise ShutdownError()
        # No queue here: a caller who is refused can go elsewhere, one who waits can't.
        if not self._slots.acquire(blocking=False):
            raise MlflowException(
                "more requests are waiting than this model takes on; ask again later, "
                "or raise FINAGENT_SERVE_THREADS",
                error_code=REQUEST_LIMIT_EXCEEDED,
            )
        try:
            yield
        finally:
            self._slots.release()


@contextmanager
def _errors_as_mlflow() -> Iterator[None]:
    """Turn every exception into a typed MLflow error."""
    try:
        yield
    except MlflowException:
        raise
    except FinagentError as error:
        code = next(code for kind, code in ERROR_CODES if isinstance(error, kind))
        raise MlflowException(str(error), error_code=code) from None
    except Exception as error:
        # The stack trace stays in the log: it may hold the caller's data or a path of ours.
        # MLflow's own server writes this log: nothing else would redact it.
        log.error("a request failed\n%s", redact_message(traceback.format_exc()))
        raise MlflowException(
            f"the model failed with {type(error).__name__}; the server's log says where",
            error_code=INTERNAL_ERROR,
        ) from None


def work_timeout_s(limit_s: float) -> float:
    """Return a little less than a server's time-out, so that work stops before it gives up."""
    # A quarter of a short timeout: five seconds might be all of it.
    return limit_s - min(limit_s / 4, ANSWER_MARGIN_S)


def _mlflow_timeout_s() -> float | None:
    """Return the seconds that MLflow's own server allows for the work; None outside of it."""
    # A batch in a notebook or a Spark job takes as long as it takes.
    timeout = MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
    if not (timeout.is_set() and _MLFLOW_IS_IN_SERVING_ENVIRONMENT.get()):
        return None
    return work_timeout_s(float(timeout.get()))


def _timeout_error(deadline: Deadline, rows: int) -> MlflowException:
    return MlflowException(
        f"not decided within {deadline.timeout_s:g} s (rows: {rows}), and the work was stopped; "
        "ask again, with fewer rows at a time, or serve with a longer "
        "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT",
        error_code=DEADLINE_EXCEEDED,
    )
