"""Web pages that show signals, versions and runs, rendered on the server.

`ui_app` returns the app of `finagent ui`. Its pages load nothing from other hosts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.webui.pages_app import ui_app
else:
    __getattr__ = lazy_exports(__name__, {"pages_app": ["ui_app"]})

__all__ = ["ui_app"]
