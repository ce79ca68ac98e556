"""Figures keep every day and every value that they were given, and stay small."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from finagent_model.data.bundled import BundledBars
from finagent_model.reports.figures import (
    chance_plot,
    cost_plot,
    equity_figure,
    price_svg,
    render_chart,
    render_page,
    split_levels,
)
from finagent_model.statistics.resampling import COST_CURVE_BP

BARS = BundledBars().bars("GOOG")[-126:]


def test_equity_figure_has_drawdown_and_gaps() -> None:
    days = ["2010-01-04", "2010-01-05", "2010-01-06"]
    data = equity_figure(days, [("desk", "accent", np.array([math.nan, 1.0, 0.9]))])
    equity, fall = (pane["series"][0]["values"] for pane in data["panes"])
    assert equity == [None, 1.0, 0.9]
    assert fall == [None, 0.0, -0.1]
    json.dumps(data, allow_nan=False)


def test_equity_figure_takes_last_close_of_a_day() -> None:
    days = ["2010-01-04", "2010-01-04", "2010-01-05"]
    data = equity_figure(days, [("desk", "accent", np.array([1.0, 2.0, 3.0]))])
    assert data["days"] == ["2010-01-04", "2010-01-05"]
    assert data["panes"][0]["series"][0]["values"] == [2.0, 3.0]


def test_equity_figure_puts_folds_on_days_of_the_curve() -> None:
    days, curve = ["2010-01-04", "2010-01-05", "2010-01-08"], np.ones(3)
    folds = ["2009-12-31", "2010-01-04", "2010-01-06", "2010-02-01"]
    data = equity_figure(days, [("desk", "accent", curve)], folds)
    assert data["folds"] == ["2010-01-08"]


def test_render_chart_text_ends_no_script() -> None:
    data = {"days": [], "panes": [], "note": "</script><script>alert(1)</script>"}
    html = render_chart(1, data, "a 'label' & <more>")
    assert html.count("<script") == html.count("</script>") == 1
    assert "a &#x27;label&#x27; &amp; &lt;more&gt;" in html


def test_render_page_is_small_and_offline() -> None:
    page = render_page("<title>", "<p>text</p>")
    assert len(page) < 250_000
    assert page.startswith("<!doctype html><html lang=en>")
    assert "<title>&lt;title&gt;</title>" in page
    assert not re.search(r"(src|href)=[\"']?http", page)
    assert "<script" not in render_page("t", "b", with_charts=False)


def test_split_levels_leaves_bars_their_height() -> None:
    close = float(BARS.close[-1])
    levels = {"stop": (0.95 * close, "r"), "target": (3 * close, "g"), "entry": (close, "b")}
    near, far = split_levels(BARS, levels)
    assert set(near) == {"stop", "entry"}
    assert set(far) == {"target"}


def test_price_svg_names_level_outside_with_its_distance() -> None:
    close = float(BARS.close[-1])
    svg = price_svg(BARS, {"target": (2 * close, "g")}, "a & b")
    assert f"target {2 * close:g} (+100.0% from the close) lies above this chart." in svg
    assert "a &amp; b" in svg


def test_price_svg_has_each_bar_with_its_numbers() -> None:
    svg = price_svg(BARS, {}, "GOOG")
    assert svg.count("<g class=") == len(BARS)
    assert f"C {BARS.close[-1]:,.2f}  V {BARS.volume[-1]:,.0f}" in svg
    assert len(svg) < 50_000


def test_price_svg_of_unknown_volume_has_no_column() -> None:
    frame = BARS.to_frame()
    frame["volume"] = math.nan
    svg = price_svg(type(BARS).from_frame("GOOG", frame), {}, "GOOG")
    assert "V unknown" in svg
    assert "<path class=v" not in svg


def test_price_svg_of_one_flat_bar() -> None:
    frame = BARS.to_frame()[-1:]
    frame[["open", "high", "low", "close"]] = 10.0
    svg = price_svg(type(BARS).from_frame("GOOG", frame), {"entry": (10.0, "b")}, "GOOG")
    assert "nan" not in svg
    assert svg.count("<g class=") == 1


@pytest.mark.parametrize("desk", [-0.9, 0.0, 5.0])
def test_chance_plot_tells_share_below_the_desk(desk: float) -> None:
    draws = np.linspace(-0.5, 0.5, 1000).tolist()
    share = float(np.mean(np.array(draws) < desk))
    svg = chance_plot(draws, desk)
    assert f"The desk earned {desk:+.1%}, more than {share:.0%} of 1000 draws" in svg
    assert svg.count("class='column'") == 40


def test_cost_plot_of_equal_returns_is_defined() -> None:
    svg = cost_plot(COST_CURVE_BP, [0.0] * len(COST_CURVE_BP))
    assert "nan" not in svg
    assert svg.count("<circle") == len(COST_CURVE_BP)
