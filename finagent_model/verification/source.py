"""Source files as syntax trees."""

from __future__ import annotations

import ast
import gc
from pathlib import Path


def parsed(path: Path) -> ast.Module:
    """The file's tree.

    No garbage is collected meanwhile: what is thrown away may have something parsed too, which
    CPython 3.11 takes for a fault of its own (python/cpython#106905).
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        if collecting:
            gc.enable()
