"""Write and read the package of one trained desk: plain files, and a manifest with their hashes.

Nothing is pickled, and no file knows the clock: equal trainings give equal packages, to the byte.
The content hash is taken of the files' hashes and identifies the package everywhere. Every read
compares the files with the manifest, and the agent graph with the roster; a package of an unknown
format is refused. Who changes a file can change the manifest too: `model.anchor` compares with what
lies outside.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from finagent_model._base import dump_json, first_error_message
from finagent_model.agents.components import AgentGraph
from finagent_model.agents.external import ExternalSource, load_external
from finagent_model.cassette.jsonl import dump_replies, load_replies
from finagent_model.cassette.records import RecordedReply
from finagent_model.config.desk_config import DeskConfig
from finagent_model.config.rules import Grade
from finagent_model.errors import (
    ConfigError,
    CorruptPackageError,
    ExternalSourceError,
    PackageFormatError,
)
from finagent_model.policy.policy import PolicyBook
from finagent_model.policy.trained_state import (
    CalibrationBook,
    TrainedState,
    dump_outcomes,
    load_outcomes,
)

PACKAGE_FORMAT = 4
"""Layout of the files; another number is another layout."""
STOCK_AGENTS_FORMAT = 3
"""Format whose agent_graph.json describes AutoGen's stock agents and is no part of a decision.

It is read as well: there the roster of config.yaml is what runs.
"""
MANIFEST_FILE = "manifest.json"


REQUIRED_FILES = (
    "agent_graph.json",
    "backtest.json",
    "calibration.json",
    "cassette.jsonl",
    "config.yaml",
    "memory.jsonl",
    "policy.json",
)
"""Files that every package of this format has; an external analyst's come in a folder of its own.
"""
MAX_MANIFEST_BYTES = 1_000_000
MAX_FILE_BYTES = 512 * 1024 * 1024
"""A larger file of a package is refused before it is read into memory."""
_PLAIN_NAME = re.compile(r"[\w.+-][\w./+-]{0,199}", re.ASCII)
WAY_OUT = "download the model again, or train again"
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """The package's own list of its files, with their hashes; foreign data until it is parsed."""

    model_config = ConfigDict(frozen=True, strict=True)

    format: int
    files: dict[str, Sha256]
    """SHA-256 of each file but the manifest, by its path in the package."""
    content_hash: Sha256
    code_hash: Sha256
    """SHA-256 of the code that trained the package; no part of the content hash."""
    evidence: Grade = "strong"
    """The gate's grade, which counts earlier trainings. The package gives the lower of both."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.files:
            if not is_inside(name) or name == MANIFEST_FILE:
                shown = f"{name[:80]!a:.80}"
                raise ValueError(f"files: {shown} is not a path of a file inside the package")
        if self.content_hash != (actual := hash_package(self.files)):
            raise ValueError(
                f"it states content hash {self.content_hash[:12]}, and its files hash to "
                f"{actual[:12]}"
            )
        return self

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the manifest of a package of any format.

        Raises CorruptPackageError for what is no manifest.
        """
        content = _read_bytes(folder, MANIFEST_FILE, MAX_MANIFEST_BYTES)
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            message = first_error_message(error)
            raise CorruptPackageError(f"{MANIFEST_FILE} is invalid: {message}; {WAY_OUT}") from None


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
    agent_graph: AgentGraph | None = None
    """What its teams are built from; None for an older format, which has the roster alone."""
    external: ExternalSource | None = None
    """The external analyst's files, verified; None where the desk has none."""
    judged_grade: Grade = "strong"
    """The grade once earlier trainings are counted, as the manifest has it."""

    @cached_property
    def evidence(self) -> Grade:
        """The grade of evidence for an edge after costs, as training and gate found it."""
        evidence = self.backtest["evidence"]
        # Trained before cut-offs counted: its grade is of days that its models may remember.
        if "memory" not in evidence and self.config.latest_knowledge:
            return "none"
        grade: Grade = evidence["grade"]
        # The content hash leaves the manifest out, so it may lower a grade but never raise it.
        return min(grade, self.judged_grade, key=get_args(Grade).index)


