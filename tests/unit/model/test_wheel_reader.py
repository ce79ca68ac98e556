"""A wheel that somebody gives is read only as a whole and plain wheel of this package."""

from __future__ import annotations

import hashlib
import io
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from finagent_model.errors import BadInputError
from finagent_model.model import wheel_reader
from finagent_model.model.wheel import (
    build_wheel,
    code_hash,
    read_code_files,
    record_hash,
    write_wheel,
)
from finagent_model.model.wheel_reader import WheelCode, parse_pins

CODE = {
    "finagent_model/__init__.py": b"",
    "finagent_model/model/requirements.txt": b"numpy==2.4.6\n",
}


def make(folder: Path, name: str = "finagent_model", **more: bytes) -> Path:
    return write_wheel(folder, name, "0.1.0", "", {**CODE, **more})


def repack(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """Change the files of a wheel, whose RECORD stays."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_wheel_code_is_that_of_the_tree(tmp_path: Path) -> None:
    path = build_wheel(tmp_path)
    code = WheelCode.read(path)
    assert {n: c for n, c in code.files.items() if n.startswith("finagent_model/")} == (
        read_code_files()
    )
    assert code.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert code.read_pins()["mlflow"]
    assert code_hash()


def test_wheel_code_holds_wheel_to_a_hash(tmp_path: Path) -> None:
    path = make(tmp_path)
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    assert WheelCode.read(path, f"{right.upper()}\n").version == "0.1.0"
    with pytest.raises(BadInputError, match=rf"has the SHA-256 {right}, not 'abc'; take the wheel"):
        WheelCode.read(path, "abc")


def test_wheel_code_unpacks_to_importable_files(tmp_path: Path) -> None:
    WheelCode.read(make(tmp_path)).unpack(tmp_path / "code")
    assert (tmp_path / "code/finagent_model/__init__.py").is_file()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a zip file, or a damaged one"),
        (b"PK\x05\x06" + bytes(18), "no METADATA of one package"),
        (b"PK\x03\x04 cut", "not a zip file, or a damaged one"),
    ],
)
def test_wheel_code_refuses_what_is_no_wheel(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.whl"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=message):
        WheelCode.read(path)


def test_wheel_code_refuses_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.whl", tmp_path):
        with pytest.raises(BadInputError, match=f"wheel {path} can't be read"):
            WheelCode.read(path)


def test_wheel_code_refuses_wheel_of_another_project(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="is a wheel of 'evil', not of finagent-model"):
        WheelCode.read(make(tmp_path, "evil"))


@pytest.mark.parametrize("at", [0.2, 0.4, 0.6, 0.8])
def test_wheel_code_refuses_flipped_byte(tmp_path: Path, at: float) -> None:
    path = build_wheel(tmp_path)
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadInputError, match="is not a wheel that can be used"):
        WheelCode.read(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda files: files.update({"finagent_model/__init__.py": b"print('other')"}),
        lambda files: files.update({"finagent_model/more.py": b""}),
        lambda files: files.pop("finagent_model/__init__.py"),
        lambda files: files.pop("finagent_model-0.1.0.dist-info/RECORD"),
        lambda files: files.update({"finagent_model-0.1.0.dist-info/RECORD": b"\xff"}),
        lambda files: files.update({"other-1.dist-info/METADATA": b"Name: finagent-model"}),
    ],
)
def test_wheel_code_refuses_files_unlike_its_record(
    tmp_path: Path, change: Callable[[dict[str, bytes]], None]
) -> None:
    with pytest.raises(BadInputError, match="is not a wheel that can be used"):
        WheelCode.read(repack(make(tmp_path), change))


@pytest.mark.parametrize("name", ["numpy/__init__.py", "x.pth", "finagent_model.data/scripts/x"])
def test_wheel_code_refuses_other_top_level_names(tmp_path: Path, name: str) -> None:
    path = write_wheel(tmp_path, "finagent_model", "0.1.0", "", {**CODE, name: b""})
    with pytest.raises(BadInputError, match="it also holds"):
        WheelCode.read(path)


@pytest.mark.parametrize("name", ["../x", "/x", "finagent_model/../../x", "a\\b", "a//b", "./a"])
def test_wheel_code_refuses_paths_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    path = write_wheel(tmp_path, "finagent_model", "0.1.0", "", {**CODE, name: b""})
    with pytest.raises(BadInputError, match="it has the path"):
        WheelCode.read(path)


@pytest.mark.parametrize(
    "name", ["a" * 300, "/".join(["x" * 100] * 60), "a\x1b[31m", "a\u202eb", "a\nb"]
)
def test_wheel_code_refuses_paths_that_no_disk_takes(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInputError, match="it has the path"):
        WheelCode.read(make(tmp_path, **{f"finagent_model/{name}.py": b""}))


@pytest.mark.parametrize(
    ("name", "both"),
    [
        ("finagent_model/__init__.py/x.py", "finagent_model/__init__.py"),
        ("finagent_model", "finagent_model"),
    ],
)
def test_wheel_code_refuses_file_that_is_a_folder(tmp_path: Path, name: str, both: str) -> None:
    with pytest.raises(BadInputError, match=f"'{both}' is a file and a folder"):
        WheelCode.read(make(tmp_path, **{name: b""}))


def test_wheel_code_unpack_names_what_the_disk_refuses(tmp_path: Path) -> None:
    code = WheelCode.read(make(tmp_path))
    (tmp_path / "code").write_bytes(b"")
    with pytest.raises(BadInputError, match=r"can't be unpacked .*; set TMPDIR to a folder"):
        code.unpack(tmp_path / "code")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_wheel_code_refuses_other_compression(tmp_path: Path, method: int) -> None:
    path = tmp_path / "x.whl"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("finagent_model/__init__.py", b"x" * 1000)
    content = bytearray(path.read_bytes())
    content[70:80] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=f"it is compressed by method {method}"):
        WheelCode.read(path)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("\x1b[31m0.1.0\x1b]0;pwn\x07", r"names the version '\\x1b\[31m0.1.0\\x1b]0;pwn\\x07'"),
        ("latest", "names the version 'latest'"),
        ("1." + "0" * 200, "names the version '1.0"),
        ("", "names no version; write one such as 0.1.0"),
    ],
)
def test_wheel_code_refuses_what_is_no_version(tmp_path: Path, version: str, message: str) -> None:
    content = f"Name: finagent-model\nVersion: {version}\n".encode()
    path, info = tmp_path / "x.whl", "finagent_model-1.dist-info"
    files = {**CODE, f"{info}/METADATA": content}
    record = "".join(f"{n},sha256={record_hash(c)},{len(c)}\n" for n, c in files.items())
    with zipfile.ZipFile(path, "w") as archive:
        for name, each in {**files, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(name, each)
    with pytest.raises(BadInputError, match=message):
        WheelCode.read(path)


@pytest.mark.parametrize(
    "version", ["0.1.0", "1!2.0rc1", "1.0.post1", "2.0.dev3", "1.0a1.dev2+abc.1", "1.0-1"]
)
def test_wheel_code_takes_every_version_of_pep_440(tmp_path: Path, version: str) -> None:
    path = write_wheel(tmp_path, "finagent_model", version, "", CODE)
    assert WheelCode.read(path).version == version


def test_wheel_code_refuses_link(tmp_path: Path) -> None:
    path, content = tmp_path / "x.whl", io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        entry = zipfile.ZipInfo("finagent_model/link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    path.write_bytes(content.getvalue())
    with pytest.raises(BadInputError, match="it has the path"):
        WheelCode.read(path)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("MAX_WHEEL_BYTES", "more than 100 bytes"),
        ("MAX_UNPACKED_BYTES", "unpacks to more than 100 bytes"),
    ],
)
def test_wheel_code_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, message: str
) -> None:
    monkeypatch.setattr(wheel_reader, limit, 100)
    with pytest.raises(BadInputError, match=message):
        WheelCode.read(make(tmp_path, **{"finagent_model/zeros": bytes(1000)}))
    monkeypatch.setattr(wheel_reader, limit, 10**9)
    monkeypatch.setattr(wheel_reader, "MAX_FILES", 2)
    with pytest.raises(BadInputError, match="more than 2 files"):
        WheelCode.read(make(tmp_path))


def test_parse_pins_takes_exact_versions_alone() -> None:
    text = "# a list\nNumPy==2.4.6\nautogen_core==0.7.5\nartifacts/finagent_model-0.1.0.whl\n\n"
    assert parse_pins(text, "it") == {"numpy": "2.4.6", "autogen-core": "0.7.5"}
    for line in ("numpy", "numpy>=2", "-r other.txt", "evil @ http://x/y.tar.gz", "--index-url x"):
        with pytest.raises(BadInputError, match=r"it requires .*names no exact version"):
            parse_pins(line, "it")
