"""Judge a decider, or a plain rule, through the same walk and engine as a desk.

`evaluate_decider` walks any decider forward and judges it: costs, statistics, gate and report.
`run_rule_backtest` trades one rule over one symbol's whole history, without folds or gate. A
decider sees one market view at a time, and is fitted before the days that it decides on. What it
remembers between decisions can't be seen from outside, so the gate asks some days again, in another
order, and wants equal answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from finagent_model._base import InputModel
from finagent_model._progress import Progress, no_progress
from finagent_model.backtesting.engine import (
    BacktestResult,
    Costs,
    buy_and_hold,
    orders_from_signals,
    run_orders,
)
from finagent_model.backtesting.kernel import FillRules
from finagent_model.backtesting.metrics import explain_undefined, nan_to_none, summarise
from finagent_model.config.knowledge import select_latest
from finagent_model.config.rules import GateRules
from finagent_model.data.bar_files import read_bars
from finagent_model.data.market import Market
from finagent_model.decision.decision import (
    Decider,
    Decision,
    LedgerRow,
    TrainableDecider,
    to_ledger_row,
)
from finagent_model.errors import BadInputError, ShortHistoryError
from finagent_model.evaluation.calibrate import ConfidenceRecord, build_confidence_record, calibrate
from finagent_model.evaluation.evidence import Evidence, SymbolFacts, grade_evidence
from finagent_model.evaluation.gate import GateReport, judge_decider
from finagent_model.evaluation.out_of_sample import (
    OutOfSampleBacktest,
    collect_symbol_facts,
    decide_views,
    decide_walk_forward,
    judge_out_of_sample,
    read_knowledge,
)
from finagent_model.market.bars import BarSeries, from_datetime64
from finagent_model.market.quality import inspect_bars
from finagent_model.market.view import MarketView
from finagent_model.pipeline.named_rules import read_rule
from finagent_model.policy.policy import Policy
from finagent_model.policy.trained_state import CalibrationBook
from finagent_model.reports.report import render_report_page
from finagent_model.reports.tearsheet import FoldSpan, SymbolPage
from finagent_model.reports.wording import render_report, survivor_warnings
from finagent_model.settings import Settings
from finagent_model.training.request import EvaluationRequest
from finagent_model.training.search import Trials
from finagent_model.training.walk_forward import Fold, walk_forward_folds

DEFAULT_WARM_UP = Policy().warm_up
"""Bars of a symbol before a decider is asked about it that does not say how many it needs."""
REPEATED_DAYS = 5
"""Days of each symbol that are decided again."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A decider's out-of-sample decisions, and the gate's judgement of them."""

    author: str
    """The decider's name, as its signals give it."""
    request: EvaluationRequest
    bar_source: str
    """A word for where the bars come from, such as `bundled`."""
    out_of_sample: Mapping[str, OutOfSampleBacktest]
    """By symbol: decisions, trades and equity."""
    facts: Mapping[str, SymbolFacts]
    """By symbol: returns and costs, from which the evidence is assessed."""
    folds: Mapping[str, Sequence[FoldSpan]]
    """By symbol: the days that each fold decided on."""
    calibrations: CalibrationBook
    confidence: ConfidenceRecord
    gate: GateReport

    @property
    def evidence(self) -> Evidence:
        """The grade of evidence of an edge after costs, with every number behind it."""
        return self.gate.evidence

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Metrics by symbol, the benchmark's as `benchmark_...`; nan where undefined."""
        return {symbol: each.metrics() for symbol, each in self.out_of_sample.items()}

    @property
    def report(self) -> str:
        """The report in Markdown, as a training writes it; its first line is the grade."""
        last = self.calibrations.fits[-1]
        return render_report(self.metrics, self.author, self.evidence, last, self.bar_warnings)

    @property
    def bar_warnings(self) -> dict[str, tuple[str, ...]]:
        """What is odd about the bars of each symbol, and what a source's are as a whole."""
        warnings = {
            symbol: (*each.bars.notes, *inspect_bars(each.bars))
            for symbol, each in self.out_of_sample.items()
        }
        return warnings | survivor_warnings([self.bar_source])

    def write_report(self, path: str | Path) -> None:
        """Write the report as one HTML page that needs no network, as a training does."""
        metrics = self.metrics
        pages = [
            SymbolPage(
                each.bars,
                self.folds[symbol],
                self.facts[symbol],
                each.result.trades,
                metrics[symbol],
            )
            for symbol, each in self.out_of_sample.items()
        ]
        title = f"{self.author} on {', '.join(self.out_of_sample)}"
        last = self.calibrations.fits[-1]
        page = render_report_page(
            title, pages, self.gate, self.author, self.confidence, last, self.bar_warnings
        )
        Path(path).write_text(page, encoding="utf-8")


