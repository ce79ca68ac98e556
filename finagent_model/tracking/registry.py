"""Versions of a registered model and its aliases: `candidate` and `champion`.

`candidate` is the newest version, whatever the gate said. `champion` is the one that is served; it
moves under a lock, only to a version that passed the gate (or by force, with a reason), and only
from the champion that the version was compared with. Each move is recorded as a tag of the version.
"""

from __future__ import annotations

import getpass
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from finagent_model.errors import BadInputError, GateRefusedError, ModelLoadError

CHAMPION, CANDIDATE = "champion", "candidate"
VERDICT, CONTENT, PREVIOUS = "finagent.verdict", "finagent.content_hash", "finagent.previous"
COMPARED_WITH = "finagent.judged_beside"
"""Tag with the champion that a version was compared with; empty where there was none."""
ANCHOR, SIGNATURE = "finagent.anchor", "finagent.signature"
"""Tags with the hashes of a version's files, and with an operator's signature of them."""
EVIDENCE, PROMOTED = "finagent.evidence", "finagent.champion"
ANY_CHAMPION = "any"
LOCK_TIMEOUT_S = 60.0
"""Age at which a lock counts as abandoned: a change of the champion takes less than a second."""


@dataclass(frozen=True)
class Version:
    """One version of a registered model. `dataclasses.asdict` of it is what `--json` prints."""

    version: str
    aliases: tuple[str, ...]
    run_id: str | None
    verdict: str | None
    """The gate's: `passed` or `refused`."""
    content_hash: str | None
    evidence: str | None
    """Grade of the evidence of an edge after costs: none, weak or strong."""
    crowned: dict[str, Any] | None
    """Who made it champion last, when, why, and instead of which version."""
    previous: str | None
    """The version to which `rollback` goes back from this one; None if it never replaced one."""


def create_version(
    name: str,
    model_uri: str,
    run_id: str,
    tags: Mapping[str, str],
    *,
    model_id: str | None = None,
    family: str | None = None,
) -> str:
    """Make a logged model a version of `name` and return the version's number; no alias moves.

    `family` describes the registered model if it is new.
    """
    client = MlflowClient()
    try:
        client.create_registered_model(name, description=family)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    created = client.create_model_version(
        name, model_uri, run_id, tags=dict(tags), model_id=model_id
    )
    version = str(created.version)
    if model_id:
        _tag_logged_model(client, model_id, name, version)
    return version


def set_description(name: str, version: str, text: str) -> None:
    """Set the Markdown that MLflow's page of the version shows."""
    MlflowClient().update_model_version(name, version, text)


def list_versions(name: str) -> list[Version]:
    """Return all versions, newest first; empty when nothing is registered under `name`."""
    client = MlflowClient()
    try:
        aliases: dict[str, list[str]] = {}
        for alias, number in client.get_registered_model(name).aliases.items():
            aliases.setdefault(str(number), []).append(alias)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return []
        raise
    rows = client.search_model_versions(f"name = '{name}'")
    versions = [_read_version(row, aliases.get(str(row.version), [])) for row in rows]
    return sorted(versions, key=lambda version: -int(version.version))


def find_version(name: str, version: str) -> Version:
    """Return the version. Raises BadInputError naming the versions that exist."""
    rows = list_versions(name)
    for row in rows:
        if row.version == version:
            return row
    numbers = ", ".join(row.version for row in rows) or "none"
    raise BadInputError(f"{name} has no version {version!r}; it has: {numbers}")


def read_tags(name: str, version: str) -> dict[str, str]:
    """Return a version's tags. Raises MLflow's exception where the registry doesn't answer."""
    return dict(MlflowClient().get_model_version(name, version).tags)


def set_tag(name: str, version: str, tag: str, value: str) -> None:
    """Set a tag of a version."""
    MlflowClient().set_model_version_tag(name, version, tag, value)


def find_version_by_run(name: str, run_id: str) -> Version | None:
    """Return the version that a training run registered, None while it has not."""
    return next((row for row in list_versions(name) if row.run_id == run_id), None)


def find_champion(name: str) -> Version | None:
    """Return the champion, None where there is none."""
    return next((row for row in list_versions(name) if CHAMPION in row.aliases), None)


def resolve_version(uri: str) -> str:
    """Return the URI with a version's number in place of an alias; other URIs as they are.

    Raises ModelLoadError where no version has the alias.
    """
    match = re.fullmatch(r"models:/([^/@]+)@([^/@]+)", uri)
    if not match:
        return uri
    name, alias = match.groups()
    try:
        row = MlflowClient().get_model_version_by_alias(name, alias)
    except MlflowException as error:
        raise ModelLoadError(
            f"model {uri} can't be found: {error.message}; `finagent models` lists what there is, "
            "a training registers one"
        ) from None
    return f"models:/{name}/{row.version}"


def apply_aliases(name: str, version: str) -> None:
    """Give a new version the aliases that it may have; idempotent.

    It becomes candidate unless a newer version is, and champion if the gate let it pass and it was
    never champion. Raises GateRefusedError where another became champion since it was compared.
    """
    rows = list_versions(name)
    [row] = [row for row in rows if row.version == version]
    if rows[0] is row and CANDIDATE not in row.aliases:
        mark_candidate(name, version)
    if row.verdict == "passed" and row.crowned is None:
        tags = MlflowClient().get_model_version(name, version).tags
        promote(name, version, instead_of=tags.get(COMPARED_WITH) or None)


