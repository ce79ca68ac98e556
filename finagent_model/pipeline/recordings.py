"""What can be done with a file of recordings: count it, merge, prune, export and verify it."""

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

Keep = Literal["ours", "theirs"]
Redact = Callable[[str], str]
NAMED = 3
"""Conflicts that a message names."""


@dataclass
class Group:
    """What was recorded of one model; empty names where a recording has no outline."""

    client: str
    model: str
    replies: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Stats:
    """What a file holds. Money is not known here."""

    file: str
    replies: int
    errors: int
    distinct: int
    """Replies and errors that are not the same as another."""
    damaged: int
    bytes: int
    models: tuple[Group, ...]


def recording_stats(path: Path) -> Stats:
    """Raises BadInputError where there is no such file."""
    rows = _rows(_existing(path))
    known = _settled(rows)
    groups: dict[tuple[str, str], Group] = {}
    for reply in known.values():
        who = _who(reply)
        group = groups.setdefault(who, Group(*who))
        group.replies += reply.error is None
        group.errors += reply.error is not None
        group.prompt_tokens += reply.prompt_tokens
        group.completion_tokens += reply.completion_tokens
    return Stats(
        file=str(path),
        replies=sum(group.replies for group in groups.values()),
        errors=sum(group.errors for group in groups.values()),
        distinct=len({canonical_json(reply_to_row(reply)) for reply in known.values()}),
        damaged=sum(row.reply is None for row in rows),
        bytes=_size(path),
        models=tuple(groups[who] for who in sorted(groups)),
    )


@dataclass(frozen=True)
class Merged:
    """What became of the recordings of other files."""

    file: str
    added: int
    replaced: int
    """Errors that gave way to a reply, and with `theirs` replies that gave way to others."""
    same: int
    kept: int
    """Others than ours, which stayed."""


def merge_recordings(into: Path, sources: Sequence[Path], keep: Keep | None = None) -> Merged:
    """Add to `into` what the other files have, all or nothing; a reply wins over an error.

    Raises BadInputError where the same request has different replies and `keep` doesn't say which
    is wanted, and DamagedCassetteError where a file can't be read whole.
    """
    ours = recordings(into) if into.exists() else {}
    changes: dict[str, RecordedReply] = {}
    conflicts: list[str] = []
    counted = dict.fromkeys(("added", "replaced", "same", "kept"), 0)
    for source in sources:
        for key, theirs in recordings(source).items():
            mine = changes.get(key) or ours.get(key)
            conflict = mine is not None and not mine.error and not theirs.error and mine != theirs
            if conflict and keep is None:
                conflicts.append(f"{_named(key, theirs)} in {source}")
            what = _fate(mine, theirs, keep)
            counted[what] += 1
            learns = what == "same" and mine is not None and mine.outline is None
            if what in ("added", "replaced") or (learns and theirs.outline is not None):
                changes[key] = theirs
    if conflicts:
        more = f" and {len(conflicts) - NAMED} more" if len(conflicts) > NAMED else ""
        raise BadInputError(
            f"{into} has other replies to the same requests: {'; '.join(conflicts[:NAMED])}{more}; "
            "choose with --keep ours or --keep theirs"
        )
    open_cassette_file(into).put(changes)
    return Merged(str(into), **counted)


def _fate(mine: RecordedReply | None, theirs: RecordedReply, keep: Keep | None) -> str:
    if mine is None:
        return "added"
    if mine == theirs:
        return "same"
    if mine.error or (keep == "theirs" and not theirs.error):
        return "kept" if theirs.error else "replaced"
    return "kept"


@dataclass(frozen=True)
class Pruned:
    """What was dropped."""

    file: str
    dropped: int
    left: int
    bytes_before: int
    bytes_after: int


def prune_recordings(
    path: Path,
    redact: Redact,
    *,
    errors: bool = False,
    damaged: bool = False,
    packaged: Mapping[str, RecordedReply] | None = None,
) -> Pruned:
    """Drop recorded errors, what `verify` finds wrong, and what a package carries; what is dropped
    may have to be paid for again.
    """
    if not errors and not damaged and packaged is None:
        raise BadInputError("nothing to prune; say --errors, --damaged or --packaged MODEL")
    carried = packaged or {}

    def wanted(row: CassetteRow) -> bool:
        if row.reply is None or row.key is None:
            return not damaged
        if damaged and _holds_key(row.reply, redact):
            return False
        if errors and row.reply.error is not None:
            return False
        theirs = carried.get(row.key)
        return theirs is None or (theirs != row.reply and row.reply.error is None)

    file, before = _existing(path), _size(path)
    dropped = file.prune(wanted)
    return Pruned(str(path), dropped, len(_settled(_rows(file))), before, _size(path))


