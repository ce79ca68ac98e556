"""Count, merge, prune, export and verify a cassette file of recorded model replies.

Files are SQLite (`.sqlite`) or JSON lines (`.jsonl`). A recorded reply beats a recorded error for
the same request; where two replies conflict, the caller chooses a side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from finagent_model.cassette.cassette import open_cassette_file
from finagent_model.cassette.fingerprint import canonical_json, outline_to_row
from finagent_model.cassette.records import (
    CassetteFile,
    CassetteRow,
    RecordedReply,
    reply_to_row,
    supersedes,
)
from finagent_model.errors import BadInputError, DamagedCassetteError

ConflictSide = Literal["ours", "theirs"]
"""Whose reply wins where two files have different replies to one request."""
Redact = Callable[[str], str]
MAX_CONFLICTS = 3
"""Conflicts that an error message names."""


@dataclass
class ModelStats:
    """What is recorded of one model; client and model are empty where a reply has no outline."""

    client: str
    model: str
    replies: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


# The reports below are dumped with `asdict`: their fields are keys of the command line's JSON.
@dataclass(frozen=True)
class RecordingStats:
    """What a file holds. Costs are not included: a recording has tokens but no prices."""

    file: str
    replies: int
    errors: int
    distinct: int
    """Number of different replies and errors."""
    damaged: int
    bytes: int
    models: tuple[ModelStats, ...]


@dataclass(frozen=True)
class MergeReport:
    """How many recordings of the other files were added, replaced ours, or were not taken."""

    file: str
    added: int
    replaced: int
    """Our errors replaced by replies and, with `theirs`, our replies replaced by others."""
    same: int
    kept: int
    """Recordings of ours that differ from theirs and stayed."""


@dataclass(frozen=True)
class PruneReport:
    """How much was dropped and what remains."""

    file: str
    dropped: int
    left: int
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class ExportReport:
    """How many recordings were written where."""

    file: str
    to: str
    recordings: int


@dataclass(frozen=True)
class RecordingsCheck:
    """Whether every row of a file is as it was recorded."""

    file: str
    rows: int
    unsealed: int
    """Rows without a hash of their own, such as those of a package, which has a manifest."""
    faults: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Return whether there are no faults."""
        return not self.faults

    def row(self) -> dict[str, Any]:
        """Return the check as JSON-ready values."""
        return {"passed": self.passed, **asdict(self)}


def read_recordings(path: Path) -> dict[str, RecordedReply]:
    """Return the recorded replies of a file by key.

    Raises BadInputError where there is no file, and DamagedCassetteError where a row can't be read.
    """
    rows = _read_rows(_open_existing(path))
    damaged = [row.where for row in rows if row.reply is None]
    if damaged:
        raise DamagedCassetteError(
            f"{path} can't be read whole ({damaged[0]}, {len(damaged)} in all); `finagent cassette "
            f"verify {path}` says why, `finagent cassette prune {path} --damaged` drops them"
        )
    return _latest_by_key(rows)


def recording_stats(path: Path) -> RecordingStats:
    """Count replies, errors and tokens by model. Raises BadInputError where there is no file."""
    rows = _read_rows(_open_existing(path))
    replies = _latest_by_key(rows)
    models: dict[tuple[str, str], ModelStats] = {}
    for reply in replies.values():
        name = _model_name(reply)
        stats = models.setdefault(name, ModelStats(*name))
        stats.replies += reply.error is None
        stats.errors += reply.error is not None
        stats.prompt_tokens += reply.prompt_tokens
        stats.completion_tokens += reply.completion_tokens
    return RecordingStats(
        file=str(path),
        replies=sum(stats.replies for stats in models.values()),
        errors=sum(stats.errors for stats in models.values()),
        distinct=len({canonical_json(reply_to_row(reply)) for reply in replies.values()}),
        damaged=sum(row.reply is None for row in rows),
        bytes=_file_size(path),
        models=tuple(models[name] for name in sorted(models)),
    )


def merge_recordings(
    into: Path, sources: Sequence[Path], keep: ConflictSide | None = None
) -> MergeReport:
    """Add the recordings of `sources` to `into`, all or nothing; a reply beats an error.

    Raises BadInputError where the same request has different replies and `keep` is None, and
    DamagedCassetteError where a file can't be read whole.
    """
    ours = read_recordings(into) if into.exists() else {}
    changes: dict[str, RecordedReply] = {}
    conflicts: list[str] = []
    counts = dict.fromkeys(("added", "replaced", "same", "kept"), 0)
    for source in sources:
        for key, theirs in read_recordings(source).items():
            # An earlier source may have changed the key already: later ones compete with that.
            mine = changes.get(key) or ours.get(key)
            conflict = mine is not None and not mine.error and not theirs.error and mine != theirs
            if conflict and keep is None:
                conflicts.append(f"{_describe(key, theirs)} in {source}")
            action = _merge_action(mine, theirs, keep)
            counts[action] += 1
            # An equal reply may still bring the outline of its request, which ours lacks.
            lacks_outline = action == "same" and mine is not None and mine.outline is None
            if action in ("added", "replaced") or (lacks_outline and theirs.outline is not None):
                changes[key] = theirs
    if conflicts:
        hidden = len(conflicts) - MAX_CONFLICTS
        more = f" and {hidden} more" if hidden > 0 else ""
        raise BadInputError(
            f"{into} has other replies to the same requests: "
            f"{'; '.join(conflicts[:MAX_CONFLICTS])}{more}; "
            "choose with --keep ours or --keep theirs"
        )
    # One write at the end: an error above leaves the file untouched.
    open_cassette_file(into).put(changes)
    return MergeReport(str(into), **counts)


