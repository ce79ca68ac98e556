"""Hide from the agents which symbol they are asked about, and how high its prices are.

This is the one place where a mask is applied. It changes the market view and the lessons before the
question is built, so that question, tools and chart are all made from what is shown, and it brings
prices and names of the answer back. `docs/memory.md` says what a mask can and can't hide.

Alias and scale are drawn by a hash of the symbol and of the last bar's day, and of nothing else: a
backtest, a replay and a server ask the same question, and so does a desk whose other prompts were
changed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from finagent_model.config.desk_config import DeskConfig
from finagent_model.config.rules import MaskKind
from finagent_model.market.bars import PRICES, BarSeries
from finagent_model.market.news import (
    BODY_LIMIT,
    HEADLINE_LIMIT,
    SOURCE_LIMIT,
    Fact,
    NewsItem,
    sanitize_text,
)
from finagent_model.market.view import MarketView
from finagent_model.policy.context import round_significant
from finagent_model.policy.trained_state import TradeOutcome

ALIAS = "ASSET_"
LOWEST_CLOSE, HIGHEST_CLOSE = 20.0, 200.0
"""Bounds of the last close that a mask of levels shows, drawn evenly by logarithm."""
RATIO_UNITS = frozenset({"%", "percent", "fraction", "ratio"})
"""Units of fundamentals that tell neither a company's size nor its price."""
RATIO_SUFFIX = "_growth"
_ALIAS_OR_NUMBER = re.compile(rf"{ALIAS}\d+|\d[\d.,]*")
Lessons = tuple[TradeOutcome, ...]


@dataclass(frozen=True, eq=False)
class ShownView:
    """A view and lessons as the agents see them, and the way back."""

    view: MarketView
    lessons: Lessons
    original: MarketView
    scale: float = 1.0
    """Shown price over traded price."""
    warnings: tuple[str, ...] = ()
    """What the mask left out or changed, for the signal."""

    def price(self, shown: float) -> float:
        """Return the traded price that a shown price stands for, to six digits."""
        if self.scale == 1.0:
            return shown
        # What was rounded twice could differ from the close in its last digit.
        if shown == round_significant(self.view.last_close):
            return round_significant(self.original.last_close)
        return round_significant(shown / self.scale)

    def text(self, shown: str) -> str:
        """Return a text of the agents with the real symbol in place of the alias."""
        alias = self.view.symbol
        return shown.replace(alias, self.original.symbol) if alias.startswith(ALIAS) else shown


Presenter = Callable[[MarketView, Lessons], ShownView]
"""Makes what the agents are shown of a view and of the lessons."""


def show_everything(view: MarketView, lessons: Lessons) -> ShownView:
    """Return the view as it is."""
    return ShownView(view, lessons, view)


@dataclass(frozen=True)
class Mask:
    """A desk's mask: a presenter that hides names, and with `levels` prices and volumes as well."""

    kind: MaskKind
    words: Mapping[str, tuple[str, ...]]
    """By symbol, words beside it that name the company."""
    salt: str = ""
    """Another salt draws another alias and scale; a desk's own mask has none."""

    def __call__(self, view: MarketView, lessons: Lessons) -> ShownView:
        hides_levels = self.kind == "levels"
        alias = f"{ALIAS}{100 + int(900 * self._draw(view, 'alias'))}"
        scale = volume_scale = 1.0
        if hides_levels:
            span = HIGHEST_CLOSE / LOWEST_CLOSE
            scale = LOWEST_CLOSE * span ** self._draw(view, "level") / view.last_close
            volume_scale = 10 ** (2 * self._draw(view, "volume") - 1)
        warnings = []
        if hides_levels:
            warnings.append(
                f"mask levels: the agents saw prices times {scale:.6g}; prices within their texts "
                "are in that unit"
            )
        words = (view.symbol, *self.words.get(view.symbol, ()))
        news: tuple[NewsItem, ...] = ()
        if view.symbol in self.words:
            news = tuple(
                _strike_news(item, words, alias, numbers=hides_levels) for item in view.news
            )
        elif view.news:
            warnings.append(
                f"mask {self.kind}: news left out; mask_words names no words for {view.symbol}"
            )
        facts = tuple(fact for fact in view.fundamentals if _is_anonymous(fact, words))
        if len(facts) < len(view.fundamentals):
            warnings.append(
                f"mask {self.kind}: {len(view.fundamentals) - len(facts)} fundamentals left out; "
                "only ratios are shown"
            )
        shown = replace(
            rename_and_scale(view, alias, scale, volume_scale), news=news, fundamentals=facts
        )
        struck = tuple(
            lesson.model_copy(
                update={
                    "key_factors": tuple(strike(text, words, alias) for text in lesson.key_factors)
                }
            )
            for lesson in lessons
        )
        return ShownView(shown, struck, view, scale, tuple(warnings))

    def _draw(self, view: MarketView, purpose: str) -> float:
        """Return a number in [0, 1) that symbol, last session and purpose determine."""
        # The session, not the moment: asked on a Sunday, it is still Friday's question.
        session = view.bars.close_time(-1).date().isoformat()
        text = "\n".join((self.salt, purpose, view.symbol, session))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def make_presenter(config: DeskConfig) -> Presenter:
    """Return what a desk's configuration says is shown to its agents."""
    return show_everything if config.mask == "none" else Mask(config.mask, config.mask_words)


