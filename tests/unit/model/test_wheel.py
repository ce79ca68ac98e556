"""The commit of the code at work, where it runs from a checkout of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from finagent_model.model.wheel import checkout

pytestmark = pytest.mark.slow


def git(folder: Path, *arguments: str) -> str:
    author = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    command = ("git", "-C", str(folder), *author, *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a checkout."""
    made = tmp_path / "project" / "package"
    made.mkdir(parents=True)
    (made / "code.py").write_text("one = 1\n")
    git(made.parent, "init", "-q")
    git(made.parent, "add", ".")
    git(made.parent, "commit", "-qm", "first")
    checkout.cache_clear()
    return made


def test_a_checkout_tells_its_commit(package: Path) -> None:
    found = checkout(package)
    assert found is not None
    assert (found.commit, found.dirty) == (git(package.parent, "rev-parse", "HEAD"), False)


@pytest.mark.parametrize("name", ["code.py", "new.py"])
def test_a_changed_or_new_file_of_the_package_is_told(package: Path, name: str) -> None:
    (package / name).write_text("one = 2\n")
    found = checkout(package)
    assert found is not None and found.dirty


def test_files_beside_the_package_change_nothing(package: Path) -> None:
    (package.parent / "mlflow.db").write_text("")
    found = checkout(package)
    assert found is not None and not found.dirty


def test_an_environment_inside_another_project_is_no_checkout_of_ours(package: Path) -> None:
    installed = package.parent / "site-packages" / "package"
    installed.mkdir(parents=True)
    assert checkout(installed) is None


def test_without_git_there_is_no_commit(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert checkout(package) is None
