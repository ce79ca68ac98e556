"""A desk's configuration: every YAML key with its bounds, the shipped presets, and their readers.

Parsing of loose values (modes, limits) is here too, so that each door refuses the same input with
the same words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.config.desk_config import DeskConfig, load_config, load_preset
    from finagent_model.config.roster import AgentRow, ModelConfig
    from finagent_model.config.rules import ApprovalRules, GateRules
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "desk_config": ["DeskConfig", "load_config", "load_preset"],
            "roster": ["AgentRow", "ModelConfig"],
            "rules": ["ApprovalRules", "GateRules"],
        },
    )

__all__ = [
    "AgentRow",
    "ApprovalRules",
    "DeskConfig",
    "GateRules",
    "ModelConfig",
    "load_config",
    "load_preset",
]