def prune_recordings(
    path: Path,
    redact: Redact,
    *,
    errors: bool = False,
    damaged: bool = False,
    packaged: Mapping[str, RecordedReply] | None = None,
) -> PruneReport:
    """Drop recorded `errors`, `damaged` rows, and what the replies of a package already hold.

    A dropped reply may have to be paid for again. Raises BadInputError where nothing is named to
    prune, or there is no file.
    """
    if not errors and not damaged and packaged is None:
        raise BadInputError("nothing to prune; say --errors, --damaged or --packaged MODEL")
    package_replies = packaged or {}

    def keeps(row: CassetteRow) -> bool:
        if row.reply is None or row.key is None:
            return not damaged
        # A row with a key is damaged too: it must not be shared.
        if damaged and _holds_key(row.reply, redact):
            return False
        if errors and row.reply.error is not None:
            return False
        theirs = package_replies.get(row.key)
        # A reply that differs from the package's is not a copy, so it stays.
        return theirs is None or (theirs != row.reply and row.reply.error is None)

    file, bytes_before = _open_existing(path), _file_size(path)
    dropped = file.prune(keeps)
    remaining = len(_latest_by_key(_read_rows(file)))
    return PruneReport(str(path), dropped, remaining, bytes_before, _file_size(path))


def packaged_replies(model: str) -> Mapping[str, RecordedReply]:
    """Return the replies of a package, by its folder or its model's URI. Raises ModelLoadError."""
    from finagent_model.model.package import MANIFEST_FILE, read_package

    if (Path(model) / MANIFEST_FILE).is_file():
        return read_package(Path(model)).replies
    # MLflow takes seconds to import, which a folder does not need.
    from finagent_model.model.loading import load_predictor

    return load_predictor(model).package.replies


def export_recordings(path: Path, to: Path) -> ExportReport:
    """Write the recordings of `path` to the new file `to`, sorted by key.

    Raises BadInputError where `to` exists.
    """
    replies = read_recordings(path)
    # Never overwrite: recordings were paid for.
    if to.exists():
        raise BadInputError(f"{to} exists; remove it, or `finagent cassette merge {to} {path}`")
    # Sorted, so that equal recordings are equal JSON lines.
    open_cassette_file(to).put({key: replies[key] for key in sorted(replies)})
    return ExportReport(str(path), str(to), len(replies))


def verify_recordings(path: Path, redact: Redact) -> RecordingsCheck:
    """Check that every row can be read, is as it was recorded, and holds no key.

    Raises BadInputError where there is no file.
    """
    rows: list[CassetteRow] = []
    try:
        file = _open_existing(path)
        faults = file.check_integrity()
        rows = _read_rows(file)
    except (DamagedCassetteError, OSError) as error:
        # A file that can't be read is a finding of the check, not an error.
        return RecordingsCheck(str(path), 0, 0, (str(error),))
    for row in rows:
        if row.reply is None:
            faults.append(f"{row.where}: {row.damage}")
        elif _holds_key(row.reply, redact):
            faults.append(f"{row.where}: it holds what looks like a key")
    return RecordingsCheck(str(path), len(rows), sum(not row.sealed for row in rows), tuple(faults))


def _merge_action(
    mine: RecordedReply | None, theirs: RecordedReply, keep: ConflictSide | None
) -> Literal["added", "replaced", "same", "kept"]:
    if mine is None:
        return "added"
    if mine == theirs:
        return "same"
    # Never replace by an error: it says less than what is there.
    if mine.error or (keep == "theirs" and not theirs.error):
        return "kept" if theirs.error else "replaced"
    return "kept"


def _open_existing(path: Path) -> CassetteFile:
    if not path.is_file():
        raise BadInputError(f"no cassette at {path}; name a file of recorded replies")
    return open_cassette_file(path)


def _read_rows(file: CassetteFile) -> list[CassetteRow]:
    try:
        return list(file.rows())
    except OSError as error:
        raise DamagedCassetteError(f"it can't be read: {error}; move it away") from None


def _latest_by_key(rows: Iterable[CassetteRow]) -> dict[str, RecordedReply]:
    """Return the valid reply of each request from rows in the order of recording."""
    replies: dict[str, RecordedReply] = {}
    for row in rows:
        if row.key is not None and row.reply and supersedes(row.reply, replies.get(row.key)):
            replies[row.key] = row.reply
    return replies


def _holds_key(reply: RecordedReply, redact: Redact) -> bool:
    """Return whether the redactor would change anything of the reply or its outline."""
    outline = None if reply.outline is None else outline_to_row(reply.outline)
    text = canonical_json([reply_to_row(reply), outline])
    return redact(text) != text


def _model_name(reply: RecordedReply) -> tuple[str, str]:
    fields = {} if reply.outline is None else dict(reply.outline.fields)
    return str(fields.get("client", "")), str(fields.get("model", ""))


def _describe(key: str, reply: RecordedReply) -> str:
    agent = f" of {reply.outline.agent}" if reply.outline else ""
    return f"{key[:12]}{agent}"


def _file_size(path: Path) -> int:
    """Return the bytes of a file and of SQLite's write-ahead log beside it."""
    # SQLite moves the log into the file only from time to time.
    files = (path, path.with_name(f"{path.name}-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
