"""The stages that the entry points, the DAG's tasks and the command line all call.

Each opens the MLflow runs that it needs, records what it did there, and hands on ids. Modules of
stages (`train`, `backtest`, `infer`, ...) have the name of their main function; those are imported
from the module, so that the two are never taken for one another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.pipeline.ablation import Ablation, ablate
    from finagent_model.pipeline.backtest import BacktestRerun
    from finagent_model.pipeline.datasets import check_bars, fetch_bars
    from finagent_model.pipeline.estimate import Estimate
    from finagent_model.pipeline.evaluate import (
        Evaluation,
        RuleRequest,
        evaluate_decider,
        run_rule_backtest,
    )
    from finagent_model.pipeline.finalize import TrainingResult, finish_training
    from finagent_model.pipeline.run_metadata import TrainingState, open_tagged_run
    from finagent_model.pipeline.train import backtest_symbol, start_training
    from finagent_model.pipeline.verify import VerifyReport
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "ablation": ["Ablation", "ablate"],
            "backtest": ["BacktestRerun"],
            "datasets": ["check_bars", "fetch_bars"],
            "estimate": ["Estimate"],
            "evaluate": ["Evaluation", "RuleRequest", "evaluate_decider", "run_rule_backtest"],
            "finalize": ["TrainingResult", "finish_training"],
            "run_metadata": ["TrainingState", "open_tagged_run"],
            "train": ["backtest_symbol", "start_training"],
            "verify": ["VerifyReport"],
        },
    )

__all__ = [
    "Ablation",
    "BacktestRerun",
    "Estimate",
    "Evaluation",
    "RuleRequest",
    "TrainingResult",
    "TrainingState",
    "VerifyReport",
    "ablate",
    "backtest_symbol",
    "check_bars",
    "evaluate_decider",
    "fetch_bars",
    "finish_training",
    "open_tagged_run",
    "run_rule_backtest",
    "start_training",
]
