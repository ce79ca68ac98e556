"""The documentation site, built as `make docs` does, and the pages that it is made of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.places import ROOT


def build_site(folder: Path, doctrees: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Build the site strictly into `folder`; nothing is checked.

    With the `doctrees` of an earlier build in `folder` only what has changed is built.
    """
    command = [sys.executable, "-m", "sphinx", "-c", "docs", "-b", "html", "-W", "--keep-going"]
    command += ["-n", "-q", "-d", str(doctrees or f"{folder}-doctrees"), ".", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def pages() -> list[Path]:
    """All Markdown pages that people read, of the site and beside it."""
    outside = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "tests/README.md"]
    return [*(ROOT / name for name in outside), *sorted((ROOT / "docs").rglob("*.md"))]
