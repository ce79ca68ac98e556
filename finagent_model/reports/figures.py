"""Draw the figures of report and pages: data of the script that draws curves, and SVG for the rest.

Curves are drawn by `webui/static/charts.js` with the chart library beside it; a page that stands
alone carries both, some 220 KB. What is no curve over days is SVG, which needs no script. Colours
are variables of the page's style sheet: accent, soft, good, bad, warn, line.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from itertools import count
from typing import Any

import numpy as np

from finagent_model.market.bars import BarSeries, Floats
from finagent_model.statistics.reliability import ReliabilityBin

Figure = Mapping[str, Any]
"""JSON-ready data of a chart over days: `days`, `panes`, `folds`, `marks`."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 280, 52, 12, 14, 44
"""An SVG figure and the margins of its plot, in its own units."""
HISTOGRAM_BINS = 40
SCRIPTS = ("vendor/lightweight-charts.js", "charts.js")
STYLE = "report.css"
CREDIT = (
    "Charts by TradingView Lightweight Charts (https://www.tradingview.com/), Copyright (c) 2026 "
    "TradingView, Inc., Apache License 2.0."
)
REDRAW = """
for (const query of ["print", "(prefers-color-scheme: dark)"])
  matchMedia(query).addEventListener("change", () => document.dispatchEvent(new Event("theme")));
"""


def line(name: str, tone: str, values: Iterable[float], digits: int = 4, **more: Any) -> Figure:
    """Return one line of a pane; a value that is not finite becomes a gap."""
    kept = [round(float(v), digits) if math.isfinite(v) else None for v in values]
    return {"name": name, "tone": tone, "values": kept, **more}


def equity_figure(
    days: Sequence[str],
    curves: Sequence[tuple[str, str, Floats]],
    folds: Sequence[str] = (),
    **more: Any,
) -> Figure:
    """Return equity over drawdown; a curve is a name, a tone and a value a day (nan: none then)."""
    equity = [
        line(name, tone, values, width=1 if tone == "soft" else 2) for name, tone, values in curves
    ]
    falls = [line(name, tone, _drawdown(values)) for name, tone, values in curves]
    panes = [
        {"format": "factor", "log": True, "weight": 3, "level": 1, "series": equity},
        {"format": "percent", "name": "drawdown", "weight": 1, "series": falls},
    ]
    return figure(days, panes, folds, **more)


def figure(
    days: Sequence[str], panes: Sequence[Figure], folds: Sequence[str] = (), **more: Any
) -> Figure:
    """Return the data of a chart whose lines have a value for each of `days`, oldest first."""
    # Clocks that are put back bring two daily closes to one day of UTC; the chart takes one a day.
    last = {day: i for i, day in enumerate(days)}
    kept = list(last.values())
    if len(kept) < len(days):
        panes = [
            {**p, "series": [{**s, "values": [s["values"][i] for i in kept]} for s in p["series"]]}
            for p in panes
        ]
    return {"days": list(last), "panes": panes, "folds": _on_days(folds, list(last)), **more}


def _drawdown(values: Floats) -> Floats:
    """Return the loss from the running peak, as a fraction <= 0; nan where there is no value."""
    return values / np.fmax.accumulate(values) - 1.0


def _on_days(moments: Sequence[str], days: Sequence[str]) -> list[str]:
    """Return for each day the first of `days` that is no earlier; those outside are left out."""
    if not days:
        return []
    # A fit that was in force before the first day takes over on none of them.
    inside = [day for day in moments if days[0] < day <= days[-1]]
    return [days[bisect_left(days, day)] for day in inside]


def render_chart(
    number: int, data: Figure, label: str, caption: str = "", low: bool = False
) -> str:
    """Return the HTML of a chart whose data lie in the page; `number` is unique in it."""
    # "<" can't end the script element once it is written as an escape of JSON.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    kind = "chart low" if low else "chart"
    button = (
        "<button type=button data-log aria-pressed=false hidden>Log scale</button>"
        if any(pane.get("log") for pane in data["panes"])
        else ""
    )
    note = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        f"<div class=plot>{button}<figure><div class='{kind}' data-chart=curves "
        f"data-json=figure-{number} role=img aria-label='{escape(label, quote=True)}'>"
        f"<p>Drawn by a script.</p></div>{note}"
        f"</figure><script type=application/json id=figure-{number}>{text}</script></div>"
    )


