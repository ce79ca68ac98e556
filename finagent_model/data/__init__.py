"""Sources of bars, news and fundamentals, and the market that puts them together.

A source hands over whole histories; `MarketView` alone cuts them at `as_of`. The environment names
the sources. Bars that come from elsewhere than this machine are cached by their content hash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.data.bar_files import FolderBars
    from finagent_model.data.bundled import BundledBars
    from finagent_model.data.files import FileFundamentals, FileNews
    from finagent_model.data.market import Market
    from finagent_model.data.protocols import BarSource, FundamentalsSource, NewsSource
    from finagent_model.data.snapshots import BarsSnapshot, Dataset
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "bar_files": ["FolderBars"],
            "bundled": ["BundledBars"],
            "files": ["FileFundamentals", "FileNews"],
            "market": ["Market"],
            "protocols": ["BarSource", "FundamentalsSource", "NewsSource"],
            "snapshots": ["BarsSnapshot", "Dataset"],
        },
    )

__all__ = [
    "BarSource",
    "BarsSnapshot",
    "BundledBars",
    "Dataset",
    "FileFundamentals",
    "FileNews",
    "FolderBars",
    "FundamentalsSource",
    "Market",
    "NewsSource",
]
