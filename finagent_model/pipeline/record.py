"""A decision's record in MLflow: signal, conversation, audit and chart in one run."""

from __future__ import annotations

import tempfile
from pathlib import Path

from finagent_model.artifacts.audit import FILE as AUDIT
from finagent_model.artifacts.audit import HEAD
from finagent_model.artifacts.conversation import FILE as CONVERSATION
from finagent_model.artifacts.conversation import conversation_lines
from finagent_model.artifacts.price_chart import write_price_chart
from finagent_model.domain.audit import Chain
from finagent_model.domain.decision import Decision
from finagent_model.domain.execution import NOBODYS, Execution
from finagent_model.errors import (
    DataError,
    InvalidBarsError,
    InvalidFundamentalsError,
    InvalidNewsError,
)
from finagent_model.market import Market
from finagent_model.pipeline.keep import keep
from finagent_model.settings import Settings
from finagent_model.tracking import STAGE, open_run


def record(
    decision: Decision,
    audit: Chain,
    market: Market,
    desk: str,
    settings: Settings,
    execution: Execution = NOBODYS,
    *,
    replayed: bool = False,
) -> str:
    """Log `decision` and its audit, made by `desk` (a model's URI or a configuration's file); the
    run's id.

    It is written to the database, too, unless it was `replayed`: that is for reading, and nobody
    was asked for an approval.
    """
    signal = decision.signal
    status = {"finagent.symbol": signal.symbol, "finagent.status": signal.status.value}
    tags = {STAGE: "infer", **status}
    run = open_run(f"infer {signal.symbol}", tags, parent=execution.parent_run_id)
    with run.failing():
        asked = {"symbol": signal.symbol, "as_of": signal.as_of.isoformat(), "desk": desk}
        run.params(asked)
        run.json("signal.json", signal.model_dump(mode="json"))
        run.text(CONVERSATION, conversation_lines([decision]))
        run.text(AUDIT, audit.lines)
        run.tags({HEAD: audit.head})
        run.metrics({"confidence_score": signal.confidence_score, "tokens": signal.tokens})
        with tempfile.TemporaryDirectory() as folder:
            try:
                view = market.view(signal.symbol, signal.as_of)
            except (DataError, InvalidBarsError, InvalidNewsError, InvalidFundamentalsError):
                drawn = False  # the signal says so; there is nothing to draw
            else:
                write_price_chart(view, signal, Path(folder))
                drawn = True
            run.files(Path(folder))
        if not replayed:
            keep(decision, run, settings, execution, drawn)
        run.end("FINISHED")
    return run.run_id
