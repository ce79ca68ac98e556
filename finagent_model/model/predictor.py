"""A package that answers: the one way from a question to a decision, whichever door it came by.

`decide` raises where nothing can be decided, for callers with one question; `answer` gives every
question of a batch its own signal, so that one bad row doesn't take the others with it.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from finagent_model._base import Mode
from finagent_model._event_loop import NO_DEADLINE, Deadline
from finagent_model._redact import make_redactor
from finagent_model.approvals import APPROVALS_FILE, ApprovalStore
from finagent_model.cassette.cassette import REPLIES, Cassette
from finagent_model.data.market import Market
from finagent_model.decision.decision import Decision
from finagent_model.desk.desk import CallLimits, Desk
from finagent_model.errors import (
    BadInputError,
    DataError,
    DataSourceError,
    InvalidBarsError,
    InvalidFundamentalsError,
    InvalidNewsError,
    ShutdownError,
)
from finagent_model.market.bars import BarSeries
from finagent_model.market.news import read_news
from finagent_model.market.view import MarketView
from finagent_model.model.package import Package, read_package
from finagent_model.model.wheel import code_hash
from finagent_model.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """What to decide about; records that are given replace the model's own source."""

    symbol: str
    as_of: datetime
    bars: Sequence[dict[str, Any]] | None = None
    news: Sequence[dict[str, Any]] | None = None


@dataclass(frozen=True)
class ModelLineage:
    """Where a package came from, as far as its folder tells."""

    run_id: str | None = None
    model_uri: str | None = None
    model_version: str | None = None
    model_id: str | None = None
    """MLflow's, of the logged model; a version is one that has a name as well."""


