"""`docs/faults.md`: a part about providers, and one about kills, disks and clocks."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from finagent_model.evaluation.probes import parse_source
from support.command_forks import Outcome
from support.places import ROOT, TESTS

Report = Callable[[Outcome | None, str], None]
"""Keeps how a case ended, and what was asserted after it."""

PAGE = ROOT / "docs" / "faults.md"
LOCAL_TITLE = "## Killed processes, full disks and wrong clocks\n"


def provider_part() -> str:
    return PAGE.read_text().partition(LOCAL_TITLE)[0].rstrip("\n") + "\n"


def local_part() -> str:
    _, title, text = PAGE.read_text().partition(LOCAL_TITLE)
    return title + text


def local_cases() -> list[str]:
    """Return the first column of the table."""
    names = re.findall(r"^\| ([^|]+) \|", local_part(), flags=re.M)
    return [name for name in names if name not in ("case", "---")]


def tried_cases() -> list[str]:
    """Return the case that each test in tests/chaos names in its marker."""
    calls = [
        node
        for path in sorted((TESTS / "chaos").glob("test_*.py"))
        for node in ast.walk(parse_source(path))
        if isinstance(node, ast.Call)
    ]
    marks = [call for call in calls if ast.unparse(call.func) == "pytest.mark.chaos"]
    return [ast.literal_eval(mark.args[0]) for mark in marks]


def write_page(providers: str, local: str) -> None:
    PAGE.write_text(f"{providers}\n{local}")