def write_package(
    folder: Path,
    *,
    config: DeskConfig,
    trained_state: TrainedState,
    replies: Mapping[str, RecordedReply],
    backtest: Mapping[str, Any],
    code_hash: str,
    external: ExternalSource | None = None,
    judged_grade: Grade = "strong",
) -> Manifest:
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
        "agent_graph.json": dump_json(AgentGraph.from_config(config).to_component()),
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
    manifest = Manifest(
        format=PACKAGE_FORMAT,
        files=hashes,
        content_hash=hash_package(hashes),
        code_hash=code_hash,
        evidence=judged_grade,
    )
    # Last: a package that was only half written has no manifest, and is refused.
    (folder / MANIFEST_FILE).write_text(dump_json(manifest.model_dump()))
    return manifest


def hash_package(files: Mapping[str, str]) -> str:
    """Return the content hash of a package, from each file's SHA-256 by name."""
    # The code's hash is no part of it: the same content trained by other code is the same package.
    return hashlib.sha256(dump_json(files).encode()).hexdigest()


def read_package(folder: Path, manifest: Manifest | None = None) -> Package:
    """Return the package in `folder`; `manifest` is its manifest if it was read before.

    Raises PackageFormatError for another layout, and CorruptPackageError for a file that isn't as
    registered or can't be read.
    """
    manifest = manifest or Manifest.read(folder)
    # Before the hashes: another layout may have other files, which is no corruption.
    if manifest.format not in (PACKAGE_FORMAT, STOCK_AGENTS_FORMAT):
        raise PackageFormatError(
            f"the package has format {manifest.format!r}, this code reads format {PACKAGE_FORMAT}; "
            "load it in its own environment (--env-manager uv) or train again"
        )
    if unlisted := [name for name in REQUIRED_FILES if name not in manifest.files]:
        raise CorruptPackageError(f"{unlisted[0]} is missing from {MANIFEST_FILE}; {WAY_OUT}")
    # Parsed from the bytes that were hashed: a file that changes in between is never read.
    contents = _read_files(folder, manifest)
    texts = {name: _decode(name, contents[name]) for name in REQUIRED_FILES}
    try:
        config = DeskConfig.model_validate(yaml.safe_load(texts["config.yaml"]))
        trained_state = TrainedState(
            PolicyBook.model_validate_json(texts["policy.json"]),
            CalibrationBook.model_validate_json(texts["calibration.json"]),
            load_outcomes(texts["memory.jsonl"]),
        )
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise CorruptPackageError(f"config.yaml is not YAML: {reason}; {WAY_OUT}") from None
    except ValidationError as error:
        raise CorruptPackageError(
            f"the package can't be read: {error.title}: {first_error_message(error)}; "
            "load it in its own environment (--env-manager uv) or train again"
        ) from None
    replies = load_replies(io.StringIO(texts["cassette.jsonl"]))
    graph = None
    if manifest.format != STOCK_AGENTS_FORMAT:
        graph = _read_graph(texts["agent_graph.json"], config)
    source = None
    if analyst := config.external_analyst:
        plugin = load_external(analyst)
        try:
            source = plugin.open_source(folder / analyst, "download the model again")
        except ExternalSourceError as error:  # its files are not those of the plug-in's pin
            raise CorruptPackageError(str(error)) from None
    return Package(
        config=config,
        trained_state=trained_state,
        replies=replies,
        backtest=_parse_object("backtest.json", texts["backtest.json"]),
        files=tuple(sorted(manifest.files)),
        code_hash=manifest.code_hash,
        content_hash=manifest.content_hash,
        agent_graph=graph,
        external=source,
        judged_grade=manifest.evidence,
    )


