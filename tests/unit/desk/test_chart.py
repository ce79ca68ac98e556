"""A view's chart shows nothing later, no date and no ticker, and is the same bytes each time."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from finagent_model.data.bundled import BundledBars
from finagent_model.desk import _chart
from finagent_model.desk._chart import ChartImage, draw
from finagent_model.evaluation.probes import corrupt_after
from finagent_model.market.bars import BarSeries, parse_as_of
from finagent_model.market.view import MarketView
from finagent_model.policy.context import build_context
from finagent_model.policy.policy import Policy


def view_of(symbol: str = "AAPL", day: str = "2012-09-28") -> MarketView:
    return MarketView.at(parse_as_of(day), BundledBars().bars(symbol))


def made(count: int, price: Callable[[int], float], volume: float | None = None) -> MarketView:
    """A view of invented bars whose prices stay still within the day."""
    records = [
        {
            "closed_at": str(np.datetime64("2011-01-03") + i),
            **dict.fromkeys(("open", "high", "low", "close"), price(i)),
            **({} if volume is None else {"volume": volume}),
        }
        for i in range(count)
    ]
    bars = BarSeries.from_records("X", records)
    return MarketView.at(bars.close_time(-1), bars)


VIEW = view_of()
IMAGE = draw(VIEW)
UNUSUAL = {
    "flat": made(200, lambda i: 5.0, 0.0),
    "one bar": made(1, lambda i: 5.0, 100.0),
    "pennies": made(130, lambda i: 1e-4 * (1 + i / 100)),
    "large": made(130, lambda i: 600_000.0 + 37 * i, 3.2e9),
    "short": view_of("FB", "2012-06-15"),
    "crash": view_of("GOOG", "2008-11-20"),
    "split": view_of("AAPL", "2005-03-04"),
}


def chunks(png: bytes) -> set[str]:
    found, at = set(), 8
    while at < len(png):
        size, name = struct.unpack(">I4s", png[at : at + 8])
        found.add(name.decode())
        at += size + 12
    return found


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Bbox]]:
    """Every text that is drawn, with the places that it takes."""
    seen: dict[str, list[Bbox]] = {}
    write = Text.draw

    def noting(self: Text, renderer: Any) -> None:
        write(self, renderer)
        if self.get_visible() and self.get_text():
            seen.setdefault(self.get_text(), []).append(self.get_window_extent(renderer))

    monkeypatch.setattr(Text, "draw", noting)
    return seen


@pytest.mark.parametrize("cut", [30, 103, 1381, 3269])
def test_chart_ignores_later_bars(cut: int) -> None:
    bars = BundledBars().bars("AAPL")
    as_of = parse_as_of(bars.close_time(cut - 1).date())
    whole = draw(MarketView.at(as_of, bars))
    assert draw(MarketView.at(as_of, bars[:cut])) == whole
    assert draw(MarketView.at(as_of, corrupt_after(bars, cut))) == whole


def test_chart_changes_with_a_bar_within_it() -> None:
    bars = BundledBars().bars("AAPL")
    as_of = parse_as_of(bars.close_time(1010).date())
    one, other = (draw(MarketView.at(as_of, b)) for b in (bars, corrupt_after(bars, 1000)))
    assert one.digest != other.digest
    assert one.png != other.png


def test_chart_bytes_are_equal_for_equal_views() -> None:
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "axes.facecolor": "red"}):
        assert draw(view_of()) == IMAGE
        assert matplotlib.rcParams["font.size"] == 30
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(draw, [VIEW] * 8)) == {IMAGE}


def test_chart_digest_is_of_what_is_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_chart, "_png", lambda data: b"by another font library")
    assert draw(VIEW) == ChartImage(b"by another font library", IMAGE.digest)
    monkeypatch.setattr(_chart, "DRAWING", "other")
    assert draw(VIEW).digest != IMAGE.digest


def test_chart_digest_depends_on_policys_channel_only() -> None:
    assert draw(VIEW, Policy(channel=20)).digest != IMAGE.digest
    assert draw(VIEW, Policy(fast=5, threshold=0.5)) == IMAGE


@pytest.mark.parametrize("view", [VIEW, *UNUSUAL.values()], ids=["usual", *UNUSUAL])
def test_chart_file_is_small_without_metadata(view: MarketView) -> None:
    png = draw(view).png
    assert Image.open(io.BytesIO(png)).size == (800, 500)
    assert len(png) <= 60_000
    assert chunks(png) == {"IHDR", "pHYs", "IDAT", "IEND"}


@pytest.mark.parametrize("view", [VIEW, *UNUSUAL.values()], ids=["usual", *UNUSUAL])
def test_chart_texts_do_not_overlap(view: MarketView, words: dict[str, list[Bbox]]) -> None:
    draw(view)
    places = [(text, box) for text, boxes in words.items() for box in boxes]
    assert len(places) > 10
    for text, box in places:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 800 and box.y1 <= 500, text
    for (one, a), (other, b) in combinations(places, 2):
        assert not a.overlaps(b), (one, other)


def test_chart_names_no_date_or_ticker(words: dict[str, list[Bbox]]) -> None:
    draw(VIEW)
    assert not any(told in text for text in words for told in ("AAPL", "2012", "2011"))
    question = json.loads(build_context(VIEW, Policy()).text)
    prices = {str(price) for price in range(500, 750, 25)}
    assert {text for text in words if text not in prices} == {
        "price",
        "volume",
        *("0", "15M", "30M"),
        "sessions before the last bar",
        *("20", "40", "60", "80", "100", "120"),
        f"resistance {question['resistance']:g}",
        f"support {question['support']:g}",
        f"last close {question['last_close']:g}",
        "closed up",
        "closed down",
    }
    assert words["20"][0].x0 > words["120"][0].x0, "the last bar is on the right"


def test_chart_without_history_has_no_levels(words: dict[str, list[Bbox]]) -> None:
    draw(UNUSUAL["one bar"])
    assert "last close 5" in words
    assert not any(text.startswith(("support", "resistance")) for text in words)


def test_chart_without_volume_has_no_volume_panel(words: dict[str, list[Bbox]]) -> None:
    draw(UNUSUAL["pennies"])
    assert "price" in words
    assert "volume" not in words


@pytest.mark.slow
def test_chart_imports_matplotlib_when_first_drawn() -> None:
    script = "import sys, finagent_model.desk._chart; print('matplotlib' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
