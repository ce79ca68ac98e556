"""A plain rule through the engine, so that anyone can hold it against another one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import Field

from finagent_model._base import InputModel, Progress, no_progress
from finagent_model.backtesting.crossover import Crossover
from finagent_model.backtesting.engine import (
    BacktestResult,
    Costs,
    buy_and_hold,
    orders_from_signals,
    run_orders,
)
from finagent_model.backtesting.kernel import FillRules
from finagent_model.backtesting.metrics import explain_undefined, nan_to_none, summarise
from finagent_model.config.desk_config import load_preset
from finagent_model.config.external import EXTERNAL_ANALYSTS
from finagent_model.data.files import read_bars
from finagent_model.data.market import Market
from finagent_model.decision.decision import Decider, Decision, make_decision
from finagent_model.decision.signal import Action
from finagent_model.desk.desk import Desk
from finagent_model.errors import ExternalAnalystError, ShortHistoryError
from finagent_model.evaluation.out_of_sample import decide_views
from finagent_model.market.bars import BarSeries, parse_as_of
from finagent_model.market.view import MarketView
from finagent_model.model.predictor import open_cassette
from finagent_model.settings import Settings


class RuleRequest(InputModel):
    """Money in the bars' currency; costs, stop and target as fractions of the fill."""

    rule: str
    symbol: str | None = None
    bars: Path | None = None
    """A CSV or Parquet file; its name is the symbol unless one is given."""
    cash: float = Field(10_000.0, gt=0)
    commission: float = Field(0.001, ge=0, lt=0.1)
    slippage: float = Field(0.0, ge=0, lt=0.1)
    stop: float | None = Field(None, gt=0, lt=1)
    target: float | None = Field(None, gt=0, lt=100)
    side: Literal["long", "long-short"] = "long"
    fill: Literal["next-open", "close"] = "next-open"
    entry_bar_stops: bool = True
    fractional: bool = False

    @property
    def rules(self) -> FillRules:
        return FillRules(
            commission=self.commission,
            slippage=self.slippage,
            allow_short=self.side == "long-short",
            stop_distance=np.nan if self.stop is None else self.stop,
            target_distance=np.nan if self.target is None else self.target,
            fill_at_close=self.fill == "close",
            entry_bar_stops=self.entry_bar_stops,
        )


@dataclass(frozen=True, eq=False)
class RuleRun:
    """What a rule earned on one symbol, beside buying and holding at the same costs."""

    request: RuleRequest
    bars: BarSeries
    result: BacktestResult
    benchmark: BacktestResult

    def row(self) -> dict[str, Any]:
        """JSON-ready, at full precision; `trades` counts those closed, undefined is None."""
        trades: list[dict[str, Any]] = self.result.trades.astype(object).to_dict("records")  # type: ignore[assignment]
        still_open = [trade for trade in trades if trade["exit_bar"] < 0]
        closed = [trade for trade in trades if trade["exit_bar"] >= 0]
        mine, held = summarise(self.result), summarise(self.benchmark)
        return {
            "symbol": self.bars.symbol,
            "bars": len(self.bars),
            "request": self.request.model_dump(mode="json", exclude={"symbol", "bars"}),
            "final_equity": float(self.result.equity[-1]),
            "trades": len(closed),
            "open_position": self._held(still_open[0]) if still_open else None,
            "metrics": nan_to_none(mine),
            "buy_and_hold": nan_to_none(held),
            "undefined": {
                **explain_undefined(mine),
                **explain_undefined({f"benchmark_{name}": value for name, value in held.items()}),
            },
            "closed_trades": closed,
        }

    def _held(self, trade: dict[str, Any]) -> dict[str, Any]:
        """A position that the last bar's close marks."""
        marked = {"last_price": trade["exit_price"], "unrealised_pnl": trade["pnl"]}
        kept = ("entry_bar", "side", "shares", "entry_price", "fees")
        return {**{name: trade[name] for name in kept}, **marked}


def run_rule_backtest(
    request: RuleRequest, settings: Settings, progress: Progress = no_progress
) -> RuleRun:
    """Let a rule decide on every bar, and trade that. Raises BadInputError, InvalidBarsError,
    DataError and ExternalAnalystError.
    """
    rule = _read_rule(request.rule, settings)
    if request.bars is None:
        bars = Market.from_settings(settings).bars(request.symbol or "GOOG")
    else:
        bars = read_bars(request.bars, request.symbol or request.bars.stem.upper())
    rule.require_history(bars)
    views = [
        MarketView.at(parse_as_of(bars.closed(i).date()), bars[: i + 1]) for i in range(len(bars))
    ]
    decisions = decide_views(rule, views, progress(f"deciding on {bars.symbol}", len(views)))
    orders = orders_from_signals(bars, [decision.signal for decision in decisions])
    whole = not request.fractional
    costs = Costs(commission=request.commission, slippage=request.slippage)
    return RuleRun(
        request,
        bars,
        run_orders(bars, orders, request.rules, cash=request.cash, whole_shares=whole),
        buy_and_hold(bars, costs, cash=request.cash, whole_shares=whole),
    )


class Rule(Decider, Protocol):
    """A decider that knows how many bars it needs."""

    def require_history(self, bars: BarSeries) -> None:
        """Raise ShortHistoryError for bars on which it could never speak."""


class ExternalRating:
    """Buys and sells where an external analyst says so; its `hold` keeps what is held."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._name = str(desk.config.external_analyst)
        self._scores: dict[np.datetime64, float] = {}

    def require_history(self, bars: BarSeries) -> None:
        """Ask the analyst about every bar. Raises ExternalAnalystError where it fails on any, and
        ShortHistoryError where it never speaks.
        """
        found = self._desk.external_scores(bars)
        self._desk.close()
        if found.failed:
            day, reason = next(iter(found.failed.items()))
            raise ExternalAnalystError(
                self._name, "backtest", f"{len(found.failed)} bars failed; {day}: {reason}"
            )
        if np.isnan(found.scores).all():
            raise ShortHistoryError(
                f"{bars.symbol}: no bar has the history that {self._name} needs"
            )
        self._scores = dict(zip(bars.closed_at, found.scores.tolist(), strict=True))

    def decide(self, view: MarketView) -> Decision:
        """Return BUY or SELL where the analyst's score passes the desk's threshold."""
        score = self._scores[view.bars.closed_at[-1]]
        threshold = self._desk.config.first_policy.threshold
        action: Action = "BUY" if score >= threshold else "SELL" if score <= -threshold else "HOLD"
        return make_decision(
            view, action, reasoning=f"{self._name}'s score is {score:.2f}", author=self._name
        )


def _read_rule(text: str, settings: Settings) -> Rule:
    if text not in EXTERNAL_ANALYSTS:
        return Crossover.read(text)
    desk = Desk(load_preset(text), None, settings, open_cassette(settings))
    desk.require_external()
    return ExternalRating(desk)
