"""Pictures of the pages: each exists in both themes, shows something, is small, and has words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from support.places import ROOT
from support.site import pages

FOLDER = ROOT / "docs" / "img"
FILES = sorted(path.name for path in FOLDER.iterdir())
MAX_BYTES = 250_000


def pictures(page: Path) -> list[tuple[str, str]]:
    """Return source and alternative text of each picture of a page."""
    text = page.read_text()
    found = [(source, alt) for alt, source in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)[^)]*\)", text)]
    for tag in re.findall(r"<img\s[^>]*>", text):
        attributes = dict(re.findall(r'([\w-]+)="([^"]*)"', tag))
        found.append((attributes["src"], attributes.get("alt", "")))
    return found


def test_pictures_of_pages_exist_and_have_words() -> None:
    shown = [(page, *picture) for page in pages() for picture in pictures(page)]
    assert len(shown) >= 7
    for page, source, alt in shown:
        assert (page.parent / source).is_file(), f"{page.name}: {source}"
        assert len(alt.split()) >= 4, (
            f"{page.name}: {source} needs words for those who can't see it"
        )


def test_sources_of_dark_pictures_exist() -> None:
    for page in pages():
        for source in re.findall(r'srcset="([^"]+)"', page.read_text()):
            assert (page.parent / source).is_file(), f"{page.name}: {source}"


def test_every_picture_is_shown_and_has_both_themes() -> None:
    text = "".join(page.read_text() for page in pages())
    assert [name for name in FILES if f"img/{name}" not in text] == []
    light = {name.replace("-light", "") for name in FILES if "-light" in name}
    assert light == {name.replace("-dark", "") for name in FILES if "-dark" in name}


@pytest.mark.parametrize("name", FILES)
def test_picture_is_small_and_shows_something(name: str) -> None:
    assert (FOLDER / name).stat().st_size < MAX_BYTES
    with Image.open(FOLDER / name) as picture:
        assert picture.width >= 1000
        grey = picture.convert("L")
    low, high = grey.getextrema()
    assert isinstance(low, int) and isinstance(high, int)
    assert high - low > 100
    # Text on a plain page leaves one tone for most of it, but never for nearly all.
    assert max(grey.histogram()) < 0.98 * grey.width * grey.height


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_theme_of_a_picture_is_its_own(theme: str) -> None:
    for name in FILES:
        if theme in name:
            with Image.open(FOLDER / name) as picture:
                tones = picture.convert("L").histogram()
            assert (tones.index(max(tones)) > 128) is (theme == "light"), name
