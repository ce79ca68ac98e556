"""The vendors whose files of bars are read, one row each: adding a vendor is a row and a fixture.

A row is found by the columns of a file, or by the first line of a file without a header. Column
names are in the spelling of `normalize_column`. `Vendor.columns` must all be there; the row with
the most of them is taken, and `GENERIC` where none is found.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

DateOrder = Literal["day-first", "month-first"]
CLOSED_AT = "closed_at"
DATE, TIME, PERIOD = "date", "time", "period"
CLOSE_STAMP = "close_stamp"
"""Role of a column that says to the millisecond when a bar closed."""
SYMBOL = "symbol"
ADJUSTED = "adj_close"
PRICE_COLUMNS = {name: name for name in ("open", "high", "low", "close")}
SYMBOL_COLUMNS = ("symbol", "ticker", "tic", "sym", "act_symbol", "ts_code", "instrument", "name")
DATE_NAMES = (CLOSED_AT, "date", "trade_date", "datetime", "timestamp", "time", "unnamed:_0", "")
"""Columns of dates where no vendor's row says so, in this order. The last two are what pandas
writes for an index without a name."""


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


UNREAD = words(
    "vwap average avg_price wap change change_% chg% %_change trades count n transactions barcount "
    "trade_count tradecount hasgaps has_gaps spread open_interest openint open_int oi turnover "
    "amount prev_close previous_close prevclose pre_close unix unix_timestamp close_time open_time "
    "quote_volume taker_buy_volume taker_buy_quote_volume ignore quote_asset_volume "
    "number_of_trades taker_buy_base_asset_volume taker_buy_quote_asset_volume"
)
"""Columns of any vendor that say nothing about a bar's prices, volume or actions."""
ADJUSTED_COPIES = words(
    "adj_open adj_high adj_low adj_volume adjopen adjhigh adjlow adjvolume adjusted_open "
    "adjusted_high adjusted_low adjusted_volume adj._open adj._high adj._low adj._volume "
    "unadjustedvolume"
)
"""Left unread where actions, or an adjusted close that shows them, are read."""
_PRICE_WORDS = words(
    "open high low close price settle last adj adjusted unadjusted factor div dividend dividends "
    "split splits bonus"
)
_OTHER_WORDS = words("time date change chg pct percent return returns")
"""Words of columns that are worked out from prices, or say when."""
_PRICE_PARTS = ("split", "dividend", "divcash", "adj", "close")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")


@dataclass(frozen=True)
class Vendor:
    """How one vendor writes bars."""

    name: str
    columns: Mapping[str, str]
    """The columns that tell it, by what each is for us."""
    optional: Mapping[str, str] = field(default_factory=dict)
    """Columns that it may have too. A name that ends in `*` is that of the first that begins so."""
    ignored: frozenset[str] = frozenset()
    date_order: DateOrder | None = None
    """None: told by the dates themselves, or asked."""
    zone: str | None = None
    """Where its days begin, for dates that are instants."""
    clock: str | None = None
    """The zone of its times of day, which are written without one."""
    first_line: re.Pattern[str] | None = None
    """What the first line of a file without a header looks like."""
    order: tuple[str, ...] = ()
    """The columns of such a file."""
    integer_scale: float = 1.0
    """What prices are multiplied with if all of them are whole numbers."""
    applied_splits: bool = False
    """Whether prices have the splits in them already, which the column `split` lists."""

    def roles(self, names: Sequence[str]) -> dict[int, str]:
        """Return what each column of a file is for us, by position; columns not read are left out.

        The first of two columns with one role wins, but a second date stays, to be compared.
        """
        known = {**self.optional, **self.columns}
        roles: dict[int, str] = {}
        for i, name in enumerate(names):
            role = known.get(name)
            if role is None:
                begins = (known[k] for k in known if k.endswith("*") and name.startswith(k[:-1]))
                role = next(begins, None)
                if role in roles.values():
                    continue
            if role is not None:
                roles[i] = role
        return roles

    def ignores(self, name: str) -> bool:
        """Tell whether a column that has no role is known to say nothing about prices."""
        known = (self.ignored, UNREAD, DATE_NAMES, SYMBOL_COLUMNS)
        if any(name in names or name.replace(".", "") in names for names in known):
            return True
        return any(k.endswith("*") and name.startswith(k[:-1]) for k in self.optional)


def _rows(**names: str) -> dict[str, str]:
    """Return columns by the vendor's name; ours are the keys."""
    return {theirs: ours for ours, theirs in names.items()}


