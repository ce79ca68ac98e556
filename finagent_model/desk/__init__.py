"""The desk: a market view in, a decision out, with levels and size held within limits by code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.desk.desk import Desk
else:
    __getattr__ = lazy_exports(__name__, {"desk": ["Desk"]})

__all__ = ["Desk"]
