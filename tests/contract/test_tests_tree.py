"""The tests' tree mirrors the package, and what tests share lies in `support`."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from finagent_model.evaluation.probes import parse_source
from support.faults_page import local_cases, tried_cases
from support.places import ROOT, TESTS

PACKAGE = ROOT / "finagent_model"
FILES = sorted(path for path in TESTS.rglob("test_*.py") if "stub_upstream" not in path.parts)


def modules(folder: Path) -> set[str]:
    """Return the names of the modules and packages in a folder of the package, and its own."""
    return {folder.name, *(path.stem.removeprefix("_") for path in folder.iterdir())}


def test_unit_tests_are_named_after_a_module_of_the_same_folder() -> None:
    unit = TESTS / "unit"
    lost = []
    for path in FILES:
        if unit not in path.parents or path.parent == unit / "support":
            continue
        name = path.stem.removeprefix("test_")
        names = modules(PACKAGE / path.parent.relative_to(unit))
        if not any(name == known or name.startswith(f"{known}_") for known in names):
            lost.append(str(path.relative_to(TESTS)))
    assert lost == []


def test_every_test_file_lies_in_a_folder_of_the_map() -> None:
    folders = {path.relative_to(TESTS).parts[0] for path in FILES}
    assert folders == {"unit", "contract", "integration", "servers", "browser", "chaos"}


def test_the_table_of_faults_has_the_cases_that_are_tried() -> None:
    assert local_cases() == tried_cases()


def test_no_two_test_files_share_a_name() -> None:
    assert [name for name, n in Counter(path.name for path in FILES).items() if n > 1] == []


def test_no_test_file_imports_another() -> None:
    names = {path.stem for path in FILES}
    wrong = []
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(parse_source(path)):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            wrong += [f"{path.name}: {m}" for m in modules if m.rpartition(".")[2] in names]
    assert wrong == []