def render_table(kind: str, heads: Sequence[str], rows: str) -> str:
    """Return a table of the class `kind`; `rows` is HTML, a head with "#" is over numbers."""
    cells = "".join(
        f"<th class=n>{head[1:]}</th>" if head.startswith("#") else f"<th>{head}</th>"
        for head in heads
    )
    # With the head in a part of its own a printed table repeats it on each page.
    return (
        f"<div class=scroll tabindex=0><table class={kind}><thead><tr>{cells}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def render_page(title: str, body: str, with_charts: bool = True) -> str:
    """Return a page that needs no other file; `body` is HTML."""
    scripts = "".join(f"<script>{_read_static(name)}</script>" for name in SCRIPTS)
    # At the end, so that the text is there before the charts are drawn.
    tail = f"{scripts}<script>{REDRAW}</script>" if with_charts else ""
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{_read_static(STYLE)}</style></head>"
        f"<body>{body}{tail}</body>"
        "</html>\n"
    )


def _read_static(name: str) -> str:
    files = resources.files("finagent_model")
    return (files / "webui" / "static" / name).read_text(encoding="utf-8")


class ChartNumbers:
    """Numbers the charts of one page."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def render(self, data: Figure, label: str, caption: str = "", low: bool = False) -> str:
        """Return the HTML of a chart with a number of its own."""
        return render_chart(next(self._numbers), data, label, caption, low)


class Plot:
    """An SVG plot with two linear axes; add shapes, then `render` it."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        (self.x_low, self.x_high), (self.y_low, self.y_high) = _widened(x), _widened(y)
        self.shapes: list[str] = []

    def x(self, value: float) -> float:
        """Return where `value` lies, from the left."""
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        """Return where `value` lies, from the top."""
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def line(self, points: Iterable[tuple[float, float]], tone: str, width: float = 1.6) -> None:
        """Add a line through points."""
        text = " ".join(f"{self.x(x)},{self.y(y)}" for x, y in points)
        style = f"fill='none' stroke='var(--{tone})' stroke-width='{width}'"
        self.shapes.append(f"<polyline points='{text}' {style}/>")

    def column(self, left: float, right: float, value: float, words: str) -> None:
        """Add a column from 0 to `value`, with what it says under the cursor."""
        top, bottom = sorted((self.y(value), self.y(0)))
        width = max(self.x(right) - self.x(left) - 0.6, 0.5)
        self.shapes.append(
            f"<rect class='column' x='{self.x(left)}' y='{top}' width='{width:.1f}' "
            f"height='{bottom - top:.1f}' fill='var(--soft)'><title>{escape(words)}</title></rect>"
        )

    def dot(self, x: float, y: float, radius: float, tone: str, words: str) -> None:
        """Add a dot, with what it says under the cursor."""
        self.shapes.append(
            f"<circle cx='{self.x(x)}' cy='{self.y(y)}' r='{radius:.1f}' fill='var(--{tone})' "
            f"fill-opacity='.75'><title>{escape(words)}</title></circle>"
        )

    def render(self, label: str, x_title: str, y_title: str, *, percent: str = "xy") -> str:
        """Return the SVG with axes; `percent` names the axes of fractions that are written so."""
        parts = []
        for value, words in _ticks(self.x_low, self.x_high, "x" in percent):
            x = self.x(value)
            parts.append(
                f"<text x='{x}' y='{HEIGHT - BOTTOM + 15}' text-anchor='middle'>{words}</text>"
            )
        for value, words in _ticks(self.y_low, self.y_high, "y" in percent):
            y = self.y(value)
            parts.append(
                f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y}' y2='{y}' stroke='var(--line)'/>"
                f"<text x='{LEFT - 6}' y='{y + 4}' text-anchor='end'>{words}</text>"
            )
        parts.append(
            f"<text x='{(LEFT + WIDTH - RIGHT) / 2}' y='{HEIGHT - 8}' text-anchor='middle'>"
            f"{escape(x_title)}</text><text x='2' y='10'>{escape(y_title)}</text>"
        )
        return (
            f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' "
            f"aria-label='{escape(label, quote=True)}'>{''.join(parts + self.shapes)}</svg>"
        )


def _widened(span: tuple[float, float]) -> tuple[float, float]:
    """Return a span that has a length, a little wider than what is drawn in it."""
    low, high = span
    margin = 0.04 * (high - low) or abs(low) * 0.1 or 1.0
    return low - margin, high + margin