def packaged_replies(model: str) -> Mapping[str, RecordedReply]:
    """Of a package's folder or of a model by its URI. Raises ModelLoadError."""
    from finagent_model.model.package import MANIFEST_FILE, read_package

    if (Path(model) / MANIFEST_FILE).is_file():
        return read_package(Path(model)).replies
    from finagent_model.model.loading import load_predictor

    return load_predictor(model).package.replies


@dataclass(frozen=True)
class Exported:
    file: str
    to: str
    recordings: int


def export_recordings(path: Path, to: Path) -> Exported:
    """Write a new file, sorted by key: equal recordings give equal JSON lines. Raises BadInputError
    where it exists.
    """
    known = recordings(path)
    if to.exists():
        raise BadInputError(f"{to} exists; remove it, or `finagent cassette merge {to} {path}`")
    open_cassette_file(to).put({key: known[key] for key in sorted(known)})
    return Exported(str(path), str(to), len(known))


@dataclass(frozen=True)
class RecordingsCheck:
    """Whether a file is as it was recorded."""

    file: str
    rows: int
    unsealed: int
    """Rows without a hash of their own, such as those of a package, which has a manifest."""
    faults: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.faults

    def row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"passed": self.passed, **asdict(self)}


def verify_recordings(path: Path, redact: Redact) -> RecordingsCheck:
    """Every row readable and as it was recorded, and no key in any. Raises BadInputError where
    there is no such file.
    """
    rows: list[CassetteRow] = []
    try:
        file = _existing(path)
        faults = file.check_integrity()
        rows = _rows(file)
    except (DamagedCassetteError, OSError) as error:
        return RecordingsCheck(str(path), 0, 0, (str(error),))
    for row in rows:
        if row.reply is None:
            faults.append(f"{row.where}: {row.damage}")
        elif _holds_key(row.reply, redact):
            faults.append(f"{row.where}: it holds what looks like a key")
    return RecordingsCheck(str(path), len(rows), sum(not row.sealed for row in rows), tuple(faults))


def recordings(path: Path) -> dict[str, RecordedReply]:
    """All of a file, by key. Raises BadInputError where there is none, and DamagedCassetteError
    where it can't be read whole.
    """
    rows = _rows(_existing(path))
    damaged = [row.where for row in rows if row.reply is None]
    if damaged:
        raise DamagedCassetteError(
            f"{path} can't be read whole ({damaged[0]}, {len(damaged)} in all); `finagent cassette "
            f"verify {path}` says why, `finagent cassette prune {path} --damaged` drops them"
        )
    return _settled(rows)


def _existing(path: Path) -> CassetteFile:
    if not path.is_file():
        raise BadInputError(f"no cassette at {path}; name a file of recorded replies")
    return open_cassette_file(path)


def _rows(file: CassetteFile) -> list[CassetteRow]:
    try:
        return list(file.rows())
    except OSError as error:
        raise DamagedCassetteError(f"it can't be read: {error}; move it away") from None


def _settled(rows: Iterable[CassetteRow]) -> dict[str, RecordedReply]:
    """What holds for each request, of rows in the order of recording."""
    known: dict[str, RecordedReply] = {}
    for row in rows:
        if row.key is not None and row.reply and supersedes(row.reply, known.get(row.key)):
            known[row.key] = row.reply
    return known


def _holds_key(reply: RecordedReply, redact: Redact) -> bool:
    outline = None if reply.outline is None else outline_to_row(reply.outline)
    text = canonical_json([reply_to_row(reply), outline])
    return redact(text) != text


def _who(reply: RecordedReply) -> tuple[str, str]:
    asked = {} if reply.outline is None else dict(reply.outline.fields)
    return str(asked.get("client", "")), str(asked.get("model", ""))


def _named(key: str, reply: RecordedReply) -> str:
    agent = f" of {reply.outline.agent}" if reply.outline else ""
    return f"{key[:12]}{agent}"


def _size(path: Path) -> int:
    """With what SQLite has not yet moved into the file."""
    beside = (path, path.with_name(f"{path.name}-wal"))
    return sum(each.stat().st_size for each in beside if each.exists())
