"""The stand-in for the upstream project as a Git repository, with a pin of its own."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finagent_model.contrib.upstream.source import SourcePin
from finagent_model.market.bars import BarSeries

FILES = Path(__file__).parent / "stub_upstream"
DAY = "2012-06-29"


@dataclass(frozen=True)
class Repository:
    """A clone, and the pin of its first commit."""

    folder: Path
    pin: SourcePin

    @property
    def folder_of_code(self) -> Path:
        return self.folder / "src" / "backend"


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.com"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def make_repository(folder: Path) -> Repository:
    shutil.copytree(FILES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    git(folder, "init", "--quiet")
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "-m", "A stand-in")
    pin = SourcePin(
        repository="https://example.invalid/stand-in",
        commit=git(folder, "rev-parse", "HEAD"),
        tree=git(folder, "rev-parse", "HEAD^{tree}"),
        folder="src/backend",
        folder_tree=git(folder, "rev-parse", "HEAD:src/backend"),
        licence="MIT",
        licence_blob=git(folder, "rev-parse", "HEAD:LICENSE"),
    )
    return Repository(folder, pin)


def bars_of(symbol: str, count: int = 300, until: str = DAY) -> BarSeries:
    """A rising series that ends on `until`, a bar each weekday."""
    days = np.busday_offset(until, np.arange(1 - count, 1))
    close = np.linspace(100.0, 200.0, count)
    return BarSeries(
        symbol=symbol,
        closed_at=days.astype("datetime64[us]") + np.timedelta64(21, "h"),
        open=close - 0.5,
        high=close + 1.0,
        low=close - 1.0,
        close=close,
        volume=np.full(count, 1e6),
        split=np.ones(count),
        dividend=np.zeros(count),
    )
