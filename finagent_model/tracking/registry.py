"""Versions and aliases: what is registered, which is champion, and the way back.

`candidate` is the newest version, whatever the gate said; `champion` is the one that is served, and
moves only to a version that passed.
"""

from __future__ import annotations

import getpass
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
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
"""The champion beside which a version was judged; empty where there was none."""
EVIDENCE, CROWNED = "finagent.evidence", "finagent.champion"
ANY_CHAMPION = "any"
STALE_S = 60.0
"""A change of the champion takes less than a second."""


@dataclass(frozen=True)
class Version:
    """One row of the registry."""

    version: str
    aliases: tuple[str, ...]
    run_id: str | None
    verdict: str | None
    """What the gate said: `passed` or `refused`."""
    content_hash: str | None
    evidence: str | None
    """Grade of the evidence of an edge after costs: none, weak or strong."""
    crowned: dict[str, Any] | None
    """Who made it champion last, when, why, and instead of which version."""
    previous: str | None
    """The version before it, to which `rollback` goes back from it; None: it was never promoted
    over another.
    """

    def row(self) -> dict[str, Any]:
        return asdict(self)


def register(
    name: str,
    model_uri: str,
    run_id: str,
    tags: Mapping[str, str],
    *,
    model_id: str | None = None,
    family: str | None = None,
) -> str:
    """Make a logged model a version of `name`, which is described as `family` when it is new; no
    alias moves. Returns the version's number.
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
        _name(client, model_id, name, version)
    return version


def _name(client: MlflowClient, model_id: str, name: str, version: str) -> None:
    """Lets the logged model say which versions it is: the client of a store without a server does
    not.
    """
    known = json.loads(client.get_logged_model(model_id).tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
    if not any(str(row["version"]) == version and row["name"] == name for row in known):
        known.append({"name": name, "version": int(version)})
        tags = {MLFLOW_MODEL_VERSIONS: json.dumps(known)}
        client.set_logged_model_tags(model_id, tags)


def describe(name: str, version: str, text: str) -> None:
    """Markdown that MLflow's page of the version shows."""
    MlflowClient().update_model_version(name, version, text)


def mark_candidate(name: str, version: str) -> None:
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
    """Make `version` champion, and write down who did it, when and why; who is the user of this
    process unless it is said.

    Raises GateRefusedError unless the gate let it pass, or `force` is given with a reason; also
    where the champion is no longer `instead_of`, the one that the version was judged or chosen
    beside (None: there was none).
    """
    if force and not (why or "").strip():
        raise BadInputError("--force needs a reason; add --why TEXT")
    with _champion_lock(name):
        chosen, before = find_version(name, version), champion(name)
        if chosen.verdict != "passed" and not force:
            raise GateRefusedError(
                f"version {version} of {name} may not be champion: the gate's verdict is "
                f"{chosen.verdict or 'missing'}; see gate.json of run {chosen.run_id}"
            )
        now = before.version if before else None
        if instead_of not in (ANY_CHAMPION, now):
            raise GateRefusedError(
                f"version {now} of {name} became champion while {version} was trained or chosen "
                f"beside {instead_of or 'none'}; look at both, then `finagent promote {version}` "
                "makes it champion instead"
            )
        if now and now != chosen.version:
            MlflowClient().set_model_version_tag(name, chosen.version, PREVIOUS, now)
        _set_champion(name, chosen.version, who, {"was": now, "forced": force, "why": why})
    return find_version(name, version)


def apply_aliases(name: str, version: str) -> None:
    """Move the aliases to a new version as far as it may have them: it is candidate unless a newer
    one is, and champion if the gate let it pass. Asked again, nothing that was done is done twice.
    Raises GateRefusedError where another became champion since it was judged.
    """
    rows = versions(name)
    [made] = [row for row in rows if row.version == version]
    if rows[0] is made and CANDIDATE not in made.aliases:
        mark_candidate(name, version)
    if made.verdict == "passed" and made.crowned is None:
        tags = MlflowClient().get_model_version(name, version).tags
        promote(name, version, instead_of=tags.get(COMPARED_WITH) or None)


def rollback(
    name: str,
    why: str | None = None,
    *,
    who: str | None = None,
    instead_of: str | None = ANY_CHAMPION,
) -> Version:
    """Make the champion's predecessor champion again. Raises BadInputError if there was none, and
    GateRefusedError where the champion is no longer `instead_of`.
    """
    with _champion_lock(name):
        now = champion(name)
        if now is None:
            raise BadInputError(
                f"{name} has no champion to roll back from; promote a version first"
            )
        if instead_of not in (ANY_CHAMPION, now.version):
            raise GateRefusedError(
                f"version {now.version} of {name} is champion, no longer {instead_of or 'none'}; "
                "look again, then roll back if you still want to"
            )
        if now.previous is None:
            raise BadInputError(
                f"version {now.version} of {name} is its first champion; there is no way back"
            )
        how = {"was": now.version, "rolled_back": True, "why": why}
        _set_champion(name, now.previous, who, how)
    return find_version(name, now.previous)


def _set_champion(name: str, version: str, who: str | None, how: Mapping[str, Any]) -> None:
    """The record first: an alias without one would be nobody's doing."""
    record = {"who": who or getpass.getuser(), "when": datetime.now(UTC).isoformat(), **how}
    client = MlflowClient()
    client.set_model_version_tag(name, version, CROWNED, json.dumps(record, sort_keys=True))
    client.set_registered_model_alias(name, CHAMPION, version)


@contextmanager
def _champion_lock(name: str) -> Iterator[None]:
    """One change of the champion at a time, on any store: a registered model of a name can be
    created once. Who died with it is overruled after `STALE_S`.
    """
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
            if now - since > STALE_S:
                client.delete_registered_model(lock)
        time.sleep(0.2)
    try:
        yield
    finally:
        client.delete_registered_model(lock)


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


def versions_of_run(name: str, run_id: str) -> Version | None:
    """The version that a training's run registered; None while it has not."""
    return next((row for row in versions(name) if row.run_id == run_id), None)


def resolve_version(uri: str) -> str:
    """The same model by its version's number where `uri` names an alias, which may move. Raises
    ModelLoadError where nothing has that alias.
    """
    named = re.fullmatch(r"models:/([^/@]+)@([^/@]+)", uri)
    if not named:
        return uri
    name, alias = named.groups()
    try:
        found = MlflowClient().get_model_version_by_alias(name, alias)
    except MlflowException as error:
        raise ModelLoadError(
            f"model {uri} can't be found: {error.message}; `finagent models` lists what there is, "
            "a training registers one"
        ) from None
    return f"models:/{name}/{found.version}"


def find_version(name: str, version: str) -> Version:
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
        evidence=found.tags.get(EVIDENCE),
        crowned=json.loads(found.tags[CROWNED]) if CROWNED in found.tags else None,
        previous=found.tags.get(PREVIOUS),
    )
