"""Signals, replies, charts and conversations in a database that a trading platform can read.

`DecisionStore` writes decisions, `ArtifactStore` reads and changes their artifacts, `Outbox` sends
them to a platform elsewhere through a `PlatformClient`, and `api_app` serves them over REST. All of
them use one `Database`: SQLite or PostgreSQL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.store.api import api_app
    from finagent_model.store.artifact_models import Artifact, ArtifactFilter, NewArtifact
    from finagent_model.store.artifacts import ArtifactStore
    from finagent_model.store.database import Database
    from finagent_model.store.decisions import DecisionStore
    from finagent_model.store.outbox import Outbox
    from finagent_model.store.platform import PlatformClient
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "api": ["api_app"],
            "artifact_models": ["Artifact", "ArtifactFilter", "NewArtifact"],
            "artifacts": ["ArtifactStore"],
            "database": ["Database"],
            "decisions": ["DecisionStore"],
            "outbox": ["Outbox"],
            "platform": ["PlatformClient"],
        },
    )

__all__ = [
    "Artifact",
    "ArtifactFilter",
    "ArtifactStore",
    "Database",
    "DecisionStore",
    "NewArtifact",
    "Outbox",
    "PlatformClient",
    "api_app",
]
