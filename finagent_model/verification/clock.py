"""Does the code that decides read a clock? Its source is searched: no experiment can show that a
branch which was not taken is free of one.

Monotonic clocks (`time.monotonic`, an event loop's `time`) are no dates: they say how long a
conversation has taken, which its limits ask, and not when it took place.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import finagent_model
from finagent_model.verification.source import parsed

ROOMS = frozenset(
    [
        "domain",
        "data",
        "indicators",
        "features",
        "context",
        "risk",
        "market",
        "tools",
        "chart_image",
        "upstream",
        "cassette",
        "agents",
        "loop",
        "desk",
        "backtest",
    ]
)
"""Files and folders of the package from which a decision or its fill comes."""
STAMPS = frozenset({("desk.py", "utc_now"), ("data/fetched.py", "utc_now")})
"""The functions that may ask for the time: it stamps a record, of a decision or of what a vendor
gave, through a seam that tests stop.
"""
MOMENTS = frozenset({"now", "utcnow", "today"})
MONOTONIC = frozenset({"monotonic", "monotonic_ns", "sleep"})


def clocks_read(root: Path = Path(finagent_model.__file__).parent) -> list[str]:
    """`file:line: what` of each place under `root` that reads a clock without leave, in order."""
    found = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if name.parts[0].removesuffix(".py") not in ROOMS:
            continue
        tree = parsed(path)
        times, allowed = _times(tree), {f for file, f in STAMPS if file == name.as_posix()}
        for node in _nodes(tree, allowed):
            found += [f"{name}:{node.lineno}: {read}" for read in _reads(node, times)]
    return found


def _nodes(tree: ast.AST, allowed: set[str]) -> Iterator[ast.expr | ast.stmt]:
    """All but the bodies of the functions named."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef) and child.name in allowed:
            continue
        if isinstance(child, ast.expr | ast.stmt):
            yield child
        yield from _nodes(child, allowed)


def _times(tree: ast.AST) -> set[str]:
    """What a file calls the module `time`."""
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "time"
    }


def _reads(node: ast.expr | ast.stmt, times: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Attribute):
        of_time = isinstance(node.value, ast.Name) and node.value.id in times
        if node.attr in MOMENTS or (of_time and node.attr not in MONOTONIC):
            yield ast.unparse(node)
    elif isinstance(node, ast.ImportFrom) and node.module == "time":
        yield from (f"time.{a.name}" for a in node.names if a.name not in MONOTONIC)
    elif isinstance(node, ast.Call):
        said = [a.value for a in node.args if isinstance(a, ast.Constant)]
        yield from (ast.unparse(node) for value in said if value in MOMENTS)
