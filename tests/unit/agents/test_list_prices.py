"""List prices of the table `genai-prices`: when they are used, and which of several."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import genai_prices
import pytest
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from finagent_model.agents.list_prices import find_list_price, settle_models
from finagent_model.config.desk_config import DeskConfig, build_desk_config, load_preset
from finagent_model.config.roster import ModelConfig, Price
from finagent_model.errors import ConfigError
from finagent_model.model.predictor import Predictor
from finagent_model.pipeline.run_metadata import describe_prices
from finagent_model.settings import Settings
from support.packages import write

OPENAI = "https://api.openai.com/v1"
HOURS = [TimeOfDateConstraint(start_time=time(hour), end_time=time(hour + 3)) for hour in (1, 6)]


def settled(environment: dict[str, str] | None = None, **keys: Any) -> DeskConfig:
    config = build_desk_config(keys, load_preset().model_dump(), "test")
    return settle_models(config, Settings.load(environment or {}))


def price(prompt: float, completion: float, **more: Any) -> ModelPrice:
    values = {"input_mtok": prompt, "output_mtok": completion, **more}
    return ModelPrice(
        **{
            key: value if isinstance(value, TieredPrices) else Decimal(str(value))
            for key, value in values.items()
        }
    )


def tiered(base: float, *tiers: tuple[int, float]) -> TieredPrices:
    rows = [Tier(start=start, price=Decimal(str(cost))) for start, cost in tiers]
    return TieredPrices(base=Decimal(str(base)), tiers=rows)


def since(first: str) -> StartDateConstraint:
    return StartDateConstraint(start_date=date.fromisoformat(first))


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a table with one model, `m`, of a provider at OpenAI's address."""

    def fill(prices: ModelPrice | list[ConditionalPrice]) -> None:
        model = ModelInfo(id="m", match=ClauseEquals("m"), prices=prices)
        provider = Provider(
            id="p", name="P", api_pattern=r"https://api\.openai\.com", models=[model]
        )
        monkeypatch.setattr("genai_prices.data.providers", [provider])

    return fill


def found(max_tokens: int = 40_000, **keys: Any) -> tuple[float, float] | None:
    model = ModelConfig.model_validate({"client": "openai", "model": "m", **keys})
    listed = find_list_price(model, max_tokens)
    return None if listed is None else (listed.prompt, listed.completion)


def test_settle_models_prices_a_model_by_the_bundled_table() -> None:
    [(name, listed)] = settled(client="openai", model="gpt-4o-mini").prices.items()
    assert name == "gpt-4o-mini"
    assert (listed.prompt, listed.completion, listed.as_of) == (0.15, 0.6, None)
    assert listed.source == f"genai-prices {genai_prices.__version__}: openai/gpt-4o-mini"
    assert describe_prices({name: listed}) == f"gpt-4o-mini 0.15/0.6 ({listed.source})"


def test_settle_models_keeps_own_price() -> None:
    own = {"gpt-4o-mini": {"prompt": 9, "completion": 9, "as_of": "2026-01-01"}}
    config = settled(client="openai", model="gpt-4o-mini", prices=own)
    assert config.prices == {"gpt-4o-mini": Price(prompt=9, completion=9, as_of=date(2026, 1, 1))}


@pytest.mark.parametrize(
    "keys",
    [
        {"client": "rules"},
        {"client": "openai", "model": "stub-1"},
        # The same name elsewhere is another's model, at another price.
        {"client": "openai", "model": "gpt-4o", "base_url": "http://127.0.0.1:8000/v1"},
        {"client": "azure", "model": "gpt-4o", "base_url": "https://x.openai.azure.com"},
        {"client": "ollama", "model": "gpt-4o"},
    ],
    ids=["rules", "unknown", "own server", "azure", "ollama"],
)
def test_settle_models_invents_no_price(keys: dict[str, Any]) -> None:
    assert settled(**keys).prices == {}


def test_settle_models_prices_by_the_address_of_the_environment() -> None:
    assert (
        settled({"OPENAI_BASE_URL": "http://gateway/v1"}, client="openai", model="gpt-4o").prices
        == {}
    )
    mistral = settled(
        {"OPENAI_BASE_URL": "https://api.mistral.ai/v1"},
        client="openai",
        model="mistral-small-latest",
    )
    assert "mistral/" in (mistral.prices["mistral-small-latest"].source or "")


def test_settle_models_prices_no_name_that_two_addresses_share() -> None:
    other = {"client": "openai", "model": "gpt-4o", "base_url": "http://127.0.0.1:8000/v1"}
    agents = load_preset().model_dump()["agents"]
    agents[0]["model"] = "local"
    config = settled(client="openai", model="gpt-4o", models={"local": other}, agents=agents)
    assert config.prices == {}


def test_settle_models_takes_the_dearest_price_of_each_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = {"https://a.example": price(9, 10), "https://b.example": price(1, 20)}
    providers = [
        Provider(
            id=address[8],
            name="P",
            api_pattern=re.escape(address),
            models=[ModelInfo(id="m", match=ClauseEquals("m"), prices=prices)],
        )
        for address, prices in rows.items()
    ]
    monkeypatch.setattr("genai_prices.data.providers", providers)
    first, second = ({"client": "openai", "model": "m", "base_url": each} for each in rows)
    agents = load_preset().model_dump()["agents"]
    agents[0]["model"] = "other"
    [listed] = settled(**first, models={"other": second}, agents=agents).prices.values()
    assert (listed.prompt, listed.completion) == (9.0, 20.0)
    version = genai_prices.__version__
    assert set((listed.source or "").split("; ")) == {
        f"genai-prices {version}: a/m",
        f"genai-prices {version}: b/m",
    }


