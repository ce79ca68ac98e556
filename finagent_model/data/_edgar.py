"""News and fundamentals from EDGAR's JSON, as companies filed them, from files on this machine.

Read are `companyfacts` (numbers), `submissions` (filings) and, for tickers, `company_tickers.json`.
They are told by content, so they may lie in one folder or in folders of their own. Nothing is
fetched.

A number counts from the moment at which its filing could be read. One that a later filing repeats
counts from the first, one that a later filing changes is another record: before the amendment the
old value is known. Periods are named by the month of their end and told apart by their days, since
two of a fiscal year of 52 weeks may lie in one of the calendar. EDGAR's `frame` and `fy` are not
read: the first moves to the last filing of a number, the second is the filing's year and not the
number's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from finagent_model._base import show_value
from finagent_model.data._record_fields import read_moment
from finagent_model.data._record_formats import read_limited
from finagent_model.data.files import SkippedRows
from finagent_model.errors import (
    BadInputError,
    DataSourceError,
    InvalidFundamentalsError,
    InvalidNewsError,
)
from finagent_model.market.news import Fact, NewsItem

PREFIX = "edgar:"
"""Before a folder, in FINAGENT_NEWS and FINAGENT_FUNDAMENTALS."""
MAX_FILES = 2_000
"""JSON files of a folder: each may have to be read to know whose it is."""
CONCEPTS = {
    "RevenueFromContractWithCustomerExcludingAssessedTax": "revenue",
    "Revenues": "revenue",
    "SalesRevenueNet": "revenue",
    "RevenuesNetOfInterestExpense": "revenue",
    "Revenue": "revenue",
    "GrossProfit": "gross profit",
    "OperatingIncomeLoss": "operating income",
    "NetIncomeLoss": "net income",
    "ProfitLoss": "net income",
    "EarningsPerShareDiluted": "earnings per diluted share",
    "DilutedEarningsLossPerShare": "earnings per diluted share",
    "EarningsPerShareBasic": "earnings per basic share",
    "CommonStockDividendsPerShareDeclared": "dividends declared per share",
    "ResearchAndDevelopmentExpense": "research and development",
    "NetCashProvidedByUsedInOperatingActivities": "operating cash flow",
    "PaymentsToAcquirePropertyPlantAndEquipment": "capital expenditure",
    "CashAndCashEquivalentsAtCarryingValue": "cash",
    "CashCashEquivalentsRestrictedCashAndRestrictedCashEquivalents": "cash",
    "Assets": "assets",
    "Liabilities": "liabilities",
    "LongTermDebt": "long-term debt",
    "LongTermDebtNoncurrent": "long-term debt",
    "StockholdersEquity": "equity",
    "Equity": "equity",
    "InventoryNet": "inventory",
    "EntityCommonStockSharesOutstanding": "shares outstanding",
}
"""What is read of a company's facts, under one name each. Of two in one filing the first counts."""
UNREAD_FORMS = frozenset(
    ["3", "4", "5", "144", "UPLOAD", "CORRESP", "DRS", "DRSLTR", "DOS", "DOSLTR"]
)
"""Forms that are no news: insiders' trades, and letters and drafts that are made public weeks after
they were accepted. Amendments (`/A`) are as their form.
"""
FORM_WORDS = {
    "10-K": "annual report",
    "20-F": "annual report",
    "40-F": "annual report",
    "10-Q": "quarterly report",
    "8-K": "current report",
    "6-K": "report of a foreign issuer",
    "NT 10-K": "annual report will be late",
    "NT 10-Q": "quarterly report will be late",
    "DEF 14A": "proxy statement",
    "S-1": "registration of securities",
    "S-3": "registration of securities",
}
ITEM_WORDS = {
    "1.01": "material agreement entered",
    "1.02": "material agreement ended",
    "1.03": "bankruptcy or receivership",
    "1.05": "cybersecurity incident",
    "2.01": "acquisition or disposal completed",
    "2.02": "results of operations",
    "2.03": "new financial obligation",
    "2.05": "costs of exit or disposal",
    "2.06": "material impairment",
    "3.01": "notice of delisting",
    "4.01": "change of auditor",
    "4.02": "earlier statements no longer to be relied on",
    "5.01": "change of control",
    "5.02": "directors or officers leave or join",
    "5.07": "vote of shareholders",
    "7.01": "regulation FD disclosure",
    "8.01": "other events",
}
"""Items of an 8-K; others stay numbers, and exhibits (9.01) are left out."""
_NEW_YORK = ZoneInfo("America/New_York")
_RELEASE = time(6)
"""When EDGAR makes public what it accepted after its day, New York."""
# Accepted after 17:30 a filing gets the next day's date. One whose transmission began before may be
# accepted a little later.
_LATEST_SAME_DAY = time(19)
_QUARTER, _YEAR = (80, 100), (350, 380)
"""Days of a period; other lengths, such as nine months to date, are not read."""


