"""Answer questions about symbols with a desk: the one way from a question to a decision.

Shell, REST, DAG, Spark and notebooks are doors to the class `Predictor`. `decide` is for one
question and raises where nothing can be decided; `decide_all` and `predict` give every question of
a batch its own signal, so that one bad row doesn't take the others with it.
"""

from __future__ import annotations

import logging
import math
import threading
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from finagent_model._base import Mode
from finagent_model._event_loop import NO_DEADLINE, Deadline
from finagent_model._redact import make_redactor
from finagent_model.agents.providers import with_addresses
from finagent_model.approvals import APPROVALS_FILE, ApprovalStore
from finagent_model.audit.chain import AuditChain, audit_decisions
from finagent_model.cassette.cassette import REPLIES, Cassette
from finagent_model.config.desk_config import DeskConfig, load_config
from finagent_model.config.parsing import CallLimits, parse_limits, parse_mode
from finagent_model.data.market import Market
from finagent_model.decision.decision import Decision
from finagent_model.decision.signal import version_key
from finagent_model.desk.desk import Desk, config_hash
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
from finagent_model.market.bars import BarSeries, parse_as_of, parse_symbol
from finagent_model.market.news import read_news
from finagent_model.market.view import MarketView
from finagent_model.model.package import Package, read_package
from finagent_model.model.wheel import code_hash
from finagent_model.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """A symbol and a moment to decide about; records that are given replace the sources' own."""

    symbol: str
    as_of: datetime
    bars: Sequence[dict[str, Any]] | None = None
    news: Sequence[dict[str, Any]] | None = None


@dataclass(frozen=True)
class ModelLineage:
    """Where a package came from, as far as its model's folder tells."""

    run_id: str | None = None
    model_uri: str | None = None
    model_version: str | None = None
    model_id: str | None = None
    """MLflow's id of the logged model; a version is a logged model that has a name as well."""


NO_LINEAGE = ModelLineage()