_VOLUME = {"volume": "volume"}
_STAMPED = {"timestamp": DATE, **PRICE_COLUMNS}
_BINANCE = (
    *("open_time", *PRICE_COLUMNS, "volume", "close_time", "quote_volume", "count"),
    *("taker_buy_volume", "taker_buy_quote_volume", "ignore"),
)
_NUMBER = r"[0-9.]+"
_NUMBERS = {"o": "open", "h": "high", "l": "low", "c": "close"}

GENERIC = Vendor(
    "plain",
    {},
    {
        **PRICE_COLUMNS,
        "volume": "volume",
        "vol": "volume",
        "split": "split",
        "dividend": "dividend",
        ADJUSTED: ADJUSTED,
        "adjclose": ADJUSTED,
        "adjusted_close": ADJUSTED,
        "adj._close": ADJUSTED,
    },
)
VENDORS = (
    Vendor(
        "Tiingo",
        {"date": DATE, **PRICE_COLUMNS, "divcash": "dividend", "splitfactor": "split"},
        {**_VOLUME, "adjclose": ADJUSTED},
    ),
    Vendor(
        "Alpha Vantage",
        {**_STAMPED, "dividend_amount": "dividend", "split_coefficient": "split"},
        {**_VOLUME, "adjusted_close": ADJUSTED},
    ),
    Vendor(
        "Alpha Vantage",
        {f"{i}._{name}": name for i, name in enumerate(PRICE_COLUMNS, start=1)},
        {
            **{name: DATE for name in ("date", "timestamp", "unnamed:_0", "")},
            "5._volume": "volume",
            "5._adjusted_close": ADJUSTED,
            "6._volume": "volume",
            "7._dividend_amount": "dividend",
            "8._split_coefficient": "split",
        },
    ),
    Vendor(
        "Quandl WIKI",
        {"date": DATE, **PRICE_COLUMNS, "ex-dividend": "dividend", "split_ratio": "split"},
        {**_VOLUME, "adj._close": ADJUSTED, "ticker": SYMBOL},
    ),
    Vendor(
        "yfinance",
        {**PRICE_COLUMNS, "dividends": "dividend", "stock_splits": "split"},
        {
            **_VOLUME,
            **{name: DATE for name in ("date", "datetime", "unnamed:_0", "")},
            ADJUSTED: ADJUSTED,
            "ticker": SYMBOL,
        },
        frozenset({"capital_gains", "repaired?"}),
        applied_splits=True,
    ),
    Vendor(
        "Binance",
        {"open_time": DATE, **PRICE_COLUMNS, "close_time": CLOSE_STAMP},
        _VOLUME,
        first_line=re.compile(rf"(\d{{13}}|\d{{16}})(,{_NUMBER}){{11}}"),
        order=_BINANCE,
    ),
    Vendor(
        "CoinMarketCap",
        {"timeopen": DATE, "timeclose": CLOSE_STAMP, **PRICE_COLUMNS, "marketcap": "market_cap"},
        _VOLUME,
    ),
    Vendor(
        "Polygon",
        {"window_start": DATE, **PRICE_COLUMNS, "ticker": SYMBOL},
        _VOLUME,
        zone="America/New_York",
    ),
    Vendor(
        "Polygon",
        {"t": DATE, **_NUMBERS},
        {"v": "volume"},
        frozenset({"vw", "n", "otc"}),
        zone="America/New_York",
    ),
    Vendor("Alpaca", {**_STAMPED, "vwap": "vwap"}, _VOLUME, zone="America/New_York"),
    Vendor(
        "Stooq",
        {"ticker": SYMBOL, "per": PERIOD, "date": DATE, **PRICE_COLUMNS},
        {"time": TIME, "vol": "volume"},
    ),
    Vendor(
        "Stooq",
        _rows(date="data", open="otwarcie", high="najwyzszy", low="najnizszy", close="zamkniecie"),
        {"wolumen": "volume"},
    ),
    Vendor(
        "MetaTrader",
        {"date": DATE, **PRICE_COLUMNS, "tickvol": "tick_volume"},
        {"time": TIME, "vol": "volume"},
    ),
    Vendor(
        "MetaTrader",
        {},
        {"date": DATE, "time": TIME, **PRICE_COLUMNS, **_VOLUME},
        first_line=re.compile(rf"\d{{4}}\.\d\d\.\d\d,\d\d:\d\d(,{_NUMBER}){{5}}"),
        order=("date", "time", *PRICE_COLUMNS, "volume"),
    ),
    Vendor(
        "Nasdaq.com",
        _rows(date="date", close="close/last", open="open", high="high", low="low"),
        _VOLUME,
        date_order="month-first",
    ),
    Vendor(
        "Investing.com",
        _rows(date="date", close="price", open="open", high="high", low="low"),
        {"vol.": "volume"},
    ),
    Vendor(
        "Investing.com",
        _rows(date="datum", close="zuletzt", open="eröffn.", high="hoch", low="tief"),
        {"vol.": "volume"},
        frozenset({"+/-_%"}),
        date_order="day-first",
    ),
    Vendor(
        "Investing.com",
        _rows(date="date", close="dernier", open="ouv.", high="plus_haut", low="plus_bas"),
        {"vol.": "volume"},
        frozenset({"variation_%"}),
        date_order="day-first",
    ),
    Vendor(
        "Investing.com",
        _rows(date="fecha", close="último", open="apertura", high="máximo", low="mínimo"),
        {"vol.": "volume"},
        frozenset({"%_var."}),
        date_order="day-first",
    ),
    Vendor(
        "Barchart",
        _rows(date="time", open="open", high="high", low="low", close="last"),
        _VOLUME,
        date_order="month-first",
    ),
    Vendor(
        "Euronext",
        {"date": DATE, **PRICE_COLUMNS, "last": "last", "number_of_shares": "volume"},
        date_order="day-first",
    ),
    Vendor(
        "Sharadar",
        {"date": DATE, **PRICE_COLUMNS, "closeadj": ADJUSTED, "closeunadj": "unadjusted"},
        _VOLUME,
    ),
    Vendor("OANDA", {"time": DATE, **_NUMBERS}, _VOLUME),
    Vendor(
        "Interactive Brokers",
        {"date": DATE, **PRICE_COLUMNS, "average": "average", "barcount": "count"},
        {**_VOLUME, "unnamed:_0": "index", "": "index"},
    ),
    *(
        Vendor(
            "Dukascopy",
            {name: DATE, **PRICE_COLUMNS},
            _VOLUME,
            date_order="day-first",
            clock=clock,
        )
        for name, clock in (
            ("gmt_time", "UTC"),
            ("local_time", None),
            ("time_(utc)", "UTC"),
            ("time_(eet)", "EET"),
        )
    ),
    Vendor(
        "CryptoDataDownload",
        {"unix": "stamp", "date": DATE, "symbol": SYMBOL, **PRICE_COLUMNS},
        {"volume*": "volume"},
        clock="UTC",
    ),
    Vendor(
        "CryptoDataDownload",
        {"unix_timestamp": "stamp", "date": DATE, "symbol": SYMBOL, **PRICE_COLUMNS},
        {"volume*": "volume"},
        clock="UTC",
    ),
    Vendor(
        "Kraken",
        {"time": DATE, **PRICE_COLUMNS, "vwap": "vwap", "volume": "volume", "count": "count"},
        first_line=re.compile(rf"\d{{10}}(,{_NUMBER}){{6}}"),
        order=("time", *PRICE_COLUMNS, "volume", "count"),
    ),
    Vendor(
        "QuantConnect",
        {},
        {"date": DATE, **PRICE_COLUMNS, **_VOLUME},
        first_line=re.compile(rf"\d{{8}} 00:00(,{_NUMBER}){{5}}"),
        order=("date", *PRICE_COLUMNS, "volume"),
        integer_scale=1e-4,
    ),
)
KNOWN_NAMES = frozenset(
    name.rstrip("*")
    for vendor in (*VENDORS, GENERIC)
    for name in (*vendor.columns, *vendor.optional, *DATE_NAMES)
) - {"", "t", "n", "v"}
"""Names by which a header is told from other lines."""


