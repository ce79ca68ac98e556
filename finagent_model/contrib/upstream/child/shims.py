"""Replace what upstream imports and the analysis never needs by modules that can be imported, and
Yahoo's client by one that serves the bars at hand.
"""

from __future__ import annotations

import datetime
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pandas as pd

STUBBED = ("autogen_core", "autogen_ext", "azure", "dotenv", "pydantic", "requests", "sec_api")
"""Packages that are heavy, or a way to the network, or read stray files. pydantic must go with
autogen_core: the one real and the other stubbed doesn't import.
"""
COLUMNS = ("Open", "High", "Low", "Close", "Volume")


class Stub:
    """Takes any arguments, has any attribute, can be a base class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Called with one function it is a decorator, and must give the function back.
        return args[0] if len(args) == 1 and callable(args[0]) else Stub()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Stub()


def _identity_decorator(decorated: Any = None, *args: Any, **kwargs: Any) -> Any:
    """Return what is decorated, whether or not the decorator is called with arguments first."""
    return decorated if callable(decorated) else _identity_decorator


class _StubModule(ModuleType):
    """A module that has every name: decorators pass through, all else is a class."""

    __path__: list[str] = []  # noqa: RUF012 - so that it counts as a package

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("default_subscription", "message_handler", "type_subscription"):
            return _identity_decorator
        return type(name, (Stub,), {})


class _StubFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a stub for the packages in `STUBBED`, installed or not."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.split(".")[0] in STUBBED:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _StubModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


class MarketShim:
    """What Yahoo would have served on the evening that is asked about: one symbol's bars."""

    def __init__(self) -> None:
        self.symbol, self.clock_day, self.frame = "", datetime.date.min, pd.DataFrame()

    def set_bars(self, symbol: str, clock_day: str, bars: Sequence[Sequence[Any]]) -> None:
        """Serve `bars` from now on: rows of ISO date, open, high, low, close, volume (null:
        unknown).
        """
        days = pd.DatetimeIndex([row[0] for row in bars], tz="America/New_York", name="Date")
        self.symbol, self.clock_day = symbol, datetime.date.fromisoformat(clock_day)
        self.frame = pd.DataFrame([row[1:] for row in bars], index=days, columns=list(COLUMNS))
        self.frame = self.frame.astype("float64")

    def history(self, symbol: str, start: str, end: str) -> pd.DataFrame:
        """Return the bars from `start` to before `end`, as yfinance does.

        Raises LookupError for another symbol, and for a look-ahead: an end past the clock's day.
        """
        if symbol != self.symbol:
            raise LookupError(f"asked for {symbol!r}, not for {self.symbol!r}")
        if datetime.date.fromisoformat(end) > self.clock_day:
            raise LookupError(f"asked for bars until {end}, and today is {self.clock_day}")
        days = pd.DatetimeIndex(self.frame.index).strftime("%Y-%m-%d")
        part: pd.DataFrame = self.frame[(days >= start) & (days < end)].copy()
        return part.assign(Dividends=0.0, **{"Stock Splits": 0.0})


def install_shims(market: MarketShim) -> None:
    """Put the stubs and a `yfinance` over `market` in place, before upstream is imported."""

    class Ticker:
        def __init__(self, ticker: str) -> None:
            self.ticker = ticker

        def history(self, start: str, end: str, **_: Any) -> pd.DataFrame:
            return market.history(self.ticker, start, end)

    yahoo = ModuleType("yfinance")
    yahoo.Ticker = Ticker  # type: ignore[attr-defined]
    sys.modules["yfinance"] = yahoo
    sys.meta_path.insert(0, _StubFinder())


def freeze_clocks(market: MarketShim, folder: str) -> None:
    """Make `date` and `datetime` of the loaded modules below `folder` show the market's day."""

    class Date(datetime.date):
        @classmethod
        def today(cls) -> datetime.date:  # type: ignore[override]
            return market.clock_day

    class DateTime(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime.datetime:  # type: ignore[override]
            return datetime.datetime.combine(market.clock_day, datetime.time.min, tz)

        today = utcnow = now  # type: ignore[assignment]

    # Upstream imports the classes by name, so each module's own name has to be replaced.
    for module in list(sys.modules.values()):
        if str(getattr(module, "__file__", "") or "").startswith(folder):
            for name, frozen in (("date", Date), ("datetime", DateTime)):
                if getattr(module, name, None) in (datetime.date, datetime.datetime):
                    setattr(module, name, frozen)