def mark_candidate(name: str, version: str) -> None:
    """Move the alias `candidate` to `version`."""
    MlflowClient().set_registered_model_alias(name, CANDIDATE, version)


def promote(
    name: str,
    version: str,
    *,
    force: bool = False,
    why: str | None = None,
    who: str | None = None,
    instead_of: str | None = ANY_CHAMPION,
) -> Version:
    """Make `version` champion, record who did it, when and why, and return it.

    `who` is by default the user of this process. `instead_of` is the champion that the version was
    compared with (None: there was none). Raises GateRefusedError unless the gate let it pass or
    `force` comes with a reason, and where the champion is no longer `instead_of`; BadInputError for
    `force` without a reason and for an unknown version.
    """
    if force and not (why or "").strip():
        raise BadInputError("--force needs a reason; add --why TEXT")
    with _champion_lock(name):
        row, champion = find_version(name, version), find_champion(name)
        if row.verdict != "passed" and not force:
            raise GateRefusedError(
                f"version {version} of {name} may not be champion: the gate's verdict is "
                f"{row.verdict or 'missing'}; see gate.json of run {row.run_id}"
            )
        # Compare and swap: a verdict against a former champion says nothing about the present one.
        current = champion.version if champion else None
        if instead_of not in (ANY_CHAMPION, current):
            raise GateRefusedError(
                f"version {current} of {name} became champion while {version} was trained or "
                f"chosen beside {instead_of or 'none'}; look at both, then `finagent promote "
                f"{version}` makes it champion instead"
            )
        if current and current != row.version:
            MlflowClient().set_model_version_tag(name, row.version, PREVIOUS, current)
        details = {"was": current, "forced": force, "why": why}
        _set_champion(name, row.version, who, details)
    return find_version(name, version)


def rollback(
    name: str,
    why: str | None = None,
    *,
    who: str | None = None,
    instead_of: str | None = ANY_CHAMPION,
) -> Version:
    """Make the champion's predecessor champion again and return it.

    Raises BadInputError if there was none, and GateRefusedError where the champion is no longer
    `instead_of`.
    """
    with _champion_lock(name):
        champion = find_champion(name)
        if champion is None:
            raise BadInputError(
                f"{name} has no champion to roll back from; promote a version first"
            )
        if instead_of not in (ANY_CHAMPION, champion.version):
            raise GateRefusedError(
                f"version {champion.version} of {name} is champion, no longer "
                f"{instead_of or 'none'}; look again, then roll back if you still want to"
            )
        if champion.previous is None:
            raise BadInputError(
                f"version {champion.version} of {name} is its first champion; there is no way back"
            )
        details = {"was": champion.version, "rolled_back": True, "why": why}
        _set_champion(name, champion.previous, who, details)
    return find_version(name, champion.previous)


def _set_champion(name: str, version: str, who: str | None, details: Mapping[str, Any]) -> None:
    record = {"who": who or getpass.getuser(), "when": datetime.now(UTC).isoformat(), **details}
    client = MlflowClient()
    # The record goes first: if the process dies between the two, no champion is without a record.
    client.set_model_version_tag(name, version, PROMOTED, json.dumps(record, sort_keys=True))
    client.set_registered_model_alias(name, CHAMPION, version)


@contextmanager
def _champion_lock(name: str) -> Iterator[None]:
    """Hold the lock on the champion of `name` during the block; wait for it as long as it takes."""
    # MLflow has no locks, but on any store a registered model of a name can be created only once.
    client, lock = MlflowClient(), f"{name}-champion-is-changing"
    while True:
        now = time.time()
        try:
            client.create_registered_model(lock, tags={"since": str(now)})
            break
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        with suppress(MlflowException):  # its owner may have finished meanwhile
            since = float(client.get_registered_model(lock).tags["since"])
            if now - since > LOCK_TIMEOUT_S:
                client.delete_registered_model(lock)
        time.sleep(0.2)
    try:
        yield
    finally:
        client.delete_registered_model(lock)


def _tag_logged_model(client: MlflowClient, model_id: str, name: str, version: str) -> None:
    """Add the version to the logged model's own list of its versions."""
    # MLflow's server does this; its client, on a store without a server, does not.
    rows = json.loads(client.get_logged_model(model_id).tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
    if not any(str(row["version"]) == version and row["name"] == name for row in rows):
        rows.append({"name": name, "version": int(version)})
        tags = {MLFLOW_MODEL_VERSIONS: json.dumps(rows)}
        client.set_logged_model_tags(model_id, tags)


def _read_version(row: ModelVersion, aliases: list[str]) -> Version:
    return Version(
        version=str(row.version),
        aliases=tuple(sorted(aliases)),
        run_id=row.run_id,
        verdict=row.tags.get(VERDICT),
        content_hash=row.tags.get(CONTENT),
        evidence=row.tags.get(EVIDENCE),
        crowned=json.loads(row.tags[PROMOTED]) if PROMOTED in row.tags else None,
        previous=row.tags.get(PREVIOUS),
    )
