"""Compiles the lock files and writes the two pin lists made from them. `make lock` runs it.

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
EXTRAS = ("airflow", "postgres", "s3", "yfinance", "test")
CONDA_HEAD = """\
name: finagent
channels:
  - conda-forge
dependencies:
  - python=3.11.7
  - pip
  - pip:
"""


def compile_lock(lock: str, source: str, *arguments: str, text: str | None = None) -> None:
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv) if uv.is_file() else "uv", "pip", "compile", source, "--quiet"]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--python-version", "3.11"]
    command += ["--output-file", f"requirements/{lock}", *arguments]
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


def main(arguments: list[str]) -> None:
    compile_lock("bootstrap.lock", "-", *arguments, text=f"uv=={UV_VERSION}\n")
    extras = [word for extra in EXTRAS for word in ("--extra", extra)]
    compile_lock("test.lock", "pyproject.toml", *extras, *arguments)
    constraint = ["--constraint", "requirements/test.lock"]
    compile_lock("runtime.lock", "pyproject.toml", *constraint, *arguments)

    runtime = (ROOT / "requirements/runtime.lock").read_text()
    direct, brought = split_pins((ROOT / "pyproject.toml").read_text(), runtime)
    lines = ["# direct", *(f"- {pin}" for pin in direct)]
    lines += ["# what they bring", *(f"- {pin}" for pin in brought)]
    pin = tomllib.loads((ROOT / "finagent_model/upstream/upstream.lock").read_text())
    lines += [
        f"# finagent (git pin): {'/'.join(pin['repository'].split('/')[-2:])}@{pin['commit']}",
        "# It has no build file, so pip can't install it: `finagent upstream fetch` brings it, and",
        "# `finagent upstream wheel` makes a wheel that may be listed here.",
    ]
    (ROOT / "conda.yaml").write_text(CONDA_HEAD + "".join(f"      {line}\n" for line in lines))
    serving = "".join(f"{pin}\n" for pin in [*direct, *brought])
    (ROOT / "finagent_model/serving/requirements.txt").write_text(serving)


if __name__ == "__main__":
    main(sys.argv[1:])
