"""The one rule for symbols, and the names that are made from them."""

from __future__ import annotations

import pytest

from finagent_model.errors import BadInputError
from finagent_model.market.bars import parse_symbol, parse_symbols, symbol_file_name


@pytest.mark.parametrize("symbol", ["GOOG", "BTC/USD", "RDS A", "RDS/A", "BRK.b", "^GSPC", "日本"])
def test_parse_symbol_returns_what_a_source_may_list(symbol: str) -> None:
    assert parse_symbol(symbol) == symbol


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "symbol None is not a ticker"),
        (7, "symbol 7 is not a ticker"),
        ("", "symbol '' is not a ticker"),
        ("GOOG ", "blanks at its ends"),
        ("GO\x00OG", "control characters"),
        ("GO\nOG", "control characters"),
        ("A" * 21, "has 21 characters; at most 20"),
    ],
)
def test_parse_symbol_refuses_what_no_source_means(value: object, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        parse_symbol(value)


def test_parse_symbol_does_not_echo_a_megabyte() -> None:
    with pytest.raises(BadInputError) as refused:
        parse_symbol("A" * 1_000_000)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("", ()),
        ("GOOG", ("GOOG",)),
        ("GOOG,IBM", ("GOOG", "IBM")),
        ("GOOG IBM", ("GOOG", "IBM")),
        ("RDS A,GOOG", ("RDS A", "GOOG")),
        ("RDS A,", ("RDS A",)),
    ],
)
def test_parse_symbols_splits_at_commas_before_blanks(text: str, symbols: tuple[str, ...]) -> None:
    assert parse_symbols(text) == symbols


def test_parse_symbols_refuses_a_symbol_named_twice() -> None:
    with pytest.raises(BadInputError, match="symbol 'IBM' is named twice"):
        parse_symbols("IBM,GOOG,IBM")


def test_symbol_file_name_keeps_a_plain_symbol() -> None:
    assert [symbol_file_name(s) for s in ("GOOG", "BRK.B", "^GSPC")] == ["GOOG", "BRK.B", "^GSPC"]


def test_symbol_file_name_tells_unsafe_symbols_apart() -> None:
    symbols = ["BTC/USD", "BTC-USD", "BTC USD", "BTC\\USD", "..", ".", "../x", "日本", "日木"]
    names = [symbol_file_name(symbol) for symbol in symbols]
    assert len(set(names)) == len(symbols)
    assert all(name.isascii() and not set(name) & set("/\\ ") for name in names)
    assert not any(name.startswith(".") for name in names)
