"""Models are loaded from wherever they lie."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finagent_model.model.loading import load_checked, load_model
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


@pytest.mark.slow
def test_load_model_in_threads_leaves_no_stand_in_behind(tmp_path: Path) -> None:
    load_small_model(tmp_path / "model")
    with ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(lambda _: load_model(str(tmp_path / "model")), range(8)))
    assert len(loaded) == 8
    assert "dbutils" not in sys.modules
