"""Sources by name, as FINAGENT_BARS, FINAGENT_NEWS and FINAGENT_FUNDAMENTALS give it.

A name is one of our words, a SQLAlchemy URL, a Python entry point of another package (a plug-in: a
factory that takes Settings), a folder or a file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from finagent_model._base import show_value
from finagent_model.data._edgar import PREFIX as EDGAR
from finagent_model.data._edgar import EdgarFolder
from finagent_model.data.bar_cache import BarStore, CachedBars, StoredBars
from finagent_model.data.bar_columns import Hints
from finagent_model.data.bar_files import FolderBars
from finagent_model.data.bundled import BUNDLED, BundledBars
from finagent_model.data.files import FileFundamentals, FileNews, load_bundled_news
from finagent_model.data.protocols import BarSource, FundamentalsSource, NewsSource, describe_error
from finagent_model.errors import BadInputError, ConfigError
from finagent_model.market.timeframe import DAILY
from finagent_model.settings import Settings

KEPT, YFINANCE, IB = "kept", "yfinance", "ib"


@dataclass(frozen=True)
class _SourceKind:
    """The names that one environment variable may have, and what a plug-in must offer."""

    variable: str
    group: str
    """Of entry points."""
    attributes: tuple[str, ...]
    """What a plug-in's source must have."""
    words: str
    path: str


BARS = _SourceKind(
    "FINAGENT_BARS",
    "finagent.bars",
    ("name", "symbols", "bars"),
    "bundled, yfinance, ib, kept, kept:HASH, ",
    "a folder of CSV or Parquet files",
)
_RECORD_FILES = "a JSONL, CSV, Parquet, JSON, RSS or Atom file or a folder of them"
NEWS = _SourceKind(
    "FINAGENT_NEWS", "finagent.news", ("news",), "bundled, edgar:FOLDER, ", _RECORD_FILES
)
FACTS = _SourceKind(
    "FINAGENT_FUNDAMENTALS",
    "finagent.fundamentals",
    ("facts",),
    "edgar:FOLDER, ",
    _RECORD_FILES,
)


def make_bar_source(settings: Settings, clock: Callable[[], datetime]) -> BarSource:
    """Return the source that FINAGENT_BARS names; the bundled bars if it is unset.

    Bars from elsewhere than this machine are cached, stamped by `clock`. Raises ConfigError.
    """
    name = settings.bars.get_secret_value() if settings.bars else BUNDLED
    store = BarStore(settings.home)
    if name == BUNDLED:
        return BundledBars()
    word, _, hashes = name.partition(":")
    if word == KEPT and not hashes.startswith("//"):  # `kept://` would be a URL
        return StoredBars(store, hashes.replace(",", " ").split())
    # Clients of vendors and databases are optional or slow to import.
    if name.partition("?")[0] == YFINANCE:
        from finagent_model.data._yfinance import YFinanceBars

        hints = _parse_options(name)
        yahoo = YFinanceBars(
            settings.home / YFINANCE,
            clock,
            timeframe=hints.bar_length or DAILY,
            calendar=hints.market_calendar,
        )
        return CachedBars(yahoo, store, clock)
    if name.partition("?")[0] == IB or name.startswith(f"{IB}://"):
        from finagent_model.data._interactive_brokers import InteractiveBrokersBars

        return CachedBars(InteractiveBrokersBars(name, clock), store, clock)
    if "://" in name:
        from finagent_model.data._sql import SqlBars

        return CachedBars(SqlBars(name), store, clock)
    target = _find_plugin_or_path(name, BARS)
    if isinstance(target, Path):
        return FolderBars(target)
    return CachedBars(load_plugin(target, settings, BARS.attributes), store, clock)