class RuleRequest(InputModel):
    """A rule, its bars, and how it is traded.

    Money is in the bars' currency; costs, stop and target are fractions of the fill's price.
    """

    rule: str
    symbol: str | None = None
    bars: Path | None = None
    """A CSV or Parquet file, whose name is the default of `symbol`; None: FINAGENT_BARS."""
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
        """Costs, sides, stop and target, for the kernel; nan is no stop or no target."""
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
    """A rule's backtest on one symbol, beside buying and holding at the same costs."""

    request: RuleRequest
    bars: BarSeries
    result: BacktestResult
    benchmark: BacktestResult

    def notes(self) -> list[str]:
        """Return, in words, what kept the rule or the benchmark from trading as decided."""
        return [
            *self.result.notes(),
            *(f"buy and hold: {note}" for note in self.benchmark.notes()),
        ]

    def row(self) -> dict[str, Any]:
        """Return the run as a JSON-ready dict at full precision; undefined metrics are None.

        `trades` counts closed trades; one that is still open is `open_position`.
        """
        trades: list[dict[str, Any]] = self.result.trades.astype(object).to_dict("records")  # type: ignore[assignment]
        # The engine marks an open trade with an exit bar of -1.
        still_open = [trade for trade in trades if trade["exit_bar"] < 0]
        closed = [trade for trade in trades if trade["exit_bar"] >= 0]
        metrics, benchmark = summarise(self.result), summarise(self.benchmark)
        # Nothing was held, so what holding would have earned is not known: it is not 0.
        unbought = dict.fromkeys(benchmark, math.nan) if self.benchmark.unaffordable else {}
        benchmark |= unbought
        return {
            "symbol": self.bars.symbol,
            "bars": len(self.bars),
            "request": self.request.model_dump(mode="json", exclude={"symbol", "bars"}),
            "final_equity": float(self.result.equity[-1]),
            "trades": len(closed),
            "open_position": self._open_position(still_open[0]) if still_open else None,
            "metrics": nan_to_none(metrics),
            "buy_and_hold": nan_to_none(benchmark),
            "undefined": {
                **explain_undefined(metrics),
                **(
                    {f"benchmark_{name}": "a share costs more than the cash" for name in unbought}
                    or explain_undefined({f"benchmark_{n}": v for n, v in benchmark.items()})
                ),
            },
            "closed_trades": closed,
            "notes": self.notes(),
        }

    def _open_position(self, trade: dict[str, Any]) -> dict[str, Any]:
        """Return an open trade as a position, marked to the last bar's close."""
        names = ("entry_bar", "side", "shares", "entry_price", "fees")
        marked = {"last_price": trade["exit_price"], "unrealised_pnl": trade["pnl"]}
        return {**{name: trade[name] for name in names}, **marked}


