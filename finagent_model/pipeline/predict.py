"""One decision without a record in MLflow: what the shell asks."""

from __future__ import annotations

from pathlib import Path

from finagent_model.desk import Desk, Limits
from finagent_model.domain.clock import parse_as_of
from finagent_model.domain.decision import Decision
from finagent_model.market import Market
from finagent_model.pipeline.requests import read_mode, read_symbol
from finagent_model.presets import load_config, with_address
from finagent_model.serving.answering import Question, open_cassette
from finagent_model.settings import Settings


def predict(
    symbol: str,
    as_of: str,
    *,
    model: str,
    config: Path | None = None,
    mode: str = "cached",
    budget_usd: float | None = None,
    max_rounds: int | None = None,
) -> Decision:
    """By a packaged model, or by the untrained desk of a config file.

    Raises BadInputError, DataError where there is nothing to decide on, and ModelLoadError.
    """
    question = Question(read_symbol(symbol), parse_as_of(as_of))
    how, limits = read_mode(mode), Limits(max_rounds=max_rounds, budget_usd=budget_usd)
    settings = Settings.load()
    if config is None:
        from finagent_model.serving.logged import load_answering

        return load_answering(model).decide(question, how, limits)
    chosen = with_address(load_config(str(config)), settings)
    desk = Desk(chosen, None, settings, open_cassette(settings), mode=how)
    if how != "replay":
        desk.require_key()
    view = Market.of(settings).view(question.symbol, question.as_of)
    return desk.under(limits=limits).decide(view)
