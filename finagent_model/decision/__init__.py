"""A decision and its parts: the trading signal, the conversation, the audit events, the ledger.

`Decider` is the seam of the package: whatever turns a market view into a `Decision` can be
backtested, trained, evaluated and served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.decision.decision import (
        Decider,
        Decision,
        Event,
        Execution,
        TrainableDecider,
        Turn,
        make_decision,
    )
    from finagent_model.decision.signal import Status, TradingSignal
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "decision": [
                "Decider",
                "Decision",
                "Event",
                "Execution",
                "TrainableDecider",
                "Turn",
                "make_decision",
            ],
            "signal": ["Status", "TradingSignal"],
        },
    )

__all__ = [
    "Decider",
    "Decision",
    "Event",
    "Execution",
    "Status",
    "TradingSignal",
    "TrainableDecider",
    "Turn",
    "make_decision",
]
