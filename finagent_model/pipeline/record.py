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
from finagent_model.pipeline.conversations import EXECUTION, keep
from finagent_model.settings import Settings
from finagent_model.tracking import STAGE, open_run


def record(
    decision: Decision,
    audit: Chain,
    market: Market,
    desk: str,
    settings: Settings,
    execution: Execution = NOBODYS,
) -> str:
    """Log `decision` and its audit, made by `desk` (a model's URI or a configuration's file); the
    run's id.

    Where there is a database for conversations, it is written there too.
    """
    signal = decision.signal
    status = {"finagent.symbol": signal.symbol, "finagent.status": signal.status.value}
    asked_by = {EXECUTION: execution.execution_id} if execution.execution_id else {}
    tags = {STAGE: "infer", **status, **asked_by}
    run = open_run(f"infer {signal.symbol}", tags, execution.parent_run_id, alone=True)
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
                pass  # the signal says so; there is nothing to draw
            else:
                write_price_chart(view, signal, Path(folder))
            run.files(Path(folder))
        keep(decision, run, settings, execution.execution_id)
        run.end("FINISHED")
    return run.run_id
