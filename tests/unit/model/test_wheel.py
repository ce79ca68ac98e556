"""The commit of the code at work, where it runs from a checkout of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from finagent_model.model.wheel import find_checkout

pytestmark = pytest.mark.slow


def git(folder: Path, *arguments: str) -> str:
    author = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    command = ("git", "-C", str(folder), *author, *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a checkout."""
    folder = tmp_path / "project" / "package"
    folder.mkdir(parents=True)
    (folder / "code.py").write_text("one = 1\n")
    git(folder.parent, "init", "-q")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "-qm", "first")
    find_checkout.cache_clear()
    return folder


def test_find_checkout_returns_commit(package: Path) -> None:
    checkout = find_checkout(package)
    assert checkout is not None
    assert (checkout.commit, checkout.dirty) == (git(package.parent, "rev-parse", "HEAD"), False)


@pytest.mark.parametrize("name", ["code.py", "new.py"])
def test_find_checkout_is_dirty_with_changed_or_new_file(package: Path, name: str) -> None:
    (package / name).write_text("one = 2\n")
    checkout = find_checkout(package)
    assert checkout is not None and checkout.dirty


def test_find_checkout_ignores_files_beside_package(package: Path) -> None:
    (package.parent / "mlflow.db").write_text("")
    checkout = find_checkout(package)
    assert checkout is not None and not checkout.dirty


def test_find_checkout_ignores_checkout_of_other_project(package: Path) -> None:
    installed = package.parent / "site-packages" / "package"
    installed.mkdir(parents=True)
    assert find_checkout(installed) is None


def test_find_checkout_without_git_is_none(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert find_checkout(package) is None
