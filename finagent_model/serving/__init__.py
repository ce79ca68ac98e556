"""A logged model over HTTP: MLflow's scoring protocol, with limits, clear errors and approvals.

`scoring_app` returns the app, `serve` runs it until the process is told to end, and
`add_approval_routes` adds the approvals to any app.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.serving.approval_routes import add_approval_routes
    from finagent_model.serving.scoring import scoring_app, serve
else:
    __getattr__ = lazy_exports(
        __name__,
        {"approval_routes": ["add_approval_routes"], "scoring": ["scoring_app", "serve"]},
    )

__all__ = ["add_approval_routes", "scoring_app", "serve"]
