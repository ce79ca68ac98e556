"""The upstream project's files: brought at one commit, and nothing else is ever used."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from finagent_model.contrib.upstream._operations import build_wheel
from finagent_model.contrib.upstream.source import (
    SourcePin,
    UpstreamSourceError,
    cache_folder,
    fetch_source,
    find_source,
    hash_blob,
    hash_tree,
    install_archive,
    pack_files,
    verify_source,
)
from support.places import ROOT, Place
from support.upstream_repository import Repository, git, make_repository


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return make_repository(tmp_path_factory.mktemp("upstream") / "clone")


def test_fetch_brings_folder_licence_notice_once(stub: Repository, tmp_path: Path) -> None:
    source, fresh = fetch_source(tmp_path, stub.pin, str(stub.folder))
    assert fresh
    assert (source.code / "helpers" / ".cache" / "old.txt").is_file()
    assert "FinRobot (Apache License 2.0" in (source.folder / "NOTICE").read_text()
    assert stub.pin.commit in (source.folder / "NOTICE").read_text()
    again, fresh = fetch_source(tmp_path, stub.pin, "/nowhere")
    assert (again, fresh) == (source, False)
    assert [path.name for path in source.folder.parent.iterdir()] == [stub.pin.tree]


def test_hashes_equal_gits(stub: Repository) -> None:
    code = stub.folder_of_code
    assert hash_tree(code) == git(stub.folder, "rev-parse", "HEAD:src/backend")
    licence = (stub.folder / "LICENSE").read_bytes()
    assert hash_blob(licence) == git(stub.folder, "rev-parse", "HEAD:LICENSE")


def test_fetch_leaves_out_what_is_not_committed(stub: Repository, tmp_path: Path) -> None:
    dirty = tmp_path / "dirty"
    shutil.copytree(stub.folder, dirty)
    (dirty / "src" / "backend" / "agents" / "technical_analysis.py").write_text("BUY = True\n")
    source, _ = fetch_source(tmp_path / "home", stub.pin, str(dirty))
    assert "BUY = True" not in (source.code / "agents" / "technical_analysis.py").read_text()


@pytest.mark.parametrize("field", ["tree", "folder_tree", "licence_blob"])
def test_fetch_with_another_hash_installs_nothing(
    field: str, stub: Repository, tmp_path: Path
) -> None:
    other = stub.pin.model_copy(update={field: "0" * 40})
    with pytest.raises(UpstreamSourceError, match="0" * 40):
        fetch_source(tmp_path, other, str(stub.folder))
    assert list(tmp_path.glob("upstream/*")) == []


def test_fetch_of_a_missing_commit_names_the_option(stub: Repository, tmp_path: Path) -> None:
    other = stub.pin.model_copy(update={"commit": "1" * 40})
    with pytest.raises(UpstreamSourceError, match="--from"):
        fetch_source(tmp_path, other, str(stub.folder))


def test_fetch_without_a_repository_names_gits_error(stub: Repository, tmp_path: Path) -> None:
    with pytest.raises(UpstreamSourceError, match="git fetch failed"):
        fetch_source(tmp_path, stub.pin, str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "origin", ["--upload-pack=touch {mark};false", "ext::sh -c touch% {mark}", "mark::{mark}"]
)
def test_fetch_address_is_never_an_option_or_program(
    origin: str, stub: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper, mark = tmp_path / "bin" / "git-remote-mark", tmp_path / "mark"
    helper.parent.mkdir()
    helper.write_text(f"#!/bin/sh\ntouch {mark}\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(stub.folder)
    with pytest.raises(UpstreamSourceError, match=r"git fetch failed.*(blocked|not allowed)"):
        fetch_source(tmp_path, stub.pin, origin.format(mark=mark))
    assert not mark.exists()


@pytest.mark.parametrize("field", ["commit", "tree", "folder_tree"])
def test_fetch_error_hides_the_password(
    field: str, stub: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "https://me:hun@ter2@127.0.0.1:1/clone?token=hunter3"
    place = tmp_path / "https:" / "me:hun@ter2@127.0.0.1:1" / "clone?token=hunter3"
    if field != "commit":  # a folder of that name, for Git to be content
        shutil.copytree(stub.folder, place)
    monkeypatch.chdir(tmp_path)
    other = stub.pin.model_copy(update={field: "0" * 40})
    with pytest.raises(UpstreamSourceError) as caught:
        fetch_source(tmp_path / "home", other, address)
    assert "127.0.0.1:1/clone" in str(caught.value)
    assert not any(word in str(caught.value) for word in ("hun", "ter2", "me:", "token"))


def test_fetch_without_git_names_git(
    stub: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UpstreamSourceError, match="git is not installed"):
        fetch_source(tmp_path, stub.pin, str(stub.folder))


@pytest.mark.parametrize("how", ["changed", "added", "removed", "linked", "licence", "empty"])
def test_source_with_one_byte_changed_is_refused(
    how: str, stub: Repository, tmp_path: Path
) -> None:
    source, _ = fetch_source(tmp_path, stub.pin, str(stub.folder))
    target = source.code / "helpers" / "yfutils.py"
    match how:
        case "changed":
            target.write_bytes(target.read_bytes() + b" ")
        case "added":
            (source.code / "agents" / "__init__.py").touch()
        case "removed":
            target.unlink()
        case "linked":
            target.rename(tmp_path / "elsewhere.py")
            target.symlink_to(tmp_path / "elsewhere.py")
        case "licence":
            (source.folder / "LICENSE").write_text("All rights reserved\n")
        case "empty":
            shutil.rmtree(source.code)
    with pytest.raises(UpstreamSourceError):
        verify_source(source.folder, stub.pin)
    with pytest.raises(UpstreamSourceError):
        fetch_source(tmp_path, stub.pin, str(stub.folder))


def test_pin_survives_its_own_text() -> None:
    pin = SourcePin.load()
    assert SourcePin.read(pin.text) == pin
    assert pin.repository == "https://github.com/akshata29/finagent"


def test_pin_is_named_in_the_environment_file() -> None:
    pin = tomllib.loads((ROOT / "finagent_model/contrib/upstream/upstream.lock").read_text())
    name = "/".join(pin["repository"].split("/")[-2:])
    assert f"{name}@{pin['commit']}" in (ROOT / "conda.yaml").read_text()


def test_wheel_of_the_same_pin_has_the_same_bytes(stub: Repository, tmp_path: Path) -> None:
    source, _ = fetch_source(tmp_path, stub.pin, str(stub.folder))
    one, other = (build_wheel(source, tmp_path / name) for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()
    assert one.name == f"finagent_upstream-0+g{stub.pin.commit[:12]}-py3-none-any.whl"


def pip(*arguments: str) -> None:
    """Which puts byte code beside all that it installs."""
    quiet = ("--quiet", "--no-index", "--no-deps", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "install", *quiet, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installed(stub: Repository, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip makes of the wheel, and where the source was fetched to."""
    folder = tmp_path_factory.mktemp("installed")
    source, _ = fetch_source(folder / "maker", stub.pin, str(stub.folder))
    pip("--target", str(folder / "site"), str(build_wheel(source, folder)))
    return folder


