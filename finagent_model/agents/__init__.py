"""The agents of a desk: their chat clients, budgets, replies, tools and the team that they form.

AutoGen is imported in this package and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.agents.budget import Budget, DailyBudget
    from finagent_model.agents.completion import ChatService, UnavailableError
    from finagent_model.agents.providers import ClientPool
    from finagent_model.agents.session import DeskQuery, Session
    from finagent_model.agents.team import ConversationRunner
    from finagent_model.agents.tools import Toolbox
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "budget": ["Budget", "DailyBudget"],
            "completion": ["ChatService", "UnavailableError"],
            "providers": ["ClientPool"],
            "session": ["DeskQuery", "Session"],
            "team": ["ConversationRunner"],
            "tools": ["Toolbox"],
        },
    )

__all__ = [
    "Budget",
    "ChatService",
    "ClientPool",
    "ConversationRunner",
    "DailyBudget",
    "DeskQuery",
    "Session",
    "Toolbox",
    "UnavailableError",
]
