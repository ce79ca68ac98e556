"""Prove a version's training, not only that it repeats: `finagent verify --deep`.

`check_accounting` is the cheap half, asked by every gate and by every `verify`: a tenth of a second
a symbol. `run_deep_checks` is the rest; a gate that requires strong evidence asks for it too.
"""

from __future__ import annotations

from collections.abc import Mapping

from finagent_model._base import Check
from finagent_model._progress import Progress, no_progress
from finagent_model.data.market import Market
from finagent_model.errors import ExternalAnalystError
from finagent_model.evaluation.calibrate import build_confidence_record
from finagent_model.evaluation.deep_checks import (
    PlainBacktest,
    check_accounts,
    check_equity_adds_up,
    check_evidence,
    check_exits_in_range,
    check_news_before_fill,
    check_outcomes,
)
from finagent_model.evaluation.out_of_sample import OutOfSampleBacktest
from finagent_model.evaluation.retraining import check_policies_refitted, check_training_causal
from finagent_model.model.predictor import Predictor
from finagent_model.pipeline.datasets import compare_datasets
from finagent_model.pipeline.run_metadata import read_request
from finagent_model.tracking.queries import read_run
from finagent_model.training.external_scores import score_external


def check_accounting(predictor: Predictor, backtest: OutOfSampleBacktest) -> list[Check]:
    """Return the checks of one symbol's fills, equity, outcomes and news by plain accounting."""
    request = read_request(predictor.package)
    plain = PlainBacktest.derive(backtest, request)
    recorded = predictor.package.backtest["metrics"].get(backtest.bars.symbol, {})
    return [
        check_accounts(plain, recorded),
        check_exits_in_range(plain),
        check_equity_adds_up(plain, request),
        check_outcomes(plain),
        check_news_before_fill(predictor.market, backtest),
    ]


def run_deep_checks(
    predictor: Predictor,
    backtests: Mapping[str, OutOfSampleBacktest],
    progress: Progress = no_progress,
) -> list[Check]:
    """Return the checks of a version's data, evidence and training; `backtests` are by symbol.

    An external analyst is asked about every bar again. Raises DataError and TrackingError.
    """
    package, market = predictor.package, predictor.market
    request, state = read_request(package), package.trained_state
    histories = {symbol: market.bars(symbol) for symbol in request.symbols}
    outcomes = list(backtests.values())
    calls = [call for each in outcomes for call in each.trade_outcomes()]
    calibrations = state.calibrations
    checks = [_data_by_hash(predictor, market)]
    if calibrations is not None:
        checks.append(
            check_evidence(
                [PlainBacktest.derive(each, request) for each in outcomes],
                package.backtest["evidence"],
                package.config.gate,
                build_confidence_record(calls, calibrations),
                request.seed,
                package.config.latest_knowledge,
            )
        )
    try:
        sources = score_external(predictor.desk, histories, progress)
    except ExternalAnalystError as error:
        # Without its scores no policy can be searched again: not proven, and so not passed.
        found = f"the policies can't be fitted without their analyst: {error}"
        return [*checks, Check(name="fitted_again", passed=False, found=found)]
    return [
        *checks,
        check_policies_refitted(histories, state.policies, request, sources, progress),
        check_training_causal(histories, state, outcomes, request, sources, progress),
    ]


def _data_by_hash(predictor: Predictor, market: Market) -> Check:
    """Check that bars, news and fundamentals are by hash those that the training's run names."""
    run_id = predictor.lineage.run_id
    recorded = read_run(run_id).datasets if run_id else ()
    other = [each for each in compare_datasets(recorded, market) if each.now != "same"]
    found = ", ".join(f"{each.name} {each.digest[:12]}" for each in recorded)
    if not recorded:
        found = "no run of this store names the training's data; verify where it was trained"
    elif other:
        found += f"; {other[0].recorded.name} {other[0].now}: {other[0].why}"
    return Check(name="data_by_hash", passed=bool(recorded) and not other, found=found)
