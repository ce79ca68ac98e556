"""A registered version whose files were changed is not loaded, by whichever way it is asked for."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
import yaml

from finagent_model.errors import CorruptPackageError, SignatureError
from finagent_model.model.anchor import build_metadata
from finagent_model.model.model_folder import PACKAGE_FOLDER
from finagent_model.model.package import MANIFEST_FILE, Manifest, hash_package
from finagent_model.model.signing import new_key_pair
from support.places import AS_OF, Place

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # MLflow's own warnings
URI = "models:/finagent/1"
RUN_MARK = "the-code-of-the-model-ran"
"""A file that a changed `model_code.py` makes in the working directory."""


@pytest.fixture
def model(trained: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The folder of version 1 in the artifact store, put back after the test."""
    for name in ("FINAGENT_HOME", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, trained.env[name])
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(trained.env["MLFLOW_TRACKING_URI"])
    [found] = (trained.folder / "mlruns").rglob("MLmodel")
    shutil.copytree(found.parent, tmp_path / "original")
    yield found.parent
    shutil.rmtree(found.parent)
    shutil.copytree(tmp_path / "original", found.parent)


def change_policy(model: Path) -> None:
    policy = model / PACKAGE_FOLDER / "policy.json"
    policy.write_text(policy.read_text().replace('"atr": 14', '"atr": 15'))


def change_policy_and_hashes(model: Path) -> None:
    """Change a policy, and every hash that the model's own files state."""
    change_policy(model)
    package, described = model / PACKAGE_FOLDER, yaml.safe_load((model / "MLmodel").read_text())
    manifest = json.loads((package / MANIFEST_FILE).read_text())
    hashes = {
        name: hashlib.sha256((package / name).read_bytes()).hexdigest()
        for name in manifest["files"]
    }
    changed = manifest | {"files": hashes, "content_hash": hash_package(hashes)}
    (package / MANIFEST_FILE).write_text(json.dumps(changed))
    described["metadata"] = build_metadata(Manifest.read(package))
    (model / "MLmodel").write_text(yaml.safe_dump(described))


def empty_file_list(model: Path) -> None:
    path = model / PACKAGE_FOLDER / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": {}}))


def flip_wheel(model: Path) -> None:
    [wheel] = model.rglob("*.whl")
    content = bytearray(wheel.read_bytes())
    content[1000] ^= 1
    wheel.write_bytes(content)


def remove_wheel(model: Path) -> None:
    [wheel] = model.rglob("*.whl")
    wheel.unlink()


def add_requirement(model: Path) -> None:
    with (model / "requirements.txt").open("a") as file:
        file.write("evil==1.0\n")


def change_code(model: Path) -> None:
    code = model / "model_code.py"
    code.write_text(f"{code.read_text()}\nopen({RUN_MARK!r}, 'w').close()\n")


def add_file(model: Path) -> None:
    (model / PACKAGE_FOLDER / "more.json").write_text("{}")


CHANGES: tuple[Callable[[Path], None], ...] = (
    change_policy,
    change_policy_and_hashes,
    empty_file_list,
    flip_wheel,
    remove_wheel,
    add_requirement,
    change_code,
    add_file,
)


@pytest.mark.parametrize("change", CHANGES)
def test_load_model_refuses_changed_version_before_its_code_runs(
    model: Path, change: Callable[[Path], None]
) -> None:
    from finagent_model.model.loading import load_model
    from finagent_model.pipeline.verify import verify

    change(model)
    for uri in (URI, "models:/finagent@champion"):
        with pytest.raises(CorruptPackageError):
            load_model(uri)
    assert [(c.name, c.passed) for c in verify(URI).checks] == [("package_hashes", False)]
    assert not Path(RUN_MARK).exists()


@pytest.mark.parametrize("change", [c for c in CHANGES if c is not change_code])
def test_mlflow_itself_does_not_load_changed_version(
    model: Path, change: Callable[[Path], None]
) -> None:
    change(model)
    with pytest.raises(CorruptPackageError):
        mlflow.pyfunc.load_model(URI)


def test_predict_of_changed_version_exits_with_4(model: Path, trained: Place) -> None:
    change_policy_and_hashes(model)
    done = trained.finagent("predict", "FB", "--as-of", AS_OF)
    assert done.returncode == 4
    assert "the tags of version 1 of finagent say" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("model")
def test_promote_signs_where_a_key_is_set(trained: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from finagent_model.model.loading import load_model, load_predictor

    private, public = new_key_pair()
    monkeypatch.setenv("FINAGENT_TRUSTED_KEYS", public)
    monkeypatch.setenv("FINAGENT_REQUIRE_SIGNATURE", "true")
    with pytest.raises(SignatureError, match="version 1 of finagent is not signed"):
        load_model(URI)
    done = trained.finagent("promote", "1", FINAGENT_SIGNING_KEY=private)
    assert done.returncode == 0, done.stderr
    checked = load_predictor(URI).checked
    assert checked is not None
    assert checked.anchored
    assert checked.signed_by is not None
    # Another key: signed anew, and no alias moves.
    private, public = new_key_pair()
    signed = trained.finagent("sign", "1", FINAGENT_SIGNING_KEY=private)
    assert (signed.returncode, signed.stdout) == (0, "version 1 of finagent is signed\n")
    monkeypatch.setenv("FINAGENT_TRUSTED_KEYS", public)
    again = load_predictor(URI).checked
    assert again is not None
    assert again.signed_by not in (None, checked.signed_by)
    assert trained.finagent("sign", "1").returncode == 2
