"""Versions and aliases: what is registered, which is champion, and the way back.

`candidate` is the newest version, whatever the gate said; `champion` is the one that is served, and
moves only to a version that passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from finagent_model.errors import BadInputError, GateRefusedError

CHAMPION, CANDIDATE = "champion", "candidate"
VERDICT, CONTENT, PREVIOUS = "finagent.verdict", "finagent.content_hash", "finagent.previous"


@dataclass(frozen=True)
class Version:
    """One row of the registry."""

    version: str
    aliases: tuple[str, ...]
    run_id: str | None
    verdict: str | None
    """What the gate said: `passed` or `refused`."""
    content_hash: str | None

    def row(self) -> dict[str, Any]:
        return asdict(self)


def register(name: str, model_uri: str, run_id: str, tags: Mapping[str, str]) -> str:
    """Make a logged model a version of `name`; no alias moves. Returns the version's number."""
    client = MlflowClient()
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    created = client.create_model_version(name, model_uri, run_id, tags=dict(tags))
    return str(created.version)


def mark_candidate(name: str, version: str) -> None:
    MlflowClient().set_registered_model_alias(name, CANDIDATE, version)


def promote(name: str, version: str) -> Version:
    """Make `version` champion. Raises GateRefusedError unless the gate let it pass."""
    client = MlflowClient()
    chosen = find(name, version)
    if chosen.verdict != "passed":
        raise GateRefusedError(
            f"version {version} of {name} may not be champion: the gate's verdict is "
            f"{chosen.verdict or 'missing'}; see gate.json of run {chosen.run_id}"
        )
    before = champion(name)
    if before and before.version != chosen.version:
        client.set_model_version_tag(name, chosen.version, PREVIOUS, before.version)
    client.set_registered_model_alias(name, CHAMPION, chosen.version)
    return find(name, version)


def rollback(name: str) -> Version:
    """Make the champion's predecessor champion again. Raises BadInputError if there was none."""
    now = champion(name)
    if now is None:
        raise BadInputError(f"{name} has no champion to roll back from; promote a version first")
    before = MlflowClient().get_model_version(name, now.version).tags.get(PREVIOUS)
    if before is None:
        raise BadInputError(
            f"version {now.version} of {name} is its first champion; there is no way back"
        )
    MlflowClient().set_registered_model_alias(name, CHAMPION, before)
    return find(name, before)


def versions(name: str) -> list[Version]:
    """All versions, newest first; empty when nothing is registered under `name`."""
    client = MlflowClient()
    try:
        aliases: dict[str, list[str]] = {}
        for alias, number in client.get_registered_model(name).aliases.items():
            aliases.setdefault(str(number), []).append(alias)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return []
        raise
    found = client.search_model_versions(f"name = '{name}'")
    rows = [_version(v, aliases.get(str(v.version), [])) for v in found]
    return sorted(rows, key=lambda row: -int(row.version))


def find(name: str, version: str) -> Version:
    """Raises BadInputError naming what there is."""
    known = versions(name)
    for row in known:
        if row.version == version:
            return row
    listed = ", ".join(row.version for row in known) or "none"
    raise BadInputError(f"{name} has no version {version!r}; it has: {listed}")


def champion(name: str) -> Version | None:
    return next((row for row in versions(name) if CHAMPION in row.aliases), None)


def _version(found: ModelVersion, aliases: list[str]) -> Version:
    return Version(
        version=str(found.version),
        aliases=tuple(sorted(aliases)),
        run_id=found.run_id,
        verdict=found.tags.get(VERDICT),
        content_hash=found.tags.get(CONTENT),
    )
