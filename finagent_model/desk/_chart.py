"""The chart that an agent with eyes is shown: the last half year of a view, without date or ticker.

It is drawn from rounded numbers in units of the last bar, so that equal situations give equal
images, and in matplotlib's own style whatever the process has set. `digest` is over what is drawn,
not over the PNG: another font library gives other bytes and the same digest.
"""

from __future__ import annotations

import hashlib
import io
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from finagent_model.market.bars import PRICES, Floats
from finagent_model.market.view import MarketView
from finagent_model.policy.context import FeatureBook, round_or_none
from finagent_model.policy.policy import Policy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWING = "1"
"""Version of the drawing, part of the digest; raise it when equal numbers are drawn otherwise."""
MAX_BARS = 120
COLUMNS = (*PRICES, "volume")
_DEFAULT_POLICY = Policy()
_UP, _DOWN, _INK = "#1b7f79", "#c2410c", "#24292f"
_GREY, _PALE = "#8c959f", "#d0d7de"
_RESISTANCE, _SUPPORT = "#8250df", "#1f6feb"
_STYLE_LOCK = threading.Lock()
"""matplotlib's style belongs to the whole process, so one chart is drawn at a time."""
Numbers = tuple[float | None, ...]


@dataclass(frozen=True)
class ChartImage:
    """A picture, and what identifies it in a request."""

    png: bytes
    digest: str
    """SHA-256 of what is drawn and of DRAWING."""


def draw(view: MarketView, policy: Policy = _DEFAULT_POLICY) -> ChartImage:
    """Return candles and volume as a picture of 800 by 500 pixels.

    Support and resistance over the policy's channel are drawn where the history is that long.
    """
    data = _ChartData.from_view(view, policy)
    digest = hashlib.sha256(f"{DRAWING}{data.model_dump_json()}".encode()).hexdigest()
    return ChartImage(_png(data), digest)


class _ChartData(BaseModel):
    """All that the picture depends on, oldest bar first; null where undefined."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    open: Numbers
    high: Numbers
    low: Numbers
    close: Numbers
    volume: Numbers
    support: float | None
    resistance: float | None

    @classmethod
    def from_view(cls, view: MarketView, policy: Policy) -> _ChartData:
        bars = view.bars
        last_bars = bars.adjust_to_last_bar()[-MAX_BARS:]
        features = FeatureBook(bars, first_bar=len(bars) - 1).compute(policy).at(-1)
        return cls(
            **{name: tuple(map(round_or_none, getattr(last_bars, name))) for name in COLUMNS},
            support=round_or_none(features["support"]),
            resistance=round_or_none(features["resistance"]),
        )


def _png(data: _ChartData) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    has_volume = any(data.volume)
    with _STYLE_LOCK, matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(8, 5), dpi=100)
        base = 0.32 if has_volume else 0.11
        axes = [figure.add_axes((0.12, base, 0.86, 0.92 - base))]
        _draw_candles(axes[0], data)
        if has_volume:
            axes.append(figure.add_axes((0.12, 0.11, 0.86, 0.18)))
            _draw_volumes(axes[1], data)
            axes[0].tick_params(labelbottom=False)
        for axis in axes:
            axis.set_xlim(len(data.close) + 0.5, -1.5)
            axis.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
            axis.yaxis.set_label_coords(-0.11, 0.5)
            axis.grid(color=_PALE, linewidth=0.6)
            axis.set_axisbelow(True)
            axis.spines[["top", "right"]].set_visible(False)
        axes[-1].set_xlabel("sessions before the last bar")
        buffer = io.BytesIO()
        # matplotlib would write its version into the file, and equal charts would differ by it.
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_candles(axis: Axes, data: _ChartData) -> None:
    from matplotlib.patches import Patch

    low, high = np.array(data.low), np.array(data.high)
    opens, closes = np.array(data.open), np.array(data.close)
    colours = np.where(closes >= opens, _UP, _DOWN).tolist()
    axis.vlines(_ages(len(closes)), low, high, colors=colours, linewidth=0.9)
    _draw_boxes(axis, np.minimum(opens, closes), np.maximum(opens, closes), colours)
    lines = [
        axis.axhline(price, color=colour, ls=style, zorder=0.9, label=f"{name} {price:g}")
        for name, price, colour, style in (
            ("resistance", data.resistance, _RESISTANCE, "--"),
            ("support", data.support, _SUPPORT, "--"),
            ("last close", data.close[-1], _INK, ":"),
        )
        if price is not None
    ]
    patches = [Patch(color=_UP, label="closed up"), Patch(color=_DOWN, label="closed down")]
    axis.ticklabel_format(axis="y", style="plain", useOffset=False)
    axis.set_ylabel("price")
    axis.legend(
        handles=[*lines, *patches],
        loc="lower left",
        bbox_to_anchor=(-0.13, 1),
        ncols=5,
        frameon=False,
        fontsize="small",
        columnspacing=1.2,
        handlelength=1.6,
    )


def _draw_volumes(axis: Axes, data: _ChartData) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    volume = np.array([v or 0.0 for v in data.volume])
    _draw_boxes(axis, np.zeros(len(volume)), volume, [_GREY] * len(volume))
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_locator(MaxNLocator(3))
    axis.yaxis.set_major_formatter(EngFormatter(sep=""))
    axis.set_ylabel("volume")


def _ages(count: int) -> npt.NDArray[np.int_]:
    """Return the sessions before the last bar, of each bar."""
    return np.arange(count)[::-1]


def _draw_boxes(axis: Axes, bottom: Floats, top: Floats, colours: list[str]) -> None:
    """Draw one box a bar; one without height is seen as a stroke."""
    from matplotlib.collections import PolyCollection

    left, right = _ages(len(bottom)) - 0.35, _ages(len(bottom)) + 0.35
    corners = [(left, bottom), (left, top), (right, top), (right, bottom)]
    outlines = np.stack([np.stack(corner, axis=1) for corner in corners], axis=1)
    # A single artist: a rectangle a bar took four times as long.
    axis.add_collection(
        PolyCollection(list(outlines), facecolors=colours, edgecolors=colours, linewidths=0.5)
    )
    axis.autoscale_view()