def check_files(folder: Path, manifest: Manifest) -> None:
    """Raise CorruptPackageError naming the first file that is not as the manifest says.

    A file that the manifest doesn't list is one too.
    """
    _read_files(folder, manifest)


def list_files(folder: Path) -> tuple[str, ...]:
    """Return the paths of all files below `folder`, sorted.

    Raises CorruptPackageError for a link: what it points to can change unnoticed.
    """
    names = []
    for place, folders, files in os.walk(folder, onerror=_refuse_unreadable):
        for name in (*folders, *files):
            path = Path(place, name)
            inside = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise CorruptPackageError(
                    f"{show_name(inside)} is not a plain file of the model; {WAY_OUT}"
                )
            if path.is_file():
                names.append(inside)
    return tuple(sorted(names))


def show_name(name: str) -> str:
    """Return a file's name for a message: as it is where it is plain, else quoted and cut."""
    # A name is foreign text: it may hold line ends, colours of a terminal, or a megabyte.
    return name if _PLAIN_NAME.fullmatch(name) else f"{name[:200]!a:.200}"


def _refuse_unreadable(error: OSError) -> None:
    name = Path(str(error.filename)).name
    raise CorruptPackageError(
        f"folder {show_name(name)} can't be read: {error.strerror}; {WAY_OUT}"
    )


def is_inside(name: str) -> bool:
    """Return whether `name` is a plain relative path that can't leave its folder."""
    path = PurePosixPath(name)
    return (
        bool(path.parts)
        and not path.is_absolute()
        and path.as_posix() == name
        and ".." not in path.parts
        and not any(character in name for character in "\\:\0")
    )


def _read_files(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """Return the content of every listed file. Raises CorruptPackageError."""
    contents = {}
    for name, expected in manifest.files.items():
        contents[name] = content = _read_bytes(folder, name)
        if hashlib.sha256(content).hexdigest() != expected:
            raise CorruptPackageError(
                f"{show_name(name)} differs from what was registered; {WAY_OUT}"
            )
    if extra := set(list_files(folder)) - manifest.files.keys() - {MANIFEST_FILE}:
        raise CorruptPackageError(
            f"{show_name(min(extra))} is in the package, but not in {MANIFEST_FILE}; {WAY_OUT}"
        )
    return contents


def _read_bytes(folder: Path, name: str, at_most: int = -1) -> bytes:
    """Return a file's content, or its first `at_most` bytes. Raises CorruptPackageError."""
    path = folder / name
    try:
        if path.is_symlink():
            raise CorruptPackageError(
                f"{show_name(name)} is not a plain file of the package; {WAY_OUT}"
            )
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
                raise CorruptPackageError(
                    f"{show_name(name)} has more than {MAX_FILE_BYTES} bytes; {WAY_OUT}"
                )
            return file.read(at_most)
    except (OSError, ValueError):
        raise CorruptPackageError(
            f"{show_name(name)} is missing from the package; {WAY_OUT}"
        ) from None


def _read_graph(text: str, config: DeskConfig) -> AgentGraph:
    """Return the agent graph of a package, which must agree with its roster.

    Raises CorruptPackageError naming the difference.
    """
    component = _parse_object("agent_graph.json", text)
    try:
        graph = AgentGraph.parse(component)
        difference = graph.find_difference(config)
    except ConfigError as error:
        difference = str(error)
    if difference:
        raise CorruptPackageError(
            f"agent_graph.json and config.yaml describe different desks: {difference}; {WAY_OUT}"
        )
    return graph


def _decode(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise CorruptPackageError(f"{name} is not UTF-8 text; {WAY_OUT}") from None


def _parse_object(name: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise CorruptPackageError(f"{name} is not JSON; {WAY_OUT}") from None
    if not isinstance(value, dict):
        raise CorruptPackageError(f"{name} is not a JSON object; {WAY_OUT}")
    return value
