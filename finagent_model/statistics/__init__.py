"""How far a result may be chance: resampling, Sharpe ratio tests, calibration of probabilities.

Nothing here knows desks, runs or files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.statistics.reliability import (
        brier_score,
        expected_calibration_error,
        reliability_bins,
    )
    from finagent_model.statistics.resampling import (
        Interval,
        sharpe_interval,
        superior_predictive_ability,
    )
    from finagent_model.statistics.sharpe import (
        Moments,
        minimum_backtest_years,
        probability_of_overfitting,
        sharpe_standard_error,
    )
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "reliability": ["brier_score", "expected_calibration_error", "reliability_bins"],
            "resampling": ["Interval", "sharpe_interval", "superior_predictive_ability"],
            "sharpe": [
                "Moments",
                "minimum_backtest_years",
                "probability_of_overfitting",
                "sharpe_standard_error",
            ],
        },
    )

__all__ = [
    "Interval",
    "Moments",
    "brier_score",
    "expected_calibration_error",
    "minimum_backtest_years",
    "probability_of_overfitting",
    "reliability_bins",
    "sharpe_interval",
    "sharpe_standard_error",
    "superior_predictive_ability",
]
