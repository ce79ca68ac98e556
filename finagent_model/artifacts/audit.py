"""`audit.jsonl`: everything that happened on the way to each decision of a run, chained
(`domain/audit.py`), and the head of the chain as a tag of the run, which anchors it.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import finagent_model
from finagent_model.domain.audit import Chain, chain

if TYPE_CHECKING:
    from finagent_model.domain.decision import Decision  # brings pandas; a file is read without

FILE = "audit.jsonl"
HEAD = "finagent.audit_head"
"""Tag of the run that has the file."""
LIBRARIES = ("autogen-agentchat", "autogen-core", "autogen-ext", "mlflow", "numpy", "pandas")


def audit_chain(
    decisions: Iterable[Decision], code_hash: str, content_hash: str | None = None
) -> Chain:
    """The audit of `decisions` by the code of `code_hash` and the package of `content_hash` (None:
    a desk that is not packaged made them).
    """
    told = ((decision.signal, decision.events) for decision in decisions)
    return chain(told, versions(code_hash, content_hash))


def versions(code_hash: str, content_hash: str | None) -> dict[str, str | None]:
    """Of package, code and libraries."""
    return {
        "code_hash": code_hash,
        "content_hash": content_hash,
        "finagent-model": finagent_model.__version__,
        **{name: _version(name) for name in LIBRARIES},
    }


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
