"""A model's files are compared with what lies outside of them: no change loads silently."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from mlflow.exceptions import MlflowException

from finagent_model.errors import (
    BadInputError,
    CorruptPackageError,
    ModelLoadError,
    SignatureError,
)
from finagent_model.model.anchor import Anchor, ModelCheck, check_model, hash_model
from finagent_model.model.model_folder import PACKAGE_FOLDER, REGISTERED_META
from finagent_model.model.package import MANIFEST_FILE, hash_package
from finagent_model.model.signing import make_statement, new_key_pair, sign
from finagent_model.settings import Settings
from finagent_model.tracking import registry
from support.logged_model import NAME, VERSION, write_metadata, write_model


@pytest.fixture
def tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The tags of the version whose files lie in `tmp_path`."""
    tags = write_model(tmp_path)
    monkeypatch.setattr(registry, "read_tags", lambda name, version: tags)
    return tags


def check(folder: Path, **settings: Any) -> ModelCheck:
    return check_model(folder, Settings.load({k.upper(): v for k, v in settings.items()}))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def link(path: Path) -> None:
    """Replace a file by a link to a copy of it, which has the same bytes."""
    copy = Path(tempfile.mkdtemp()) / path.name
    shutil.move(path, copy)
    path.symlink_to(copy)


MUTATIONS: tuple[Callable[[Path], object], ...] = (
    flip,
    cut,
    append,
    link,
    Path.unlink,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(b"{}"),
    lambda path: path.write_bytes(b"[" * 100_000),
    lambda path: path.write_bytes(b"\xff\xfe"),
)


def test_check_model_reports_every_mutation_of_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    tags = write_model(folder)
    monkeypatch.setattr(registry, "read_tags", lambda name, version: tags)
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != REGISTERED_META]
    loaded = []
    for path in paths:
        content = path.read_bytes()
        for mutation in MUTATIONS:
            mutation(path)
            try:
                check(folder)
                loaded.append((path.name, mutation))
            except CorruptPackageError:
                pass
            path.unlink(missing_ok=True)
            path.write_bytes(content)
    assert (loaded, len(paths)) == ([], 16)
    assert check(folder).anchored


def rewrite_manifest(folder: Path) -> None:
    """Make manifest and MLmodel agree with the package's files as they are now."""
    package = folder / PACKAGE_FOLDER
    manifest = json.loads((package / MANIFEST_FILE).read_text())
    hashes = {
        path.relative_to(package).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in package.rglob("*")
        if path.is_file() and path.name != MANIFEST_FILE
    }
    changed = manifest | {"files": hashes, "content_hash": hash_package(hashes)}
    (package / MANIFEST_FILE).write_text(json.dumps(changed))
    write_metadata(folder)


@pytest.mark.usefixtures("tags")
def test_check_model_refuses_policy_changed_with_its_hashes(tmp_path: Path) -> None:
    policy = tmp_path / PACKAGE_FOLDER / "policy.json"
    policy.write_text(policy.read_text().replace('"atr": 14', '"atr": 15'))
    rewrite_manifest(tmp_path)
    with pytest.raises(CorruptPackageError, match="the tags of version 3 of finagent say"):
        check(tmp_path)


@pytest.mark.usefixtures("tags")
@pytest.mark.parametrize(
    "name",
    ["more.json", "__pycache__/model_code.cpython-311.pyc", "artifacts/other.whl", ".hidden"],
)
def test_check_model_refuses_extra_file_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(CorruptPackageError, match=f"{re.escape(name)} is in the model, but"):
        check(tmp_path)


@pytest.mark.usefixtures("tags")
def test_check_model_refuses_extra_file_of_the_package(tmp_path: Path) -> None:
    (tmp_path / PACKAGE_FOLDER / "more.json").touch()
    with pytest.raises(CorruptPackageError, match=r"more\.json is in the package, but not in"):
        check(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": {}}, "its files hash to"),
        ({"files": {"../../MLmodel": "0" * 64}}, "is not a path of a file inside"),
        ({"files": {"/etc/passwd": "0" * 64}}, "is not a path of a file inside"),
        ({"files": {"a/../b": "0" * 64}}, "is not a path of a file inside"),
        ({"files": {"a\\b": "0" * 64}}, "is not a path of a file inside"),
        ({"files": [1]}, "files"),
        ({"files": {"policy.json": 5}}, "files.policy.json"),
        ({"content_hash": "e" * 64}, "its files hash to"),
        ({"content_hash": None}, "content_hash"),
        ({"code_hash": "x"}, "code_hash"),
        ({"format": "3"}, "format"),
    ],
)
def test_manifest_that_is_none_is_refused(
    tmp_path: Path, tags: dict[str, str], change: dict[str, Any], message: str
) -> None:
    path = tmp_path / PACKAGE_FOLDER / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CorruptPackageError, match=message):
        check(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "null", "5", '"text"', "{", "[" * 100_000])
