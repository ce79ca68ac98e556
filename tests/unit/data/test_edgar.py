"""EDGAR's files: a number is known from its filing on, an amended one only from its amendment.

The shapes are those of data.sec.gov; the company and its numbers are made up.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from finagent_model.data._edgar import EdgarFolder
from finagent_model.data.market import Market
from finagent_model.errors import DataSourceError
from finagent_model.market.news import Fact, select_latest_facts
from finagent_model.settings import Settings

CIK = 1234567
Q1, Q1_AGAIN, Q2 = "0001234567-12-000001", "0001234567-12-000002", "0001234567-12-000003"
SUBMISSIONS = {
    "cik": f"{CIK:010d}",
    "name": "Acme Corp",
    "tickers": ["ACME", "ACME-A"],
    "exchanges": ["NYSE", "NYSE"],
    "filings": {
        "recent": {
            "accessionNumber": [Q2, Q1_AGAIN, "0001234567-12-000009", Q1],
            "filingDate": ["2012-07-24", "2012-06-05", "2012-05-02", "2012-04-24"],
            "reportDate": ["2012-06-30", "2012-03-31", "", "2012-03-31"],
            # Of the first the clock is New York's, of the others UTC.
            "acceptanceDateTime": [
                "2012-07-24T16:31:05.000Z",
                "2012-06-04T22:10:00.000Z",
                "2012-05-02T20:05:00.000Z",
                "2012-04-24T20:31:05.000Z",
            ],
            "form": ["10-Q", "10-Q/A", "8-K", "10-Q"],
            "items": ["", "", "2.02,9.01", ""],
            "primaryDocument": ["q2.htm", "q1a.htm", "k.htm", "q1.htm"],
            "primaryDocDescription": ["10-Q", "10-Q/A", "8-K", "10-Q"],
        },
        "files": [{"name": f"CIK{CIK:010d}-submissions-001.json", "filingCount": 2}],
    },
}


def number(value: float, accn: str, filed: str, **period: str) -> dict[str, Any]:
    usual = {"start": "2012-01-01", "end": "2012-03-31"}
    row = {**(usual | period), "val": value, "accn": accn, "fy": 2012, "fp": "Q2", "form": "10-Q"}
    return {k: v for k, v in row.items() if v} | {"filed": filed, "frame": "CY2012Q1"}


NUMBERS = [
    number(100.0, Q1, "2012-04-24"),
    number(90.0, Q1_AGAIN, "2012-06-05"),
    number(90.0, Q2, "2012-07-24"),
    number(120.0, Q2, "2012-07-24", start="2012-04-01", end="2012-06-30"),
    number(220.0, Q2, "2012-07-24", start="2012-01-01", end="2012-06-30"),
]


def companyfacts(rows: list[dict[str, Any]] = NUMBERS, **concepts: Any) -> dict[str, Any]:
    facts = {"Revenues": {"label": "Revenues", "units": {"USD": rows}}, **concepts}
    return {"cik": CIK, "entityName": "Acme Corp", "facts": {"us-gaap": facts}}


def folder(path: Path, **files: Any) -> EdgarFolder:
    for name, document in files.items():
        file = path / name / f"CIK{CIK:010d}.json"
        file.parent.mkdir()
        file.write_text(json.dumps(document))
    return EdgarFolder(path)


def told(facts: tuple[Fact, ...]) -> list[tuple[str, str, float]]:
    return [(f"{f.published_at:%m-%d %H:%M}", f.period, f.value) for f in facts]


def test_edgar_facts_count_from_acceptance_of_their_filing(tmp_path: Path) -> None:
    source = folder(tmp_path, companyfacts=companyfacts(), submissions=SUBMISSIONS)
    facts, undated = source.facts("ACME")
    assert told(facts) == [
        # 20:31 UTC on the filing's own day can't be New York's clock.
        ("04-24 20:31", "quarter to 2012-03", 100.0),
        # Accepted at 18:10 in New York: public the next morning.
        ("06-05 10:00", "quarter to 2012-03", 90.0),
        # Read as New York's; the first quarter is repeated, six months are no quarter.
        ("07-24 20:31", "quarter to 2012-06", 120.0),
    ]
    assert undated == 0
    assert {(f.name, f.unit) for f in facts} == {("revenue", "USD")}
    assert source.symbols() == ("ACME", "ACME-A")


@pytest.mark.parametrize(
    ("day", "value"), [("2012-04-24", 100.0), ("2012-06-04", 100.0), ("2012-06-05", 90.0)]
)
def test_edgar_amended_value_appears_with_amendment(tmp_path: Path, day: str, value: float) -> None:
    folder(tmp_path, companyfacts=companyfacts(), submissions=SUBMISSIONS)
    market = Market.from_settings(Settings.load({"FINAGENT_FUNDAMENTALS": f"edgar:{tmp_path}"}))
    view = market.view(
        "ACME", datetime.fromisoformat(f"{day}T23:59:59+00:00"), bars=market.bars("GOOG")
    )
    assert [f.value for f in view.fundamentals] == [value]


@pytest.mark.parametrize("day", ["2012-04-24", "2012-05-02", "2012-06-05", "2012-07-24"])
def test_edgar_files_without_later_filings_give_equal_past(tmp_path: Path, day: str) -> None:
    moment = datetime.fromisoformat(f"{day}T23:59:59+00:00").astimezone(UTC)
    recent = SUBMISSIONS["filings"]["recent"]  # type: ignore[index]
    kept = [i for i, filed in enumerate(recent["filingDate"]) if filed <= day]
    cut = {name: [column[i] for i in kept] for name, column in recent.items()}
    numbers = [row for row in NUMBERS if row["filed"] <= day]
    whole, part = tmp_path / "whole", tmp_path / "part"
    whole.mkdir()
    part.mkdir()
    then = folder(
        part,
        companyfacts=companyfacts(numbers),
        submissions=SUBMISSIONS | {"filings": {"recent": cut, "files": []}},
    )
    now = folder(whole, companyfacts=companyfacts(), submissions=SUBMISSIONS)
    for of in ("facts", "news"):
        known = [r for r in getattr(now, of)("ACME")[0] if r.published_at <= moment]
        assert list(getattr(then, of)("ACME")[0]) == known != []


def test_edgar_facts_without_submissions_count_from_end_of_filing_day(tmp_path: Path) -> None:
    (tmp_path / "ACME.json").write_text(json.dumps(companyfacts()))
    facts, _ = EdgarFolder(tmp_path).facts("ACME")
    # Midnight in New York.
    assert told(facts)[0] == ("04-25 03:59", "quarter to 2012-03", 100.0)


def test_edgar_facts_without_any_date_are_undated(tmp_path: Path) -> None:
    rows = [*NUMBERS, number(1.0, "?", "")]
    (tmp_path / "ACME.json").write_text(json.dumps(companyfacts(rows)))
    facts, undated = EdgarFolder(tmp_path).facts("ACME")
    assert (len(facts), undated) == (3, 1)


@pytest.mark.parametrize(
    ("periods", "named"),
    [
        # Years of 52 weeks end on the first or the second of July.
        (
            [("2021-07-04", "2022-07-02"), ("2022-07-03", "2023-07-01")],
            ["year to 2022-07", "year to 2023-07"],
        ),
        ([("", "2021-10-31"), ("", "2022-01-30")], ["2021-10", "2022-01"]),
        (
            [("2021-01-03", "2022-01-01"), ("2022-01-02", "2022-12-31")],
            ["year to 2022-01", "year to 2022-12"],
        ),
        (
            [("2021-08-02", "2021-10-31"), ("2021-11-01", "2022-01-30")],
            ["quarter to 2021-10", "quarter to 2022-01"],
        ),
    ],
)
def test_edgar_periods_that_end_apart_are_apart(
    tmp_path: Path, periods: list[tuple[str, str]], named: list[str]
) -> None:
    rows = [
        number(i + 1.0, f"of {i}", f"202{i + 4}-08-25", start=start, end=end)
        for i, (start, end) in enumerate(periods)
    ]
    # The next year's filing has the former period beside its own.
    rows.append(rows[0] | {"accn": rows[1]["accn"], "filed": rows[1]["filed"]})
    (tmp_path / "ACME.json").write_text(json.dumps(companyfacts(rows)))
    facts, _ = EdgarFolder(tmp_path).facts("ACME")
    assert [(fact.period, fact.value) for fact in facts] == [(named[0], 1.0), (named[1], 2.0)]
    assert select_latest_facts(facts, 10) == facts


@pytest.mark.parametrize("first", ["10-Q", "10-Q/A"])
def test_edgar_amendment_of_same_day_counts(tmp_path: Path, first: str) -> None:
    forms = [first, "10-Q/A" if first == "10-Q" else "10-Q"]
    rows = [
        number(90.0 if form == "10-Q/A" else 100.0, form, "2012-04-24") | {"form": form}
        for form in forms
    ]
    (tmp_path / "ACME.json").write_text(json.dumps(companyfacts(rows)))
    facts, _ = EdgarFolder(tmp_path).facts("ACME")
    assert [fact.value for fact in facts] == [90.0]


def test_edgar_facts_have_one_unit_and_concept_a_filing(tmp_path: Path) -> None:
    euros = [number(80.0, Q1, "2012-04-24", start="", end="2012-04-01")]
    point = number(7.0, Q1, "2012-04-24", start="", end="2012-04-01")
    document = companyfacts(
        SalesRevenueNet={"units": {"USD": [number(95.0, Q1, "2012-04-24")]}},
        EarningsPerShareDiluted={"units": {"USD/shares": [number(1.5, Q1, "2012-04-24")]}},
        Assets={"units": {"EUR": euros, "USD": [point]}},
        OneOfThousandsOfOthers={"units": {"USD": euros}},
    )
    facts, _ = folder(tmp_path, companyfacts=document, submissions=SUBMISSIONS).facts("ACME")
    first = [f for f in facts if f.published_at.month == 4]
    assert {(f.name, f.value, f.unit, f.period) for f in first} == {
        ("revenue", 100.0, "USD", "quarter to 2012-03"),
        ("earnings per diluted share", 1.5, "USD per share", "quarter to 2012-03"),
        ("assets", 7.0, "USD", "2012-04"),
    }


def test_edgar_bad_number_costs_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [*NUMBERS, number("90", Q1, "2012-04-24"), {"end": "soon"}]  # type: ignore[arg-type]
    source = folder(tmp_path, companyfacts=companyfacts(rows), submissions=SUBMISSIONS)
    assert len(source.facts("ACME")[0]) == 3
    (warning,) = caplog.messages
    assert "2 of 7 rows passed over" in warning
    assert "Revenues 6: val '90' is not a number" in warning


def test_edgar_news_are_filings_with_words(tmp_path: Path) -> None:
    items, undated = folder(tmp_path, submissions=SUBMISSIONS).news("ACME")
    assert [(f"{i.published_at:%m-%d %H:%M}", i.headline) for i in items] == [
        ("04-24 20:31", "10-Q filed: quarterly report"),
        ("05-02 20:05", "8-K filed: current report: results of operations"),
        ("06-05 10:00", "10-Q/A filed: amended quarterly report"),
        ("07-24 20:31", "10-Q filed: quarterly report"),
    ]
    assert undated == 0
    assert items[0].url.endswith("/1234567/000123456712000001/q1.htm")
    assert {i.source for i in items} == {"SEC EDGAR"}


@pytest.mark.parametrize("form", ["4", "4/A", "CORRESP", "UPLOAD", "DRS", "DOS", "DOSLTR"])
def test_edgar_news_leave_out_what_is_public_later_or_no_news(tmp_path: Path, form: str) -> None:
    recent = SUBMISSIONS["filings"]["recent"] | {"form": [form, "10-Q/A", "8-K", "10-Q"]}  # type: ignore[index]
    source = folder(tmp_path, submissions=SUBMISSIONS | {"filings": {"recent": recent}})
    assert len(source.news("ACME")[0]) == 3


def test_edgar_older_filings_stand_in_files_of_their_own(tmp_path: Path) -> None:
    older = {
        "accessionNumber": ["0001234567-04-000001", "0001234567-03-000001"],
        "filingDate": ["2004-05-03", ""],
        "acceptanceDateTime": ["", ""],
        "form": ["SC 13G", "10-K"],
    }
    folder(tmp_path, submissions=SUBMISSIONS)
    (tmp_path / f"CIK{CIK:010d}-submissions-001.json").write_text(json.dumps(older))
    items, undated = EdgarFolder(tmp_path).news("ACME")
    assert (f"{items[0].published_at:%Y-%m-%d %H:%M}", len(items)) == ("2004-05-04 03:59", 5)
    assert undated == 1


def test_edgar_tickers_of_the_list_are_read(tmp_path: Path) -> None:
    folder(tmp_path, companyfacts=companyfacts())
    listed = {"0": {"cik_str": CIK, "ticker": "ACM", "title": "Acme Corp"}}
    (tmp_path / "company_tickers.json").write_text(json.dumps(listed))
    source = EdgarFolder(tmp_path)
    assert source.symbols() == ("ACM",)
    assert len(source.facts("ACM")[0]) == 3
    assert source.facts("GOOG") == source.news("GOOG") == ((), 0)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no JSON file of EDGAR; download"),
        ({"a.json": "{"}, "a.json is not JSON"),
        ({"a.json": "[]"}, "a.json is none of EDGAR's"),
        ({f"CIK{CIK:010d}.json": json.dumps(companyfacts())}, "no file says which ticker is whose"),
        ({"old.json": '{"accessionNumber": []}'}, "its name doesn't say whose"),
    ],
)
def test_edgar_names_bad_folder(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataSourceError, match=message):
        EdgarFolder(tmp_path).symbols()
