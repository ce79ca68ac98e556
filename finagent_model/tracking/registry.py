"""Versions of a registered model and its aliases: `candidate` and `champion`.

`candidate` is the newest version, whatever the gate said. `champion` is the one that is served; it
moves under a lock, only to a version that passed the gate (or by force, with a reason), and only
from the champion that the version was compared with. The alias is the truth. Each move is recorded
as a tag of the version; a process that dies between the two leaves what a repeated call completes.
"""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from finagent_model.errors import BadInputError, GateRefusedError, ModelLoadError
from finagent_model.tracking._champion_lock import hold_champion_lock
from finagent_model.tracking.local_store import open_client

CHAMPION, CANDIDATE = "champion", "candidate"
VERDICT, CONTENT, PREVIOUS = "finagent.verdict", "finagent.content_hash", "finagent.previous"
REFUSED = "refused"
"""Value of the tag `VERDICT` of a version that the gate did not let pass."""
COMPARED_WITH = "finagent.judged_beside"
"""Tag with the champion that a version was compared with; empty where there was none."""
ANCHOR, SIGNATURE = "finagent.anchor", "finagent.signature"
"""Tags with the hashes of a version's files, and with an operator's signature of them."""
EVIDENCE, PROMOTED = "finagent.evidence", "finagent.champion"
ANY_CHAMPION = "any"
MOVED = "moved"
"""Key of a record that was written after the alias had moved; older code wrote it before."""


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
    client = open_client()
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
    open_client().update_model_version(name, version, text)


def list_versions(name: str) -> list[Version]:
    """Return all versions, newest first; empty when nothing is registered under `name`."""
    aliases: dict[str, list[str]] = {}
    for alias, number in _read_aliases(name).items():
        aliases.setdefault(number, []).append(alias)
    rows = open_client().search_model_versions(f"name = '{name}'")
    versions = [_read_version(row, aliases.get(str(row.version), [])) for row in rows]
    return sorted(versions, key=lambda version: -int(version.version))


def find_dangling_aliases(name: str) -> dict[str, str]:
    """Return the deleted version that each alias points to, by alias; empty where none does."""
    numbers = {row.version for row in list_versions(name)}
    return {a: number for a, number in _read_aliases(name).items() if number not in numbers}


def find_version(name: str, version: str) -> Version:
    """Return the version. Raises BadInputError naming the versions that exist."""
    rows = list_versions(name)
    for row in rows:
        if row.version == version:
            return row
    numbers = ", ".join(row.version for row in rows) or "none"
    raise BadInputError(f"{name} has no version {version!r}; it has: {numbers}")


def find_registered(uri: str) -> tuple[str, str] | None:
    """Return name and number of the registered version that a URI means; None for any other model.

    A logged model, `models:/m-...`, is the version that was registered of it. Raises ModelLoadError
    for a version that is no number, and MLflow's exception where the registry doesn't answer.
    """
    if match := re.fullmatch(r"models:/([^/@]+)[/@]([^/@]+)", uri):
        name, number = resolve_version(uri).removeprefix("models:/").rsplit("/", 1)
        if not re.fullmatch(r"[1-9][0-9]{0,8}", number, re.ASCII):
            raise ModelLoadError(
                f"model {uri} names no version: write its number, or an alias as in "
                f"models:/{match[1]}@champion"
            )
        return name, number
    if match := re.fullmatch(r"models:/(m-[0-9a-f]+)", uri):
        tags = open_client().get_logged_model(match[1]).tags
        for row in json.loads(tags.get(MLFLOW_MODEL_VERSIONS, "[]")):
            return str(row["name"]), str(row["version"])
    return None


def read_tags(name: str, version: str) -> dict[str, str]:
    """Return a version's tags. Raises MLflow's exception where the registry doesn't answer."""
    return dict(open_client().get_model_version(name, version).tags)


def set_tag(name: str, version: str, tag: str, value: str) -> None:
    """Set a tag of a version."""
    open_client().set_model_version_tag(name, version, tag, value)


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
        row = open_client().get_model_version_by_alias(name, alias)
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
    if row.verdict == "passed" and not _was_promoted(row, rows):
        tags = open_client().get_model_version(name, version).tags
        promote(name, version, instead_of=tags.get(COMPARED_WITH) or None)


def mark_candidate(name: str, version: str) -> None:
    """Move the alias `candidate` to `version`."""
    open_client().set_registered_model_alias(name, CANDIDATE, version)