@pytest.fixture
def site(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package that pip made of the wheel, on the path."""
    shutil.copytree(installed, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "site" / "finagent_upstream"


def test_wheel_installed_by_pip_fills_the_cache(
    site: Path, stub: Repository, tmp_path: Path
) -> None:
    assert (site / "__pycache__").is_dir()
    assert {path.name for path in site.glob("*.*")} == {"__init__.py", "source.tar"}
    source = find_source(tmp_path, stub.pin)
    assert source == verify_source(cache_folder(tmp_path, stub.pin), stub.pin)
    assert source.files() == fetch_source(tmp_path / "maker", stub.pin)[0].files()
    assert not list(source.folder.rglob("__pycache__"))
    shutil.rmtree(site)
    assert find_source(tmp_path, stub.pin) == source


@pytest.mark.parametrize("how", ["another pin", "rubbish", "gone"])
def test_wheel_of_something_else_is_refused_with_a_remedy(
    how: str, site: Path, stub: Repository, tmp_path: Path
) -> None:
    match how:
        case "another pin":
            files = fetch_source(tmp_path / "maker", stub.pin)[0].files()
            more = {f"{stub.pin.folder}/more.py": b"BUY = True\n"}
            (site / "source.tar").write_bytes(pack_files(files | more))
        case "rubbish":
            (site / "source.tar").write_bytes(b"no archive")
        case "gone":
            (site / "source.tar").unlink()
    with pytest.raises(UpstreamSourceError, match="or run `finagent upstream fetch`"):
        find_source(tmp_path, stub.pin)
    assert not cache_folder(tmp_path, stub.pin).exists()
    source, _ = fetch_source(tmp_path, stub.pin, str(stub.folder))
    assert find_source(tmp_path, stub.pin) == source


def test_cache_changed_by_hand_is_not_refilled_from_the_wheel(
    site: Path, stub: Repository, tmp_path: Path
) -> None:
    source = find_source(tmp_path, stub.pin)
    (source.code / "more.py").touch()
    with pytest.raises(UpstreamSourceError, match="remove the folder"):
        find_source(tmp_path, stub.pin)
    shutil.rmtree(source.folder)
    assert find_source(tmp_path, stub.pin) == source


@pytest.mark.parametrize("name", ["../outside", "/outside", "link"])
def test_archive_entry_outside_the_folder_is_refused(
    name: str, stub: Repository, tmp_path: Path
) -> None:
    outside, archive = tmp_path / "outside", io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo(f"{tmp_path}{name}" if name == "/outside" else name)
        if name == "link":
            entry.type, entry.linkname = tarfile.SYMTYPE, str(outside)
        tar.addfile(entry)
    with pytest.raises(
        UpstreamSourceError, match=rf"it can't be unpacked: .*{name}' is not a file"
    ):
        install_archive(tmp_path / "home", stub.pin, archive.getvalue(), "it", "get another")
    assert not outside.exists()
    assert list(cache_folder(tmp_path / "home", stub.pin).parent.iterdir()) == []


def test_fetch_into_a_read_only_home_names_the_variable(stub: Repository, tmp_path: Path) -> None:
    (tmp_path / "upstream").touch()
    with pytest.raises(UpstreamSourceError, match="FINAGENT_HOME"):
        fetch_source(tmp_path, stub.pin, str(stub.folder))


@pytest.mark.slow
def test_fetch_concurrently_leaves_one_whole_copy(stub: Repository, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(lambda _: fetch_source(tmp_path, stub.pin, str(stub.folder)), range(4))
        )
    assert {source.folder for source, _ in found} == {cache_folder(tmp_path, stub.pin)}
    assert [p.name for p in (tmp_path / "upstream").iterdir()] == [stub.pin.tree]


@pytest.mark.slow
def test_upstream_commands_report_the_state_of_the_source(tmp_path: Path, stub: Repository) -> None:
    place = Place(tmp_path)
    missing = place.finagent("upstream", "status", "--json")
    row = json.loads(missing.stdout)
    assert (missing.returncode, row["verified"]) == (3, False)
    assert "finagent upstream fetch" in row["fault"]
    other = place.finagent("upstream", "fetch", "--from", str(stub.folder))
    assert other.returncode == 2
    assert "Traceback" not in other.stderr
    desk = place.finagent("train", "--config", "upstream", "--symbols", "FB")
    assert desk.returncode == 2
    assert "finagent upstream fetch" in desk.stderr
    assert place.finagent("models", "--json").stdout.strip() == "[]"
