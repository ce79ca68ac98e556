"""Wrap a predictor as an MLflow model: a DataFrame of questions in, a DataFrame of signals out.

The output columns follow `TradingSignal` field by field, so that the two can't drift apart. Every
exception becomes a typed MLflow error, so that a server answers with one sentence and no stack
trace: 400 for bad input, 429 above the concurrency limit, 503 while the desk can't work or shuts
down, 504 after the request's timeout.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
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
from mlflow.types.schema import AnyType, Array, Object, Property

from finagent_model._event_loop import Deadline
from finagent_model._secrets import redact_message
from finagent_model.config.desk_config import DeskConfig
from finagent_model.decision.signal import signal_columns
from finagent_model.errors import (
    BadInputError,
    DeadlineError,
    FinagentError,
    LocalStateError,
    ShutdownError,
)
from finagent_model.model.predictor import Predictor
from finagent_model.settings import Settings

log = logging.getLogger(__name__)
# In a nested column MLflow takes 500.0 for a double but refuses 500, as JavaScript writes it.
# So MLflow lets any value pass here, and `BarSeries` refuses what is no number.
NUMBER = AnyType()
BAR_TYPE = Object(
    [
        Property("closed_at", DataType.string),
        *(
            Property(name, NUMBER, required=False)
            for name in ("open", "high", "low", "close", "volume", "split", "dividend")
        ),
    ]
)
NEWS_TYPE = Object(
    [
        Property("headline", DataType.string),
        *(
            Property(name, DataType.string, required=False)
            for name in ("published_at", "body", "source", "url")
        ),
    ]
)
INPUT_SCHEMA = Schema(
    [
        ColSpec(DataType.string, "symbol"),
        ColSpec(DataType.string, "as_of"),
        ColSpec(Array(BAR_TYPE), "bars", required=False),
        ColSpec(Array(NEWS_TYPE), "news", required=False),
    ]
)
_COLUMN_TYPES: dict[str, DataType | Array] = {
    "string": DataType.string,
    "number": DataType.double,
    "integer": DataType.long,
    "boolean": DataType.boolean,
    "array": Array(DataType.string),
}
PACKAGE_ARTIFACT = "package"
"""Name of the artifact that holds the package."""
ANSWER_MARGIN_S = 5.0
"""Seconds of a server's timeout that are kept for stopping the work and answering."""
ERROR_CODES: tuple[tuple[type[FinagentError], int], ...] = (
    (DeadlineError, DEADLINE_EXCEEDED),
    (ShutdownError, TEMPORARILY_UNAVAILABLE),
    (LocalStateError, TEMPORARILY_UNAVAILABLE),
    (BadInputError, INVALID_PARAMETER_VALUE),
    (FinagentError, INTERNAL_ERROR),
)
"""MLflow's code of each error class; the first that fits counts."""


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

    def load_context(self, context: PythonModelContext) -> None:
        """Load the package among the model's artifacts. Raises ModelLoadError."""
        settings = Settings.load()
        self.predictor = Predictor.open(Path(context.artifacts[PACKAGE_ARTIFACT]), settings)
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
        deadline = Deadline.after(_request_timeout_s())
        with _errors_as_mlflow(), self._slot():
            try:
                return self.predictor.predict(model_input, params, deadline)
            except DeadlineError:
                raise _timeout_error(deadline, len(model_input)) from None

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


def _request_timeout_s() -> float | None:
    """Return a little less than a scoring server's timeout, in seconds; None outside a server."""
    # A batch in a notebook or a Spark job takes as long as it takes.
    timeout = MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
    if not (timeout.is_set() and _MLFLOW_IS_IN_SERVING_ENVIRONMENT.get()):
        return None
    limit = float(timeout.get())
    # A quarter of a short timeout: five seconds might be all of it.
    return limit - min(limit / 4, ANSWER_MARGIN_S)


def _timeout_error(deadline: Deadline, rows: int) -> MlflowException:
    return MlflowException(
        f"not decided within {deadline.timeout_s:g} s (rows: {rows}), and the work was stopped; "
        "ask again, with fewer rows at a time, or serve with a longer "
        "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT",
        error_code=DEADLINE_EXCEEDED,
    )
