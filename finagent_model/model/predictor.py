"""Answer questions about symbols with a desk: the one way from a question to a decision.

Shell, REST, DAG, Spark and notebooks all call the class `Predictor`. `decide` is for one question
and raises where nothing can be decided; `decide_all` and `predict` give every question of a batch
its own signal, so that one bad row doesn't take the others with it. The moment of a question is
its `as_of`, never the clock; `Market.view` cuts the data there, so that no look-ahead gets in.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from finagent_model._base import Mode
from finagent_model._event_loop import NO_DEADLINE, Deadline
from finagent_model._redact import make_redactor
from finagent_model.agents.list_prices import settle_models
from finagent_model.approvals import APPROVALS_FILE, ApprovalStore
from finagent_model.audit.chain import AuditChain, audit_decisions
from finagent_model.cassette.cassette import REPLIES, Cassette
from finagent_model.config.desk_config import DeskConfig, config_hash, load_config
from finagent_model.config.parsing import CallLimits, parse_limits, parse_mode
from finagent_model.data.market import Market
from finagent_model.decision.decision import Decision
from finagent_model.decision.signal import GATE_REFUSED, TradingSignal, version_key
from finagent_model.desk.desk import Desk
from finagent_model.errors import (
    BadInputError,
    ConfigError,
    DataError,
    DataSourceError,
    InvalidBarsError,
    InvalidFundamentalsError,
    InvalidNewsError,
    ShutdownError,
)
from finagent_model.market.bars import parse_as_of, parse_symbol
from finagent_model.market.view import MarketView
from finagent_model.model.model_folder import read_registered, read_yaml
from finagent_model.model.package import Package, read_package
from finagent_model.model.questions import Question, parse_options, parse_table
from finagent_model.model.wheel import code_hash
from finagent_model.settings import Settings

if TYPE_CHECKING:
    from finagent_model.model.anchor import ModelCheck

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelLineage:
    """Run and registered version that a package came from; None where MLflow didn't say."""

    run_id: str | None = None
    model_uri: str | None = None
    model_version: str | None = None
    model_id: str | None = None
    """MLflow's id of the logged model, which exists without a registered version too."""


NO_LINEAGE = ModelLineage()


