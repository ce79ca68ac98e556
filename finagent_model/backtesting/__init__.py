"""What signals would have earned: fills at the next open, costs, stops, metrics.

The package knows signals and bars, never agents. `run_backtest` is its front door.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.backtesting.engine import (
        BacktestResult,
        Costs,
        Orders,
        buy_and_hold,
        run_backtest,
    )
    from finagent_model.backtesting.kernel import FillRules
    from finagent_model.backtesting.metrics import summarise
    from finagent_model.backtesting.outcomes import label_outcomes
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "engine": ["BacktestResult", "Costs", "Orders", "buy_and_hold", "run_backtest"],
            "kernel": ["FillRules"],
            "metrics": ["summarise"],
            "outcomes": ["label_outcomes"],
        },
    )

__all__ = [
    "BacktestResult",
    "Costs",
    "FillRules",
    "Orders",
    "buy_and_hold",
    "label_outcomes",
    "run_backtest",
    "summarise",
]
