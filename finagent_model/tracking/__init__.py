"""MLflow as the record of runs: runs, queries, the model registry, prompts and traces.

MLflow ends here and in `finagent_model.model`; whatever its store raises leaves as TrackingError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.tracking.queries import RunRecord, read_run, search_runs
    from finagent_model.tracking.registry import Version, list_versions, promote, rollback
    from finagent_model.tracking.runs import RunLog, open_run
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "queries": ["RunRecord", "read_run", "search_runs"],
            "registry": ["Version", "list_versions", "promote", "rollback"],
            "runs": ["RunLog", "open_run"],
        },
    )

__all__ = [
    "RunLog",
    "RunRecord",
    "Version",
    "list_versions",
    "open_run",
    "promote",
    "read_run",
    "rollback",
    "search_runs",
]
