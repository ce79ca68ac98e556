"""Sources from other packages, by Python entry point: a factory that takes Settings.

A source by its name, as FINAGENT_BARS, FINAGENT_NEWS and FINAGENT_FUNDAMENTALS give it: a word
of ours, a SQLAlchemy URL, the entry point of another package, a folder or a file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finagent_model.data.bar_cache import BarStore, CachedBars, StoredBars
from finagent_model.data.bundled import BundledBars
from finagent_model.data.files import FileFundamentals, FileNews, FolderBars, bundled_events
from finagent_model.data.protocols import BarSource, FundamentalsSource, NewsSource, reason_of
from finagent_model.errors import ConfigError
from finagent_model.settings import Settings

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def installed_plugins(group: str) -> dict[str, EntryPoint]:
    """By name. Nothing is imported."""
    return {found.name: found for found in entry_points(group=group)}


def source_from_plugin(entry: EntryPoint, settings: Settings, needs: Sequence[str]) -> Any:
    """What the factory gives, if it has the attributes that it `needs`. Raises ConfigError."""
    called = f"entry point {entry.name!r} of {entry.group} ({entry.value})"
    try:
        source = entry.load()(settings)
        missing = next((name for name in needs if not hasattr(source, name)), None)
    except Exception as error:  # somebody else's code
        raise ConfigError(f"{called} gave no source: {reason_of(error)}") from None
    if missing is not None:
        raise ConfigError(f"{called} gave a {type(source).__name__}, which has no {missing!r}")
    return source


BUNDLED, KEPT, YFINANCE = "bundled", "kept", "yfinance"


@dataclass(frozen=True)
class _SourceKind:
    """What one variable may name."""

    variable: str
    group: str
    needs: tuple[str, ...]
    """Attributes of what an entry point gives."""
    words: str
    path: str


BARS = _SourceKind(
    "FINAGENT_BARS",
    "finagent.bars",
    ("name", "symbols", "bars"),
    "bundled, yfinance, kept, kept:HASH, ",
    "a folder of CSV or Parquet files",
)
NEWS = _SourceKind(
    "FINAGENT_NEWS", "finagent.news", ("news",), "bundled, ", "a JSONL file or a folder of them"
)
FACTS = _SourceKind(
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
    kept = BarStore(settings.home)
    if name == BUNDLED:
        return BundledBars()
    word, _, hashes = name.partition(":")
    if word == KEPT and not hashes.startswith("//"):
        return StoredBars(kept, hashes.replace(",", " ").split())
    if name == YFINANCE:
        from finagent_model.data.yfinance import YFinanceBars

        return CachedBars(YFinanceBars(settings.home / YFINANCE, clock), kept, clock)
    if "://" in name:
        from finagent_model.data.sql import SqlBars

        return CachedBars(SqlBars(name), kept, clock)
    found = _plugin_or_path(name, BARS)
    if isinstance(found, Path):
        return FolderBars(found)
    return CachedBars(source_from_plugin(found, settings, BARS.needs), kept, clock)


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
    source: NewsSource = source_from_plugin(found, settings, NEWS.needs)
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
    source: FundamentalsSource = source_from_plugin(found, settings, FACTS.needs)
    return source


def _plugin_or_path(name: str, kind: _SourceKind) -> EntryPoint | Path:
    """An entry point goes by its bare name, a path by being there or looking like one."""
    plugins: dict[str, Any] = installed_plugins(kind.group)
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