@dataclass(frozen=True)
class _Filing:
    """One filing of a company."""

    form: str
    known_at: datetime | None
    """When anybody could read it; None where EDGAR doesn't say."""
    headline: str
    url: str


@dataclass
class _Company:
    """What the files of a folder say about one company."""

    facts_file: Path | None = None
    submission_files: list[Path] = field(default_factory=list)


class EdgarFolder:
    """A NewsSource and a FundamentalsSource over EDGAR's JSON files; each is read on first use."""

    name = "edgar"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._filings: dict[str, dict[str, _Filing]] = {}

    def symbols(self) -> tuple[str, ...]:
        """Return the tickers of the files, sorted. Raises DataSourceError."""
        return tuple(sorted(self._index[1]))

    def news(self, symbol: str) -> tuple[tuple[NewsItem, ...], int]:
        """Return a company's filings oldest first, and how many have no time."""
        cik = self._index[1].get(symbol)
        filings = self._read_filings(cik).values() if cik else ()
        read = [f for f in filings if f.form.removesuffix("/A") not in UNREAD_FORMS]
        items = [
            NewsItem(published_at=f.known_at, headline=f.headline, source="SEC EDGAR", url=f.url)
            for f in read
            if f.known_at is not None
        ]
        return tuple(sorted(items, key=lambda item: item.published_at)), len(read) - len(items)

    def facts(self, symbol: str) -> tuple[tuple[Fact, ...], int]:
        """Return a company's numbers oldest first, and how many have no time."""
        cik = self._index[1].get(symbol)
        file = self._index[0][cik].facts_file if cik else None
        if cik is None or file is None:
            return (), 0
        skipped = SkippedRows(file, InvalidFundamentalsError)
        facts, undated = _read_facts(_load(file), self._read_filings(cik), skipped)
        return facts, undated

    @cached_property
    def _index(self) -> tuple[dict[str, _Company], dict[str, str]]:
        """Companies by CIK, and their CIKs by ticker."""
        companies: dict[str, _Company] = {}
        tickers: dict[str, str] = {}
        try:
            files = sorted(f for f in self.path.rglob("*.json") if f.is_file())
        except OSError as error:
            raise DataSourceError(f"{self.path} can't be listed ({error.strerror})") from error
        if not self.path.is_dir() or not files:
            raise DataSourceError(
                f"{self.path} holds no JSON file of EDGAR; download a company's companyfacts and "
                "submissions (https://www.sec.gov/search-filings/"
                "edgar-application-programming-interfaces) into it"
            )
        if len(files) > MAX_FILES:
            raise DataSourceError(
                f"{self.path} holds {len(files)} JSON files, at most {MAX_FILES}; keep those of "
                "the companies that you trade"
            )
        for file in files:
            _sort_file(file, _load(file), companies, tickers)
        if not tickers:
            raise DataSourceError(
                f"{self.path}: no file says which ticker is whose; add the company's submissions, "
                "or company_tickers.json, or name its companyfacts after it, such as AAPL.json"
            )
        return companies, tickers

    def _read_filings(self, cik: str) -> dict[str, _Filing]:
        """Return the filings of a company by accession number."""
        if cik not in self._filings:
            filings: dict[str, _Filing] = {}
            for file in self._index[0].get(cik, _Company()).submission_files:
                skipped, total = SkippedRows(file, InvalidNewsError), 0
                for row in _filing_rows(_load(file)):
                    total += 1
                    try:
                        filings[_text(row, "accessionNumber")] = _read_filing(row, cik)
                    except BadInputError as error:
                        skipped.add(f"filing {total}", error)
                skipped.report(total)
            self._filings[cik] = filings
        return self._filings[cik]


