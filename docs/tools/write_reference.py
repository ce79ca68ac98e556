"""Write docs/reference/ from the code: `make reference`. A test compares the files with it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from docs.tools import commands, python_page, record_pages, rest_page, settings_pages

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "docs" / "reference"


def read(name: str) -> str:
    """Return the text of a file of the repository."""
    return (ROOT / name).read_text()


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": commands.render,
    "desk_yaml.md": settings_pages.render_desk,
    "training_parameters.md": lambda: settings_pages.render_training(read("MLproject")),
    "signal.md": record_pages.render_signal,
    "rest.md": rest_page.render,
    "python.md": python_page.render,
    "environment.md": lambda: settings_pages.render_environment(read("env.example")),
    "exit_codes.md": record_pages.render_exit_codes,
    "statuses.md": record_pages.render_statuses,
    "runs.md": record_pages.render_runs,
    "checks.md": record_pages.render_checks,
    "metrics.md": record_pages.render_metrics,
}


def main() -> None:
    """Write every page, and remove those that are no longer made."""
    FOLDER.mkdir(exist_ok=True)
    for old in {path.name for path in FOLDER.glob("*.md")} - PAGES.keys():
        (FOLDER / old).unlink()
    for name, render in PAGES.items():
        (FOLDER / name).write_text(render())
    sys.stdout.write(f"wrote {len(PAGES)} pages to {FOLDER.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
