"""Items of RSS 0.9 to 2.0 and Atom feeds, read from a file.

The XML of a feed is foreign. A document type, and with it every entity of its own, is refused, so
that nothing expands and nothing is fetched; depth is bounded, and HTML in a text becomes plain.
"""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any
from xml.parsers import expat

from finagent_model.errors import DataSourceError

MAX_DEPTH = 40
MAX_TEXT = 20_000
"""Characters that are read of one text; a news item keeps far less."""
_FIELDS = {
    "title": "title",
    "description": "description",
    "summary": "description",
    "encoded": "content",
    "content": "content",
    "pubdate": "published_at",
    "published": "published_at",
    "issued": "published_at",
    "date": "published_at",
    "updated": "updated",
    "modified": "updated",
    "link": "link",
    "source": "source",
}
"""What the elements of an item are for us, whatever their namespace."""
_DATES = ("published_at", "updated")
"""Fields that an item may have several of; all are kept, since the latest counts."""
_ITEMS = ("item", "entry")
# No tag has a `<` in it, so that each letter is looked at once.
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<[!?][^<>]*>")


class _FeedBuilder:
    """Collects the items of a feed from the events of the parser."""

    def __init__(self, max_items: int) -> None:
        self.items: list[dict[str, Any]] = []
        self._max_items = max_items
        self.root = ""
        self._path: list[str] = []
        self._item: dict[str, Any] | None = None
        self._item_depth = 0
        self._text: list[str] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        local = name.rpartition(" ")[2].lower()
        self.root = self.root or local
        self._path.append(local)
        if len(self._path) > MAX_DEPTH:
            raise ValueError(f"elements are nested deeper than {MAX_DEPTH}")
        if self._item is None and local in _ITEMS:
            self._item, self._item_depth = {}, len(self._path)
        elif self._item is not None and len(self._path) == self._item_depth + 1:
            self._text = []
            # An Atom link has its address in an attribute; others lead to comments or to itself.
            if local == "link" and attributes.get("rel", "alternate") == "alternate":
                self._item.setdefault("link", attributes.get("href", ""))

    def data(self, text: str) -> None:
        if self._item is not None:
            self._text.append(text)

    def end(self, name: str) -> None:
        local = self._path[-1]
        if self._item is not None and len(self._path) == self._item_depth + 1:
            field, text = _FIELDS.get(local), "".join(self._text).strip()[:MAX_TEXT]
            if field in _DATES and text:
                self._item[field] = (*self._item.get(field, ()), text)
            elif field and text and not self._item.get(field):
                self._item[field] = text
        elif self._item is not None and len(self._path) == self._item_depth:
            self.items.append(self._item)
            if len(self.items) > self._max_items:
                raise ValueError(f"it has more than {self._max_items} items; split it by time")
            self._item = None
        self._path.pop()


def read_feed(data: bytes, file: Path, max_items: int) -> list[dict[str, Any]]:
    """Return the items of a feed by field, of dates a tuple. Raises DataSourceError for no feed."""
    builder = _FeedBuilder(max_items)
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise DataSourceError(f"{file} can't be read as a feed: {error}") from None
    if builder.root not in ("rss", "rdf", "feed"):
        raise DataSourceError(
            f"{file} is not a feed: its root is <{builder.root}>; give RSS (<rss>) or Atom (<feed>)"
        )
    return [{k: v if k in _DATES else _plain(v) for k, v in item.items()} for item in builder.items]


def _refuse_doctype(*_: object) -> None:
    raise ValueError("it declares a document type, which feeds don't need; remove <!DOCTYPE ...>")


def _plain(text: str) -> str:
    """Return a text without its HTML, in time that grows with its length alone."""
    if "<" not in text and "&" not in text:
        return text
    kept, at = [], 0
    while (begin := text.find("<!--", at)) >= 0:
        kept.append(text[at:begin])
        end = text.find("-->", begin)
        at = len(text) if end < 0 else end + 3
    kept.append(text[at:])
    return " ".join(unescape(_TAG.sub(" ", " ".join(kept))).split())
