"""Write JSON in the one form that artifacts and packages have."""

from __future__ import annotations

import json
from typing import Any


def dump_json(value: Any) -> str:
    """Return `value` as indented JSON with sorted keys and a final newline."""
    # Content hashes are taken of this text: any change of form changes them all.
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