class Predictor:
    """A packaged desk with its market; keeps nothing between questions but recorded replies."""

    def __init__(self, package: Package, lineage: ModelLineage, settings: Settings) -> None:
        self.package = package
        self.lineage = lineage
        self.settings = settings
        self.market = Market.of(settings)
        self.ending = threading.Event()
        """Set when the process is about to end: nobody waits for an approval any longer."""
        self.approvals = ApprovalStore(settings.home / APPROVALS_FILE)
        self.desk = Desk(
            package.config,
            package.learned,
            settings,
            open_cassette(settings, package),
            upstream=package.upstream,
            notes=_differences(package),
        )

    @classmethod
    def open(cls, folder: Path, settings: Settings) -> Predictor:
        """From a package's folder inside a model. Raises ModelLoadError."""
        return cls(read_package(folder), read_lineage(folder.parent.parent), settings)

    def decide(
        self, question: Question, mode: Mode = "cached", limits: CallLimits | None = None
    ) -> Decision:
        """Raises DataError, InvalidBarsError, InvalidNewsError or InvalidFundamentalsError where
        there is no view, and BeforeFirstFitError; any other trouble is the decision's status.
        """
        return self.decide_on(self.view(question), mode, limits)

    def decide_on(
        self, view: MarketView, mode: Mode = "cached", limits: CallLimits | None = None
    ) -> Decision:
        """The same, once there is a view; any trouble is the decision's status."""
        decision = self.desk.under(mode=mode, limits=limits).decide(view)
        [decision] = self._released([self._stamped(decision)], mode)
        return decision

    def answer(
        self,
        questions: Sequence[Question],
        mode: Mode = "cached",
        limits: CallLimits | None = None,
        deadline: Deadline = NO_DEADLINE,
        *,
        approvals: bool = True,
        wait: bool = True,
    ) -> list[Decision]:
        """One decision a question, in their order; where there is no view: `data_missing`. Raises
        DeadlineError; then nothing goes on, but an approval still waits to be asked for again.
        Without `approvals` nobody is asked: nothing is to be acted upon. Without `wait` whoever has
        to be asked is, and ApprovalPendingError says that the answer is not there yet.
        """
        seen = []
        for question in questions:
            deadline.check()
            seen.append(self.look(question))
        return self.answer_on(seen, mode, limits, deadline, approvals=approvals, wait=wait)

    def look(self, question: Question, *, vendor_raises: bool = False) -> MarketView | Decision:
        """What there is to decide on; where there is nothing, the decision that says so. If
        `vendor_raises`, a source that failed raises DataSourceError: it may be back soon.
        """
        try:
            return self.view(question)
        except (
            DataError,
            InvalidBarsError,
            InvalidNewsError,
            InvalidFundamentalsError,
        ) as error:
            if vendor_raises and isinstance(error, DataSourceError):
                raise
            return self.desk.decline(question.symbol, question.as_of, str(error))

    def answer_on(
        self,
        seen: Sequence[MarketView | Decision],
        mode: Mode = "cached",
        limits: CallLimits | None = None,
        deadline: Deadline = NO_DEADLINE,
        *,
        approvals: bool = True,
        wait: bool = True,
    ) -> list[Decision]:
        """As `answer`, of what `look` gave."""
        views = [each for each in seen if isinstance(each, MarketView)]
        desk = self.desk.under(mode=mode, limits=limits)
        decided = iter(desk.decide_all(views, within_s=deadline.remaining_s()))
        answers = [next(decided) if isinstance(each, MarketView) else each for each in seen]
        stamped = [self._stamped(answer) for answer in answers]
        return self._released(stamped, mode, deadline, wait) if approvals else stamped

    def trace(self, decision: Decision, run_id: str | None = None) -> None:
        """Leave a trace of one of its decisions in MLflow, if FINAGENT_TRACING asks for it."""
        if self.settings.tracing:
            from finagent_model.tracking.traces import trace

            prices, model_id = self.package.config.prices, self.lineage.model_id
            trace(decision, prices, self.settings, run_id, model_id)

    def view(self, question: Question) -> MarketView:
        """Raises DataError, InvalidBarsError, InvalidNewsError or InvalidFundamentalsError where
        there is nothing to decide on, and BeforeFirstFitError.
        """
        self.desk.require_fit(question.symbol, question.as_of)
        bars, news = question.bars, question.news
        return self.market.view(
            question.symbol,
            question.as_of,
            None if bars is None else BarSeries.from_records(question.symbol, bars),
            None if news is None else read_news(list(news)),
        )

    def _released(
        self,
        decisions: Sequence[Decision],
        mode: Mode,
        deadline: Deadline = NO_DEADLINE,
        wait: bool = True,
    ) -> list[Decision]:
        """Once a human has settled those that need it."""
        rules, version = self.package.config.approval, self.package.content_hash

        def pause(seconds: float) -> None:
            deadline.check()
            if self.ending.wait(seconds):
                raise ShutdownError()

        return self.approvals.require_approvals(
            decisions, rules, version, mode=mode, sleep=pause, wait=wait
        )

    def _stamped(self, decision: Decision) -> Decision:
        """The decision with its lineage and its version's grade; nothing else about it changes."""
        known = {
            "run_id": self.lineage.run_id,
            "model_uri": self.lineage.model_uri,
            "model_version": self.lineage.model_version,
            "evidence": self.package.evidence,
        }
        return replace(decision, signal=decision.signal.model_copy(update=known))


def open_cassette(settings: Settings, package: Package | None = None) -> Cassette:
    """The package's replies over those recorded on this machine. A home that can't be written is
    worth a warning, not a failure: then replies are kept in memory.
    """
    packaged, redact = package.replies if package else None, make_redactor(settings.secrets)
    try:
        return Cassette(packaged, settings.home / REPLIES, redact)
    except BadInputError as error:
        log.warning("%s; replies are kept in memory only", error)
        return Cassette(packaged, redact=redact)


def read_lineage(model: Path) -> ModelLineage:
    """What MLflow wrote into a model's folder about its run and, once registered, its version."""
    described = _yaml(model / "MLmodel")
    registered = _yaml(model / "registered_model_meta")
    version = str(registered["model_version"]) if registered else None
    return ModelLineage(
        run_id=described.get("run_id"),
        model_uri=f"models:/{registered['model_name']}/{version}" if registered else None,
        model_version=version,
        model_id=described.get("model_id"),
    )


def _yaml(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text()) or {} if path.is_file() else {}


def _differences(package: Package) -> tuple[str, ...]:
    """Says, once aloud and then on every signal, that other code answers than was trained."""
    installed = code_hash()
    if installed == package.code_hash:
        return ()
    note = (
        f"trained with code {package.code_hash[:12]}, answered by {installed[:12]}; "
        "load it in its own environment (--env-manager uv) for the same decisions"
    )
    warnings.warn(note, stacklevel=2)
    return (note,)