def test_manifest_that_is_no_object_is_refused(
    tmp_path: Path, tags: dict[str, str], text: str
) -> None:
    (tmp_path / PACKAGE_FOLDER / MANIFEST_FILE).write_text(text)
    with pytest.raises(CorruptPackageError, match=r"manifest\.json is invalid"):
        check(tmp_path)


@pytest.mark.usefixtures("tags")
def test_check_model_of_registered_version_is_anchored(tmp_path: Path) -> None:
    result = check(tmp_path)
    assert result.anchored
    assert result.summary == (
        "16 files as registered, by the manifest, MLmodel, the tags of version 3 of finagent"
    )


def test_check_model_of_unregistered_folder_is_not_anchored(tmp_path: Path) -> None:
    write_model(tmp_path)
    (tmp_path / REGISTERED_META).unlink()
    result = check(tmp_path)
    assert not result.anchored
    assert "not a registered version" in result.why_not


def test_check_model_of_version_without_anchor_says_so(
    tmp_path: Path, tags: dict[str, str]
) -> None:
    del tags[registry.ANCHOR]
    result = check(tmp_path)
    assert (result.anchored, "lack the hashes of its files" in result.why_not) == (False, True)


@pytest.mark.parametrize("text", ["", "5", "[]", "nonsense"])
def test_check_model_never_trusts_an_unreadable_anchor(
    tmp_path: Path, tags: dict[str, str], text: str
) -> None:
    tags[registry.ANCHOR] = text
    if not text:
        assert not check(tmp_path).anchored
        return
    with pytest.raises(CorruptPackageError, match=r"finagent\.anchor is not a list of files"):
        check(tmp_path)


def test_check_model_without_registry_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(name: str, version: str) -> dict[str, str]:
        raise MlflowException("connection refused")

    write_model(tmp_path)
    monkeypatch.setattr(registry, "read_tags", unreachable)
    result = check(tmp_path)
    assert not result.anchored
    assert "can't be asked about version 3 of finagent: connection refused" in result.why_not


def test_check_model_of_named_version_needs_its_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(name: str, version: str) -> dict[str, str]:
        raise MlflowException("connection refused")

    write_model(tmp_path)
    monkeypatch.setattr(registry, "read_tags", unreachable)
    with pytest.raises(ModelLoadError, match="the tags of version 3 of finagent can't be read"):
        check_model(tmp_path, Settings(), version=(NAME, VERSION))


@pytest.mark.parametrize(
    "text",
    ["x: 2013-99-99", "x: !!int abc", "x: !!float x", "x: !!timestamp foo", "[", "5", "x: \ud800"],
)
def test_check_model_refuses_odd_yaml(tmp_path: Path, text: str) -> None:
    write_model(tmp_path)
    (tmp_path / REGISTERED_META).unlink()
    (tmp_path / "MLmodel").write_text(text, errors="surrogatepass")
    with pytest.raises(CorruptPackageError, match="MLmodel"):
        check(tmp_path)


def test_check_model_refuses_yaml_of_a_megabyte(tmp_path: Path) -> None:
    write_model(tmp_path)
    (tmp_path / REGISTERED_META).unlink()
    with (tmp_path / "MLmodel").open("a") as file:
        file.write("#" * 1_000_000)
    with pytest.raises(CorruptPackageError, match="more than 262144 bytes"):
        check(tmp_path)


@pytest.mark.parametrize(
    "meta", ["model_name: finagent\nmodel_version: 1.9", "model_name: [1]\nmodel_version: '3'"]
)
def test_planted_meta_that_names_no_version_is_refused(tmp_path: Path, meta: str) -> None:
    write_model(tmp_path)
    (tmp_path / REGISTERED_META).write_text(meta)
    with pytest.raises(CorruptPackageError, match="names no registered version"):
        check(tmp_path)


def test_names_of_files_are_quoted_in_messages(tmp_path: Path, tags: dict[str, str]) -> None:
    tags[registry.ANCHOR] = json.dumps({"!\nerror: fine \ud800": "0" * 64} | hash_model(tmp_path))
    with pytest.raises(CorruptPackageError) as error:
        check(tmp_path)
    assert "\n" not in str(error.value)
    assert str(error.value).isascii()


def test_check_model_holds_files_to_a_given_anchor(tmp_path: Path) -> None:
    write_model(tmp_path)
    anchor = Anchor("the process that logged it", None, hash_model(tmp_path))
    assert check_model(tmp_path, Settings(), anchor).anchored
    (tmp_path / "requirements.txt").write_text("evil==1.0\n")
    with pytest.raises(CorruptPackageError, match=r"requirements.txt differs from what the proc"):
        check_model(tmp_path, Settings(), anchor)


def signed(folder: Path, tags: dict[str, str]) -> str:
    """Sign the version in `folder`, and return the public key."""
    private, public = new_key_pair()
    content = tags[registry.CONTENT]
    statement = make_statement(NAME, VERSION, content, hash_model(folder))
    tags[registry.SIGNATURE] = sign(private, statement)
    return public


