"""Questions that a caller may send and that no server can use, and a valid one to send beside."""

from __future__ import annotations

from typing import Any

ROW: dict[str, Any] = {"symbol": "GOOG", "as_of": "2012-06-29"}
BAR = {"closed_at": "2012-06-28", "open": 10.0, "high": 11.0, "low": 9.0, "close": 10.0}
ITEM = {"headline": "A headline", "published_at": "2012-06-28T12:00:00Z"}
MEGABYTE = "A" * 2**20
NESTED: Any = [[[[[[[[]]]]]]]]

BAD_DATA: dict[str, tuple[dict[str, Any], str]] = {
    "bars no list": ({"bars": "none"}, "bars must be a list of objects, not 'none'"),
    "bars number": ({"bars": 5.5}, "bars must be a list of objects, not 5.5"),
    "bars object": ({"bars": BAR}, "bars must be a list of objects, not {...}"),
    "bars empty": ({"bars": []}, "empty; send at least one bar or leave them out"),
    "bars many": ({"bars": [BAR] * 20_001}, "bars has 20001 items; at most 20000 a row"),
    "bar null": ({"bars": [BAR, None]}, "bar 1 is None, not an object"),
    "bar nested": ({"bars": NESTED}, "bar 0 is [...], not an object"),
    "bar key": ({"bars": [{**BAR, "clsoe": 1}]}, "unknown key 'clsoe' at bar 0"),
    "bar text": ({"bars": [{**BAR, "open": "10"}]}, "open '10' at bar 0 is not a number"),
    "bar nested number": (
        {"bars": [{**BAR, "open": NESTED}]},
        "open [...] at bar 0 is not a number",
    ),
    "bar long time": ({"bars": [{**BAR, "closed_at": MEGABYTE}]}, "is not an ISO date or time"),
    "bar number as time": ({"bars": [{**BAR, "closed_at": 20120628}]}, "closed_at 20120628 at"),
    "bar before calendar": (
        {"bars": [{**BAR, "closed_at": "0001-01-01T00:00:00+23:59"}]},
        "is outside the calendar in UTC",
    ),
    "news no list": ({"news": {"headline": "h"}}, "news must be a list of objects, not {...}"),
    "news many": ({"news": [ITEM] * 5_001}, "news has 5001 items; at most 5000 a row"),
    "news null": ({"news": [ITEM, None]}, "news item 1 is None, not an object"),
    "news key": ({"news": [{**ITEM, "headlin": "h"}]}, "news item 0: key 'headlin' is unknown"),
    "news number": ({"news": [{**ITEM, "headline": 5}]}, "headline: must be text, not 5"),
    "news number as time": ({"news": [{**ITEM, "published_at": 0}]}, "0 is not an ISO time"),
    "news after calendar": (
        {"news": [{**ITEM, "published_at": "9999-12-31T23:59:59-23:59"}]},
        "is outside the calendar in UTC",
    ),
}
"""Columns of a row whose data can't be used, and what the row's signal says."""

BAD_QUESTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "symbol number": ({**ROW, "symbol": 5}, "symbol 5 is not a ticker"),
    "symbol list": ({**ROW, "symbol": ["GOOG"]}, "symbol [...] is not a ticker"),
    "symbol long": ({**ROW, "symbol": MEGABYTE}, "has 1048576 characters; at most 20"),
    "symbol null": ({**ROW, "symbol": None}, "symbol None is not a ticker"),
    "as_of number": ({**ROW, "as_of": 20120629}, "as_of 20120629 is not a date"),
    "as_of long": ({**ROW, "as_of": MEGABYTE}, "is not a date; write it as 2012-06-29"),
    "as_of before calendar": (
        {**ROW, "as_of": "0001-01-01T00:00:00+23:59"},
        "as_of '0001-01-01T00:00:00+23:59' is outside the calendar in UTC",
    ),
    "no as_of": ({"symbol": "GOOG"}, "as_of is missing; give symbol and as_of"),
    "column": ({**ROW, "asof": 1}, "column 'asof' is unknown"),
    "long column": ({**ROW, MEGABYTE: 1}, "column 'AAAA"),
}
"""Rows that are no question, and what the refusal says."""
