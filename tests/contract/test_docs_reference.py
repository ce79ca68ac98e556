"""The generated reference is the code's: the same bytes, and names for all that a run holds."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from docs.tools import words
from docs.tools.markdown import MissingWordsError, require_words
from docs.tools.write_reference import FOLDER, PAGES
from finagent_model.settings import Settings
from support.places import ROOT, Place

RUN = """
import json
import mlflow
from mlflow.tracking import MlflowClient

client = MlflowClient()

def files(run, folder=""):
    for each in client.list_artifacts(run, folder):
        yield from files(run, each.path) if each.is_dir else [each.path]

rows = []
for run in mlflow.search_runs(search_all_experiments=True, output_format="list"):
    data = run.data
    names = [sorted(each) for each in (data.tags, data.params, data.metrics)]
    rows.append([*names, sorted(files(run.info.run_id))])
versions = [sorted(each.tags) for each in client.search_model_versions()]
print("RUNS " + json.dumps([rows, versions]))
"""


@pytest.mark.parametrize("name", PAGES)
def test_reference_page_is_what_the_code_gives(name: str) -> None:
    assert PAGES[name]() == (FOLDER / name).read_text(), "run `make reference`"


def test_reference_folder_has_no_other_page() -> None:
    assert {path.name for path in FOLDER.glob("*.md")} == set(PAGES)


def test_reference_page_lists_every_page() -> None:
    page = (ROOT / "docs" / "reference.md").read_text()
    assert set(re.findall(r"\]\(reference/(\w+\.md)\)", page)) == set(PAGES)


def test_environment_page_lists_every_variable_that_is_read() -> None:
    named = set(re.findall(r"^\| `([A-Z_]+)`", PAGES["environment.md"](), flags=re.M))
    assert set(Settings.variable_names()) <= named


def test_name_without_words_is_refused() -> None:
    with pytest.raises(MissingWordsError, match=r"explain in docs/tools/: \['new_check'\]"):
        require_words("checks", {"old", "new_check"}, {"old"})


def test_words_without_a_name_are_refused() -> None:
    with pytest.raises(MissingWordsError, match=r"no longer in the code: \['gone'\]"):
        require_words("checks", {"old"}, {"old", "gone"})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow's store has warnings of its own
def test_reference_names_all_that_a_run_holds(trained: Place) -> None:
    import json

    done = trained.python(RUN)
    [line] = [text for text in done.stdout.splitlines() if text.startswith("RUNS ")]
    runs, versions = json.loads(line.removeprefix("RUNS "))
    # The training and its parent; other tests may have decided and registered here before.
    assert len(runs) >= 2 and versions
    metrics = {*words.METRICS, *words.UNITS, *(f"evidence/{name}" for name in words.EVIDENCE)}
    training = set(re.findall(r"^\| `(\w+)` \|", PAGES["training_parameters.md"](), flags=re.M))
    for tags, params, found, files in runs:
        assert {t for t in tags if t.startswith("finagent.")} <= words.TAGS.keys()
        assert set(params) <= words.PARAMS.keys() | training
        assert {name.removeprefix("benchmark_") for name in found} <= metrics
        assert set(general(files)) <= words.FILES.keys()
    for tags in versions:
        assert {t for t in tags if t.startswith("finagent.")} <= words.TAGS.keys()


def general(files: list[str]) -> Iterator[str]:
    """Yield the names of files with SYMBOL in the place of a symbol."""
    for name in files:
        yield re.sub(r"(?<=equity_)\w+|(?<=ledgers/)\w+", "SYMBOL", name)
