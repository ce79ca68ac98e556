"""What a model may remember: declared, stated in the table or unknown; who has read furthest."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from finagent_model.agents.providers import identity_of
from finagent_model.config import analyst_registry
from finagent_model.config.desk_config import (
    DeskConfig,
    build_desk_config,
    config_hash,
    load_preset,
)
from finagent_model.config.knowledge import (
    Cutoff,
    Knowledge,
    parse_cutoff,
    read_declared,
    select_latest,
    stated_cutoff,
)
from finagent_model.config.roster import ModelConfig
from finagent_model.errors import ConfigError
from support.toy_analyst import ToyPlugin

EARLY = {"client": "openai", "model": "openai/gpt-4o-mini", "knowledge_cutoff": "2020-01-01"}
"""A model that is said to have read less than its maker states."""


def reader(cutoff: Cutoff, margin_days: int = 90, author: str = "gpt-x") -> Knowledge:
    return Knowledge(author=author, cutoff=cutoff, margin_days=margin_days)


@pytest.mark.parametrize(
    ("model", "cutoff"),
    [
        ("gpt-4o", date(2023, 10, 31)),
        ("openai/gpt-4o-mini-2024-07-18", date(2023, 10, 31)),
        ("GPT-4o", date(2023, 10, 31)),
        # Its maker's page was not read.
        ("claude-sonnet-4-5-20250929", "unknown"),
        ("meta-llama/Llama-3.3-70B-Instruct", date(2023, 12, 31)),
        # It searches the web, it moves, it was tuned by its owner, it is nobody's.
        ("gpt-4o-search-preview", "unknown"),
        ("chatgpt-4o-latest", "unknown"),
        ("ft:gpt-4o-mini:acme::1", "unknown"),
        ("stub", "unknown"),
    ],
)
def test_stated_cutoff_of_model_name(model: str, cutoff: Cutoff) -> None:
    assert stated_cutoff(model) == cutoff


@pytest.mark.parametrize(
    ("row", "cutoff"),
    [
        ({"client": "openai", "model": "gpt-4o"}, date(2023, 10, 31)),
        ({"client": "openai", "model": "stub"}, "unknown"),
        ({"client": "openai", "model": "gpt-4o", "knowledge_cutoff": "unknown"}, "unknown"),
        ({"client": "ollama", "model": "own", "knowledge_cutoff": "2025-03-31"}, date(2025, 3, 31)),
        ({"client": "azure", "model": "gpt-4o"}, "unknown"),
    ],
)
def test_model_knowledge_is_declared_else_stated(row: dict[str, Any], cutoff: Cutoff) -> None:
    knowledge = ModelConfig.model_validate(row).knowledge
    assert knowledge is not None
    assert (knowledge.cutoff, knowledge.margin_days) == (cutoff, 90)


def test_model_knowledge_of_rules_is_nothing() -> None:
    assert ModelConfig().knowledge is None
    assert all(load_preset(name).latest_knowledge is None for name in ("default", "upstream"))


@pytest.mark.parametrize("value", ["March 2025", "2025-13-01", "20250331", 2025, ""])
def test_parse_cutoff_refuses_what_is_no_day(value: object) -> None:
    with pytest.raises(ValueError, match="a day such as 2025-03-31, or unknown"):
        parse_cutoff(value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"knowledge_cutoff": "soon"}, "knowledge_cutoff: must be a day .*given: 'soon'"),
        ({"cutoff_margin_days": -1}, "cutoff_margin_days"),
        ({"client": "rules", "model": "", "knowledge_cutoff": "2025-03-31"}, "has read nothing"),
        ({"knowledge_cutoff_reason": "so"}, "without a knowledge_cutoff explains nothing"),
        (
            {"knowledge_cutoff": "2023-10-30"},
            "knowledge_cutoff. 2023-10-30 is earlier than 2023-10-31.*maker of gpt-4o",
        ),
        ({"models": {"deep": EARLY}}, r"models\.deep\.knowledge_cutoff. 2020-01-01 is earlier"),
    ],
)
def test_desk_config_refuses_bad_cutoff(keys: dict[str, Any], message: str) -> None:
    desk = {"client": "openai", "model": "gpt-4o"} | keys
    with pytest.raises(ConfigError, match=message):
        build_desk_config(desk, load_preset().model_dump(), "test")


def test_earlier_cutoff_with_a_reason_is_allowed_and_kept() -> None:
    desk = EARLY | {"knowledge_cutoff_reason": "an older snapshot"}
    config = build_desk_config(desk, load_preset().model_dump(), "test")
    assert config.latest_knowledge is not None
    assert config.latest_knowledge.cutoff == date(2020, 1, 1)
    assert config.latest_knowledge.override == "an older snapshot"


def test_packaged_desk_with_earlier_cutoff_loads() -> None:
    desk = load_preset().model_dump() | EARLY
    assert DeskConfig.model_validate(desk).knowledge_cutoff == date(2020, 1, 1)


@pytest.mark.parametrize("cutoff", ["2023-10-31", "2024-05-01", "unknown"])
def test_reason_of_a_cutoff_that_is_not_earlier_overrides_nothing(cutoff: str) -> None:
    desk = EARLY | {"knowledge_cutoff": cutoff, "knowledge_cutoff_reason": "as stated"}
    config = build_desk_config(desk, load_preset().model_dump(), "test")
    assert config.latest_knowledge is not None
    assert config.latest_knowledge.override is None


def test_azure_deployment_name_states_no_cutoff() -> None:
    desk = EARLY | {"client": "azure", "model": "gpt-4o"}
    assert build_desk_config(desk, load_preset().model_dump(), "test").earlier_cutoff is None


def test_desk_config_without_cutoff_keeps_its_hash() -> None:
    desk = load_preset()
    assert not {"knowledge_cutoff", "cutoff_margin_days"} & desk.model_dump().keys()
    spoken = desk.model_copy(update={"client": "openai", "model": "gpt-4o"})
    declared = spoken.model_copy(update={"knowledge_cutoff": date(2025, 3, 31)})
    assert config_hash(declared) != config_hash(spoken)


def test_declared_cutoff_leaves_recorded_replies_valid() -> None:
    model = ModelConfig(client="openai", model="gpt-4o")
    declared = model.model_copy(update={"knowledge_cutoff": date(2025, 3, 31)})
    assert identity_of(declared) == identity_of(model)


def test_desk_config_of_dump_declares_the_same_cutoff() -> None:
    keys = {"client": "openai", "model": "own", "knowledge_cutoff": date(2025, 3, 31)}
    keys |= {"cutoff_margin_days": 30}
    desk = build_desk_config(keys, load_preset().model_dump(), "test")
    again = type(desk).model_validate(desk.model_dump(mode="json"))
    assert again == desk
    assert again.knowledge == reader(date(2025, 3, 31), 30, "own")


def test_desk_cutoff_is_of_its_own_model_alone() -> None:
    agents = [row.model_dump() for row in load_preset("lean").agents]
    agents[0] |= {"model": "gpt-4o"}
    keys = {"client": "openai", "model": "own", "knowledge_cutoff": "2020-01-01", "agents": agents}
    desk = build_desk_config(keys, load_preset().model_dump(), "test")
    assert desk.latest_knowledge == reader(date(2023, 10, 31), author="gpt-4o")


def test_select_latest_counts_the_margin() -> None:
    early, late = reader(date(2024, 1, 1), 200), reader(date(2024, 3, 1), 0)
    assert select_latest([early, None, late]) == early
    assert select_latest([None]) is None


def test_select_latest_of_unknown_is_unknown() -> None:
    unknown = reader("unknown", author="stub")
    assert select_latest([reader(date(2025, 1, 1)), unknown]) == unknown


def test_first_unread_day_follows_cutoff_and_margin() -> None:
    first = reader(date(2025, 3, 31), 90).first_unread_ordinal
    assert date.fromordinal(first or 0) == date(2025, 6, 30)
    assert reader(date(1970, 1, 1), 1).first_unread_ms == 2 * 86_400_000
    assert reader("unknown").first_unread_ms is None
    assert reader(date.max, 3650).first_unread_ms  # beyond the last date that Python knows


@pytest.mark.parametrize("margin", [-1, 1.5, "90", True])
def test_read_declared_refuses_bad_margin(margin: object) -> None:
    class Bad:
        knowledge_cutoff = "2025-03-31"
        cutoff_margin_days = margin

    with pytest.raises(TypeError, match=r"Bad\.cutoff_margin_days is .*give a number of days"):
        read_declared(Bad(), "bad", None)


class SilentPlugin:
    """A plug-in of somebody who does not say whether a model is behind it."""


def test_external_analyst_counts_among_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = {"toy": ToyPlugin(), "silent": SilentPlugin()}
    monkeypatch.setattr(analyst_registry, "load_plugin", plugins.__getitem__)
    assert analyst_registry.read_analyst_knowledge("toy") is None
    silent = analyst_registry.read_analyst_knowledge("silent")
    assert silent == reader("unknown", author="silent")
    plugins["toy"].knowledge_cutoff = "2025-03-31"  # type: ignore[union-attr, assignment]
    assert analyst_registry.read_analyst_knowledge("toy") == reader(date(2025, 3, 31), author="toy")
