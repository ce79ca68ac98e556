"""A packaged desk's backtest run again, and held against the one it was registered with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finagent_model.artifacts.ledger import ledger_hash, ledger_row
from finagent_model.artifacts.report import verdict
from finagent_model.backtest.metrics import storable, undefined
from finagent_model.domain.desk_config import Mode
from finagent_model.pipeline.bars_seen import log_seen, market_of_training, seen_by
from finagent_model.pipeline.inputs import given
from finagent_model.pipeline.minutes import Minutes
from finagent_model.pipeline.outcome import decide_unseen, log_outcome
from finagent_model.pipeline.provenance import MODEL_ID, SYMBOL, begin, by_package
from finagent_model.pipeline.recorded import request_of
from finagent_model.pipeline.watch import Watch, unwatched
from finagent_model.serving.logged import load_answering
from finagent_model.settings import Settings


@dataclass(frozen=True)
class Rerun:
    """A packaged desk's backtest, held against the one it was registered with."""

    run_id: str
    symbol: str
    metrics: dict[str, float]
    report: str
    same_as_registered: bool | None
    """Whether every signal is the registered one; None for a symbol it was not trained on."""

    def row(self) -> dict[str, Any]:
        """JSON-ready; an undefined metric is None."""
        facts = {"metrics": storable(self.metrics), "undefined": undefined(self.metrics)}
        return {**vars(self), **facts}


def backtest(
    model_uri: str,
    symbols: Sequence[str],
    settings: Settings,
    mode: Mode = "replay",
    watch: Watch = unwatched,
) -> list[Rerun]:
    """Run a packaged desk over its unseen bars again, at no cost in mode `replay`; no symbols means
    those it was trained on, and of these the bars are those that its training saw. Raises
    ModelLoadError or DataError.
    """
    answering = load_answering(model_uri)
    answering.market = market_of_training(answering)
    package = answering.package
    request = request_of(package)
    made_by = by_package(answering, model_uri)
    reruns = []
    for symbol in symbols or request.symbols:
        answering.market.bars(symbol)
        tags = made_by | {SYMBOL: symbol}
        run = begin("backtest", f"backtest {symbol}", tags, alone=True)
        with run.failing(), Minutes(package.content_hash) as minutes:
            run.inputs(given(answering.market, symbol), "backtest", made_by.get(MODEL_ID))
            desk = answering.desk.under(mode=mode)
            policies = package.learned.policies
            unseen = decide_unseen(
                desk, answering.market, symbol, policies, request, watch, minutes
            )
            metrics = log_outcome(run, unseen, request.seed, minutes)
            log_seen(run, seen_by(answering.market, [symbol]))
            rows = [ledger_row(decision.signal) for decision in unseen.decisions]
            registered = package.backtest["ledgers"].get(symbol)
            same = None if registered is None else ledger_hash(rows) == registered
            run.tags({"finagent.same_as_registered": str(same)})
            run.end("FINISHED")
        reruns.append(Rerun(run.run_id, symbol, metrics, verdict(symbol, metrics), same))
    return reruns
