"""Write and read the package of one trained desk: plain files, and a manifest with their hashes.

Nothing is pickled, and no file knows the clock: equal trainings give equal packages, to the byte.
The content hash is taken of the files' hashes and identifies the package everywhere. Every read
compares the files with the manifest; a package of another format is refused, never migrated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from finagent_model._base import dump_json, first_error_message
from finagent_model.agents.external import ExternalSource, load_external
from finagent_model.cassette.jsonl import dump_replies, load_replies
from finagent_model.cassette.records import RecordedReply
from finagent_model.config.desk_config import DeskConfig
from finagent_model.config.rules import Grade
from finagent_model.errors import CorruptPackageError, ExternalSourceError, PackageFormatError
from finagent_model.policy.policy import PolicyBook
from finagent_model.policy.trained_state import (
    CalibrationBook,
    TrainedState,
    dump_outcomes,
    load_outcomes,
)

PACKAGE_FORMAT = 3
"""Layout of the files; another number is another layout."""
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class Package:
    """A trained desk as data, read from a package whose files are as registered."""

    config: DeskConfig
    trained_state: TrainedState
    replies: Mapping[str, RecordedReply]
    backtest: Mapping[str, Any]
    """The out-of-sample record that the gate judged, and the request that led to it."""
    files: tuple[str, ...]
    """Names of all files but the manifest, sorted."""
    code_hash: str
    """SHA-256 of the code that trained it; see `model.wheel.code_hash`."""
    content_hash: str
    """SHA-256 that identifies the package."""
    external: ExternalSource | None = None
    """The external analyst's files, verified; None where the desk has none."""
    judged_grade: Grade = "strong"
    """The grade once earlier trainings are counted, as the manifest has it."""

    @property
    def evidence(self) -> Grade:
        """The grade of evidence for an edge after costs, as training and gate found it."""
        grade: Grade = self.backtest["evidence"]["grade"]
        # The lower one: the manifest is not hashed, and may lower a grade but never raise it.
        return min(grade, self.judged_grade, key=get_args(Grade).index)


def write_package(
    folder: Path,
    *,
    config: DeskConfig,
    trained_state: TrainedState,
    replies: Mapping[str, RecordedReply],
    agent_graph: Mapping[str, Any],
    backtest: Mapping[str, Any],
    code_hash: str,
    external: ExternalSource | None = None,
    judged_grade: Grade = "strong",
) -> dict[str, Any]:
    """Write every file and the manifest into `folder`, and return the manifest.

    `judged_grade` is the gate's grade of evidence. It counts earlier trainings, which are no part
    of the content, and so stands in the manifest. A package gives the lower of it and its own.

    Raises ValueError for a trained state without calibrations, and for a desk with an external
    analyst without its source.
    """
    # Checked before anything is written, so that a refusal leaves no half package.
    analyst = config.external_analyst
    if analyst and external is None:
        raise ValueError(f"a package whose desk hears {analyst} needs its source")
    if trained_state.calibrations is None:
        raise ValueError("a package needs calibrations, if only to say that there are none")
    # These bytes are hashed: a change of form gives every version another content hash.
    texts = {
        "config.yaml": yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False),
        "policy.json": dump_json(trained_state.policies.model_dump(mode="json")),
        "calibration.json": dump_json(trained_state.calibrations.model_dump(mode="json")),
        "memory.jsonl": dump_outcomes(trained_state.lessons),
        "agent_graph.json": dump_json(agent_graph),
        "backtest.json": dump_json(backtest),
        "cassette.jsonl": dump_replies(replies),
    }
    contents = {name: text.encode() for name, text in texts.items()}
    if analyst and external is not None:
        files = external.package_files()
        # In a folder of its own, so that its names can't collide with ours.
        contents |= {f"{analyst}/{name}": content for name, content in files.items()}
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    manifest = {
        "format": PACKAGE_FORMAT,
        "files": hashes,
        "content_hash": hash_package(hashes),
        "code_hash": code_hash,
        "evidence": judged_grade,
    }
    # Last: a package that was only half written has no manifest, and is refused.
    (folder / MANIFEST_FILE).write_text(dump_json(manifest))
    return manifest


def hash_package(files: Mapping[str, str]) -> str:
    """Return the content hash of a package, from each file's SHA-256 by name."""
    # The code's hash is no part of it: the same content trained by other code is the same package.
    return hashlib.sha256(dump_json(files).encode()).hexdigest()


def read_package(folder: Path) -> Package:
    """Return the package in `folder`.

    Raises PackageFormatError for another layout, and CorruptPackageError for a file that isn't as
    registered or can't be read.
    """
    manifest = _read_json(folder / MANIFEST_FILE)
    package_format = manifest.get("format")
    # Before the hashes: another layout may have other files, which is no corruption.
    if package_format != PACKAGE_FORMAT:
        raise PackageFormatError(
            f"the package has format {package_format!r}, this code reads format {PACKAGE_FORMAT}; "
            "load it in its own environment (--env-manager uv) or train again"
        )
    check_files(folder, manifest)
    try:
        config = DeskConfig.model_validate(yaml.safe_load((folder / "config.yaml").read_text()))
        trained_state = TrainedState(
            PolicyBook.model_validate_json((folder / "policy.json").read_text()),
            CalibrationBook.model_validate_json((folder / "calibration.json").read_text()),
            load_outcomes((folder / "memory.jsonl").read_text()),
        )
    except ValidationError as error:
        raise CorruptPackageError(
            f"the package can't be read: {error.title}: {first_error_message(error)}; "
            "load it in its own environment (--env-manager uv) or train again"
        ) from None
    # By lines: the recorded replies are the largest part by far.
    with (folder / "cassette.jsonl").open() as lines:
        replies = load_replies(lines)
    source = None
    if analyst := config.external_analyst:
        plugin = load_external(analyst)
        try:
            source = plugin.open_source(folder / analyst, "download the model again")
        except ExternalSourceError as error:  # a file that the manifest doesn't list
            raise CorruptPackageError(str(error)) from None
    return Package(
        config=config,
        trained_state=trained_state,
        replies=replies,
        backtest=_read_json(folder / "backtest.json"),
        files=tuple(sorted(manifest["files"])),
        code_hash=manifest["code_hash"],
        content_hash=manifest["content_hash"],
        external=source,
        judged_grade=manifest.get("evidence", "strong"),
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a package of any format, after checking its files against it.

    Raises CorruptPackageError.
    """
    manifest = _read_json(folder / MANIFEST_FILE)
    check_files(folder, manifest)
    return manifest


def check_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raise CorruptPackageError naming the first file that is not as the manifest says."""
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise CorruptPackageError(
                f"{name} is missing from the package; download the model again"
            )
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise CorruptPackageError(
                f"{name} differs from what was registered; download the model again"
            )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text())
    except OSError:
        raise CorruptPackageError(
            f"{path.name} is missing from the package; download the model again"
        ) from None
    except ValueError:
        raise CorruptPackageError(f"{path.name} is not JSON; download the model again") from None
    return value
