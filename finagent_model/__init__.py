"""A multi-agent trading decision that is one versioned MLflow model, and can be proven.

    import finagent_model

    model = finagent_model.load("models:/finagent@champion")
    decision = model.decide("GOOG", as_of="2012-06-29")

Importing this package, or any module in it, reads no environment, opens no connection and writes
nothing. Each name below is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

__version__ = "0.1.0"

if TYPE_CHECKING:
    from finagent_model._base import Check
    from finagent_model._public import (
        backtest,
        estimate,
        evaluate,
        infer,
        load,
        market_view,
        train,
        verify,
    )
    from finagent_model.backtesting.crossover import Crossover
    from finagent_model.backtesting.engine import BacktestResult, Costs, run_backtest
    from finagent_model.config.desk_config import DeskConfig, load_config
    from finagent_model.decision.decision import Decider, Decision, TrainableDecider, make_decision
    from finagent_model.decision.signal import Status, TradingSignal
    from finagent_model.desk.desk import Desk
    from finagent_model.errors import (
        BadInputError,
        DataError,
        EarlyCheckError,
        FinagentError,
        GateRefusedError,
        ModelLoadError,
    )
    from finagent_model.evaluation.evidence import Evidence
    from finagent_model.evaluation.gate import GateReport
    from finagent_model.market.bars import BarSeries
    from finagent_model.market.news import NewsItem
    from finagent_model.market.view import MarketView
    from finagent_model.model.predictor import Predictor
    from finagent_model.pipeline.evaluate import Evaluation
    from finagent_model.policy.policy import Policy
    from finagent_model.settings import Settings
    from finagent_model.training.request import EvaluationRequest, TrainRequest
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "_base": ["Check"],
            "_public": [
                "backtest",
                "estimate",
                "evaluate",
                "infer",
                "load",
                "market_view",
                "train",
                "verify",
            ],
            "backtesting.crossover": ["Crossover"],
            "backtesting.engine": ["BacktestResult", "Costs", "run_backtest"],
            "config.desk_config": ["DeskConfig", "load_config"],
            "decision.decision": ["Decider", "Decision", "TrainableDecider", "make_decision"],
            "decision.signal": ["Status", "TradingSignal"],
            "desk.desk": ["Desk"],
            "errors": [
                "BadInputError",
                "DataError",
                "EarlyCheckError",
                "FinagentError",
                "GateRefusedError",
                "ModelLoadError",
            ],
            "pipeline.evaluate": ["Evaluation"],
            "evaluation.evidence": ["Evidence"],
            "evaluation.gate": ["GateReport"],
            "market.bars": ["BarSeries"],
            "market.news": ["NewsItem"],
            "market.view": ["MarketView"],
            "model.predictor": ["Predictor"],
            "policy.policy": ["Policy"],
            "settings": ["Settings"],
            "training.request": ["EvaluationRequest", "TrainRequest"],
        },
    )

__all__ = [
    "BacktestResult",
    "BadInputError",
    "BarSeries",
    "Check",
    "Costs",
    "Crossover",
    "DataError",
    "Decider",
    "Decision",
    "Desk",
    "DeskConfig",
    "EarlyCheckError",
    "Evaluation",
    "EvaluationRequest",
    "Evidence",
    "FinagentError",
    "GateRefusedError",
    "GateReport",
    "MarketView",
    "ModelLoadError",
    "NewsItem",
    "Policy",
    "Predictor",
    "Settings",
    "Status",
    "TradingSignal",
    "TrainRequest",
    "TrainableDecider",
    "backtest",
    "estimate",
    "evaluate",
    "infer",
    "load",
    "load_config",
    "make_decision",
    "market_view",
    "run_backtest",
    "train",
    "verify",
]