def evaluate_decider(
    decider: Decider | TrainableDecider,
    market: Market,
    request: EvaluationRequest,
    rules: GateRules,
    *,
    configurations: int = 1,
    progress: Progress = no_progress,
) -> Evaluation:
    """Walk `decider` forward over the request's symbols; return its outcome and judgement.

    A decider with a method `fit` is fitted anew in each fold, on bars that end with the fold's
    training window. The days decided on are the out-of-sample days of a training with the same
    windows; a symbol that begins later is first asked about when it has the decider's `warm_up`
    bars, or `DEFAULT_WARM_UP`. `configurations` counts the variants that were tried before this one
    was chosen: the best of many is partly luck, and the deflated Sharpe ratio takes that off.

    Raises DataError where a symbol has no bars, ShortHistoryError where no out-of-sample day is
    left, and BadInputError for a schedule that only a desk can follow.
    """
    if request.schedule == "change":
        raise BadInputError(
            "schedule 'change' follows a desk's fitted policy; give a number of bars"
        )
    histories = {symbol: market.bars(symbol) for symbol in request.symbols}
    calendar = np.unique(np.concatenate([bars.closed_at for bars in histories.values()]))
    folds = walk_forward_folds(
        len(calendar), request.train_bars, request.test_bars, request.purge_bars
    )
    deciders = _fit_folds(decider, histories, calendar, folds)
    warm_up = max(_read_warm_up(each) for each in deciders)
    periods = {s: _periods(bars, calendar, folds, warm_up) for s, bars in histories.items()}
    outcomes = {
        s: _decide(deciders, market, s, periods[s], request, progress) for s in request.symbols
    }
    calls = [call for each in outcomes.values() for call in each.trade_outcomes()]
    # Calibrated from the start of each fold, on calls that had closed by then: no look-ahead.
    moments = [from_datetime64(calendar[fold.test_start]) for fold in folds]
    calibrations = calibrate(calls, moments)
    confidence = build_confidence_record(calls, calibrations)
    author = next(iter(outcomes.values())).decisions[0].signal.model_used
    # What a fit returns may use another model than the decider that was handed in.
    knowledge = select_latest(read_knowledge(each, author) for each in (decider, *deciders))
    facts = {s: collect_symbol_facts(each, request.seed, knowledge) for s, each in outcomes.items()}
    trials = Trials(
        configurations=configurations,
        scorings=configurations,
        # How the variants' ratios differ is not known here.
        sharpe_variance=None,
        overfitting=None,
    )
    gate = judge_decider(
        {symbol: each.metrics() for symbol, each in outcomes.items()},
        {s: [to_ledger_row(d.signal) for d in each.decisions] for s, each in outcomes.items()},
        _decide_again(deciders, market, outcomes, periods),
        grade_evidence(
            list(facts.values()),
            trials,
            rules,
            confidence,
            seed=request.seed,
            knowledge=knowledge,
        ),
        rules,
    )
    return Evaluation(
        author=author,
        request=request,
        bar_source=market.source.name,
        out_of_sample=outcomes,
        facts=facts,
        # Relative to the out-of-sample part, which is what `out_of_sample` holds the bars of.
        folds={
            symbol: [
                FoldSpan(
                    from_datetime64(calendar[fold.train_stop - 1]),
                    from_datetime64(calendar[fold.test_start]),
                    slice(part.start - parts[0].start, part.stop - parts[0].start),
                )
                for fold, part in zip(folds, parts, strict=True)
                if part.start < part.stop
            ]
            for symbol, parts in periods.items()
        },
        calibrations=calibrations,
        confidence=confidence,
        gate=gate,
    )


def run_rule_backtest(
    request: RuleRequest, settings: Settings, progress: Progress = no_progress
) -> RuleRun:
    """Let a rule decide at the close of every bar, trade that, and compare with buy and hold.

    Raises BadInputError, InvalidBarsError, DataError and ExternalAnalystError.
    """
    rule = read_rule(request.rule, settings)
    if request.bars is None:
        bars = Market.from_settings(settings).bars(request.symbol or "GOOG")
    else:
        bars = read_bars(request.bars, request.symbol)
    rule.require_history(bars)
    # The view is cut before the rule sees it, so that not even a bad rule can look ahead.
    views = (MarketView.at(bars.decision_time(i), bars[: i + 1]) for i in range(len(bars)))
    decisions = decide_views(rule, views, progress(f"deciding on {bars.symbol}", len(bars)))
    orders = orders_from_signals(bars, [decision.signal for decision in decisions])
    # The rule's own stop and target are distances from the fill, so they are in `request.rules`.
    whole = not request.fractional
    costs = Costs(commission=request.commission, slippage=request.slippage)
    return RuleRun(
        request,
        bars,
        run_orders(bars, orders, request.rules, cash=request.cash, whole_shares=whole),
        buy_and_hold(bars, costs, cash=request.cash, whole_shares=whole),
    )