class Predictor:
    """Decide with a packaged desk, or with the untrained desk of a configuration.

    Recorded replies are kept between questions, and the latest views; neither changes an answer.
    Safe to use from several threads.
    """

    def __init__(
        self,
        config: DeskConfig,
        settings: Settings,
        *,
        package: Package | None = None,
        lineage: ModelLineage = NO_LINEAGE,
        checked: ModelCheck | None = None,
        mode: Mode = "cached",
    ) -> None:
        """Build the desk of `config`, trained by `package` where there is one.

        It decides in `mode` where a call names none. Raises ConfigError for an unknown prompt or
        tool.
        """
        self.config = config
        self.lineage = lineage
        self.settings = settings
        self.market = Market.from_settings(settings)
        self.shutdown_requested = threading.Event()
        """Set when the process is about to end: waits for an approval then raise ShutdownError."""
        self.approvals = ApprovalStore(settings.home / APPROVALS_FILE)
        self._knowledge = config.latest_knowledge
        self._package = package
        self.checked = checked
        """The comparison of the model's files with its anchor; None: the files were not a model."""
        self.desk = Desk(
            config,
            package.trained_state if package else None,
            settings,
            open_cassette(settings, package),
            mode=mode,
            external=package.external if package else None,
            graph=package.agent_graph if package else None,
            warnings=_code_differences(package) if package else (),
        )

    @classmethod
    def open(cls, folder: Path, settings: Settings, checked: ModelCheck | None = None) -> Predictor:
        """Return the predictor of a package's folder; `checked` is the check of its model, if any.

        Raises ModelLoadError.
        """
        package = read_package(folder, checked.manifest if checked else None)
        # MLflow's layout: <model>/artifacts/package.
        lineage = read_lineage(folder.parent.parent)
        return cls(package.config, settings, package=package, lineage=lineage, checked=checked)

    @classmethod
    def from_config(
        cls, config: str | Path, settings: Settings, mode: Mode = "cached"
    ) -> Predictor:
        """Return the predictor of an untrained desk, from a preset's name or a YAML file.

        It decides in `mode`, unless a call names another one. Raises ConfigError for a desk that
        can't be read, or whose model can't be called in `mode`, and BadInputError for a mode that
        is unknown.
        """
        mode = parse_mode(mode)
        desk = load_config(str(config)).with_max_rounds(settings.autogen_max_rounds)
        predictor = cls(settle_models(desk, settings), settings, mode=mode)
        # A replay calls no model, so a missing key is no error there.
        if mode != "replay":
            predictor.desk.require_key()
        return predictor

    @property
    def package(self) -> Package:
        """The package that decides. Raises ConfigError for an untrained desk, which has none."""
        if self._package is None:
            raise ConfigError("an untrained desk has no package; load a version, or train one")
        return self._package

    @property
    def is_packaged(self) -> bool:
        """Whether a trained package decides, and not the untrained desk of a configuration."""
        return self._package is not None

    @property
    def identity(self) -> str:
        """SHA-256 of the decider: the package's content hash, else the configuration's hash."""
        return self._package.content_hash if self._package else config_hash(self.config)

    @property
    def version(self) -> str | None:
        """The version's name in the ids of its signals; None without a run or version."""
        return version_key(self.lineage.model_uri, self.lineage.run_id)

    @property
    def refusal(self) -> str | None:
        """Sentence that the gate refused this version and where it says why; None for any other."""
        if self.checked is None or self.checked.refused is None:
            return None
        # A version that was made champion by force was refused all the same.
        where = f"gate.json of run {self.lineage.run_id}" if self.lineage.run_id else "gate.json"
        return f"{GATE_REFUSED} {self.checked.refused}: see {where}, and don't act on it"

    def decide(
        self,
        symbol: str,
        as_of: str | date | datetime,
        *,
        mode: Mode | None = None,
        max_rounds: int | None = None,
        budget_usd: float | None = None,
        bars: Sequence[dict[str, Any]] | None = None,
        news: Sequence[dict[str, Any]] | None = None,
    ) -> Decision:
        """Return the desk's decision about `symbol` at `as_of`, which a date puts after its close.

        `bars` and `news` are records that replace the sources' own. Without `mode` it is the
        predictor's: that of `from_config`, else `cached`. Limits can only be narrowed. A failure of
        an agent or its model is a status of the signal. Raises BadInputError for a malformed
        question, DataError, InvalidBarsError, InvalidNewsError or InvalidFundamentalsError where
        there is nothing to decide on, and BeforeFirstFitError.

        >>> import finagent_model
        >>> model = finagent_model.load("models:/finagent@champion")
        >>> model.decide("GOOG", as_of="2012-06-29").signal.symbol
        'GOOG'
        """
        question = Question(parse_symbol(symbol), parse_as_of(as_of), bars, news)
        limits = parse_limits(max_rounds, budget_usd)
        chosen = None if mode is None else parse_mode(mode)
        [decision] = self.decide_views([self.view(question)], chosen, limits)
        return decision

    def decide_all(
        self,
        questions: Sequence[Question],
        mode: Mode | None = None,
        limits: CallLimits | None = None,
        deadline: Deadline = NO_DEADLINE,
        *,
        approvals: bool = True,
        wait: bool = True,
    ) -> list[Decision]:
        """Return one decision a question, in their order; `data_missing` where there is no view.

        Raises DeadlineError; then no decision goes on, but an approval still waits to be asked for
        again. Without `approvals` nobody is asked: the decisions are not to be acted upon. Without
        `wait`, an approval that is still pending raises ApprovalPendingError.
        """
        views = []
        for question in questions:
            # A vendor may be slow, and a batch long: each view is checked against the timeout.
            deadline.check()
            views.append(self.view_or_missing(question))
        return self.decide_views(views, mode, limits, deadline, approvals=approvals, wait=wait)

    def predict(
        self,
        frame: pd.DataFrame,
        params: Mapping[str, Any] | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> pd.DataFrame:
        """Return one row of signal fields for each row of questions, in their order.

        `frame` has the columns `symbol` and `as_of`, optionally `bars` and `news`; `params` may
        hold `mode`, `max_rounds` and `budget_usd`. Undefined values are None, never NaN. Raises
        BadInputError naming the first malformed row, and DeadlineError.
        """
        # dtype object: pandas would turn None into NaN, which is no JSON.
        return pd.DataFrame(self.answer(parse_table(frame), params, deadline), dtype=object)

    def answer(
        self,
        questions: Sequence[Question],
        params: Mapping[str, Any] | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> list[dict[str, Any]]:
        """Return the JSON fields of one signal a question, in their order, as REST answers.

        Raises BadInputError for a parameter, and DeadlineError.
        """
        signals = self.signals(questions, params, deadline)
        return [signal.model_dump(mode="json") for signal in signals]

    def signals(
        self,
        questions: Sequence[Question],
        params: Mapping[str, Any] | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> list[TradingSignal]:
        """Return one signal a question, in their order, and leave a trace of each decision.

        Raises BadInputError for a parameter, and DeadlineError.
        """
        mode, limits = parse_options(params or {})
        decisions = self.decide_all(questions, mode, limits, deadline)
        # After all decisions, so that a trace store that is slow delays no model call.
        for decision in decisions:
            self.trace(decision)
        return [decision.signal for decision in decisions]

    def view(self, question: Question) -> MarketView:
        """Return what is knowable at the question's moment.

        Raises DataError, InvalidBarsError, InvalidNewsError or InvalidFundamentalsError where there
        is nothing to decide on, and BeforeFirstFitError.
        """
        # First: a question from before the first fit must not cost a call to a vendor.
        self.desk.check_trained_at(question.symbol, question.as_of)
        return self.market.view(
            question.symbol, question.as_of, question.read_bars(), question.read_news()
        )

    def view_or_missing(
        self, question: Question, *, vendor_raises: bool = False
    ) -> MarketView | Decision:
        """Return the view, or the `data_missing` decision that says why there is none.

        With `vendor_raises` a source that failed raises DataSourceError instead.
        """
        try:
            return self.view(question)
        except (
            DataError,
            InvalidBarsError,
            InvalidNewsError,
            InvalidFundamentalsError,
        ) as error:
            # A vendor that is down may be back soon: a workflow retries instead of recording this.
            if vendor_raises and isinstance(error, DataSourceError):
                raise
            return self.desk.missing_data_decision(question.symbol, question.as_of, str(error))

    def decide_views(
        self,
        views: Sequence[MarketView | Decision],
        mode: Mode | None = None,
        limits: CallLimits | None = None,
        deadline: Deadline = NO_DEADLINE,
        *,
        approvals: bool = True,
        wait: bool = True,
    ) -> list[Decision]:
        """Return one decision a view, in their order; a `Decision` in the list is passed through.

        Raises as `decide_all` does.
        """
        desk = self.desk.with_options(mode=mode, limits=limits)
        # All views at once: the desk runs them concurrently, below its rate limit.
        decisions_of_views = iter(
            desk.decide_all(
                [view for view in views if isinstance(view, MarketView)],
                timeout_s=deadline.remaining_s(),
            )
        )
        decisions = [
            self._with_lineage(next(decisions_of_views) if isinstance(view, MarketView) else view)
            for view in views
        ]
        return (
            self._await_approval(decisions, desk.mode, deadline, wait) if approvals else decisions
        )

    def audit(self, decision: Decision) -> AuditChain:
        """Return the hash-chained audit log of one of its decisions."""
        package = self._package.content_hash if self._package else None
        return audit_decisions([decision], code_hash(), package)

    def trace(self, decision: Decision, run_id: str | None = None) -> None:
        """Write a trace of one of its decisions to MLflow, if FINAGENT_TRACING is on."""
        if self.settings.tracing:
            from finagent_model.tracking.traces import trace_decision

            trace_decision(
                decision, self.config.prices, self.settings, run_id, self.lineage.model_id
            )

    def flush_traces(self, timeout_s: float) -> None:
        """Wait at most so long for the traces of its decisions to be written."""
        if self.settings.tracing:
            from finagent_model.tracking.traces import flush

            flush(timeout_s)

    def _await_approval(
        self, decisions: Sequence[Decision], mode: Mode, deadline: Deadline, wait: bool
    ) -> list[Decision]:
        """Return the decisions once a human has approved or rejected those that need it.

        Raises ShutdownError, DeadlineError or ApprovalPendingError.
        """

        def pause(seconds: float) -> None:
            deadline.check()
            # Instead of sleep, so that a shutdown ends the wait at once.
            if self.shutdown_requested.wait(seconds):
                raise ShutdownError()

        return self.approvals.require_approvals(
            decisions, self.config.approval, self.identity, mode=mode, sleep=pause, wait=wait
        )

    def _with_lineage(self, decision: Decision) -> Decision:
        """Return the decision with cut-off, lineage and grade of evidence in its signal."""
        signal = decision.signal
        if self._knowledge:
            signal = signal.model_copy(update={"knowledge_cutoff": self._knowledge.cutoff})
        # An untrained desk is no version: nothing vouches for its signals.
        if self._package is None:
            return replace(decision, signal=signal)
        anchored = self.checked is not None and self.checked.anchored
        if self.checked and self.lineage.model_uri and not anchored:
            # A version that claims a registry which doesn't vouch for it: the reason is told.
            signal = signal.with_warnings(f"not anchored: {self.checked.why_not}")
        if refusal := self.refusal:
            signal = signal.with_warnings(refusal)
        lineage = {
            "run_id": self.lineage.run_id,
            "model_uri": self.lineage.model_uri,
            "model_version": self.lineage.model_version,
            "evidence": self._package.evidence,
            "anchored": anchored,
        }
        return replace(decision, signal=signal.model_copy(update=lineage))


def open_cassette(settings: Settings, package: Package | None = None) -> Cassette:
    """Return the cassette of the package's replies, and of those recorded on this machine.

    Without a writable home, replies are kept in memory only, with a warning.
    """
    packaged, redact = package.replies if package else None, make_redactor(settings.secrets)
    try:
        return Cassette(packaged, settings.home / REPLIES, redact)
    except BadInputError as error:
        # A container with a read-only file system can still replay the package.
        log.warning("%s; replies are kept in memory only", error)
        return Cassette(packaged, redact=redact)


def read_lineage(model: Path) -> ModelLineage:
    """Return the lineage that MLflow wrote into a model's folder."""
    described = read_yaml(model / "MLmodel")
    # MLflow writes it when it downloads a registered version, and only then.
    registered = read_registered(model)
    return ModelLineage(
        run_id=described.get("run_id"),
        model_uri=f"models:/{registered[0]}/{registered[1]}" if registered else None,
        model_version=registered[1] if registered else None,
        model_id=described.get("model_id"),
    )


def _code_differences(package: Package) -> tuple[str, ...]:
    """Return a warning for every signal if the running code is not the code that trained it."""
    installed = code_hash()
    if installed == package.code_hash:
        return ()
    warning = (
        f"trained with code {package.code_hash[:12]}, answered by {installed[:12]}; "
        "load it in its own environment (--env-manager uv) for the same decisions"
    )
    # A Python warning too: a notebook shows it when the model is loaded, before any signal.
    warnings.warn(warning, stacklevel=2)
    return (warning,)
