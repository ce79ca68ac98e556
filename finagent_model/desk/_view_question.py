"""What the agents are asked about a view, or why they can't be, and warnings about the view."""

from __future__ import annotations

from dataclasses import dataclass

from finagent_model.agents.session import DeskQuery, Failure
from finagent_model.config.desk_config import DeskConfig
from finagent_model.desk.masking import ShownView
from finagent_model.errors import DataError
from finagent_model.market.bars import show_as_of
from finagent_model.market.calendar import ALWAYS, WEEKDAYS
from finagent_model.market.quality import inspect_recent_bars
from finagent_model.market.timeframe import MIN_INFERRED, parse_timeframe
from finagent_model.market.view import MarketView
from finagent_model.policy.context import Context, build_context
from finagent_model.policy.policy import PolicyFit


@dataclass(frozen=True)
class ViewQuestion:
    """What the agents are asked about a view, or why they can't be."""

    shown: ShownView
    fit: PolicyFit | None
    context: Context | None = None
    query: DeskQuery | None = None
    """None where there is a failure."""
    failure: Failure | None = None
    warnings: tuple[str, ...] = ()
    """What a reader should know about the view."""


def build_shown_context(
    shown: ShownView, fit: PolicyFit | None, config: DeskConfig, timeframe: str | None
) -> Context:
    """Return what the agents are told. Raises DataError for bars that are stale or too few.

    `timeframe` is the length of the bars that `fit` was made on.
    """
    view = shown.view
    if view.is_stale:
        raise DataError(
            f"last bar of {view.symbol} closed {view.bars.show_time(-1)}, "
            f"{view.stale_sessions} {'bars' if view.counts_bars else 'sessions'} before as_of "
            f"{show_as_of(view.as_of)} (at most {view.max_stale}); send newer bars"
        )
    if timeframe is not None:
        _check_timeframe(shown.original, timeframe)
    policy = fit.policy if fit else config.initial_policy
    return build_context(view, policy, shown.lessons, config.memory.lessons)


def view_warnings(view: MarketView, fit: PolicyFit | None) -> list[str]:
    """Return what a reader of the signal should know about what it was decided on."""
    warnings = list[str]()
    if fit is None:
        warnings.append("untrained: the policy's defaults were used")
    elif view.symbol not in fit.symbols:
        warnings.append(f"policy fitted on {', '.join(fit.symbols)}, not on {view.symbol}")
    if missing := view.sessions_without_bar:
        warnings.append(
            f"decided on the bar of {view.bars.show_time(-1)}; {_describe_missing(view, missing)}"
        )
    warnings += [f"bars: {text}" for text in view.bars.notes]
    warnings += [f"bars: {text}" for text in inspect_recent_bars(view.bars)]
    if view.undated_news:
        warnings.append(f"{view.undated_news} news items dropped: no publication time")
    if view.undated_facts:
        warnings.append(f"{view.undated_facts} facts dropped: no publication time")
    return warnings


def _describe_missing(view: MarketView, missing: int) -> str:
    """Return what is missing since the last bar, and why it may be."""
    calendar = view.bars.calendar
    word = "bars" if view.counts_bars else "days" if calendar == ALWAYS else "sessions"
    # Without a declared exchange each weekday counts as a session, holidays too.
    is_certain = view.counts_bars or calendar != WEEKDAYS
    why = "not there yet" if is_certain else "holidays, or not there yet"
    return f"{word} without one since: {missing} ({why})"


def _check_timeframe(view: MarketView, timeframe: str) -> None:
    """Raise DataError for bars of another length than those of the training."""
    trained = parse_timeframe(timeframe)
    if view.bars.timeframe != trained:
        raise DataError(
            f"bars of {view.symbol} last {view.bars.timeframe.label}, and the model was "
            f"trained on bars of {trained.label}; send {MIN_INFERRED} or more of those, or "
            "train another model on these"
        )