def find_vendors(names: Collection[str], hint: str | None = None) -> list[Vendor]:
    """Return the rows whose columns are all in `names`, those with the most first.

    With a `hint` only rows of that vendor.
    """
    found = [
        vendor
        for vendor in VENDORS
        if vendor.columns
        and set(vendor.columns) <= set(names)
        and (hint is None or vendor.name.lower() == hint.lower())
    ]
    return sorted(found, key=lambda vendor: -len(vendor.columns))


def find_headerless(line: str) -> Vendor | None:
    """Return the vendor whose files without a header begin with such a line."""
    return next((v for v in VENDORS if v.first_line and v.first_line.fullmatch(line)), None)


def vendor_names() -> list[str]:
    """Return the names that a hint may have, sorted."""
    return sorted({vendor.name for vendor in VENDORS})


def looks_like_price(name: str) -> bool:
    """Tell whether a column's name, as the file has it, speaks of prices, splits or dividends."""
    parts = {word.lower() for word in _WORD.findall(name)}
    if parts & _OTHER_WORDS:
        return False
    joined = name.lower().replace(" ", "").replace("_", "")
    return bool(parts & _PRICE_WORDS) or any(part in joined for part in _PRICE_PARTS)


def duplicates(names: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the positions of each name that was there before, with that of its first."""
    first: dict[str, int] = {}
    for i, name in enumerate(names):
        if name in first:
            yield first[name], i
        first.setdefault(name, i)
