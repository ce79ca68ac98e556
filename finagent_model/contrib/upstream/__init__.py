"""The public project akshata29/finagent as an external analyst, run at a pinned commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.contrib.upstream._commands import commands
    from finagent_model.contrib.upstream._plugin import plugin
else:
    __getattr__ = lazy_exports(__name__, {"_commands": ["commands"], "_plugin": ["plugin"]})

__all__ = ["commands", "plugin"]