def _load(file: Path) -> Any:
    try:
        return json.loads(read_limited(file))
    except (ValueError, RecursionError) as error:
        raise DataSourceError(f"{file} is not JSON ({error}); download it again") from None


def _sort_file(
    file: Path, document: Any, companies: dict[str, _Company], tickers: dict[str, str]
) -> None:
    """Enter a file and the tickers that it names. Raises DataSourceError for another's file."""
    match document:
        case {"cik": int() | str() as number, "facts": dict()}:
            cik = str(number).lstrip("0")
            companies.setdefault(cik, _Company()).facts_file = file
            if not file.stem.upper().startswith("CIK"):
                tickers.setdefault(file.stem.upper(), cik)
        case {"cik": int() | str() as number, "filings": dict()}:
            cik = str(number).lstrip("0")
            companies.setdefault(cik, _Company()).submission_files.append(file)
            names = document.get("tickers")
            for name in names if isinstance(names, list) else ():
                tickers[str(name).upper()] = cik
        case {"accessionNumber": list()}:
            found = re.match(r"CIK0*(\d+)-submissions-", file.name)
            if found is None:
                raise DataSourceError(
                    f"{file} holds older filings, and its name doesn't say whose; call it as "
                    "EDGAR does, CIK0000320193-submissions-001.json"
                )
            companies.setdefault(found[1], _Company()).submission_files.append(file)
        case dict() if all(isinstance(v, dict) and "cik_str" in v for v in document.values()):
            for entry in document.values():
                tickers.setdefault(str(entry.get("ticker")).upper(), str(entry["cik_str"]))
        case _:
            raise DataSourceError(
                f"{file} is none of EDGAR's: companyfacts, submissions or company_tickers; move it "
                "away"
            )


