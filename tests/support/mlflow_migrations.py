"""MLflow's migration scripts, read once a process instead of for each store that is opened."""

from __future__ import annotations

import functools


def read_migrations_once() -> None:
    """Keep the newest revision that MLflow knows: finding it takes 0.2 s for each store."""
    from mlflow.store.db import utils

    find = utils._get_latest_schema_revision
    if not hasattr(find, "cache_info"):
        utils._get_latest_schema_revision = functools.cache(find)
