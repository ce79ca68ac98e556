"""The bars that upstream is shown for one date: those of its 365 days, and nothing else.

Upstream asks for the bars from its today - 365 days up to, but without, its today. A decision
after the close of day D knows the bar of D, so upstream's clock shows D + 1. D is the day of the
last bar: a weekend asks what the Friday before asked. The worker is never sent a bar after D, so
that no error of ours or of upstream's can show it one.

Upstream's reply, held to what it may say, and the part of it that means something.

Candlestick patterns, fundamentals and news are always empty there, whatever the stock: they are
left out, since a zero would say that something had been looked at.

What upstream says of the bars in view, for the agents that are to read it: recorded like a
model's reply, so that a decision is replayed without upstream, and fails as it failed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finagent_model.agents.completion import UnavailableError
from finagent_model.agents.session import Session
from finagent_model.cassette.cassette import Cassette, RecordedReply, fingerprint
from finagent_model.contrib.upstream.source import Pin, Source
from finagent_model.contrib.upstream.worker_process import WorkerProcess
from finagent_model.decision.signal import Status, Trend
from finagent_model.errors import ShortHistoryError, UpstreamError, UpstreamSourceError
from finagent_model.market.bars import PRICES, BarSeries

DAYS = timedelta(days=365)
LEAST_BARS = 60
"""From 34 on every indicator is defined; these are enough for them to settle."""


@dataclass(frozen=True)
class UpstreamWindow:
    """One question to upstream; prices in units of the last bar, which is as traded."""

    symbol: str
    clock_day: str
    """ISO date; bars end the day before, or earlier."""
    rows: list[list[Any]]
    """ISO date, open, high, low, close, volume (None: unknown), oldest first."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        text = json.dumps([self.symbol, self.clock_day, self.rows])
        return hashlib.sha256(text.encode()).hexdigest()


def window_of(bars: BarSeries) -> UpstreamWindow:
    """Of a validated series that ends at the last bar to be seen. Raises ShortHistoryError."""
    clock_day = bars.close_time(-1).date() + timedelta(days=1)
    first = int(np.searchsorted(bars.closed_at, np.datetime64(clock_day - DAYS, "us")))
    shown = bars[first:]
    if len(shown) < LEAST_BARS:
        raise ShortHistoryError(
            f"{bars.symbol} has {len(shown)} bars in the year to {clock_day - timedelta(days=1)}; "
            f"upstream needs {LEAST_BARS}; send more history"
        )
    prices = shown.adjust_to_last_bar()
    days = np.datetime_as_string(shown.closed_at, unit="D").tolist()
    volume = [None if math.isnan(v) else v for v in prices.volume.tolist()]
    columns = [getattr(prices, name).tolist() for name in PRICES]
    rows = [list(row) for row in zip(days, *columns, volume, strict=True)]
    return UpstreamWindow(bars.symbol, clock_day.isoformat(), rows)


NO_DATA = "No data found"
VOTES = {"bullish": 1, "oversold": 1, "bearish": -1, "overbought": -1, "neutral": 0}
"""How upstream counts the words of its indicators."""
DIRECTIONS: dict[str, tuple[Trend, int]] = {
    "bullish_trend": ("bullish", 1),
    "bearish_trend": ("bearish", -1),
    "neutral_trend": ("neutral", 0),
}