def _ticks(low: float, high: float, percent: bool) -> list[tuple[float, str]]:
    from matplotlib.ticker import MaxNLocator

    values = [float(v) for v in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
    values = [v for v in values if low <= v <= high]
    step = min(np.diff(values)) if len(values) > 1 else 1.0
    digits = 0 if not percent or step >= 0.01 else math.ceil(-math.log10(step)) - 2
    texts = [f"{v:.{digits}%}" if percent else f"{v:g}" for v in values]
    return list(zip(values, texts, strict=True))


def chance_plot(random_returns: Sequence[float], desk: float) -> str:
    """Return the distribution of what the same trades earned at random times, and the desk's."""
    counts, edges = np.histogram(random_returns, HISTOGRAM_BINS)
    below = float(np.mean(np.asarray(random_returns) < desk))
    plot = Plot(
        (min(float(edges[0]), desk), max(float(edges[-1]), desk)), (0.0, float(counts.max()))
    )
    for draws, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
        plot.column(left, right, float(draws), f"{left:+.1%} to {right:+.1%}: {draws} draws")
    plot.line([(desk, 0.0), (desk, float(counts.max()))], "accent", 3)
    label = f"The desk earned {desk:+.1%}, more than {below:.0%} of {len(random_returns)} draws"
    return f"{plot.render(label, 'total return', 'draws', percent='x')}<p class=small>{label}.</p>"


def cost_plot(basis_points: Sequence[float], returns: Sequence[float]) -> str:
    """Return total return by commission."""
    plot = Plot((min(basis_points), max(basis_points)), (min(0.0, *returns), max(0.0, *returns)))
    plot.line([(plot.x_low, 0.0), (plot.x_high, 0.0)], "soft", 1)
    plot.line(list(zip(basis_points, returns, strict=True)), "accent", 2)
    for at, value in zip(basis_points, returns, strict=True):
        plot.dot(at, value, 3, "accent", f"{at:g} basis points: {value:+.1%}")
    label = "Total return by commission"
    return plot.render(label, "commission, basis points of every fill", "total return", percent="y")


def reliability_plot(groups: Mapping[str, Sequence[ReliabilityBin]]) -> str:
    """Return how often calls made money by stated confidence; `groups` are by tone, in order."""
    plot = Plot((0.0, 1.0), (0.0, 1.0))
    plot.line([(0.0, 0.0), (1.0, 1.0)], "line", 1.5)
    for tone, bins in groups.items():
        plot.line([(b.probability, b.outcome) for b in bins], tone)
        for b in bins:
            words = (
                f"said {b.probability:.0%}, came true {b.outcome:.0%}: "
                f"{b.weight:.1f} independent calls"
            )
            plot.dot(b.probability, b.outcome, 2.5 + math.sqrt(b.weight) / 2, tone, words)
    return plot.render("Reliability diagram; the table has its numbers", "confidence", "came true")


MIN_BARS_SHARE = 0.55
"""Share of a price chart's height that its bars keep; a level that would take more is named."""
PRICE_WIDTH, PRICE_HEIGHT, PRICE_RIGHT = 1000, 460, 140
"""A price chart, in units of its SVG; its plot ends left of the labels of the levels."""
PRICE_TOP, PRICE_FOOT, VOLUME_FOOT = 30, 350, 430
LEVEL_TONES = {"entry": "accent", "stop": "bad", "target": "good"}
Level = tuple[float, str]
"""Price and colour of a level."""


def split_levels(
    bars: BarSeries, levels: Mapping[str, Level]
) -> tuple[dict[str, Level], dict[str, Level]]:
    """Return the levels that a chart of `bars` has room for, and those too far away, by label."""
    low, high = float(bars.low.min()), float(bars.high.max())
    most = max(high - low, high * 1e-6) / MIN_BARS_SHARE

    def distance(item: tuple[str, Level]) -> float:
        return max(low - item[1][0], item[1][0] - high, 0.0)

    near, far = {}, {}
    bottom, top = low, high
    for label, level in sorted(levels.items(), key=distance):
        down, up = min(bottom, level[0]), max(top, level[0])
        if up - down <= most:
            near[label], bottom, top = level, down, up
        else:
            far[label] = level
    return near, far


def describe_outside(bars: BarSeries, label: str, price: float) -> str:
    """Return in words where a level lies that a chart of `bars` has no room for."""
    side = "above" if price > float(bars.high.max()) else "below"
    distance = price / float(bars.close[-1]) - 1.0
    return f"{label} {price:g} ({distance:+.1%} from the close) lies {side} this chart"


def price_svg(bars: BarSeries, levels: Mapping[str, Level], label: str) -> str:
    """Return candles, volume and levels as SVG; each bar tells its numbers under the cursor."""
    near, far = split_levels(bars, levels)
    prices = [price for price, _ in near.values()]
    low, high = min([float(bars.low.min()), *prices]), max([float(bars.high.max()), *prices])
    step = (PRICE_WIDTH - PRICE_RIGHT) / len(bars)
    most_volume = float(np.nanmax(bars.volume)) if np.isfinite(bars.volume).any() else math.nan

    def y(price: float) -> float:
        share = (price - low) / (high - low) if high > low else 0.5
        return round(PRICE_FOOT - share * (PRICE_FOOT - PRICE_TOP), 1)

    parts = [_price_axes(bars, [v for v, _ in _ticks(low, high, False)], prices, y, step)]
    for name, (price, _) in near.items():
        tone, at = LEVEL_TONES.get(name, "soft"), y(price)
        parts.append(
            f"<path d='M0 {at}H{PRICE_WIDTH - PRICE_RIGHT}' stroke='var(--{tone})' "
            f"stroke-dasharray='5 4'/><text x='{PRICE_WIDTH - PRICE_RIGHT + 6}' y='{at + 4}' "
            f"style='fill:var(--{tone})'>{name} {price:g}</text>"
        )
    for i in range(len(bars)):
        parts.append(_candle(bars, i, step, y, most_volume))
    at = round((len(bars) - 0.5) * step, 1)
    parts.append(
        f"<path d='M{at} {y(float(bars.high[-1])) - 4}l-4 -8h8z' fill='var(--ink)'>"
        "<title>the bar that was decided on</title></path>"
    )
    outside = "".join(
        f"<p class=small>{escape(describe_outside(bars, name, price))}.</p>"
        for name, (price, _) in far.items()
    )
    return (
        "<div class=scroll tabindex=0>"
        f"<svg class=price viewBox='0 0 {PRICE_WIDTH} {PRICE_HEIGHT}' role=img "
        f"aria-label='{escape(label, quote=True)}'>{''.join(parts)}</svg></div>{outside}"
    )


def _candle(
    bars: BarSeries, i: int, step: float, y: Callable[[float], float], most_volume: float
) -> str:
    opened, high, low, close = (float(v[i]) for v in (bars.open, bars.high, bars.low, bars.close))
    volume, x = float(bars.volume[i]), round((i + 0.5) * step, 1)
    body = round(0.7 * step, 1)
    top, bottom = sorted((y(opened), y(close)))
    shape = (
        f"M{x} {y(high)}V{y(low)}M{round(x - body / 2, 1)} {top}h{body}"
        f"v{max(round(bottom - top, 1), 0.8)}h-{body}z"
    )
    column = ""
    # An unknown volume has no column: it is not 0.
    if math.isfinite(volume) and most_volume > 0:
        height = round(volume / most_volume * (VOLUME_FOOT - PRICE_FOOT - 10), 1)
        left = round(x - body / 2, 1)
        column = f"<path class=v d='M{left} {VOLUME_FOOT}v-{height}h{body}v{height}z'/>"
    numbers = f"O {opened:,.2f}  H {high:,.2f}  L {low:,.2f}  C {close:,.2f}"
    shares = f"V {volume:,.0f}" if math.isfinite(volume) else "V unknown"
    words = f"{bars.close_time(i):%Y-%m-%d}  {numbers}  {shares}"
    return (
        f"<g class='{'up' if close >= opened else 'dn'}'>{column}<path d='{shape}'/>"
        f"<path class=h d='M{i * step:.1f} 0h{step:.1f}v{VOLUME_FOOT}h-{step:.1f}z'/>"
        f"<text x=4 y=16>{words}</text></g>"
    )


def _price_axes(
    bars: BarSeries,
    ticks: Sequence[float],
    levels: Sequence[float],
    y: Callable[[float], float],
    step: float,
) -> str:
    """Return the lines at round prices and at each month; a level's label has its place."""
    edge, parts = PRICE_WIDTH - PRICE_RIGHT, []
    for value in ticks:
        parts.append(f"<path d='M0 {y(value)}H{edge}' stroke='var(--line)'/>")
        if all(abs(y(value) - y(level)) > 12 for level in levels):
            parts.append(f"<text x='{edge + 6}' y='{y(value) + 4}'>{value:g}</text>")
    months = bars.closed_at.astype("datetime64[M]")
    for i in np.flatnonzero(np.append(False, months[1:] != months[:-1])).tolist():
        x = round(i * step, 1)
        parts.append(
            f"<path d='M{x} {PRICE_TOP}V{VOLUME_FOOT}' stroke='var(--line)'/>"
            f"<text x='{x + 3}' y='{VOLUME_FOOT + 16}'>{months[i]}</text>"
        )
    return "".join(parts)
