"""Models are loaded from wherever they lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from finagent_model.model.loading import load_checked
from support.serving import load_small_model

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's store has warnings of its own


@pytest.mark.parametrize("uri", ["model", "./model/", "{folder}/model", "file://{folder}/model"])
def test_load_checked_reads_plain_folder(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_small_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    checked = load_checked(uri.format(folder=tmp_path))
    assert (checked.anchored, "not a registered version" in checked.why_not) == (False, True)
