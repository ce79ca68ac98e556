"""Configuration of the documentation site: Sphinx reads the Markdown files where they are.

The source folder is the repository, so that links work here as they do on GitHub, README.md and
CONTRIBUTING.md included. `make docs` builds the site, whose pages fetch nothing from elsewhere.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent

project = "finagent_model"
author = "the authors of finagent_model"
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
language = "en"

extensions = ["myst_nb", "sphinx_copybutton", "sphinx_design", "sphinxcontrib.mermaid"]
root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "docs/**.ipynb",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "tests/README.md",
    "benchmarks/README.md",
    "openspec/changes/finagent-autogen-pipeline/proposal.md",
]
# Sphinx walks through every folder that is not excluded.
exclude_patterns = [".*", "out", "dist", "mlruns", "mlartifacts", "node_modules", "**/.*"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}

myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
# Notebooks show the outputs that they hold; a test runs them.
nb_execution_mode = "off"

html_theme = "furo"
html_title = f"finagent_model {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_extra"]
html_show_sphinx = False
html_copy_source = False
mermaid_use_local = "mermaid.mjs"
mermaid_height = "auto"
mermaid_fullscreen_button = "+"
# `$` begins no prompt that is copied with a command.
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True


def drop_empty_globs(app: Sphinx, page: str, source: list[str]) -> None:
    """Drop the patterns of the navigation that add no page, which Sphinx would warn of."""
    if page != root_doc:
        return
    folder, kept = Path(page).parent, []
    rest = {Path(name) for name in app.env.found_docs}
    for line in source[0].splitlines():
        found = {each for each in rest if each.match(f"{folder}/{line}")}
        if re.fullmatch(r"[\w/]*\*", line) and not found:
            continue
        # A page belongs to the first pattern that names it.
        rest -= found
        kept.append(line)
    source[0] = "\n".join(kept)


def copy_pictures(app: Sphinx, error: Exception | None) -> None:
    """Copy the pictures to where the `<picture>` elements of the pages look for them."""
    if error is None:
        shutil.copytree(ROOT / "docs" / "img", app.outdir / "docs" / "img", dirs_exist_ok=True)


def setup(app: Sphinx) -> None:
    """Register what is done before and after a build."""
    app.connect("source-read", drop_empty_globs)
    app.connect("build-finished", copy_pictures)
