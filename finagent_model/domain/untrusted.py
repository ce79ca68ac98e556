"""Text that anybody may have written, as it may be shown to a model: one plain line of bounded
length, in which nothing is hidden from a human reader.

Compatible forms become one (NFKC). Control characters, zero-width and bidirectional controls, tag
characters, variation selectors, blank fillers and lone surrogates are removed; whitespace becomes
single spaces. Cleaning twice changes nothing. It does not judge what the text says.
"""

from __future__ import annotations

import re
import unicodedata

_HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn"}
_HIDDEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
"""What Unicode calls default ignorable without calling it a control."""


def plain(text: str, limit: int) -> str:
    """At most `limit` characters of `text`; may be empty."""
    seen = unicodedata.normalize("NFKC", _visible(text))
    return " ".join(_visible(seen).split())[:limit].rstrip()


def _visible(text: str) -> str:
    spaced = re.sub(r"\s", " ", text)
    kept = (c for c in spaced if unicodedata.category(c) not in _HIDDEN_CATEGORIES)
    return _HIDDEN.sub("", "".join(kept))
