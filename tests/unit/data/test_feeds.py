"""RSS and Atom feeds from files; their XML is foreign."""

from __future__ import annotations

from pathlib import Path

import pytest

from finagent_model.data._feeds import _plain
from finagent_model.data.files import FileNews
from finagent_model.errors import DataSourceError

RSS = """\
<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0" xmlns:dc="http://purl.org/dc/elements/1.1/">
<channel>
  <title>Headlines of ACME</title><pubDate>Sat, 30 Jun 2012 00:00:00 GMT</pubDate>
  <item>
    <title>Acme &amp; others</title>
    <description><![CDATA[<p>First <b>bold</b></p><p>second</p>]]></description>
    <link>https://x.example/1</link>
    <pubDate>Fri, 29 Jun 2012 10:00:00 EDT</pubDate>
    <source url="https://x.example/rss">Wire</source>
  </item>
  <item><title>By Dublin Core</title><dc:date>2012-06-28T08:00:00+02:00</dc:date></item>
  <item><title>Nobody knows when</title></item>
</channel>
</rss>
"""
ATOM = """\
<feed xmlns="http://www.w3.org/2005/Atom">
  <title>Filings</title><updated>2012-07-01T00:00:00Z</updated>
  <entry>
    <title>10-Q - Acme</title>
    <link rel="self" href="https://x.example/self"/><link href="https://x.example/2"/>
    <published>2012-06-27T12:00:00Z</published><updated>2012-06-29T10:00:00-04:00</updated>
    <author><name>Somebody</name></author>
    <summary type="html">&lt;b&gt;Filed&lt;/b&gt;</summary>
  </entry>
</feed>
"""


def feed(folder: Path, text: str, name: str = "ACME.xml") -> FileNews:
    (folder / name).write_text(text, encoding="utf-8")
    return FileNews(folder)


def test_feed_rss_items_are_news(tmp_path: Path) -> None:
    items, undated = feed(tmp_path, RSS).news("ACME")
    assert [(f"{i.published_at:%m-%d %H:%M}", i.headline) for i in items] == [
        ("06-28 06:00", "By Dublin Core"),
        ("06-29 14:00", "Acme & others"),
    ]
    assert (items[1].body, items[1].source, items[1].url) == (
        "First bold second",
        "Wire",
        "https://x.example/1",
    )
    assert undated == 1


@pytest.mark.parametrize("name", ["ACME.atom", "acme.rss"])
def test_feed_atom_entry_counts_from_its_change(tmp_path: Path, name: str) -> None:
    (item,), _ = feed(tmp_path, ATOM, name).news("ACME")
    assert f"{item.published_at:%m-%d %H:%M}" == "06-29 14:00"
    assert (item.headline, item.body, item.url) == ("10-Q - Acme", "Filed", "https://x.example/2")


@pytest.mark.parametrize(
    "dates",
    [
        "<dc:date>2012-06-28T08:00:00Z</dc:date><pubDate>Fri, 29 Jun 2012 10:00:00 EDT</pubDate>",
        "<pubDate>Fri, 29 Jun 2012 10:00:00 EDT</pubDate><dc:date>2012-06-28T08:00:00Z</dc:date>",
        "<updated>2012-06-29T14:00:00Z</updated>",
    ],
)
def test_feed_item_counts_from_its_latest_date(tmp_path: Path, dates: str) -> None:
    text = '<rss xmlns:dc="d"><item><title>a</title>' + dates + "</item></rss>"
    (item,), undated = feed(tmp_path, text).news("ACME")
    assert (f"{item.published_at:%m-%d %H:%M}", undated) == ("06-29 14:00", 0)


@pytest.mark.parametrize("letters", ["<a ", "<!-- ", "<!", "</a <", "&lt", "<a href='"])
def test_feed_text_of_open_tags_is_read_in_one_pass(letters: str) -> None:
    # A parser that begins anew at each of them needs minutes.
    assert len(_plain(letters * 100_000)) <= len(letters) * 100_000


@pytest.mark.parametrize(
    ("html", "plain"),
    [
        ("<p>First <b>bold</b></p><p>second</p>", "First bold second"),
        ("a < b and c > d &amp; e", "a < b and c > d & e"),
        ("before<!-- <b>hidden</b> -->after", "before after"),
        ("&lt;b&gt;", "<b>"),
    ],
)
def test_feed_text_is_plain(html: str, plain: str) -> None:
    assert _plain(html) == plain


def test_feed_bad_date_costs_the_item(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = "<item><title>x</title><pubDate>Fri, 29 Jun 2012 10:00:00 -0000</pubDate></item>"
    items, _ = feed(tmp_path, RSS.replace("</channel>", f"{bad}</channel>")).news("ACME")
    assert len(items) == 2
    assert "item 4: published_at: 'Fri, 29 Jun 2012 10:00:00 -0000' has no time" in caplog.text


ENTITIES = """\
<!DOCTYPE rss [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c SYSTEM "file:///etc/hosts">]>
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ENTITIES + "<rss><channel><item><title>&b;&c;</title></item></channel></rss>", "DOCTYPE"),
        ("<rss><channel><item>", "can't be read as a feed: no element found"),
        ("<html><body/></html>", "is not a feed: its root is <html>"),
        ("<rss>" * 50 + "</rss>" * 50, "nested deeper than 40"),
        ("<rss><item><title>&undefined;</title></item></rss>", "undefined entity"),
        ("", "can't be read as a feed"),
    ],
)
def test_feed_refuses_foreign_xml_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataSourceError, match=rf"ACME\.xml.*{message}"):
        feed(tmp_path, text).news("ACME")


def test_feed_alone_names_no_symbol(tmp_path: Path) -> None:
    feed(tmp_path, RSS)
    with pytest.raises(Exception, match=r"give the folder .*ACME\.xml"):
        FileNews(tmp_path / "ACME.xml").news("ACME")
