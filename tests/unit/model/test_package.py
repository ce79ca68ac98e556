"""The package and the wheel: the same bytes for the same inputs, checked whenever they are read."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finagent_model.agents.components import AgentGraph
from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import Prompts, load_preset
from finagent_model.config.rules import Grade
from finagent_model.data.market import Market
from finagent_model.desk.desk import Desk
from finagent_model.errors import CorruptPackageError, PackageFormatError
from finagent_model.market.bars import parse_as_of
from finagent_model.model.package import (
    PACKAGE_FORMAT,
    STOCK_AGENTS_FORMAT,
    hash_package,
    read_package,
)
from finagent_model.model.wheel import build_wheel, code_hash
from finagent_model.settings import Settings
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
    with pytest.raises(CorruptPackageError, match=r"policy\.slow: must be at most 300") as error:
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


def rewrite_graph(folder: Path, change: Callable[[dict[str, Any]], object], number: int) -> None:
    """Change the agent graph of a package, and make its manifest of format `number` fit."""
    graph, manifest = folder / "agent_graph.json", folder / "manifest.json"
    component, content = json.loads(graph.read_text()), json.loads(manifest.read_text())
    change(component)
    graph.write_text(json.dumps(component))
    content["files"]["agent_graph.json"] = hashlib.sha256(graph.read_bytes()).hexdigest()
    content |= {"format": number, "content_hash": hash_package(content["files"])}
    manifest.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["config"]["participants"].pop(1), "its nodes are .* NewsAnalyst"),
        (lambda c: c.update(provider="os.system"), "of class 'os.system'"),
        (
            lambda c: c["config"]["participants"][0]["config"]["row"].update(tools=["bars"]),
            r"row.tools.* of TechnicalAnalyst is .* there and .* in config.yaml",
        ),
    ],
)
def test_read_package_refuses_graph_of_another_desk(tmp_path: Path, change: Any, said: str) -> None:
    write(tmp_path)
    rewrite_graph(tmp_path, change, PACKAGE_FORMAT)
    with pytest.raises(CorruptPackageError, match=f"agent_graph.json and .*: .*{said}.* again"):
        read_package(tmp_path)


def test_read_package_of_format_3_takes_the_roster(tmp_path: Path) -> None:
    """Its agent graph describes AutoGen's own agents, and was never loaded."""
    write(tmp_path)
    rewrite_graph(tmp_path, lambda component: component.clear(), STOCK_AGENTS_FORMAT)
    package = read_package(tmp_path)
    assert (package.agent_graph, package.config) == (None, load_preset())


def test_desk_of_a_package_asks_by_the_prompts_of_its_graph(tmp_path: Path) -> None:
    """A package is the same desk to code that ships other prompts."""
    config = load_preset("lean")
    own = "Decide, as an older version of the code said."
    graph = AgentGraph.from_config(config, Prompts({"executor": own}))
    market = Market.from_settings(Settings.load({}))
    view = market.view("GOOG", parse_as_of("2012-06-29"))
    settings = Settings.load({})
    desk = Desk(config, None, settings, Cassette(), graph=graph, mode="live")
    decision = desk.decide(view)
    assert decision.signal.status == "ok"
    asked = [event.body for event in decision.events if event.kind == "request"]
    systems = [request["messages"][0]["content"] for request in asked]
    assert systems.count(own) == 1


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