def promote(
    name: str,
    version: str,
    *,
    force: bool = False,
    why: str | None = None,
    who: str | None = None,
    instead_of: str | None = ANY_CHAMPION,
    sign: Callable[[], object] = lambda: None,
) -> Version:
    """Make `version` champion, record who did it, when and why, and return it.

    `sign` is called once nothing stands in the way, before the alias moves: a champion that has to
    be signed is never without its signature.
    `who` is by default the user of this process. `instead_of` is the champion that the version was
    compared with (None: there was none). Raises GateRefusedError unless the gate let it pass or
    `force` comes with a reason, and where the champion is no longer `instead_of`; BadInputError for
    `force` without a reason and for an unknown version.
    """
    if force and not (why or "").strip():
        raise BadInputError("--force needs a reason; add --why TEXT")
    with hold_champion_lock(name) as require_lock:
        row, rows = find_version(name, version), list_versions(name)
        if row.verdict != "passed" and not force:
            raise GateRefusedError(
                f"version {version} of {name} may not be champion: the gate's verdict is "
                f"{row.verdict or 'missing'}; see gate.json of run {row.run_id}"
            )
        current = next((each.version for each in rows if CHAMPION in each.aliases), None)
        if current == row.version:
            sign()  # again, by another key
            # Repeated, or another process died before it could record its move.
            if not _is_recorded(row, rows):
                _record(name, row, who, {"was": row.previous, "forced": force, "why": why})
            return find_version(name, version)
        # Compare and swap: a verdict against a former champion says nothing about the present one.
        if instead_of not in (ANY_CHAMPION, current):
            raise GateRefusedError(
                f"version {current} of {name} became champion while {version} was trained or "
                f"chosen beside {instead_of or 'none'}; look at both, then `finagent promote "
                f"{version}` makes it champion instead"
            )
        sign()
        if current:
            open_client().set_model_version_tag(name, row.version, PREVIOUS, current)
        require_lock()
        open_client().set_registered_model_alias(name, CHAMPION, row.version)
        # The record comes last, so that it never tells of a move that was not made.
        _record(name, row, who, {"was": current, "forced": force, "why": why})
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
    with hold_champion_lock(name) as require_lock:
        rows = list_versions(name)
        champion = next((row for row in rows if CHAMPION in row.aliases), None)
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
        previous = next((row for row in rows if row.version == champion.previous), None)
        if previous is None:
            raise BadInputError(
                f"version {champion.previous} of {name}, champion before {champion.version}, was "
                "deleted; `finagent promote VERSION` makes another one champion"
            )
        # The record comes first: were it last, a repeated call would go back by one more.
        details = {"was": champion.version, "rolled_back": True, "why": why}
        _record(name, previous, who, details)
        require_lock()
        open_client().set_registered_model_alias(name, CHAMPION, previous.version)
    return find_version(name, previous.version)


def _record(name: str, row: Version, who: str | None, details: Mapping[str, Any]) -> None:
    """Write who made a version champion, when and why, as a tag of the version."""
    record = {"who": who or getpass.getuser(), "when": datetime.now(UTC).isoformat(), **details}
    record[MOVED] = True
    text = json.dumps(record, sort_keys=True)
    open_client().set_model_version_tag(name, row.version, PROMOTED, text)


def _is_recorded(champion: Version, rows: Sequence[Version]) -> bool:
    """Return whether the champion's record is of the last move: no version has a later one."""
    moments = {row.version: row.crowned["when"] for row in rows if row.crowned}
    return champion.version in moments and moments[champion.version] == max(moments.values())


def _was_promoted(row: Version, rows: Sequence[Version]) -> bool:
    """Return whether `row` was made champion, and its record tells so."""
    if CHAMPION in row.aliases:
        return _is_recorded(row, rows)
    if row.crowned is None:
        return False
    # Older code wrote the record before it moved the alias, and may have died in between: then the
    # champion is still the one that the record names, and has no later record.
    champion = next((each for each in rows if CHAMPION in each.aliases), None)
    was, when = (champion.version, champion.crowned) if champion else (None, None)
    is_cut = (
        MOVED not in row.crowned
        and not row.crowned.get("rolled_back")
        and row.crowned.get("was") == was
        and (when is None or when["when"] < row.crowned["when"])
    )
    return not is_cut


def _read_aliases(name: str) -> dict[str, str]:
    """Return the version of each alias, deleted ones included; empty for an unknown model."""
    try:
        aliases = open_client().get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise
    return {alias: str(number) for alias, number in aliases.items()}


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
