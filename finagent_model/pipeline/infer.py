"""One decision of a packaged desk, with its record in MLflow."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from finagent_model.artifacts.conversation import FILE as CONVERSATION
from finagent_model.artifacts.conversation import conversation_lines
from finagent_model.artifacts.price_chart import write_price_chart
from finagent_model.domain.desk_config import Mode
from finagent_model.domain.signal import TradingSignal
from finagent_model.errors import DataError, InvalidBarsError, InvalidNewsError
from finagent_model.serving.answering import Question
from finagent_model.serving.logged import load_answering
from finagent_model.settings import Settings
from finagent_model.tracking import STAGE, open_run

CHAMPION = "models:/finagent@champion"


@dataclass(frozen=True)
class Inferred:
    """A decision and the run that holds its record."""

    run_id: str
    signal: TradingSignal


def infer(
    symbol: str,
    as_of: datetime,
    settings: Settings,
    model_uri: str = CHAMPION,
    mode: Mode = "cached",
) -> Inferred:
    """Decide with a packaged desk and log signal, conversation and chart.

    Where there is nothing to decide on, the record is a signal of status `data_missing`. Raises
    ModelLoadError.
    """
    answering = load_answering(model_uri)
    question = Question(symbol, as_of)
    [decision] = answering.answer([question], mode)
    signal = decision.signal
    tags = {STAGE: "infer", "finagent.symbol": symbol, "finagent.status": signal.status.value}
    run = open_run(f"infer {symbol}", tags)
    with run.failing():
        run.params({"symbol": symbol, "as_of": as_of.isoformat(), "model_uri": model_uri})
        run.json("signal.json", signal.model_dump(mode="json"))
        run.text(CONVERSATION, conversation_lines([decision]))
        run.metrics({"confidence_score": signal.confidence_score, "tokens": signal.tokens})
        with tempfile.TemporaryDirectory() as folder:
            try:
                view = answering.market.view(symbol, as_of)
            except (DataError, InvalidBarsError, InvalidNewsError):
                pass  # the signal says so; there is nothing to draw
            else:
                write_price_chart(view, signal, Path(folder))
            run.files(Path(folder))
        run.end("FINISHED")
    return Inferred(run.run_id, signal)
