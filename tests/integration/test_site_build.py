"""The documentation site builds without a warning, and its pages fetch nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.places import ROOT
from support.site import build_site

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "html"
    done = build_site(folder)
    assert done.returncode == 0, done.stderr
    return folder


class Fetched(HTMLParser):
    """Collects the URLs that a browser fetches by itself when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        names = ["src", "srcset", "poster", "data"]
        if tag == "link" and given.get("rel") not in (
            "canonical",
            "next",
            "prev",
            "search",
            "index",
        ):
            names.append("href")
        self.urls += [given[name] for name in names if name in given]


def test_site_pages_fetch_only_files_of_the_site(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        fetched = Fetched()
        fetched.feed(page.read_text())
        for url in fetched.urls:
            parts = urlsplit(url.split()[0])
            assert not parts.scheme or parts.scheme == "data", f"{page.name}: {url}"
            assert not parts.netloc, f"{page.name}: {url}"
            if parts.path:
                assert (page.parent / parts.path).exists(), f"{page.name}: {url}"


def test_site_styles_and_modules_import_only_files_of_the_site(site: Path) -> None:
    for file in [*site.rglob("*.css"), *site.rglob("*.html"), *site.rglob("*.mjs")]:
        found = re.findall(
            r"""(?:url\(|@import\s|\bimport\s[^;]{0,80}?\bfrom\s|\bimport\()\s*["']?((?:https?:)?//[^"')]+)""",
            file.read_text(),
        )
        assert found == [], file.name


def test_site_has_every_page_in_its_navigation(site: Path) -> None:
    home = (site / "docs" / "index.html").read_text()
    listed = set(re.findall(r'class="reference internal" href="([^"#]+)"', home))
    written = {p.stem for p in (ROOT / "docs").glob("*.md")} - {"index"}
    assert written <= {Path(name).stem for name in listed}
