"""The desk as an MLflow model: a DataFrame of questions in, a DataFrame of signals out.

Every escape becomes a typed MLflow error, so that a server answers with one sentence and no stack
trace: 400 for a request that can't be asked, 429 when more are waiting than the model takes on.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    REQUEST_LIMIT_EXCEEDED,
)
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from finagent_model.desk import Limits
from finagent_model.domain.clock import parse_as_of
from finagent_model.domain.desk_config import Mode
from finagent_model.errors import BadInputError, FinagentError
from finagent_model.serving.answering import AnsweringDesk, Question
from finagent_model.settings import Settings

PACKAGE = "package"
"""Name of the artifact that holds the package."""
SYMBOL_LENGTH = 20


class FinagentModel(PythonModel):
    """Loads a package and answers; safe to call from many threads."""

    answering: AnsweringDesk

    def load_context(self, context: PythonModelContext) -> None:
        settings = Settings.load()
        self.answering = AnsweringDesk.open(Path(context.artifacts[PACKAGE]), settings)
        self._seats = threading.BoundedSemaphore(settings.serve_threads)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """One signal a row, in the rows' order; undefined values are None, never NaN."""
        with _typed_errors(), self._seat():
            mode, limits = _read_params(params or {})
            questions = [_read_row(i, row) for i, row in enumerate(_rows(model_input))]
            decisions = self.answering.answer(questions, mode, limits)
        for decision in decisions:
            self.answering.trace(decision)
        signals = [decision.signal.model_dump(mode="json") for decision in decisions]
        return pd.DataFrame(signals, dtype=object)

    @contextmanager
    def _seat(self) -> Iterator[None]:
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
    except BadInputError as error:
        raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None
    except FinagentError as error:
        raise MlflowException(str(error), error_code=INTERNAL_ERROR) from None


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


def _read_params(params: dict[str, Any]) -> tuple[Mode, Limits]:
    mode = params.get("mode", "cached")
    if mode not in get_args(Mode):
        allowed = ", ".join(get_args(Mode))
        raise BadInputError(f"mode {mode!r} is unknown; use one of: {allowed}")
    budget, rounds = params.get("budget_usd"), params.get("max_rounds")
    if budget is not None and not (math.isfinite(budget) and budget >= 0):
        raise BadInputError(f"budget_usd {budget!r} must be 0 (no limit) or more")
    if rounds is not None and not 1 <= rounds <= 100:
        raise BadInputError(f"max_rounds {rounds!r} must lie between 1 and 100")
    return mode, Limits(max_rounds=None if rounds is None else int(rounds), budget_usd=budget)
