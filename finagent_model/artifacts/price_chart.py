"""The last half year of one symbol with the signal's levels: what a reader of the signal looks at.

Prices in units of the last bar's trades (earlier bars adjusted by the splits and dividends known by
then), so that the levels, which are as traded, lie where they belong.
"""

from __future__ import annotations

from pathlib import Path

from finagent_model.domain.bars import BarSeries
from finagent_model.domain.market_view import MarketView
from finagent_model.domain.signal import TradingSignal

BARS_SHOWN = 126
LEVELS = {
    "suggested_entry_price": ("entry", "#1f6feb"),
    "suggested_stop_loss": ("stop", "#cf222e"),
    "suggested_take_profit": ("target", "#1a7f37"),
    "support_level": ("support", "#8b949e"),
    "resistance_level": ("resistance", "#8b949e"),
}


def write_price_chart(view: MarketView, signal: TradingSignal, folder: Path) -> None:
    """`chart.png` and `chart.html` in `folder`."""
    shown = view.bars.in_last_prices()[-BARS_SHOWN:]
    levels = {
        label: (float(price), colour)
        for field, (label, colour) in LEVELS.items()
        if (price := getattr(signal, field)) is not None
    }
    score = f"{signal.confidence} {signal.confidence_score:.0f}"
    title = f"{signal.symbol} as of {signal.as_of:%Y-%m-%d}: {signal.action} ({score})"
    if signal.status != "ok":
        title = f"{signal.symbol} as of {signal.as_of:%Y-%m-%d}: no decision ({signal.status})"
    _png(shown, levels, title, folder / "chart.png")
    _page(shown, levels, title, folder / "chart.html")


def _png(bars: BarSeries, levels: dict[str, tuple[float, str]], title: str, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    axis = figure.subplots()
    axis.vlines(bars.closed_at, bars.low, bars.high, color="#8b949e", linewidth=0.8)
    axis.plot(bars.closed_at, bars.close, color="#24292f", linewidth=1.3)
    for label, (price, colour) in levels.items():
        axis.axhline(price, color=colour, linewidth=1.0, linestyle="--")
        axis.annotate(f" {label} {price:g}", (1.0, price), xycoords=("axes fraction", "data"))
    axis.set(title=title, ylabel="price, in units of the last bar")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _page(bars: BarSeries, levels: dict[str, tuple[float, str]], title: str, path: Path) -> None:
    import plotly.graph_objects as go

    candles = go.Candlestick(
        x=bars.closed_at, open=bars.open, high=bars.high, low=bars.low, close=bars.close
    )
    figure = go.Figure(candles)
    for label, (price, colour) in levels.items():
        text = f"{label} {price:g}"
        figure.add_hline(y=price, line={"color": colour, "dash": "dash"}, annotation_text=text)
    figure.update_layout(title=title, template="plotly_white", xaxis_rangeslider_visible=False)
    figure.write_html(path, include_plotlyjs=True, full_html=True)