def test_signed_version_names_its_key(tmp_path: Path, tags: dict[str, str]) -> None:
    public = signed(tmp_path, tags)
    result = check(tmp_path, finagent_trusted_keys=public, finagent_require_signature="true")
    assert result.signed_by is not None
    assert f"signed by key {result.signed_by}" in result.summary


def test_unsigned_version_is_refused_where_required(tmp_path: Path, tags: dict[str, str]) -> None:
    _, public = new_key_pair()
    with pytest.raises(SignatureError, match=r"version 3 of finagent is not signed"):
        check(tmp_path, finagent_trusted_keys=public, finagent_require_signature="true")


def test_unregistered_model_is_refused_where_signature_required(tmp_path: Path) -> None:
    write_model(tmp_path)
    (tmp_path / REGISTERED_META).unlink()
    _, public = new_key_pair()
    with pytest.raises(SignatureError, match="not a registered version is not signed"):
        check(tmp_path, finagent_trusted_keys=public, finagent_require_signature="true")


def test_required_signature_needs_a_trusted_key() -> None:
    with pytest.raises(BadInputError, match=r"FINAGENT_REQUIRE_SIGNATURE: .*FINAGENT_TRUSTED_KEYS"):
        Settings.load({"FINAGENT_REQUIRE_SIGNATURE": "true", "FINAGENT_TRUSTED_KEYS": " , "})


def test_signature_of_unknown_key_is_refused(tmp_path: Path, tags: dict[str, str]) -> None:
    signed(tmp_path, tags)
    _, other = new_key_pair()
    with pytest.raises(SignatureError, match="not among FINAGENT_TRUSTED_KEYS"):
        check(tmp_path, finagent_trusted_keys=other)


def test_signature_of_other_files_is_refused(tmp_path: Path, tags: dict[str, str]) -> None:
    # Whoever can write files and tags makes both agree; the signature they can't make.
    public = signed(tmp_path, tags)
    (tmp_path / "requirements.txt").write_text("evil==1.0\n")
    tags[registry.ANCHOR] = json.dumps(hash_model(tmp_path))
    with pytest.raises(SignatureError, match="is not of these files"):
        check(tmp_path, finagent_trusted_keys=public)


def test_sign_by_new_key_is_trusted(tmp_path: Path, tags: dict[str, str]) -> None:
    for _ in range(5):
        assert check(tmp_path, finagent_trusted_keys=signed(tmp_path, tags)).signed_by


PRIME = 2**255 - 19
SMALL_ORDER = (
    *(0, 1, PRIME - 1, PRIME, PRIME + 1),
    int.from_bytes(
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
    ),
    int.from_bytes(
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"
    ),
)
"""y of the points of small order, with their encodings above the prime, as libsodium lists them."""


@pytest.mark.parametrize("y", SMALL_ORDER)
@pytest.mark.parametrize("sign_bit", [0, 1])
def test_trusted_key_of_small_order_is_refused(
    tmp_path: Path, tags: dict[str, str], y: int, sign_bit: int
) -> None:
    key = base64.b64encode((y + (sign_bit << 255)).to_bytes(32, "little")).decode()
    with pytest.raises(BadInputError, match="a key of small order: anybody can sign with it"):
        check(tmp_path, finagent_trusted_keys=key)


def test_signature_by_key_of_small_order_needs_no_private_key() -> None:
    """Why such keys are refused: the library takes a signature that anybody can write."""
    neutral = (1).to_bytes(32, "little")
    key = Ed25519PublicKey.from_public_bytes(neutral)
    for statement in (b"one version", b"another"):
        key.verify(neutral + bytes(32), statement)


def test_trusted_key_that_is_no_point_is_refused(tmp_path: Path, tags: dict[str, str]) -> None:
    key = base64.b64encode((2).to_bytes(32, "little")).decode()
    with pytest.raises(BadInputError, match="is not a public Ed25519 key"):
        check(tmp_path, finagent_trusted_keys=key)


@pytest.mark.parametrize("tag", ["", "nonsense", "{}", "[]", '{"key": 1, "signature": "!"}'])
def test_nonsense_is_no_signature(tmp_path: Path, tags: dict[str, str], tag: str) -> None:
    _, public = new_key_pair()
    tags[registry.SIGNATURE] = tag
    with pytest.raises(SignatureError):
        check(tmp_path, finagent_trusted_keys=public, finagent_require_signature="true")


def test_two_trusted_keys_allow_rotation(tmp_path: Path, tags: dict[str, str]) -> None:
    old = signed(tmp_path, tags)
    _, new = new_key_pair()
    both = f"{new}, {old}"
    assert check(tmp_path, finagent_trusted_keys=both, finagent_require_signature="true").signed_by


@pytest.mark.parametrize(
    ("verdict", "refused"), [("passed", False), ("refused", True), ("", False)]
)
def test_check_model_tells_a_version_that_the_gate_refused(
    tmp_path: Path, tags: dict[str, str], verdict: str, refused: bool
) -> None:
    tags[registry.VERDICT] = verdict
    assert check(tmp_path).refused == (f"version {VERSION} of {NAME}" if refused else None)