def rename_and_scale(
    view: MarketView, symbol: str, scale: float, volume_scale: float = 1.0
) -> MarketView:
    """Return the view under another symbol, all prices times `scale`; news and facts stay."""
    bars = view.bars
    prices = {name: getattr(bars, name) * scale for name in (*PRICES, "dividend")}
    shown = replace(bars, symbol=symbol, volume=bars.volume * volume_scale, **prices)
    return replace(view, symbol=symbol, bars=shown)


def mirror_bars(bars: BarSeries) -> BarSeries:
    """Return the series whose every log return is turned round; the last close stays.

    Prices are total-return prices in units of the last bar, so corporate actions are neutral.
    """
    prices = bars.adjust_to_last_bar()
    square = float(bars.close[-1]) ** 2
    return replace(
        prices,
        open=square / prices.open,
        # What was the lowest price is now the highest.
        high=square / prices.low,
        low=square / prices.high,
        close=square / prices.close,
    )


def strike(text: str, words: Sequence[str], alias: str) -> str:
    """Return the text with `alias` in place of the symbol, `words[0]`, and of the other words.

    Words count as whole words only, the symbol in its own letters: `IT` is not `it`.
    """
    symbol, *others = (re.escape(word) for word in words)
    text = re.sub(rf"(?<!\w){symbol}(?!\w)", alias, text)
    if others:
        # The longest first: of "Alphabet Inc" nothing may be left over.
        pattern = "|".join(sorted(others, key=len, reverse=True))
        text = re.sub(rf"(?<!\w)(?:{pattern})(?!\w)", alias, text, flags=re.IGNORECASE)
    return text


def _strike_news(item: NewsItem, words: Sequence[str], alias: str, *, numbers: bool) -> NewsItem:
    def plain(text: str, limit: int) -> str:
        # In its sanitized form: a hidden character would keep a name from being found.
        text = strike(sanitize_text(text, limit), words, alias)
        return _ALIAS_OR_NUMBER.sub(_hide_number, text) if numbers else text

    changes = {
        "headline": plain(item.headline, HEADLINE_LIMIT),
        "body": plain(item.body, BODY_LIMIT),
        "source": plain(item.source, SOURCE_LIMIT),
        "url": "",
    }
    return item.model_copy(update=changes)


def _hide_number(match: re.Match[str]) -> str:
    return match[0] if match[0].startswith(ALIAS) else "#"


def _is_anonymous(fact: Fact, words: Sequence[str]) -> bool:
    """Whether a fact tells neither a company's name nor its size."""
    is_ratio = fact.unit.casefold() in RATIO_UNITS or fact.name.endswith(RATIO_SUFFIX)
    text = f"{fact.name} {fact.unit} {fact.period}".replace("_", " ")
    return is_ratio and strike(text, words, "") == text
