"""A decision's record in MLflow: signal, conversation, audit and chart in one run, which names the
desk that decided and the data that it saw.

The run is written in a handful of calls, all files at once: with a store over the network each call
is a wait of its own.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from finagent_model.artifacts.audit import FILE as AUDIT
from finagent_model.artifacts.audit import HEAD
from finagent_model.artifacts.conversation import FILE as CONVERSATION
from finagent_model.artifacts.conversation import conversation_lines
from finagent_model.artifacts.price_chart import write_price_chart
from finagent_model.domain.audit import Chain
from finagent_model.domain.dataset import Dataset
from finagent_model.domain.decision import Decision
from finagent_model.domain.execution import NOBODYS, Execution
from finagent_model.domain.market_view import MarketView
from finagent_model.market import Market
from finagent_model.pipeline.bars_seen import log_seen, seen_by
from finagent_model.pipeline.inputs import seen
from finagent_model.pipeline.keep import keep
from finagent_model.pipeline.provenance import (
    MODEL_ID,
    NO_TAGS,
    REPLACES,
    Tags,
    begin,
    of_signal,
)
from finagent_model.settings import Settings
from finagent_model.tracking import as_json


def record(
    decision: Decision,
    audit: Chain,
    view: MarketView | None,
    market: Market,
    desk: str,
    settings: Settings,
    execution: Execution = NOBODYS,
    made_by: Tags = NO_TAGS,
    *,
    replaces: str | None = None,
    replayed: bool = False,
) -> str:
    """Log `decision` and its audit, made on `view` (None: there was nothing to decide on) of
    `market` by `desk` (a model's URI or a configuration's file), of which `made_by` tells more; the
    run's id. In the database it takes the place of what the run `replaces` left there.

    It is written to the database, too, unless it was `replayed`: that is for reading, and nobody
    was asked for an approval.
    """
    signal = decision.signal
    tags = {**of_signal(signal), **made_by, HEAD: audit.head}
    if replaces:
        tags[REPLACES] = replaces
    run = begin("infer", f"infer {signal.symbol}", tags, execution=execution, alone=True)
    with run.failing(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run.log(
            params={"symbol": signal.symbol, "as_of": signal.as_of.isoformat(), "desk": desk},
            metrics={"confidence_score": signal.confidence_score, "tokens": signal.tokens},
        )
        (folder / "signal.json").write_text(as_json(signal.model_dump(mode="json")))
        (folder / CONVERSATION).write_text(conversation_lines([decision]))
        (folder / AUDIT).write_text(audit.lines, encoding="ascii")
        datasets: tuple[Dataset, ...] = ()
        if view is not None:
            datasets = seen(market, view)
            write_price_chart(view, signal, folder)
        run.inputs(datasets, "inference", made_by.get(MODEL_ID))
        run.files(folder)
        log_seen(run, seen_by(market, [signal.symbol]))
        if not replayed:
            keep(decision, run, settings, execution, view is not None, replaces)
        run.end("FINISHED")
    return run.run_id