class UpstreamReport(BaseModel):
    """What upstream found: an opinion and the five votes that made it. Prices are in units of the
    last bar.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    rating: Literal["buy", "hold", "sell"]
    probability: float = Field(ge=0, le=1)
    """A share of votes: 0.5 + 0.5 * votes for minus votes against, over all. No probability of
    anything.
    """
    votes: dict[str, Annotated[int, Field(ge=-1, le=1)]]
    trend: Trend
    """By the ADX; neutral where upstream calls it weak."""
    indicators: dict[str, float]

    @property
    def score(self) -> float:
        """Directional strength in [-1, 1]: 2p - 1. Upstream buys from 0.32 and sells from -0.34."""
        return 2 * self.probability - 1

    @property
    def report(self) -> str:
        """JSON for an agent, its numbers rounded to six digits."""
        numbers = {name: float(f"{value:.6g}") for name, value in self.indicators.items()}
        return json.dumps({**self.model_dump(), "indicators": numbers}, ensure_ascii=False)


def read_reply(reply: Any, symbol: str) -> UpstreamReport:
    """Raises UpstreamError: `no_data`, `nonfinite` naming the fields, or `schema`."""
    if isinstance(reply, dict) and reply.get("error") == NO_DATA:
        raise UpstreamError("no_data", f"it found no bars of {symbol}")
    undefined = [path for path, value in _leaves(reply) if _is_undefined(value)]
    if undefined:
        raise UpstreamError("nonfinite", f"{', '.join(undefined)} of {symbol} is no number")
    try:
        if reply["ticker_symbol"] != symbol:
            raise ValueError(f"it answers about {reply['ticker_symbol']!r}, not {symbol!r}")
        return _reading(reply["final_decision"], reply["indicators"])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UpstreamError("schema", f"{where}: {first['msg']}, got {first['input']!r}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise UpstreamError("schema", f"{type(error).__name__}: {error}") from None


def _reading(decision: dict[str, Any], found: dict[str, Any]) -> UpstreamReport:
    direction, way = DIRECTIONS[found["adx"]["trend_direction"]]
    strong = found["adx"]["trend_strength"] == "strong_trend"
    return UpstreamReport(
        rating=decision["rating"],
        probability=decision["probability"],
        votes={
            "ema_cross": VOTES[found["ema"]["signal"]],
            "rsi": VOTES[found["rsi"]["signal"]],
            "macd": VOTES[found["macd"]["trend"]],
            "stochastic": VOTES[found["stochastics"]["signal"]],
            "adx": way,
        },
        trend=direction if strong else "neutral",
        indicators={
            "ema_12": found["ema"]["short_ema"],
            "ema_26": found["ema"]["long_ema"],
            "rsi_14": found["rsi"]["value"],
            "macd": found["macd"]["value"],
            "macd_signal": found["macd"]["signal_line"],
            "bollinger_upper": found["bollinger"]["upper"],
            "bollinger_lower": found["bollinger"]["lower"],
            "stochastic_k": found["stochastics"]["%K"],
            "stochastic_d": found["stochastics"]["%D"],
            "atr_14": found["atr"],
            "adx_14": found["adx"]["adx_value"],
        },
    )


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _is_undefined(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


VERSION = "1"
"""Part of what a record is keyed by; raise it when upstream is shown something else."""
SPEAKER = "upstream"
"""In the conversation."""


@dataclass(frozen=True)
class UpstreamAnalyst:
    """Upstream behind a cassette. One worker, started when something is not recorded."""

    pin: Pin
    find: Callable[[], Source]
    """Its files, verified each time; asked before each start of a worker. Raises
    UpstreamSourceError.
    """
    cassette: Cassette

    @property
    def author(self) -> str:
        """What a record names."""
        return f"finagent@{self.pin.commit[:7]}"

    def require_source(self) -> None:
        """Raise UpstreamSourceError now if upstream could not be asked."""
        self.find()

    async def consult(self, bars: BarSeries, session: Session, agent: str) -> UpstreamReport:
        """On the evening of the last bar, for `agent`. Raises UnavailableError."""
        try:
            window = window_of(bars)
        except ShortHistoryError as error:
            raise UnavailableError(Status.DATA_MISSING, str(error)) from None
        key = fingerprint({"upstream": self.pin.tree, "version": VERSION, "window": window.digest})
        recorded = None
        if session.mode != "live":
            recorded = self.cassette.get(key, errors=session.past_errors)
        if recorded is None and session.mode == "replay":
            session.missed = True
            raise UnavailableError(
                Status.UPSTREAM_ERROR,
                f"replay: no recorded report of upstream for these bars ({key[:12]})",
            )
        reply = recorded or self.cassette.put(key, await self._asked(window))
        if reply.error is not None:
            raise UnavailableError(Status(reply.error.status), reply.error.reason)
        said = json.loads(reply.content)
        reading = read_reply(said["reply"], bars.symbol)
        session.record(
            SPEAKER, "response", reading.report, model=self.author, cached=recorded is not None
        )
        session.note(
            "upstream",
            agent,
            key=key,
            tree=self.pin.tree,
            clock_day=window.clock_day,
            cached=recorded is not None,
            **said,
        )
        return reading

    def close(self) -> None:
        """End the worker, if there is one."""
        if "_resident" in vars(self):
            self._resident.close()

    async def _asked(self, window: UpstreamWindow) -> RecordedReply:
        """Upstream's own reply once it was found usable, or how it failed."""
        try:
            said = await asyncio.to_thread(self._ask, window)
        except (UpstreamError, UpstreamSourceError) as error:
            missing = isinstance(error, UpstreamError) and error.code == "no_data"
            status = Status.DATA_MISSING if missing else Status.UPSTREAM_ERROR
            return RecordedReply.failed(status, str(error)[:500])
        return RecordedReply(json.dumps(said, sort_keys=True), "stop", 0, 0)

    def _ask(self, window: UpstreamWindow) -> dict[str, Any]:
        answer = self._resident.ask(window.symbol, window.clock_day, window.rows)
        read_reply(answer.reply, window.symbol)
        return {"reply": answer.reply, "versions": answer.versions, "log": answer.log}

    @cached_property
    def _resident(self) -> WorkerProcess:
        find = self.find  # not self, in a cycle with which the worker would outlive us
        return WorkerProcess(lambda: find().code)
