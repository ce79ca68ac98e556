"""Lock files and pins, read."""

from __future__ import annotations

import re

from support.places import ROOT

IMAGE = "airflow/requirements-airflow.txt"


def read(path: str) -> str:
    return (ROOT / path).read_text()


def pinned(entries: list[str]) -> dict[str, str]:
    """Version by normalised name; every entry must be an exact pin, and none may come twice."""
    versions: dict[str, str] = {}
    for entry in entries:
        match = re.fullmatch(r"([\w.-]+)(?:\[[\w,-]+\])?==([\w.+!-]+)", entry)
        assert match, f"{entry!r} is not an exact pin"
        name = re.sub(r"[-_.]+", "-", match[1]).lower()
        assert name not in versions, f"{name} comes twice"
        versions[name] = match[2]
    return versions


def requirements(path: str) -> list[str]:
    """Each requirement of a lock file, its hashes on the same line."""
    lines = read(path).replace("\\\n", " ").splitlines()
    return [line for line in lines if not line.startswith("#")]


def locked(path: str) -> dict[str, str]:
    return pinned([line.split()[0] for line in requirements(path)])
