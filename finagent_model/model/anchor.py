"""Compare a model's files with what was registered outside of them.

A package lists its own hashes, so whoever can change a file can change the list. The anchor is what
the registry holds of a version: the package's content hash, and the hash of every other file of the
model (wheel, `model_code.py`, requirements, `MLmodel`, input example). `check_model` is the only
comparison; loading, `verify` and `lineage` all call it, before any code of the model runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finagent_model.errors import CorruptPackageError, ModelLoadError
from finagent_model.model.model_folder import (
    PACKAGE_FOLDER,
    REGISTERED_META,
    read_registered,
    read_yaml,
)
from finagent_model.model.package import (
    MANIFEST_FILE,
    WAY_OUT,
    Manifest,
    check_files,
    list_files,
    show_name,
)
from finagent_model.model.signing import check_signature, make_statement
from finagent_model.settings import Settings
from finagent_model.tracking import registry
from finagent_model.tracking.runs import describe_store_error, store_errors

UNREGISTERED = "it is not a registered version, so nothing outside the files vouches for them"


@dataclass(frozen=True)
class Anchor:
    """What is known of a model's files from outside of them."""

    source: str
    """Who says so, such as `the tags of version 3 of finagent`."""
    content_hash: str | None
    """Content hash of the package; None where the source does not tell."""
    files: Mapping[str, str] | None
    """SHA-256 by path of every file of the model, the package's listed files left out; None where
    the source does not tell.
    """


@dataclass(frozen=True)
class ModelCheck:
    """The result of comparing a model's files; they hold what its manifest says."""

    manifest: Manifest
    files: int
    """Number of files that were hashed."""
    anchored: bool
    """Whether something outside the files vouches for each of them."""
    compared_with: tuple[str, ...]
    """What the files were compared with, in words."""
    why_not: str = ""
    """Why nothing vouches for the files; empty where something does."""
    signed_by: str | None = None
    """Id of the key that signed the version; None where no trusted key did."""
    refused: str | None = None
    """What the gate refused, such as `version 3 of finagent`; None where it let it pass, or the
    registry does not say.
    """

    @property
    def summary(self) -> str:
        """What was compared, as one sentence."""
        sources = ", ".join(self.compared_with)
        agree = "as registered, by" if self.anchored else "that agree with"
        text = f"{self.files} files {agree} {sources}"
        text += f"; signed by key {self.signed_by}" if self.signed_by else ""
        return text + (f"; {self.why_not}" if self.why_not else "")


