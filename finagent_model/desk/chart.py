"""The chart that a seat with eyes looks at: the last half year of a view, without date or ticker.

Drawn from rounded numbers in units of the last bar, so that equal situations give equal images, and
in matplotlib's own style whatever the process has set. `digest` is over what is drawn, not over the
PNG: another font library gives other bytes and the same digest.
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
from finagent_model.policy.context import round_or_none
from finagent_model.policy.features import FeatureBook
from finagent_model.policy.policy import Policy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


DRAWING = "1"
"""Raise it when the same numbers are drawn in another way."""
BARS_SHOWN = 120
_UP, _DOWN, _INK = "#1b7f79", "#c2410c", "#24292f"
_GREY, _PALE = "#8c959f", "#d0d7de"
_RESISTANCE, _SUPPORT = "#8250df", "#1f6feb"
_DEFAULT = Policy()
_STYLE = threading.Lock()
"""matplotlib's settings are the process's."""
COLUMNS = (*PRICES, "volume")
Numbers = tuple[float | None, ...]


@dataclass(frozen=True)
class ChartImage:
    """A picture, and what identifies it in a request."""

    png: bytes
    digest: str
    """SHA-256 of what is drawn and of DRAWING."""


def draw(view: MarketView, policy: Policy = _DEFAULT) -> ChartImage:
    """Candles and volume, with support and resistance over `policy`'s channel where the history is
    that long. 800 by 500 pixels.
    """
    drawn = _Drawn.of(view, policy)
    digest = hashlib.sha256(f"{DRAWING}{drawn.model_dump_json()}".encode()).hexdigest()
    return ChartImage(_png(drawn), digest)


class _Drawn(BaseModel):
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
    def of(cls, view: MarketView, policy: Policy) -> _Drawn:
        bars = view.bars
        shown = bars.adjust_to_last_bar()[-BARS_SHOWN:]
        features = FeatureBook(bars, first_bar=len(bars) - 1).compute(policy).at(-1)
        return cls(
            **{name: tuple(map(round_or_none, getattr(shown, name))) for name in COLUMNS},
            support=round_or_none(features["support"]),
            resistance=round_or_none(features["resistance"]),
        )


def _png(drawn: _Drawn) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    has_volume = any(drawn.volume)
    with _STYLE, matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(8, 5), dpi=100)
        base = 0.32 if has_volume else 0.11
        axes = [figure.add_axes((0.12, base, 0.86, 0.92 - base))]
        _candles(axes[0], drawn)
        if has_volume:
            axes.append(figure.add_axes((0.12, 0.11, 0.86, 0.18)))
            _volumes(axes[1], drawn)
            axes[0].tick_params(labelbottom=False)
        for axis in axes:
            axis.set_xlim(len(drawn.close) + 0.5, -1.5)
            axis.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
            axis.yaxis.set_label_coords(-0.11, 0.5)
            axis.grid(color=_PALE, linewidth=0.6)
            axis.set_axisbelow(True)
            axis.spines[["top", "right"]].set_visible(False)
        axes[-1].set_xlabel("sessions before the last bar")
        written = io.BytesIO()
        figure.savefig(written, format="png", metadata={"Software": None})
    return written.getvalue()


def _candles(axis: Axes, drawn: _Drawn) -> None:
    from matplotlib.patches import Patch

    low, high = np.array(drawn.low), np.array(drawn.high)
    opened, closed = np.array(drawn.open), np.array(drawn.close)
    colours = np.where(closed >= opened, _UP, _DOWN).tolist()
    axis.vlines(_ages(len(closed)), low, high, colors=colours, linewidth=0.9)
    _boxes(axis, np.minimum(opened, closed), np.maximum(opened, closed), colours)
    lines = [
        axis.axhline(price, color=colour, ls=style, zorder=0.9, label=f"{name} {price:g}")
        for name, price, colour, style in (
            ("resistance", drawn.resistance, _RESISTANCE, "--"),
            ("support", drawn.support, _SUPPORT, "--"),
            ("last close", drawn.close[-1], _INK, ":"),
        )
        if price is not None
    ]
    ends = [Patch(color=_UP, label="closed up"), Patch(color=_DOWN, label="closed down")]
    axis.ticklabel_format(axis="y", style="plain", useOffset=False)
    axis.set_ylabel("price")
    axis.legend(
        handles=[*lines, *ends],
        loc="lower left",
        bbox_to_anchor=(-0.13, 1),
        ncols=5,
        frameon=False,
        fontsize="small",
        columnspacing=1.2,
        handlelength=1.6,
    )


def _volumes(axis: Axes, drawn: _Drawn) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    volume = np.array([v or 0.0 for v in drawn.volume])
    _boxes(axis, np.zeros(len(volume)), volume, [_GREY] * len(volume))
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_locator(MaxNLocator(3))
    axis.yaxis.set_major_formatter(EngFormatter(sep=""))
    axis.set_ylabel("volume")


def _ages(count: int) -> npt.NDArray[np.int_]:
    """Sessions before the last bar, of each bar."""
    return np.arange(count)[::-1]


def _boxes(axis: Axes, bottom: Floats, top: Floats, colours: list[str]) -> None:
    """One a bar, seen as a stroke where it has no height. A single artist: a rectangle each took
    four times as long.
    """
    from matplotlib.collections import PolyCollection

    left, right = _ages(len(bottom)) - 0.35, _ages(len(bottom)) + 0.35
    corners = [(left, bottom), (left, top), (right, top), (right, bottom)]
    outlines = np.stack([np.stack(corner, axis=1) for corner in corners], axis=1)
    axis.add_collection(
        PolyCollection(list(outlines), facecolors=colours, edgecolors=colours, linewidths=0.5)
    )
    axis.autoscale_view()
