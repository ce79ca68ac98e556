"""Define the functions that `import finagent_model` offers.

Each parses loose values once and calls the one function that the shell, REST and the DAG call too.
They read the environment (`Settings.load`) when they are called, never when they are imported.
Imports are inside the functions, so that `import finagent_model` costs milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from finagent_model._lazy import without_garbage_collection
from finagent_model._progress import Progress, no_progress

if TYPE_CHECKING:
    from finagent_model._base import Mode
    from finagent_model.decision.decision import Decider, TrainableDecider
    from finagent_model.market.view import MarketView
    from finagent_model.model.predictor import Predictor
    from finagent_model.pipeline.backtest import BacktestRerun
    from finagent_model.pipeline.estimate import Estimate
    from finagent_model.pipeline.evaluate import Evaluation
    from finagent_model.pipeline.finalize import TrainingResult
    from finagent_model.pipeline.infer import InferenceResult
    from finagent_model.pipeline.verify import VerifyReport

CHAMPION = "models:/finagent@champion"
MAX_CONFIGURATIONS = 1_000_000


def load(model: str = CHAMPION) -> Predictor:
    """Return the predictor of a registered version, a logged model or an alias.

    `model` is an MLflow URI. Raises ModelLoadError with the way out.

        >>> import finagent_model
        >>> model = finagent_model.load("models:/finagent@champion")
        >>> model.decide("GOOG", as_of="2012-06-29").signal.status.value
        'ok'
    """
    # Imported here, as everywhere in this file: MLflow takes seconds.
    with without_garbage_collection():
        from finagent_model.model.loading import load_predictor

        return load_predictor(model)


def market_view(symbol: str, as_of: str | date | datetime) -> MarketView:
    """Return all that is knowable about `symbol` at `as_of`, from the configured sources.

    A date means the end of that day, UTC. Raises BadInputError for a malformed symbol or date and
    DataError where there is no bar by then.

        >>> import finagent_model
        >>> finagent_model.market_view("GOOG", "2012-06-29").bars.close_time(-1).date().isoformat()
        '2012-06-29'
    """
    from finagent_model.data.market import Market
    from finagent_model.market.bars import parse_as_of, parse_symbol
    from finagent_model.settings import Settings

    return Market.from_settings(Settings.load()).view(parse_symbol(symbol), parse_as_of(as_of))


def train(
    symbols: str | Sequence[str] = "GOOG",
    config: str = "default",
    register_as: str = "finagent",
    *,
    jobs: int = 1,
    progress: Progress = no_progress,
    **options: Any,
) -> TrainingResult:
    """Fit a desk walk-forward, backtest, package and register it; the gate may make it champion.

    `config` is a preset's name or a YAML file; `options` are the further fields of `TrainRequest`,
    such as `train_bars` or `commission`. `jobs` counts fits and symbols at a time. Raises
    BadInputError and DataError before anything is written, EarlyCheckError where the first
    decisions can't be proven, and GateRefusedError once a refused version is registered as
    candidate.

        >>> import finagent_model
        >>> version = finagent_model.train(
        ...     symbols=["FB"], register_as="demo", train_bars=120, test_bars=30, candidates=24
        ... )
        >>> version.name, version.version, version.verdict
        ('demo', '1', 'passed')
    """
    from finagent_model.pipeline.train import train as run
    from finagent_model.settings import Settings
    from finagent_model.training.request import TrainRequest

    request = TrainRequest.parse(
        symbols=_symbols_argument(symbols), config=config, register_as=register_as, **options
    )
    return run(request, Settings.load(), progress, jobs)


def estimate(
    symbols: str | Sequence[str] = "GOOG", config: str = "default", **options: Any
) -> Estimate:
    """Return what `train` with the same arguments would take: decisions, calls, tokens and money.

    No model is called. Raises BadInputError and DataError as the training would.

        >>> import finagent_model
        >>> finagent_model.estimate(symbols=["GOOG"], config="lean").calls
        0
    """
    from finagent_model.pipeline.estimate import estimate as run
    from finagent_model.settings import Settings
    from finagent_model.training.request import TrainRequest

    request = TrainRequest.parse(symbols=_symbols_argument(symbols), config=config, **options)
    return run(request, Settings.load())


def backtest(
    model: str | Predictor = CHAMPION,
    symbols: str | Sequence[str] = (),
    *,
    mode: Mode = "replay",
    progress: Progress = no_progress,
) -> list[BacktestRerun]:
    """Run a version's backtest again and compare it with the registered one; one result a symbol.

    No symbols means those that it was trained on. Mode `replay` asks no model and costs nothing.
    Raises ModelLoadError and DataError.

        >>> import finagent_model
        >>> [run] = finagent_model.backtest("models:/finagent@champion")
        >>> run.same_as_registered
        True
    """
    from finagent_model.config.parsing import parse_mode
    from finagent_model.market.bars import parse_symbols
    from finagent_model.pipeline.backtest import backtest as run
    from finagent_model.settings import Settings

    return run(
        model,
        parse_symbols(_symbols_argument(symbols)),
        Settings.load(),
        parse_mode(mode),
        progress,
    )


def verify(
    model: str = CHAMPION, *, deep: bool = False, progress: Progress = no_progress
) -> VerifyReport:
    """Prove by experiment that a version is as registered, repeats itself and can't see the future.

    `deep` also proves its training: it is repeated, and its accounts are kept again, which takes
    minutes. Raises ModelLoadError and DataError where there is nothing to check; a changed file is
    a failed check.

        >>> import finagent_model
        >>> finagent_model.verify("models:/finagent@champion").passed
        True
    """
    from finagent_model.pipeline.verify import verify as run

    return run(model, progress, deep=deep)


def infer(
    symbol: str,
    as_of: str | date | datetime,
    model: str = CHAMPION,
    *,
    mode: Mode = "cached",
    max_rounds: int | None = None,
    budget_usd: float | None = None,
) -> InferenceResult:
    """Decide with a registered version and record signal, conversation, audit and chart in a run.

    A question that the same version has decided before returns the recorded decision. Where there
    is nothing to decide on, the record is a signal of status `data_missing`. Raises BadInputError
    for a malformed question and ModelLoadError.

        >>> import finagent_model
        >>> inferred = finagent_model.infer("GOOG", as_of="2012-06-29")
        >>> inferred.signal.symbol
        'GOOG'
    """
    from finagent_model.config.parsing import parse_limits, parse_mode
    from finagent_model.market.bars import parse_as_of, parse_symbol
    from finagent_model.model.loading import load_predictor
    from finagent_model.model.questions import Question
    from finagent_model.pipeline.infer import infer as run

    # Parsed before the model is loaded, so that a typo fails at once.
    question = Question(parse_symbol(symbol), parse_as_of(as_of))
    limits = parse_limits(max_rounds, budget_usd)
    return run(load_predictor(model), question, model, parse_mode(mode), limits)


def evaluate(
    decider: Decider | TrainableDecider,
    symbols: str | Sequence[str] = "GOOG",
    *,
    gate: Mapping[str, Any] | None = None,
    configurations: int = 1,
    progress: Progress = no_progress,
    **options: Any,
) -> Evaluation:
    """Judge a decider of your own as a desk is judged: walk-forward, costs, statistics and gate.

    `options` are the fields of `EvaluationRequest`, such as `train_bars`, `commission` or
    `allow_short`; `gate` replaces rules of the default desk's gate. `configurations` counts the
    variants that you tried before this one. Raises BadInputError, DataError and ShortHistoryError.

        >>> import finagent_model
        >>> evaluation = finagent_model.evaluate(finagent_model.Crossover(10, 30), ["GOOG"])
        >>> evaluation.author, evaluation.gate.verdict
        ('sma:10,30', 'passed')
    """
    from pydantic import ValidationError

    from finagent_model._base import first_error_message
    from finagent_model.config.desk_config import load_preset
    from finagent_model.config.rules import GateRules
    from finagent_model.data.market import Market
    from finagent_model.errors import BadInputError
    from finagent_model.pipeline.evaluate import evaluate_decider
    from finagent_model.settings import Settings
    from finagent_model.training.request import EvaluationRequest

    request = EvaluationRequest.parse(symbols=_symbols_argument(symbols), **options)
    # The default desk's gate, with the caller's rules over it, validated as one.
    try:
        rules = GateRules.model_validate({**load_preset().gate.model_dump(), **(gate or {})})
    except ValidationError as error:
        raise BadInputError(f"gate {first_error_message(error)}") from None
    if not isinstance(configurations, int) or not 1 <= configurations <= MAX_CONFIGURATIONS:
        raise BadInputError(
            f"configurations {configurations!r} must be a whole number from 1 to "
            f"{MAX_CONFIGURATIONS}"
        )
    return evaluate_decider(
        decider,
        Market.from_settings(Settings.load()),
        request,
        rules,
        configurations=configurations,
        progress=progress,
    )


def _symbols_argument(symbols: str | Sequence[str]) -> str | list[str]:
    # A text such as "GOOG,IBM" is split later, where all doors parse it.
    return symbols if isinstance(symbols, str) else list(symbols)