def hash_model(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a model by its path; the package's are in its manifest.

    Raises CorruptPackageError.
    """
    in_package = f"{PACKAGE_FOLDER}/"
    return {
        name: _hash_file(folder / name)
        for name in list_files(folder)
        if name != REGISTERED_META
        and (not name.startswith(in_package) or name == in_package + MANIFEST_FILE)
    }


def check_model(
    folder: Path,
    settings: Settings,
    anchor: Anchor | None = None,
    version: tuple[str, str] | None = None,
) -> ModelCheck:
    """Check every file of a model against its manifest, `MLmodel`, and the registry or `anchor`.

    `folder` is the model as MLflow lays it out. `anchor` is what the process itself logged.
    `version` is the name and number that the caller asked for; None: those that MLflow wrote into
    the folder, if any. Raises CorruptPackageError for a file that is not as one of them says,
    ModelLoadError where the registry can't be asked about `version`, and SignatureError where a
    signature is required and missing or bad.
    """
    manifest = Manifest.read(folder / PACKAGE_FOLDER)
    check_files(folder / PACKAGE_FOLDER, manifest)
    files = hash_model(folder)
    count = len(files) + len(manifest.files)
    compared = ("the manifest", "MLmodel")
    if anchor is not None:
        _check_anchor(anchor, manifest, files)
        _check_metadata(folder, manifest)
        return ModelCheck(manifest, count, True, (*compared, anchor.source))
    registered = version or read_registered(folder)
    if registered is None:
        _check_metadata(folder, manifest)
        check_signature(settings, None, b"", "a model that is not a registered version")
        return ModelCheck(manifest, count, False, compared, UNREGISTERED)
    name, number = registered
    subject = f"version {number} of {name}"
    try:
        tags = registry.read_tags(name, number)
    except store_errors() as error:
        if version is not None:
            # It was found there a moment ago: its files are not believed without its tags.
            raise ModelLoadError(
                f"the tags of {subject} can't be read: {describe_store_error(error)}; "
                "ask again once the registry answers"
            ) from None
        _check_metadata(folder, manifest)
        # Said on each signal, not raised: a container may have no way to the registry.
        reason = f"the registry can't be asked about {subject}: {describe_store_error(error)}"
        check_signature(settings, None, b"", subject)
        return ModelCheck(manifest, count, False, compared, reason)
    anchor = _read_anchor(subject, tags)
    _check_anchor(anchor, manifest, files)
    # After the anchor: its hash is known to be right before it is parsed.
    _check_metadata(folder, manifest)
    statement = make_statement(name, number, manifest.content_hash, files)
    signed_by = check_signature(settings, tags.get(registry.SIGNATURE), statement, subject)
    refused = subject if tags.get(registry.VERDICT) == registry.REFUSED else None
    if anchor.content_hash is None or anchor.files is None:
        reason = f"the tags of {subject} lack the hashes of its files; train again"
        return ModelCheck(manifest, count, False, compared, reason, signed_by, refused)
    sources = (*compared, anchor.source)
    return ModelCheck(manifest, count, True, sources, signed_by=signed_by, refused=refused)


def build_anchor_tags(manifest: Manifest, files: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a registered version that anchor its files."""
    return {
        registry.CONTENT: manifest.content_hash,
        registry.ANCHOR: json.dumps(dict(files), sort_keys=True),
    }


def _check_metadata(folder: Path, manifest: Manifest) -> None:
    """Raise CorruptPackageError unless `MLmodel` states the manifest's hashes."""
    metadata = read_yaml(folder / "MLmodel").get("metadata")
    stated = metadata if isinstance(metadata, dict) else {}
    for name, value in build_metadata(manifest).items():
        if stated.get(name) != value:
            raise CorruptPackageError(
                f"MLmodel and {MANIFEST_FILE} differ in {name.removeprefix('finagent_')}; {WAY_OUT}"
            )


def build_metadata(manifest: Manifest) -> dict[str, Any]:
    """Return what `MLmodel` says of a package."""
    return {
        "finagent_format": manifest.format,
        "finagent_content_hash": manifest.content_hash,
        "finagent_code_hash": manifest.code_hash,
        "finagent_files": dict(manifest.files),
    }


def _read_anchor(subject: str, tags: Mapping[str, str]) -> Anchor:
    """Return the anchor in a version's tags. Raises CorruptPackageError for one that is no list."""
    source = f"the tags of {subject}"
    files = None
    if text := tags.get(registry.ANCHOR):
        try:
            files = json.loads(text)
        except (ValueError, RecursionError):
            files = None
        if not isinstance(files, dict):
            raise CorruptPackageError(
                f"{source}: {registry.ANCHOR} is not a list of files; train again"
            )
    return Anchor(source, tags.get(registry.CONTENT), files)


def _check_anchor(anchor: Anchor, manifest: Manifest, files: Mapping[str, str]) -> None:
    """Raise CorruptPackageError naming the first file that the anchor says otherwise."""
    if anchor.content_hash not in (None, manifest.content_hash):
        raise CorruptPackageError(
            f"the package's files hash to {manifest.content_hash[:12]}, but {anchor.source} say "
            f"{show_name(str(anchor.content_hash)[:12])}; {WAY_OUT}"
        )
    if anchor.files is None:
        return
    for name in sorted(anchor.files.keys() | files.keys()):
        if name not in files:
            raise CorruptPackageError(f"{show_name(name)} is missing from the model; {WAY_OUT}")
        if name not in anchor.files:
            raise CorruptPackageError(
                f"{show_name(name)} is in the model, but {anchor.source} don't name it; {WAY_OUT}"
            )
        if files[name] != anchor.files[name]:
            raise CorruptPackageError(
                f"{show_name(name)} differs from what {anchor.source} say; {WAY_OUT}"
            )


def _hash_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        raise CorruptPackageError(f"{show_name(path.name)} can't be read; {WAY_OUT}") from None