@pytest.mark.parametrize(
    ("address", "model"),
    [
        ("https://api.openai.com.evil.com/v1", "gpt-4o"),
        ("https://api.openai.community/v1", "gpt-4o"),
        ("https://evil.example/x.googleapis.com/", "gemini-2.5-flash"),
        ("https://evil/x.openai.azure.com/", "gpt-4o"),
        ("https://api.moonshot.cn.evil.com/v1", "kimi-k2-0905-preview"),
    ],
)
def test_list_price_is_unknown_at_an_address_that_looks_alike(address: str, model: str) -> None:
    row = ModelConfig(client="openai", model=model, base_url=address)
    assert find_list_price(row, 40_000) is None


@pytest.mark.parametrize(
    ("address", "model"),
    [
        ("https://API.openai.com:443/v1", "gpt-4o"),
        ("https://generativelanguage.googleapis.com/v1beta/openai/", "gemini-2.5-flash"),
        ("https://api.moonshot.cn/v1", "kimi-k2-0905-preview"),
        ("https://openrouter.ai/api/v1", "openai/gpt-4o"),
        ("https://api.x.ai/v1", "grok-4"),
    ],
)
def test_list_price_is_known_at_the_providers_address(address: str, model: str) -> None:
    row = ModelConfig(client="openai", model=model, base_url=address)
    assert find_list_price(row, 40_000) is not None


def test_list_price_of_a_model_that_searches_by_itself_is_unknown() -> None:
    row = {"client": "openai", "base_url": "https://api.perplexity.ai"}
    for name in ("sonar-deep-research", "sonar"):
        assert find_list_price(ModelConfig.model_validate({**row, "model": name}), 0) is None


@pytest.mark.parametrize(
    "extra", ["output_citation_mtok", "web_searches_kcount", "audio_hours", "output_image_mtok"]
)
def test_list_price_beside_a_price_that_is_not_counted_is_unknown(table: Any, extra: str) -> None:
    table(price(1, 2, **{extra: 0.5}))
    assert found() is None


def test_list_price_ignores_what_a_desk_never_asks_for(table: Any) -> None:
    table(price(1, 2, input_audio_mtok=50, output_audio_mtok=90, input_image_mtok=7))
    assert found() == (1.0, 2.0)


def test_list_price_counts_cache_writes_where_they_come_unasked(table: Any) -> None:
    table(price(4, 15, cache_write_mtok=5, cache_read_mtok=0.4))
    assert found() == (5.0, 15.0)


def test_list_price_of_anthropic_has_no_cache_writes() -> None:
    row = ModelConfig(client="anthropic", model="claude-sonnet-4-5")
    listed = find_list_price(row, 40_000)
    assert listed is not None and (listed.prompt, listed.completion) == (3.0, 15.0)


def test_list_price_of_tiers_is_the_dearest_within_reach(table: Any) -> None:
    table(price(tiered(1, (30_000, 2), (200_000, 4)), tiered(5, (200_000, 20))))
    assert found(max_tokens=40_000) == (2.0, 5.0)
    assert found(max_tokens=0) == (4.0, 20.0)


def test_list_price_is_that_of_the_dearest_hour(table: Any) -> None:
    table(
        [
            ConditionalPrice(prices=price(1, 2)),
            *(ConditionalPrice(hours, prices=price(3, 2.5)) for hours in HOURS),
        ]
    )
    assert found() == (3.0, 2.5)


def test_list_price_is_the_newest_even_where_it_is_announced(table: Any) -> None:
    table(
        [
            ConditionalPrice(prices=price(10, 40)),
            ConditionalPrice(since("2099-01-01"), prices=price(2, 8)),
            ConditionalPrice(since("2025-06-10"), prices=price(3, 9)),
        ]
    )
    assert found() == (2.0, 8.0)


def test_list_price_counts_cached_tokens_in_full(table: Any) -> None:
    table(price(3, 15, cache_read_mtok=0.3))
    assert found() == (3.0, 15.0)


def test_list_price_of_a_seeing_model_counts_pictures(table: Any) -> None:
    table(price(3, 15, input_image_mtok=8))
    assert (found(), found(vision=True)) == ((3.0, 15.0), (8.0, 15.0))


@pytest.mark.parametrize("prices", [price(0, 0), price(1, 1, requests_kcount=5)])
def test_list_price_is_unknown_where_tokens_do_not_tell_it(table: Any, prices: ModelPrice) -> None:
    table(prices)
    assert found() is None


def test_list_price_is_unknown_without_a_price_of_replies(table: Any) -> None:
    table(ModelPrice(input_mtok=Decimal(1)))
    assert found() is None


@pytest.mark.parametrize(
    "recorded", [{}, {"gpt-4o-mini": Price(prompt=7, completion=8, source="old")}]
)
def test_packaged_desk_has_the_recorded_prices(tmp_path: Path, recorded: dict[str, Price]) -> None:
    chat = {"client": "openai", "model": "gpt-4o-mini", "prices": recorded}
    write(tmp_path / "a" / "b" / "package", config=load_preset().model_copy(update=chat))
    with pytest.warns(UserWarning, match="trained with code"):  # it was written by hand
        predictor = Predictor.open(tmp_path / "a" / "b" / "package", Settings.load({}))
    assert predictor.desk.config.prices == recorded


def test_price_without_day_or_source_is_refused() -> None:
    with pytest.raises(ConfigError, match="as_of, the day on which it was published"):
        settled(client="openai", model="m", prices={"m": {"prompt": 1, "completion": 1}})


def test_settle_models_of_rules_reads_no_table() -> None:
    code = (
        "import sys; from finagent_model.agents.list_prices import settle_models;"
        "from finagent_model.config.desk_config import load_preset;"
        "from finagent_model.settings import Settings;"
        "settle_models(load_preset(), Settings.load({})); print('genai_prices' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
