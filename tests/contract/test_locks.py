"""What is installed is what pyproject.toml names, whichever file it is installed from."""

from __future__ import annotations

import re
import subprocess
import tomllib

import pytest
import yaml

from support.lock_files import IMAGE, locked, pinned, read, requirements
from support.places import ROOT

NAMES = ("bootstrap", "runtime", "test", "airflow2", "local")
LOCKS = [f"requirements/{name}.lock" for name in NAMES]
LOCKS += [IMAGE]
UNLOCKED = {"ib"}
"""Extras whose packages stand beside no lock: ib_async asks for an older tzdata."""
LISTS = ["conda.yaml", "finagent_model/model/requirements.txt"]


def asked() -> dict[str, list[str]]:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    return {"runtime": project["dependencies"], **project["optional-dependencies"]}


def test_the_direct_pins_are_the_locked_ones() -> None:
    asked_for = asked()
    assert pinned(asked_for["runtime"]).items() <= locked("requirements/runtime.lock").items()
    # A model on this machine has a lock of its own: nothing else needs its 130 MB.
    local = asked_for.pop("local")
    assert pinned(local).items() <= locked("requirements/local.lock").items()
    locked_extras = [entries for extra, entries in asked_for.items() if extra not in UNLOCKED]
    everything = [entry for entries in locked_extras for entry in entries]
    assert pinned(everything).items() <= locked("requirements/test.lock").items()


def test_conda_yaml_is_the_runtime_lock() -> None:
    python, pip, packages = yaml.safe_load(read("conda.yaml"))["dependencies"]
    assert (python, pip) == ("python=3.11.7", "pip")
    assert pinned(packages["pip"]) == locked("requirements/runtime.lock")


def test_the_served_model_asks_for_the_runtime_lock() -> None:
    assert pinned(read(LISTS[1]).splitlines()) == locked("requirements/runtime.lock")


def test_the_lists_begin_with_the_direct_pins() -> None:
    direct = list(pinned(asked()["runtime"]))
    conda = yaml.safe_load(read("conda.yaml"))["dependencies"][-1]["pip"]
    for entries in (conda, read(LISTS[1]).splitlines()):
        assert list(pinned(entries))[: len(direct)] == direct


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_has_a_hash(lock: str) -> None:
    entries = requirements(lock)
    assert entries
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_test_environment_keeps_the_runtime_versions() -> None:
    assert locked("requirements/runtime.lock").items() <= locked("requirements/test.lock").items()


def test_the_image_has_the_tested_versions_of_all_that_it_runs() -> None:
    image, tested = locked(IMAGE), locked("requirements/test.lock")
    assert image.items() <= tested.items()
    assert locked("requirements/runtime.lock").items() <= image.items()
    for extra in ("airflow", "postgres", "s3", "yfinance"):
        assert pinned(asked()[extra]).items() <= image.items()


def test_locks_name_the_pin_of_upstream() -> None:
    pin = tomllib.loads(read("finagent_model/contrib/upstream/upstream.lock"))["commit"]
    assert pin in read(IMAGE)
    assert pin in read("conda.yaml")


def test_the_wheel_of_upstream_is_listed_by_its_pin() -> None:
    from finagent_model.contrib.upstream.source import WHEEL, SourcePin

    [wheel] = requirements("airflow/requirements-upstream.txt")
    assert wheel == f"./dist/{WHEEL}-0+g{SourcePin.load().commit[:12]}-py3-none-any.whl"


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What `make` would run."""
    command = ["make", "--dry-run", "--always-make", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_one_switch_brings_upstream_to_make() -> None:
    steps = make("train", "UPSTREAM=1").stdout
    order = ["finagent upstream fetch", "upstream wheel --to dist", "requirements-upstream.txt"]
    places = [steps.index(step) for step in [*order, "mlflow run"]]
    assert places == sorted(places)
    assert "upstream" not in make("train").stdout


def test_the_switch_of_upstream_takes_1_alone() -> None:
    done = make("train", "UPSTREAM=yes")
    assert done.returncode != 0
    assert "UPSTREAM=yes: write UPSTREAM=1, or leave it out" in done.stderr


def test_no_backtesting_package_is_installed_with_the_model() -> None:
    assert not {"backtesting", "vectorbt"} & locked("requirements/runtime.lock").keys()


def test_the_three_autogen_packages_have_one_version() -> None:
    runtime = locked("requirements/runtime.lock")
    assert len({runtime[f"autogen-{part}"] for part in ("core", "agentchat", "ext")}) == 1


@pytest.mark.parametrize("path", [*LOCKS, *LISTS])
def test_no_file_names_a_host(path: str) -> None:
    assert re.findall(r"https?:|://|--(?:extra-)?index-url|--find-links", read(path)) == []


def test_nothing_at_runtime_has_a_licence_that_forbids_commercial_use() -> None:
    """By what the installed packages call theirs; a whole text may quote others."""
    from importlib import metadata

    for name in locked("requirements/runtime.lock"):
        said = metadata.metadata(name)
        fields = ("License", "License-Expression", "Classifier")
        text = " ".join(str(v)[:100] for field in fields for v in said.get_all(field) or [])
        assert not re.search(r"affero|agpl|commons clause", text, re.IGNORECASE), name


@pytest.mark.parametrize("oracle", ["backtesting", "vectorbt"])
def test_the_oracles_are_of_the_tests_alone(oracle: str) -> None:
    assert oracle in locked("requirements/test.lock")
    assert oracle not in locked("requirements/runtime.lock")
    assert oracle not in read("conda.yaml")
