"""List prices of chat models, from the table of `genai-prices`, for those that a desk has none of.

They become part of the desk's configuration when it is made, so that a package, its replay and
`verify` use what was recorded with it, never the table of the day. The table is data of the
installed library; nothing is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from finagent_model.agents._provider_rows import PROVIDERS
from finagent_model.agents.providers import with_addresses
from finagent_model.config.desk_config import DeskConfig
from finagent_model.config.roster import Client, ModelConfig, Price
from finagent_model.settings import Settings

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

PRICED: tuple[Client, ...] = ("openai", "anthropic")
"""Clients whose address tells the provider. An Azure deployment's name says nothing of its model,
and what runs on Ollama or behind a component has no list price that is known here."""
PROMPT_KEYS = ("input_mtok", "cache_read_mtok")
COMPLETION_KEYS = ("output_mtok", "output_reasoning_mtok")
IMAGE_KEYS = ("input_image_mtok", "cache_image_read_mtok")
CACHE_WRITE_KEY = "cache_write_mtok"
"""Some providers write to their cache unasked; Anthropic only where a request says so."""
NEVER_USED = frozenset(
    {
        *("cache_write_1h_mtok", "storage_searches_kcount"),
        *("input_audio_mtok", "cache_audio_read_mtok", "output_audio_mtok", "input_video_mtok"),
    }
)
"""Prices of what a request has to ask for, and a desk's never do: they cost nothing."""
SEARCH_KEY, SEARCH_IS_A_TOOL = "web_searches_kcount", ("openai", "anthropic", "google", "x-ai")
"""Where a search is a tool that a request has to name; others' models search by themselves."""


def settle_models(config: DeskConfig, settings: Settings) -> DeskConfig:
    """Return the desk with each model's address, and a list price where the table has one.

    Call it once, where a desk is made: what it returns is recorded. Raises ConfigError.
    """
    return add_list_prices(with_addresses(config, settings))


def add_list_prices(config: DeskConfig) -> DeskConfig:
    """Return the desk with a list price for each model that has none and that the table knows.

    Addresses have to be resolved before (`with_addresses`): a model's price is its provider's.
    """
    by_name: dict[str, list[ModelConfig]] = {}
    for model in config.distinct_models:
        if model.client != "rules" and model.model not in config.prices:
            by_name.setdefault(model.model, []).append(model)
    found = {}
    for name, models in by_name.items():
        prices = [find_list_price(model, config.limits.max_tokens) for model in models]
        known = [price for price in prices if price is not None]
        # Prices are by name: the same name at another address may cost something else.
        if len(known) == len(prices):
            found[name] = _dearest_of_each(known)
    if not found:
        return config
    return config.model_copy(update={"prices": {**config.prices, **found}})


def find_list_price(model: ModelConfig, max_tokens: int) -> Price | None:
    """Return what the table says a model costs at its address; None where it doesn't know both.

    Of several prices (by the time of day, by the length of the prompt) the dearest counts. A tier
    for prompts longer than the `max_tokens` of a decision is never reached; 0 is no limit.
    """
    if model.client not in PRICED:
        return None
    address = model.base_url or PROVIDERS[model.client].default_address or ""
    # Imported late: the table takes a second, and a desk of rules or of own prices needs none.
    from genai_prices import __version__
    from genai_prices.data import providers

    provider = _find_provider(providers, address)
    info = provider.find_model(model.model) if provider else None
    if provider is None or info is None:
        return None
    current = list(_current_prices(info))
    # A picture's tokens are counted among those of the prompt.
    prompt_keys = (*PROMPT_KEYS, *IMAGE_KEYS) if model.vision else PROMPT_KEYS
    if provider.id != "anthropic":
        prompt_keys = (*prompt_keys, CACHE_WRITE_KEY)
    ignored = {*NEVER_USED, *IMAGE_KEYS, CACHE_WRITE_KEY}
    if provider.id in SEARCH_IS_A_TOOL:
        ignored.add(SEARCH_KEY)
    priced = {key for price in current for key, cost in price.__dict__.items() if cost is not None}
    # By the call, the search, the hour: what a desk's tokens can't tell makes the price unknown.
    if priced - {*prompt_keys, *COMPLETION_KEYS, *ignored}:
        return None
    prompt = _dearest(current, prompt_keys, max_tokens)
    completion = _dearest(current, COMPLETION_KEYS, max_tokens)
    # Both 0 is how the table writes a model that is free for now, or whose price it doesn't have.
    if prompt is None or completion is None or not (prompt or completion):
        return None
    source = f"genai-prices {__version__}: {provider.id}/{info.id}"
    return Price(prompt=prompt, completion=completion, source=source[:200])


def _dearest_of_each(prices: Sequence[Price]) -> Price:
    """Return the highest price of prompts and the highest of replies, from whichever address."""
    sources = dict.fromkeys(price.source for price in prices if price.source)
    return Price(
        prompt=max(price.prompt for price in prices),
        completion=max(price.completion for price in prices),
        source="; ".join(sources)[:200],
    )


def _find_provider(providers: Sequence[Provider], address: str) -> Provider | None:
    """Return the provider at `address`."""
    try:
        url = urlsplit(address)
        host = url.hostname or ""
    except ValueError:
        return None
    # The library's own search would guess it by the model's name.
    return next((p for p in providers if _is_at(p.api_pattern, url.scheme, host, url.path)), None)


def _is_at(pattern: str, scheme: str, host: str, path: str) -> bool:
    """Tell whether a pattern of the table means this host: all of it, and not a word of the path.

    The patterns are of beginnings: by itself OpenAI's matches `https://api.openai.com.evil.com`.
    """
    origin = f"{scheme}://{host}"
    match = re.match(pattern, f"{origin}{path or '/'}")
    if match is None or re.match(pattern, f"{scheme}://invalid{path}"):
        return False
    rest = origin[match.end() :]
    # One pattern ends with the dot before the country.
    return not rest or (match[0].endswith(".") and rest.isalpha())


def _current_prices(info: ModelInfo) -> Iterator[ModelPrice]:
    """Yield the prices that a model has now, at any time of the day.

    The price with the newest first day counts, one that is announced already: which of them holds
    on a day would have to be asked of a clock.
    """
    from genai_prices.types import ModelPrice, StartDateConstraint

    if isinstance(info.prices, ModelPrice):
        yield info.prices
        return
    standing: dict[date, ModelPrice] = {}
    for each in info.prices:
        if each.constraint is None:
            standing[date.min] = each.prices
        elif isinstance(each.constraint, StartDateConstraint):
            standing[each.constraint.start_date] = each.prices
        else:  # hours of the day
            yield each.prices
    if standing:
        yield standing[max(standing)]


def _dearest(prices: Sequence[ModelPrice], keys: Sequence[str], max_tokens: int) -> float | None:
    """Return the highest of the prices under `keys`, a million tokens; None where there is none."""
    from genai_prices.types import TieredPrices

    found = []
    for price in prices:
        values = [price.__dict__[key] for key in keys if price.__dict__.get(key) is not None]
        # The first key is the price itself; the others only make it dearer.
        if price.__dict__.get(keys[0]) is None:
            return None
        for value in values:
            if not isinstance(value, TieredPrices):
                found.append(float(value))
                continue
            tiers = [t.price for t in value.tiers if not max_tokens or t.start < max_tokens]
            found.append(float(max([value.base, *tiers])))
    return max(found, default=None)
