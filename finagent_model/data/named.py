"""A source by its name, as FINAGENT_BARS, FINAGENT_NEWS and FINAGENT_FUNDAMENTALS give it: a word
of ours, a SQLAlchemy URL, the entry point of another package, a folder or a file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finagent_model.data.bundled import BundledBars
from finagent_model.data.fetched import FetchedBars
from finagent_model.data.folder import FolderBars
from finagent_model.data.fundamentals_file import FileFundamentals
from finagent_model.data.kept import Kept, KeptBars
from finagent_model.data.news_file import FileNews, bundled_events
from finagent_model.data.plugin import installed, made_by
from finagent_model.data.source import BarSource, FundamentalsSource, NewsSource
from finagent_model.errors import ConfigError
from finagent_model.settings import Settings

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

BUNDLED, KEPT, YFINANCE = "bundled", "kept", "yfinance"


@dataclass(frozen=True)
class _Kind:
    """What one variable may name."""

    variable: str
    group: str
    needs: tuple[str, ...]
    """Attributes of what an entry point gives."""
    words: str
    path: str


BARS = _Kind(
    "FINAGENT_BARS",
    "finagent.bars",
    ("name", "symbols", "bars"),
    "bundled, yfinance, kept, kept:HASH, ",
    "a folder of CSV or Parquet files",
)
NEWS = _Kind(
    "FINAGENT_NEWS", "finagent.news", ("news",), "bundled, ", "a JSONL file or a folder of them"
)
FACTS = _Kind(
    "FINAGENT_FUNDAMENTALS",
    "finagent.fundamentals",
    ("facts",),
    "",
    "a JSONL file or a folder of them",
)


def bar_source(settings: Settings, clock: Callable[[], datetime]) -> BarSource:
    """What FINAGENT_BARS names; empty: the bundled bars. Whatever isn't a file of this machine is
    kept, stamped by `clock`. Raises ConfigError.
    """
    name = settings.bars.get_secret_value() if settings.bars else BUNDLED
    kept = Kept(settings.home)
    if name == BUNDLED:
        return BundledBars()
    word, _, hashes = name.partition(":")
    if word == KEPT and not hashes.startswith("//"):
        return KeptBars(kept, hashes.replace(",", " ").split())
    if name == YFINANCE:
        from finagent_model.data.yfinance_bars import YFinanceBars

        return FetchedBars(YFinanceBars(settings.home / YFINANCE, clock), kept, clock)
    if "://" in name:
        from finagent_model.data.sql import SqlBars

        return FetchedBars(SqlBars(name), kept, clock)
    found = _plugin_or_path(name, BARS)
    if isinstance(found, Path):
        return FolderBars(found)
    return FetchedBars(made_by(found, settings, BARS.needs), kept, clock)


def news_source(settings: Settings) -> NewsSource | None:
    """What FINAGENT_NEWS names; empty: the bundled events beside bundled bars, else none. Raises
    ConfigError.
    """
    name = settings.news.get_secret_value() if settings.news else None
    if name is None:
        ours = settings.bars is None or settings.bars.get_secret_value() == BUNDLED
        return bundled_events() if ours else None
    if name == BUNDLED:
        return bundled_events()
    if "://" in name:
        from finagent_model.data.sql import SqlNews

        return SqlNews(name)
    found = _plugin_or_path(name, NEWS)
    if isinstance(found, Path):
        return FileNews(found)
    source: NewsSource = made_by(found, settings, NEWS.needs)
    return source


def fundamentals_source(settings: Settings) -> FundamentalsSource | None:
    """What FINAGENT_FUNDAMENTALS names; empty: none. Raises ConfigError."""
    if settings.fundamentals is None:
        return None
    name = settings.fundamentals.get_secret_value()
    if "://" in name:
        from finagent_model.data.sql import SqlFundamentals

        return SqlFundamentals(name)
    found = _plugin_or_path(name, FACTS)
    if isinstance(found, Path):
        return FileFundamentals(found)
    source: FundamentalsSource = made_by(found, settings, FACTS.needs)
    return source


def _plugin_or_path(name: str, kind: _Kind) -> EntryPoint | Path:
    """An entry point goes by its bare name, a path by being there or looking like one."""
    plugins: dict[str, Any] = installed(kind.group)
    path = Path(name).expanduser()
    if name in plugins and path.exists():
        raise ConfigError(
            f"{kind.variable} {name!r} is an entry point and a path; write ./{name} for the path"
        )
    if name in plugins:
        entry: EntryPoint = plugins[name]
        return entry
    secret = "@" in name and not path.exists()  # a URL mistyped may hold a password
    if path.exists() or (not secret and (os.sep in name or name.startswith(("~", ".")))):
        return path
    shown = "***" if secret else name
    listed = ", ".join(sorted(plugins)) or "none is installed"
    raise ConfigError(
        f"{kind.variable} {shown!r} is unknown; use {kind.words}{kind.path} (./{shown}), a "
        f"SQLAlchemy URL such as sqlite:///data.db?table=NAME, or an entry point of the group "
        f"{kind.group}: {listed}"
    )
