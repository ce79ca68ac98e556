"""Another package, installed into a folder the way pip leaves it."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, module: str, code: str, group: str, entry: str) -> Path:
    """`entry` is a line such as `acme = acme_bars:source`; gives the folder, for a path."""
    described = folder / f"{module}-1.0.dist-info"
    described.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(code)
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")
    return folder
