"""Show one decision by a real language model on this machine: `finagent demo`.

Imports are inside the functions, so that `--help` is quick.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from finagent_model.cli._predict_commands import describe_circumstances, print_signal
from finagent_model.cli.options import EXIT_NOT_OK, Json, echo, print_json

if TYPE_CHECKING:
    from finagent_model.config.roster import ModelConfig

PRESET = "local"
UI_ADDRESS = "http://127.0.0.1:5002"
HONESTY = (
    "135 million parameters cannot trade: this shows the way of a decision, not a good one. "
    "The default desk decides by `rules`; any larger GGUF file or provider takes this model's place"
)


def demo(
    symbol: Annotated[str, typer.Argument(help="Ticker of the bundled data.")] = "GOOG",
    as_of: Annotated[str, typer.Option(help="Last day of data (YYYY-MM-DD).")] = "2012-06-29",
    as_json: Json = False,
) -> None:
    """Decide once by a small language model on this machine, without key or network.

    The decision is stored in an MLflow run, and `finagent ui` shows it.
    """
    from finagent_model.market.bars import parse_as_of, parse_symbol
    from finagent_model.model.predictor import Predictor
    from finagent_model.model.questions import Question
    from finagent_model.settings import Settings

    question = Question(parse_symbol(symbol), parse_as_of(as_of))
    # The embedded data, whatever this machine is set to, and no platform that would get the signal.
    elsewhere = dict.fromkeys(("bars", "news", "fundamentals", "platform_url"))
    settings = Settings.load().model_copy(update=elsewhere)
    predictor = Predictor.from_config(PRESET, settings, "live")
    predictor.view(question)  # fails now, not after the model is loaded
    [model] = predictor.config.distinct_models
    with _progress() as say:
        say(f"loading {model.author}")
        _load(model)
        say("loaded; the agents decide")
        from finagent_model.pipeline.infer import infer

        inferred = infer(predictor, question, PRESET, "live", missing_raises=True)
        signal = inferred.signal
        say(f"decided: {signal.tokens} tokens, status {signal.status}")
    if as_json:
        print_json(signal.model_dump(mode="json"))
    else:
        print_signal(signal, describe_circumstances(predictor, question, inferred.seconds))
    echo(f"{HONESTY}.", err=True)
    echo(
        f"kept in run {inferred.run_id}; `finagent ui` shows it at "
        f"{UI_ADDRESS}/signals/key/{signal.signal_id}",
        err=True,
    )
    if signal.status.is_failure:
        raise typer.Exit(EXIT_NOT_OK)


def _load(model: ModelConfig) -> None:
    """Start the model's server before the first agent needs it. Raises ConfigError."""
    from finagent_model.agents.local_model import find_model_file
    from finagent_model.agents.local_server import find_server
    from finagent_model.errors import ConfigError

    try:
        find_server(find_model_file(model)).ensure_running()
    except (TimeoutError, OSError) as error:
        raise ConfigError(f"{error}; is this machine busy, or short of memory?") from None


@contextmanager
def _progress() -> Iterator[_Progress]:
    """Print on stderr, with the seconds, what is said and what the agents do."""
    from finagent_model.agents import completion

    progress = _Progress()
    log, level = logging.getLogger(completion.__name__), logging.INFO
    before = log.level, log.propagate
    log.addHandler(progress)
    log.setLevel(level)
    log.propagate = False
    try:
        yield progress
    finally:
        log.removeHandler(progress)
        log.level, log.propagate = before


class _Progress(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self._started = time.monotonic()

    def __call__(self, text: str) -> None:
        echo(f"{time.monotonic() - self._started:6.1f} s  {text}", err=True)

    def emit(self, record: logging.LogRecord) -> None:
        self(record.getMessage())
