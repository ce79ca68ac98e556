"""Keys have no place in a recording or a message: known ones are struck out, whatever is shaped
like one, and what an address holds beside the place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from finagent_model.domain.leak import KEY, without_keys

_SHAPES = re.compile(
    r"""
      (?<![\w-])sk-[\w-]{16,}                      # OpenAI and those who imitate it
    | (?<![\w-])(?:AKIA|ASIA)[A-Z0-9]{16}(?!\w)    # AWS
    | (?<![\w-])AIza[\w-]{35}                      # Google
    | (?<![\w-])(?:gh[pousr]_\w{36}|github_pat_\w{22})\w*  # GitHub
    | (?<![\w-])hf_[A-Za-z0-9]{30,}                # Hugging Face
    | (?<![\w-])xox[abeprs]-[\w-]{10,}             # Slack
    | (?<![\w-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+ # a signed JSON token
    | (?<=\bBearer\ )(?=\S*\d)[\w.~+/=-]{16,}
    | (?<=\bbearer\ )(?=\S*\d)[\w.~+/=-]{16,}
    """,
    re.VERBOSE | re.ASCII,
)
_ADDRESS = re.compile(r"(?<=://)[^\s\"'<>]+")
_QUERY = re.compile(r"\?[^\s?]*=\S*")
_SIGNS = (
    *("sk-", "AKIA", "ASIA", "AIza", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    *("hf_", "xox", "eyJ", "earer "),
)
"""Without one of these there is no such shape: looking for them is a hundred times quicker."""


def without_key_shapes(text: str) -> str:
    """`text` with everything that is shaped like a key struck out."""
    return _SHAPES.sub(KEY, text) if any(sign in text for sign in _SIGNS) else text


def without_private(text: str) -> str:
    """`text` with each address in it without user, password and query, which may hold a key."""
    return _QUERY.sub("", _ADDRESS.sub(_public, text))


def _public(address: re.Match[str]) -> str:
    """Host and path. A password may hold an @ or a /, and where a ? is before the last @ nobody can
    tell it from a query.
    """
    private, _, rest = address[0].rpartition("@")
    return "***" if "?" in private else rest


def redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """A function that strikes out these secrets and everything that is shaped like a key."""
    known = sorted(set(secrets), key=len, reverse=True)

    def redact(text: str) -> str:
        return without_key_shapes(without_keys(text, known))

    return redact