class Predictor:
    """Answer with a packaged desk, or with the untrained desk of a configuration.

    Keeps nothing between questions but recorded replies; safe to use from several threads.
    """

    def __init__(
        self,
        config: DeskConfig,
        settings: Settings,
        *,
        package: Package | None = None,
        lineage: ModelLineage = NO_LINEAGE,
    ) -> None:
        """Build the desk of `config`, trained by `package` where there is one.

        Raises ConfigError for an unknown prompt or tool.
        """
        self.config = config
        self.lineage = lineage
        self.settings = settings
        self.market = Market.from_settings(settings)
        self.ending = threading.Event()
        """Set when the process is about to end: nobody waits for an approval any longer."""
        self.approvals = ApprovalStore(settings.home / APPROVALS_FILE)
        self._package = package
        self.desk = Desk(
            config,
            package.trained_state if package else None,
            settings,
            open_cassette(settings, package),
            external=package.external if package else None,
            warnings=_code_differences(package) if package else (),
        )

    @classmethod
    def open(cls, folder: Path, settings: Settings) -> Predictor:
        """Return the predictor of a package's folder inside a model. Raises ModelLoadError."""
        package, lineage = read_package(folder), read_lineage(folder.parent.parent)
        return cls(package.config, settings, package=package, lineage=lineage)

    @classmethod
    def from_config(
        cls, config: str | Path, settings: Settings, mode: Mode = "cached"
    ) -> Predictor:
        """Return the predictor of a desk that was never trained: a preset's name or a YAML file.

        Raises ConfigError for a desk that can't be read, or whose model can't be called in `mode`.
        """
        predictor = cls(with_addresses(load_config(str(config)), settings), settings)
        if mode != "replay":
            predictor.desk.require_key()
        return predictor

    @property
    def package(self) -> Package:
        """The package that answers. Raises ConfigError for an untrained desk, which has none."""
        if self._package is None:
            raise ConfigError("an untrained desk has no package; load a version, or train one")
        return self._package

    @property
    def is_packaged(self) -> bool:
        """Whether a trained package answers, and not the untrained desk of a configuration."""
        return self._package is not None

    @property
    def identity(self) -> str:
        """SHA-256 of what answers: the package's content hash, else the configuration's."""
        return self._package.content_hash if self._package else config_hash(self.config)

    @property
    def version(self) -> str | None:
        """The name of the version in ids of its signals; None where nothing is known of it."""
        return version_key(self.lineage.model_uri, self.lineage.run_id)

    def decide(
        self,
        symbol: str,
        as_of: str | date | datetime,
        *,
        mode: Mode = "cached",
        max_rounds: int | None = None,
        budget_usd: float | None = None,
        bars: Sequence[dict[str, Any]] | None = None,
        news: Sequence[dict[str, Any]] | None = None,
    ) -> Decision:
        """Return the desk's decision about `symbol` at `as_of`, which a date puts after its close.

        `bars` and `news` are records that replace the sources' own. Limits can only be narrowed. A
        failure of an agent or its model is a status of the signal. Raises BadInputError for a
        malformed question, DataError, InvalidBarsError, InvalidNewsError or
        InvalidFundamentalsError where there is nothing to decide on, and BeforeFirstFitError.

        >>> import finagent_model
        >>> model = finagent_model.load("models:/finagent@champion")
        >>> model.decide("GOOG", as_of="2012-06-29").signal.symbol
        'GOOG'
        """
        question = Question(parse_symbol(symbol), parse_as_of(as_of), bars, news)
        limits = parse_limits(max_rounds, budget_usd)
        [decision] = self.decide_views([self.view(question)], parse_mode(mode), limits)
        return decision

    def decide_all(
        self,
        questions: Sequence[Question],
        mode: Mode = "cached",
        limits: CallLimits | None = None,
        deadline: Deadline = NO_DEADLINE,
        *,
        approvals: bool = True,
        wait: bool = True,
    ) -> list[Decision]:
        """Return one decision a question, in their order; `data_missing` where there is no view.

        Raises DeadlineError; then no decision goes on, but an approval still waits to be asked for
        again. Without `approvals` nobody is asked: the decisions are not to be acted upon. Without
        `wait` ApprovalPendingError says that a human has yet to answer.
        """
        views = []
        for question in questions:
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
        name `mode`, `max_rounds` and `budget_usd`. Undefined values are None, never NaN. This is
        what REST answers. Raises BadInputError naming the first malformed row, and DeadlineError.
        """
        given = params or {}
        mode = parse_mode(given.get("mode", "cached"))
        limits = parse_limits(given.get("max_rounds"), given.get("budget_usd"))
        decisions = self.decide_all(parse_questions(frame), mode, limits, deadline)
        for decision in decisions:
            self.trace(decision)
        signals = [decision.signal.model_dump(mode="json") for decision in decisions]
        return pd.DataFrame(signals, dtype=object)

    def view(self, question: Question) -> MarketView:
        """Return what is knowable at the question's moment.

        Raises DataError, InvalidBarsError, InvalidNewsError or InvalidFundamentalsError where there
        is nothing to decide on, and BeforeFirstFitError.
        """
        self.desk.check_trained_at(question.symbol, question.as_of)
        bars, news = question.bars, question.news
        return self.market.view(
            question.symbol,
            question.as_of,
            None if bars is None else BarSeries.from_records(question.symbol, bars),
            None if news is None else read_news(list(news)),
        )

    def view_or_missing(
        self, question: Question, *, vendor_raises: bool = False
    ) -> MarketView | Decision:
        """Return the view, or the `data_missing` decision that says why there is none.

        With `vendor_raises` a source that failed raises DataSourceError: it may be back soon.
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
            return self.desk.missing_data_decision(question.symbol, question.as_of, str(error))

    def decide_views(
        self,
        views: Sequence[MarketView | Decision],
        mode: Mode = "cached",
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
        decided = iter(
            desk.decide_all(
                [view for view in views if isinstance(view, MarketView)],
                timeout_s=deadline.remaining_s(),
            )
        )
        decisions = [
            self._with_lineage(next(decided) if isinstance(view, MarketView) else view)
            for view in views
        ]
        return self._await_approval(decisions, mode, deadline, wait) if approvals else decisions

    def audit(self, decision: Decision) -> AuditChain:
        """Return the audit of one of its decisions: what happened on the way, line by line."""
        package = self._package.content_hash if self._package else None
        return audit_decisions([decision], code_hash(), package)

    def trace(self, decision: Decision, run_id: str | None = None) -> None:
        """Leave a trace of one of its decisions in MLflow, if FINAGENT_TRACING asks for it."""
        if self.settings.tracing:
            from finagent_model.tracking.traces import trace_decision

            trace_decision(
                decision, self.config.prices, self.settings, run_id, self.lineage.model_id
            )

    def _await_approval(
        self, decisions: Sequence[Decision], mode: Mode, deadline: Deadline, wait: bool
    ) -> list[Decision]:
        """Return the decisions once a human has settled those that need it."""

        def pause(seconds: float) -> None:
            deadline.check()
            if self.ending.wait(seconds):
                raise ShutdownError()

        return self.approvals.require_approvals(
            decisions, self.config.approval, self.identity, mode=mode, sleep=pause, wait=wait
        )

    def _with_lineage(self, decision: Decision) -> Decision:
        """Return the decision with its version's lineage and grade of evidence."""
        if self._package is None:
            return decision
        lineage = {
            "run_id": self.lineage.run_id,
            "model_uri": self.lineage.model_uri,
            "model_version": self.lineage.model_version,
            "evidence": self._package.evidence,
        }
        return replace(decision, signal=decision.signal.model_copy(update=lineage))


def parse_questions(frame: pd.DataFrame) -> list[Question]:
    """Return the questions of a table. Raises BadInputError naming the first bad row."""
    if len(frame) == 0:
        raise BadInputError("no rows; send at least one with symbol and as_of")
    return [_parse_row(i, row) for i, row in enumerate(frame.to_dict(orient="records"))]


def _parse_row(index: int, row: Mapping[Hashable, Any]) -> Question:
    try:
        symbol, as_of = parse_symbol(row["symbol"]), parse_as_of(row["as_of"])
    except BadInputError as error:
        raise BadInputError(f"row {index}: {error}") from None
    return Question(symbol, as_of, _records(row.get("bars")), _records(row.get("news")))


def _records(cell: Any) -> list[dict[str, Any]] | None:
    """Return a nested column's cell: None, or its objects without the keys that are missing."""
    # pandas writes an absent cell as nan.
    if cell is None or isinstance(cell, float):
        return None
    return [{k: v for k, v in dict(item).items() if not _is_missing(v)} for item in cell]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def open_cassette(settings: Settings, package: Package | None = None) -> Cassette:
    """Return the package's replies over those recorded on this machine.

    A home that can't be written is worth a warning, not a failure: replies are kept in memory then.
    """
    packaged, redact = package.replies if package else None, make_redactor(settings.secrets)
    try:
        return Cassette(packaged, settings.home / REPLIES, redact)
    except BadInputError as error:
        log.warning("%s; replies are kept in memory only", error)
        return Cassette(packaged, redact=redact)


def read_lineage(model: Path) -> ModelLineage:
    """Return what MLflow wrote into a model's folder about its run and its version."""
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


def _code_differences(package: Package) -> tuple[str, ...]:
    """Return a note for every signal if other code answers than was trained, and warn once."""
    installed = code_hash()
    if installed == package.code_hash:
        return ()
    note = (
        f"trained with code {package.code_hash[:12]}, answered by {installed[:12]}; "
        "load it in its own environment (--env-manager uv) for the same decisions"
    )
    warnings.warn(note, stacklevel=2)
    return (note,)