def _fit_folds(
    decider: Decider | TrainableDecider,
    histories: Mapping[str, BarSeries],
    calendar: npt.NDArray[np.datetime64],
    folds: Sequence[Fold],
) -> list[Decider]:
    """Return the decider of each fold, fitted on its training window where it can be fitted."""
    if not isinstance(decider, TrainableDecider):
        return [decider for _ in folds]
    deciders = []
    for fold in folds:
        first, last = calendar[fold.train_start], calendar[fold.train_stop - 1]
        windows = {}
        for symbol, bars in histories.items():
            start = int(np.searchsorted(bars.closed_at, first))
            # Cut by a copy, not masked: a fit that looks ahead finds no bar there.
            window = bars.until(from_datetime64(last))[start:]
            if len(window):
                windows[symbol] = window
        fitted = decider.fit(windows)
        if not callable(getattr(fitted, "decide", None)):
            raise TypeError(
                f"{type(decider).__name__}.fit returned a {type(fitted).__name__}; return the "
                "decider that speaks until the next fit"
            )
        deciders.append(fitted)
    return deciders


def _read_warm_up(decider: Decider) -> int:
    """Return how many bars of a symbol the decider needs. Raises TypeError for no such number."""
    warm_up = getattr(decider, "warm_up", DEFAULT_WARM_UP)
    if not isinstance(warm_up, int) or warm_up < 1:
        raise TypeError(
            f"{type(decider).__name__}.warm_up is {warm_up!r:.80}; give the number of bars that a "
            "decision needs"
        )
    return warm_up


def _periods(
    bars: BarSeries, calendar: npt.NDArray[np.datetime64], folds: Sequence[Fold], warm_up: int
) -> list[slice]:
    """Return the bars that each fold decides on; an empty slice where the symbol has none."""
    # A symbol that began a moment ago has no past to decide by: no decision, and none that failed.
    starts = [
        max(int(np.searchsorted(bars.closed_at, calendar[f.test_start])), warm_up - 1)
        for f in folds
    ]
    if len(bars) - starts[0] < 2:
        raise ShortHistoryError(
            f"{bars.symbol} has {len(bars)} bars until {bars.show_time(-1)}: too few for "
            f"a training window, {warm_up} bars to decide by, and two bars after them; choose "
            "other symbols or shorter windows"
        )
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(bars)], strict=True)]


def _decide(
    deciders: Sequence[Decider],
    market: Market,
    symbol: str,
    periods: Sequence[slice],
    request: EvaluationRequest,
    progress: Progress,
) -> OutOfSampleBacktest:
    """Let each fold's decider decide on its period of one symbol; trade and measure that."""
    bars, first = market.bars(symbol), periods[0].start
    assert request.schedule != "change"  # refused by `evaluate_decider`
    positions = range(first, len(bars), request.schedule)

    def decider_of(number: int, _: Sequence[Decision]) -> Decider:
        return deciders[number]

    done = progress(f"deciding on {symbol}", len(positions))
    decisions = decide_walk_forward(market, symbol, periods, positions, decider_of, done)
    return judge_out_of_sample(bars[first:], [i - first for i in positions], decisions, request)


def _decide_again(
    deciders: Sequence[Decider],
    market: Market,
    outcomes: Mapping[str, OutOfSampleBacktest],
    periods: Mapping[str, Sequence[slice]],
) -> dict[str, list[LedgerRow]]:
    """Return by symbol some days' ledger rows, decided again from the last day to the first."""
    repeated: dict[str, list[LedgerRow]] = {}
    for symbol, outcome in outcomes.items():
        first = periods[symbol][0].start
        count = len(outcome.positions)
        chosen = np.unique(np.linspace(0, count - 1, REPEATED_DAYS).astype(int))
        repeated[symbol] = []
        # Backwards: a decider that relies on the order of its calls answers differently.
        for index in chosen[::-1]:
            position = first + outcome.positions[index]
            number = next(n for n, p in enumerate(periods[symbol]) if p.start <= position < p.stop)
            views = market.bar_views(symbol, [position])
            [decision] = decide_views(deciders[number], views, lambda: None)
            repeated[symbol].append(to_ledger_row(decision.signal))
    return repeated
