"""The desk as an MLflow model: a DataFrame of questions in, a DataFrame of signals out.

The output columns follow `TradingSignal` field by field, so that the two can't drift apart.

Every escape becomes a typed MLflow error, so that a server answers with one sentence and no stack
trace: 400 for a request that can't be asked, 429 when more are waiting than the model takes on, 503
where the desk can't work for a while, 504 for what did not end in time.
"""

from __future__ import annotations

import logging
import threading
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

NUMBER = AnyType()
"""In a nested column MLflow takes 500.0 for a double but refuses 500, as JavaScript writes it.
So MLflow lets any value pass here, and `BarSeries` refuses what is no number.
"""
BAR = Object(
    [
        Property("closed_at", DataType.string),
        *(
            Property(name, NUMBER, required=False)
            for name in ("open", "high", "low", "close", "volume", "split", "dividend")
        ),
    ]
)
NEWS = Object(
    [
        Property("headline", DataType.string),
        *(
            Property(name, DataType.string, required=False)
            for name in ("published_at", "body", "source", "url")
        ),
    ]
)
INPUTS = Schema(
    [
        ColSpec(DataType.string, "symbol"),
        ColSpec(DataType.string, "as_of"),
        ColSpec(Array(BAR), "bars", required=False),
        ColSpec(Array(NEWS), "news", required=False),
    ]
)
_TYPES: dict[str, DataType | Array] = {
    "string": DataType.string,
    "number": DataType.double,
    "integer": DataType.long,
    "boolean": DataType.boolean,
    "array": Array(DataType.string),
}


def signature(config: DeskConfig) -> ModelSignature:
    """The limits' defaults are the packaged desk's own."""
    return ModelSignature(
        inputs=INPUTS,
        outputs=Schema(_outputs()),
        params=ParamSchema(
            [
                ParamSpec("mode", DataType.string, "cached"),
                ParamSpec("budget_usd", DataType.double, config.limits.budget_usd),
                ParamSpec("max_rounds", DataType.long, config.limits.max_rounds),
            ]
        ),
    )


def _outputs() -> list[ColSpec | TensorSpec]:
    return [
        ColSpec(_TYPES[column.kind], column.name, required=not column.optional)
        for column in signal_columns()
    ]


log = logging.getLogger(__name__)
PACKAGE = "package"
"""Name of the artifact that holds the package."""
MARGIN_S = 5.0
"""What a request's deadline leaves of a server's time-out, to stop the work and to answer in; a
quarter of a short one.
"""
CODES: tuple[tuple[type[FinagentError], int], ...] = (
    (DeadlineError, DEADLINE_EXCEEDED),
    (ShutdownError, TEMPORARILY_UNAVAILABLE),
    (LocalStateError, TEMPORARILY_UNAVAILABLE),
    (BadInputError, INVALID_PARAMETER_VALUE),
    (FinagentError, INTERNAL_ERROR),
)
"""The first that fits."""


class FinagentModel(PythonModel):
    """Loads a package and answers; safe to call from many threads."""

    predictor: Predictor

    def load_context(self, context: PythonModelContext) -> None:
        settings = Settings.load()
        self.predictor = Predictor.open(Path(context.artifacts[PACKAGE]), settings)
        self.predictor.desk.preload()
        self._seats = threading.BoundedSemaphore(settings.serve_threads)

    def stop(self) -> None:
        """Take on no more requests: the process is about to end."""
        self.predictor.ending.set()

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """One signal a row, in the rows' order; undefined values are None, never NaN."""
        deadline = Deadline.after(_within_s())
        with _typed_errors(), self._seat():
            try:
                return self.predictor.predict(model_input, params, deadline)
            except DeadlineError:
                raise _too_late(deadline, len(model_input)) from None

    @contextmanager
    def _seat(self) -> Iterator[None]:
        if self.predictor.ending.is_set():
            raise ShutdownError()
        if not self._seats.acquire(blocking=False):
            raise MlflowException(
                "more requests are waiting than this model takes on; ask again later, "
                "or raise FINAGENT_SERVE_THREADS",
                error_code=REQUEST_LIMIT_EXCEEDED,
            )
        try:
            yield
        finally:
            self._seats.release()


@contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except MlflowException:
        raise
    except FinagentError as error:
        code = next(code for kind, code in CODES if isinstance(error, kind))
        raise MlflowException(str(error), error_code=code) from None
    except Exception as error:
        log.exception("a request failed")
        raise MlflowException(
            f"the model failed with {type(error).__name__}; the server's log says where",
            error_code=INTERNAL_ERROR,
        ) from None


def _within_s() -> float | None:
    """A little less than a scoring server waits for. None elsewhere: a batch takes as long as it
    takes.
    """
    timeout = MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
    if not (timeout.is_set() and _MLFLOW_IS_IN_SERVING_ENVIRONMENT.get()):
        return None
    limit = float(timeout.get())
    return limit - min(limit / 4, MARGIN_S)


def _too_late(deadline: Deadline, rows: int) -> MlflowException:
    return MlflowException(
        f"not decided within {deadline.timeout_s:g} s (rows: {rows}), and the work was stopped; "
        "ask again, with fewer rows at a time, or serve with a longer "
        "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT",
        error_code=DEADLINE_EXCEEDED,
    )