def _filing_rows(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the filings of a table that has a list for each column."""
    columns = document.get("filings", {}).get("recent") if "filings" in document else document
    if not isinstance(columns, dict):
        return
    lists = {name: values for name, values in columns.items() if isinstance(values, list)}
    for i in range(len(lists.get("accessionNumber", []))):
        yield {name: values[i] for name, values in lists.items() if i < len(values)}


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadInputError(f"{name} {show_value(value)} is not text")
    return value.strip()


def _read_filing(row: Mapping[str, Any], cik: str) -> _Filing:
    """Return a filing. Raises BadInputError naming a value."""
    form, number = _text(row, "form"), _text(row, "accessionNumber")
    document = row.get("primaryDocument")
    path = f"{cik}/{number.replace('-', '')}/{document if isinstance(document, str) else ''}"
    return _Filing(
        form,
        _known_at(row.get("acceptanceDateTime"), row.get("filingDate"), form),
        _describe(form, row),
        f"https://www.sec.gov/Archives/edgar/data/{path}",
    )


def _describe(form: str, row: Mapping[str, Any]) -> str:
    """Return a headline: the form, what it is, and the items of an 8-K."""
    base = form.removesuffix("/A")
    described = row.get("primaryDocDescription")
    word = FORM_WORDS.get(base, described if isinstance(described, str) else "")
    items = row.get("items")
    numbers = [n.strip() for n in items.split(",")] if isinstance(items, str) else []
    shown = [ITEM_WORDS.get(n, f"item {n}") for n in numbers if n and n != "9.01"]
    amended = "amended " if form != base else ""
    text = f"{form} filed: {amended}{word}" if word and word != form else f"{form} filed"
    return f"{text}: {', '.join(shown)}" if shown else text


def _known_at(accepted: Any, filed: Any, form: str) -> datetime | None:
    """Return when a filing could be read; None where nothing says when it was filed.

    It is the moment of acceptance, or 06:00 New York of the filing date where that is later. Where
    there is a date alone, it is the end of that day.
    """
    day = _day(filed) if filed else None
    if not accepted:
        return None if day is None else read_moment(day, "America/New_York")
    moment = _accepted_at(accepted, day, form)
    if day is None:
        return moment
    return max(moment, datetime.combine(day, _RELEASE, tzinfo=_NEW_YORK).astimezone(UTC))


def _accepted_at(text: Any, filed: date | None, form: str) -> datetime:
    """Return `acceptanceDateTime` in UTC.

    It ends in Z, but of many companies it is New York's clock. The later reading is taken, unless
    the filing date rules it out.
    """
    try:
        wall = datetime.fromisoformat(str(text)).replace(tzinfo=None)
    except ValueError:
        raise BadInputError(f"acceptanceDateTime {show_value(text)} is not a time") from None
    is_late_form = form.startswith(("SC 13", "SCHEDULE 13")) or form.endswith("MEF")
    if wall.date() == filed and wall.time() >= _LATEST_SAME_DAY and not is_late_form:
        return wall.replace(tzinfo=UTC)
    return wall.replace(tzinfo=_NEW_YORK, fold=1).astimezone(UTC)


def _day(value: Any) -> date:
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise BadInputError(f"date {show_value(value)} is none; EDGAR writes 2012-06-29") from None


def _read_facts(
    document: dict[str, Any], filings: Mapping[str, _Filing], skipped: SkippedRows
) -> tuple[tuple[Fact, ...], int]:
    """Return the numbers of `CONCEPTS` as they became known, and how many have no time."""
    found: list[_FoundFact] = []
    total = undated = 0
    for rank, name, where, unit, row in _fact_rows(document):
        total += 1
        try:
            period = _period(row)
            if period is None:
                continue
            filing = filings.get(str(row.get("accn")))
            known_at = filing.known_at if filing else _known_at(None, row.get("filed"), "")
            if known_at is None:
                undated += 1
                continue
            value = row.get("val")
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise BadInputError(f"val {show_value(value)} is not a number")
            fact = Fact(
                published_at=known_at, name=name, value=float(value), unit=unit, period=period
            )
        except (ValueError, OverflowError, BadInputError) as error:
            skipped.add(f"{where} {total}", error)
            continue
        is_amended = str(filing.form if filing else row.get("form")).endswith("/A")
        days = (str(row.get("start")), str(row["end"]))
        found.append(_FoundFact((known_at, not is_amended, rank), days, fact))
    skipped.report(total)
    return _drop_repeated(found), undated


def _fact_rows(document: dict[str, Any]) -> Iterator[tuple[int, str, str, str, dict[str, Any]]]:
    """Yield rank, name, label, unit and row of each number that is read."""
    taxonomies = [t for t in document["facts"].values() if isinstance(t, dict)]
    for rank, (concept, name) in enumerate(CONCEPTS.items()):
        for taxonomy in taxonomies:
            entry = taxonomy.get(concept)
            units = entry.get("units") if isinstance(entry, dict) else None
            if not isinstance(units, dict):
                continue
            # Dollars first: of two units in one filing the first counts.
            for unit in sorted(units, key=lambda u: (not u.startswith("USD"), u)):
                for row in units[unit] if isinstance(units[unit], list) else ():
                    if isinstance(row, dict):
                        yield rank, name, concept, unit.replace("/shares", " per share"), row


def _period(row: Mapping[str, Any]) -> str | None:
    """Return what a number is about by the month of its end; None for a period of another length.

    No two quarters or years end in one month; quarters of the calendar would hold two of some.
    """
    end = _day(row.get("end"))
    month = f"{end:%Y-%m}"
    if row.get("start") is None:
        return month
    days = (end - _day(row["start"])).days + 1
    if _QUARTER[0] <= days <= _QUARTER[1]:
        return f"quarter to {month}"
    return f"year to {month}" if _YEAR[0] <= days <= _YEAR[1] else None


class _FoundFact(NamedTuple):
    """A number of a filing."""

    rank: tuple[datetime, bool, int]
    """When it was known, whether it is no amendment, and the number of its concept."""
    days: tuple[str, str]
    """First and last of its period."""
    fact: Fact


def _drop_repeated(found: list[_FoundFact]) -> tuple[Fact, ...]:
    """Return the facts oldest first, without those that say again what is known."""
    kept: dict[tuple[str, tuple[str, str]], Fact] = {}
    facts = []
    # Of one moment an amendment counts, then the first concept and unit of the table.
    for each in sorted(found, key=lambda each: (each.rank, each.days[::-1])):
        key, fact = (each.fact.name, each.days), each.fact
        known = kept.get(key)
        if known is not None and (
            known.published_at == fact.published_at
            or (known.value, known.unit) == (fact.value, fact.unit)
        ):
            continue
        kept[key] = fact
        facts.append(fact)
    return tuple(facts)
