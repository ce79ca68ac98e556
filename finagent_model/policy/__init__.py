"""What training fits (policies, confidence calibration, lessons) and what an agent is asked.

Everything is dated: `TrainedState.at` returns only what was known at the moment it is asked about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.policy.context import Context, build_context
    from finagent_model.policy.policy import Policy, PolicyBook
    from finagent_model.policy.trained_state import TradeOutcome, TrainedState
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "context": ["Context", "build_context"],
            "policy": ["Policy", "PolicyBook"],
            "trained_state": ["TradeOutcome", "TrainedState"],
        },
    )

__all__ = ["Context", "Policy", "PolicyBook", "TradeOutcome", "TrainedState", "build_context"]
