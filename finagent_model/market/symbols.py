"""Hold the one rule for a symbol, and make file names from symbols.

Whatever a source lists is legal everywhere: in a training, a request, a signal and the DAG. So the
rule only refuses what no source can mean: control characters, blanks at the ends, more than 20
characters. Whether a symbol exists is the source's word (`UnknownSymbolError`), which also names
the upper-case spelling of a symbol that was written in lower case.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from finagent_model.errors import BadInputError

MAX_SYMBOL_CHARS = 20
_MAX_SHOWN_CHARS = 40
_UNSAFE = re.compile(r"[^A-Za-z0-9._^=-]|^\.")


def parse_symbol(value: object) -> str:
    """Return `value` if it can be a symbol. Raises BadInputError that says what is wrong."""
    if not isinstance(value, str) or not value.strip():
        raise BadInputError(f"symbol {_shown(value)} is not a ticker such as 'GOOG'")
    if value != value.strip() or not value.isprintable():
        raise BadInputError(
            f"symbol {_shown(value)} has blanks at its ends or control characters; write it as its "
            "source lists it, such as 'GOOG'"
        )
    if len(value) > MAX_SYMBOL_CHARS:
        raise BadInputError(
            f"symbol {_shown(value)} has {len(value)} characters; at most {MAX_SYMBOL_CHARS}"
        )
    return value


def parse_symbols(value: str | Iterable[object]) -> tuple[str, ...]:
    """Return the symbols of a list or of a text, in order; no symbols for an empty text.

    A text is split at its commas; one without a comma at its blanks. So a symbol that holds a blank
    needs a comma: `RDS A,GOOG`. Raises BadInputError for what is no symbol, or is named twice.
    """
    if isinstance(value, str):
        parts = value.split(",") if "," in value else value.split()
        value = [part.strip() for part in parts if part.strip()]
    symbols = tuple(parse_symbol(each) for each in value)
    for symbol in symbols:
        if symbols.count(symbol) > 1:
            raise BadInputError(f"symbol {symbol!r} is named twice")
    return symbols


def symbol_file_name(symbol: str) -> str:
    """Return a name for `symbol` that is safe in a file name, an artifact's path and a metric's
    key.

    A symbol without unsafe characters is its own name. In others each unsafe character becomes `-`,
    and six digits of a hash keep `BTC/USD` apart from `BTC-USD`.
    """
    name = _UNSAFE.sub("-", symbol)
    if name == symbol:
        return symbol
    return f"{name}-{hashlib.sha256(symbol.encode()).hexdigest()[:6]}"


def _shown(value: object) -> str:
    """Quote `value` for a message, cut: a caller may have sent a megabyte."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}..."