def make_news_source(settings: Settings) -> NewsSource | None:
    """Return the source that FINAGENT_NEWS names.

    If it is unset: the bundled events beside bundled bars, else None. Raises ConfigError.
    """
    name = settings.news.get_secret_value() if settings.news else None
    if name is None:
        # The bundled events are about the bundled stocks; beside other bars they would mislead.
        bundled_bars = settings.bars is None or settings.bars.get_secret_value() == BUNDLED
        return load_bundled_news() if bundled_bars else None
    if name == BUNDLED:
        return load_bundled_news()
    if name.startswith(EDGAR):
        return EdgarFolder(name.removeprefix(EDGAR))
    if "://" in name:
        from finagent_model.data._sql import SqlNews

        return SqlNews(name)
    target = _find_plugin_or_path(name, NEWS)
    if isinstance(target, Path):
        return FileNews(target)
    source: NewsSource = load_plugin(target, settings, NEWS.attributes)
    return source


def make_fundamentals_source(settings: Settings) -> FundamentalsSource | None:
    """Return the source that FINAGENT_FUNDAMENTALS names; None if unset. Raises ConfigError."""
    if settings.fundamentals is None:
        return None
    name = settings.fundamentals.get_secret_value()
    if name.startswith(EDGAR):
        return EdgarFolder(name.removeprefix(EDGAR))
    if "://" in name:
        from finagent_model.data._sql import SqlFundamentals

        return SqlFundamentals(name)
    target = _find_plugin_or_path(name, FACTS)
    if isinstance(target, Path):
        return FileFundamentals(target)
    source: FundamentalsSource = load_plugin(target, settings, FACTS.attributes)
    return source


def list_plugins(group: str) -> dict[str, EntryPoint]:
    """Return the installed entry points of `group` by name; nothing of theirs is imported."""
    return {entry.name: entry for entry in entry_points(group=group)}


def load_plugin(entry: EntryPoint, settings: Settings, attributes: Sequence[str]) -> Any:
    """Return the source that a plug-in's factory makes.

    Raises ConfigError where it fails, or where the source lacks one of `attributes`.
    """
    label = f"entry point {entry.name!r} of {entry.group} ({entry.value})"
    try:
        source = entry.load()(settings)
        missing = next((name for name in attributes if not hasattr(source, name)), None)
    except Exception as error:  # somebody else's code may raise anything
        raise ConfigError(f"{label} gave no source: {describe_error(error)}") from None
    if missing is not None:
        raise ConfigError(f"{label} gave a {type(source).__name__}, which has no {missing!r}")
    return source


def _parse_options(name: str) -> Hints:
    """Return the hints of a name such as `yfinance?timeframe=1h&calendar=XNYS`.

    Raises ConfigError.
    """
    options = dict(parse_qsl(name.partition("?")[2], keep_blank_values=True))
    for option in options:
        if option not in ("timeframe", "calendar"):
            raise ConfigError(
                f"{BARS.variable}: option {show_value(option)} is unknown; there is: timeframe, "
                f"calendar, as in {YFINANCE}?timeframe=1h&calendar=XNYS"
            )
    try:
        return Hints.parse(**options)
    except BadInputError as error:
        raise ConfigError(f"{BARS.variable}: {error}") from None


def _find_plugin_or_path(name: str, kind: _SourceKind) -> EntryPoint | Path:
    """Return the entry point of that bare name, or the path that exists or looks like one.

    Raises ConfigError for neither and for both.
    """
    plugins = list_plugins(kind.group)
    path = Path(name).expanduser()
    if name in plugins and path.exists():
        raise ConfigError(
            f"{kind.variable} {name!r} is an entry point and a path; write ./{name} for the path"
        )
    if name in plugins:
        return plugins[name]
    secret = "@" in name and not path.exists()  # a mistyped URL may hold a password
    if path.exists() or (not secret and (os.sep in name or name.startswith(("~", ".")))):
        return path
    shown = "***" if secret else name
    installed = ", ".join(sorted(plugins)) or "none is installed"
    raise ConfigError(
        f"{kind.variable} {shown!r} is unknown; use {kind.words}{kind.path} (./{shown}), a "
        f"SQLAlchemy URL such as sqlite:///data.db?table=NAME, or an entry point of the group "
        f"{kind.group}: {installed}"
    )
