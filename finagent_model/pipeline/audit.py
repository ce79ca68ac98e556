"""The audit of decisions: kept where they are kept, with its head as the run's tag, and verified
against it later.

A file alone says no more than that its lines agree with each other: whoever can write it can write
all of it again. The head of its chain, kept elsewhere, anchors it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finagent_model.artifacts.audit import FILE, HEAD, audit_chain
from finagent_model.domain.audit import Chain
from finagent_model.domain.tampering import Fault, head_of, verify_chain
from finagent_model.errors import BadInputError
from finagent_model.serving.wheel import code_hash

if TYPE_CHECKING:
    from finagent_model.domain.decision import Decision


@dataclass(frozen=True)
class AuditReport:
    """What verifying found."""

    what: str
    lines: int
    head: str | None
    """What the last line states as it is now."""
    anchored: bool
    """Whether the chain was held against a head that was kept elsewhere."""
    faults: tuple[Fault, ...]

    @property
    def whole(self) -> bool:
        return not self.faults

    @property
    def words(self) -> str:
        """The verdict in a line."""
        if self.faults:
            return f"{self.what} is not as it was written"
        if self.anchored:
            return f"{self.what} is whole: {self.lines} lines, and the head is {self.head}"
        return (
            f"{self.what} is whole in itself, but not anchored: {self.lines} lines that agree with "
            f"each other; compare the head {self.head} with the one that was kept (--head)"
        )

    def row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "whole": self.whole}


def audit_of(decisions: Iterable[Decision], content_hash: str | None = None) -> Chain:
    """By the code that is installed here; `content_hash` names the package that decided, None: a
    desk that is not packaged yet.
    """
    return audit_chain(decisions, code_hash(), content_hash)


def write_audit(audit: Chain, path: Path) -> None:
    """Raises BadInputError when `path` can't be written."""
    try:
        path.write_text(audit.lines, encoding="ascii")
    except OSError as error:
        raise BadInputError(f"audit {path}: can't be written: {error.strerror}") from None


def verify_audit(what: str, head: str | None = None) -> AuditReport:
    """Of a file, or of the run of that id, whose tag anchors it; `head` anchors either.

    Raises BadInputError for what is neither, and TrackingError for a run without an audit.
    """
    if head is not None and not re.fullmatch("[0-9a-f]{64}", head):
        raise BadInputError(f"head {head!r} is not a SHA-256: 64 digits, a to f in lower case")
    content, tag = _read(what, head)
    text = content.decode("utf-8", "replace")  # an audit is ASCII: other bytes are a change
    try:
        faults = verify_chain(text, head or tag)
    except BadInputError as error:
        raise BadInputError(f"audit {what}: {error}") from None
    lines = text.count("\n")
    if tag and head and tag != head:
        words = f"the run's tag {HEAD} says {tag}, not {head}"
        faults = (*faults, Fault(lines, "other head", words))
    return AuditReport(what, lines, head_of(text), bool(head or tag), faults)


def _read(what: str, head: str | None) -> tuple[bytes, str | None]:
    """The audit's bytes and, of a run, its tag."""
    try:
        return Path(what).read_bytes(), None
    except OSError as error:
        if not re.fullmatch("[0-9a-f]{32}", what):
            raise BadInputError(
                f"audit {what}: can't be read: {error.strerror}; name a file, or the id of a run"
            ) from None
    from finagent_model.tracking import RunLog  # MLflow: seconds that a file does not need

    run = RunLog(what)
    tag = run.tag(HEAD)
    if tag is None and head is None:
        raise BadInputError(
            f"run {what} has no tag {HEAD}: nothing anchors an audit of it; `finagent predict "
            "--log`, a training and a backtest keep one"
        )
    return run.read(FILE), tag
