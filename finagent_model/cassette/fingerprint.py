"""One text for one value, and its hash: equal requests have equal fingerprints on any machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical(value: Any) -> str:
    """Compact JSON with sorted keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def encoded(text: str) -> bytes:
    """UTF-8 of any text, also of half a surrogate pair, which JSON can smuggle in."""
    return text.encode("utf-8", "surrogatepass")


def fingerprint(request: Mapping[str, Any]) -> str:
    """SHA-256 of the request as canonical JSON."""
    return hashlib.sha256(encoded(canonical(request))).hexdigest()
