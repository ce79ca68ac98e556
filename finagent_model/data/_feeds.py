"""Items of RSS 0.9 to 2.0 and Atom feeds, read from a file.

The XML of a feed is foreign. A document type, and with it every entity of its own, is refused, so
that nothing expands and nothing is fetched; depth is bounded, and HTML in a text becomes plain.
"""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
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
_ITEMS = ("item", "entry")


class _FeedBuilder:
    """Collects the items of a feed from the events of the parser."""

    def __init__(self) -> None:
        self.items: list[dict[str, str]] = []
        self.root = ""
        self._path: list[str] = []
        self._item: dict[str, str] | None = None
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
            if field and text and not self._item.get(field):
                self._item[field] = text
        elif self._item is not None and len(self._path) == self._item_depth:
            self.items.append(self._item)
            self._item = None
        self._path.pop()


def read_feed(data: bytes, file: Path) -> list[dict[str, str]]:
    """Return the items of a feed by field. Raises DataSourceError for what is no feed."""
    builder = _FeedBuilder()
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
            f"{file} is no feed: its root is <{builder.root}>; give RSS (<rss>) or Atom (<feed>)"
        )
    return [{k: _plain(v) for k, v in item.items()} for item in builder.items]


def _refuse_doctype(*_: object) -> None:
    raise ValueError("it declares a document type, which feeds don't need; remove <!DOCTYPE ...>")


class _TextOf(HTMLParser):
    """Keeps the text between tags."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def _plain(text: str) -> str:
    """Return a text without its HTML."""
    if "<" not in text and "&" not in text:
        return text
    parser = _TextOf()
    parser.feed(text)
    parser.close()
    return " ".join(" ".join(parser.parts).split())
