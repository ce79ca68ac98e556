"""What a served model takes and gives, column by column.

The output follows `TradingSignal` field by field, so that the two can't drift apart.

The desk as an MLflow model: a DataFrame of questions in, a DataFrame of signals out.

Every escape becomes a typed MLflow error, so that a server answers with one sentence and no stack
trace: 400 for a request that can't be asked, 429 when more are waiting than the model takes on, 503
where the desk can't work for a while, 504 for what did not end in time.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

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

from finagent_model._base import Mode
from finagent_model._event_loop import Deadline
from finagent_model.config.desk_config import DeskConfig
from finagent_model.decision.signal import signal_columns
from finagent_model.desk.desk import CallLimits
from finagent_model.errors import (
    BadInputError,
    DeadlineError,
    FinagentError,
    LocalStateError,
    ShutdownError,
)
from finagent_model.market.bars import parse_as_of
from finagent_model.model.predictor import Predictor, Question
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
SYMBOL_LENGTH = 20
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

    answering: Predictor

    def load_context(self, context: PythonModelContext) -> None:
        settings = Settings.load()
        self.answering = Predictor.open(Path(context.artifacts[PACKAGE]), settings)
        self.answering.desk.preload()
        self._seats = threading.BoundedSemaphore(settings.serve_threads)

    def stop(self) -> None:
        """Take on no more requests: the process is about to end."""
        self.answering.ending.set()

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """One signal a row, in the rows' order; undefined values are None, never NaN."""
        deadline = Deadline.after(_within_s())
        with _typed_errors(), self._seat():
            mode, limits = _read_params(params or {})
            questions = [_read_row(i, row) for i, row in enumerate(_rows(model_input))]
            try:
                decisions = self.answering.answer(questions, mode, limits, deadline)
            except DeadlineError:
                raise _too_late(deadline, len(questions)) from None
        for decision in decisions:
            self.answering.trace(decision)
        signals = [decision.signal.model_dump(mode="json") for decision in decisions]
        return pd.DataFrame(signals, dtype=object)

    @contextmanager
    def _seat(self) -> Iterator[None]:
        if self.answering.ending.is_set():
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


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    if len(frame) == 0:
        raise BadInputError("no rows; send at least one with symbol and as_of")
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict(orient="records")]


def _read_row(index: int, row: dict[str, Any]) -> Question:
    symbol = row["symbol"]
    if not isinstance(symbol, str) or not symbol or len(symbol) > SYMBOL_LENGTH:
        raise BadInputError(f"row {index}: symbol {symbol!r} is not a ticker such as 'GOOG'")
    if symbol != symbol.upper() or symbol.split() != [symbol]:
        raise BadInputError(f"row {index}: symbol {symbol!r} is not upper case; write 'GOOG'")
    try:
        as_of = parse_as_of(row["as_of"])
    except BadInputError as error:
        raise BadInputError(f"row {index}: {error}") from None
    return Question(symbol, as_of, _records(row.get("bars")), _records(row.get("news")))


def _records(value: Any) -> list[dict[str, Any]] | None:
    """A nested column's cell: absent, or a sequence of objects whose own gaps are left out."""
    if value is None or isinstance(value, float):
        return None
    return [{k: v for k, v in dict(item).items() if not _missing(v)} for item in value]


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _read_params(params: dict[str, Any]) -> tuple[Mode, CallLimits]:
    mode = params.get("mode", "cached")
    if mode not in get_args(Mode):
        allowed = ", ".join(get_args(Mode))
        raise BadInputError(f"mode {mode!r} is unknown; use one of: {allowed}")
    budget, rounds = params.get("budget_usd"), params.get("max_rounds")
    if budget is not None and not (math.isfinite(budget) and budget >= 0):
        raise BadInputError(f"budget_usd {budget!r} must be 0 (no limit) or more")
    if rounds is not None and not 1 <= rounds <= 100:
        raise BadInputError(f"max_rounds {rounds!r} must lie between 1 and 100")
    return mode, CallLimits(max_rounds=None if rounds is None else int(rounds), budget_usd=budget)
