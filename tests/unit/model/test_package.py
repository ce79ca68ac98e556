"""The package and the wheel: the same bytes for the same inputs, checked whenever they are read."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from finagent_model.config.desk_config import load_preset
from finagent_model.config.rules import Grade
from finagent_model.errors import CorruptPackageError, PackageFormatError
from finagent_model.model.package import hash_package, read_package
from finagent_model.model.wheel import build_wheel, code_hash
from support.packages import REPLY, book, trained_state, write


def test_package_of_equal_contents_is_byte_equal(tmp_path: Path) -> None:
    assert write(tmp_path / "one") == write(tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == 8
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_package_hash_changes_with_policy(tmp_path: Path) -> None:
    assert write(tmp_path / "one") != write(tmp_path / "two", book(atr=15))


def test_read_package_refuses_policy_outside_bounds_by_name(tmp_path: Path) -> None:
    write(tmp_path)
    policy, manifest = tmp_path / "policy.json", tmp_path / "manifest.json"
    policy.write_text(policy.read_text().replace('"slow": 100', '"slow": 9999'))
    content = json.loads(manifest.read_text())
    content["files"]["policy.json"] = hashlib.sha256(policy.read_bytes()).hexdigest()
    content["content_hash"] = hash_package(content["files"])
    manifest.write_text(json.dumps(content))
    with pytest.raises(CorruptPackageError, match=r"policy\.slow: .*300 \(given: 9999\)") as error:
        read_package(tmp_path)
    assert "\n" not in str(error.value)


def test_read_package_returns_what_was_written(tmp_path: Path) -> None:
    write(tmp_path)
    package = read_package(tmp_path)
    assert package.config == load_preset()
    assert package.trained_state == trained_state(book())
    assert package.replies == {"a": REPLY, "b": REPLY}


@pytest.mark.parametrize(
    "name", ["config.yaml", "policy.json", "calibration.json", "memory.jsonl", "cassette.jsonl"]
)
def test_read_package_refuses_changed_or_missing_file_by_name(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    (tmp_path / name).write_text("{}")
    with pytest.raises(CorruptPackageError, match=f"{name} differs"):
        read_package(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CorruptPackageError, match=f"{name} is missing"):
        read_package(tmp_path)


def test_read_package_refuses_other_format(tmp_path: Path) -> None:
    write(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(PackageFormatError, match="format 99"):
        read_package(tmp_path)


@pytest.mark.parametrize(
    ("judged", "served"), [("none", "none"), ("weak", "weak"), ("strong", "weak")]
)
def test_package_gives_lower_grade_of_evidence(
    tmp_path: Path, judged: Grade, served: Grade
) -> None:
    """The gate's grade is in the manifest, which is not hashed: it can't raise the package's."""
    one, two = tmp_path / "one", tmp_path / "two"
    assert write(one, judged=judged) == write(two)
    assert read_package(one).evidence == served


def test_package_of_chat_model_without_cutoff_has_no_grade(tmp_path: Path) -> None:
    """Older code graded days that its model may remember."""
    chat = load_preset().model_copy(update={"client": "openai", "model": "gpt-4o"})
    write(tmp_path, config=chat)
    assert read_package(tmp_path).evidence == "none"


def test_build_wheel_is_reproducible_with_every_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = build_wheel(tmp_path / "a"), build_wheel(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    names = set(zipfile.ZipFile(first).namelist())
    assert "finagent_model/model/requirements.txt" in names
    assert "finagent_model/config/prompts/executor.md" in names
    assert "finagent_model/config/knowledge_cutoffs.yaml" in names
    assert "finagent_model/data/events.jsonl" in names
    assert not [name for name in names if "__pycache__" in name]
    assert len(code_hash()) == 64
