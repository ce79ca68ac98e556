"""Which rules of wording a model gets: of its server, of its family, of its own."""

from __future__ import annotations

from typing import Any

import pytest

from finagent_model.config.desk_config import (
    DeskConfig,
    load_config,
    load_preset,
    read_desk_config,
)
from finagent_model.config.desk_variants import desk_variants
from finagent_model.config.request_rules import RequestRules, family_row, known_rows, server_row
from finagent_model.config.roster import ModelConfig
from finagent_model.errors import ConfigError


def rules(**row: Any) -> RequestRules:
    return ModelConfig.model_validate({"client": "openai", "model": "m", **row}).request_rules


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("gpt-5", "gpt-5"),
        ("gpt-5-mini-2025-08-07", "gpt-5"),
        ("gpt-5.2", "gpt-5"),
        ("openai/gpt-5", "gpt-5"),
        ("gpt-5-chat-latest", "gpt-5-chat"),
        ("o1", "o-series"),
        ("o3-mini", "o-series"),
        ("o4-mini", "o-series"),
        ("o1-mini", "o1-mini"),
        ("ft:gpt-4o-mini:mine::1", "fine-tuned"),
        ("google/gemma-2-9b-it", "gemma-2"),
        ("gpt-4o-mini", None),
        ("ollama1", None),
        ("olmo-2", None),
    ],
)
def test_family_row_is_found_by_name(model: str, family: str | None) -> None:
    assert family_row(None, model) == (family_row(family, "") if family else {})


def test_request_rules_of_an_unknown_model_change_nothing() -> None:
    assert rules(base_url="http://127.0.0.1:1/v1") == RequestRules()


def test_request_rules_own_keys_override_the_table() -> None:
    assert not rules(model="gpt-5").temperature
    assert rules(model="gpt-5", request={"temperature": True}).temperature
    assert not rules(request={"seed": None}).seed


def test_request_rules_of_server_and_family_add_up() -> None:
    both = rules(model="gemma-2-9b", base_url="https://api.groq.com/openai/v1")
    assert (both.name, both.system) == (False, False)


def test_request_rules_family_can_be_named_for_a_deployment() -> None:
    azure = rules(client="azure", model="my-deployment", family="o-series")
    assert (azure.max_tokens, azure.schema_bounds) == ("max_completion_tokens", False)


@pytest.mark.parametrize("kind", ["servers", "families"])
def test_known_rows_are_valid(kind: Any) -> None:
    for name in known_rows(kind):
        row = server_row(name, None) if kind == "servers" else family_row(name, "")
        RequestRules.model_validate(row.get("request", {}))
        assert row["source"].startswith("https://")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("request: {nme: false}", "unknown key 'nme'; did you mean 'name'?"),
        ("request: {max_tokens: limit}", "max_tokens"),
        ("server: grok", "unknown server 'grok'; there is: azure, groq"),
        ("family: gpt-6", "unknown family 'gpt-6'; there is: gpt-5-chat"),
        ("base_url: localhost:8000/v1", "'localhost:8000/v1' must begin with http://"),
        ("base_url: http://", "must begin with http://"),
        ("base_url: ftp://host/v1", "such as http://localhost:8000/v1"),
        ("base_url: http://höst/v1", "and a host in ASCII"),
        (f"base_url: http://{'a' * 300}.com/v1", "'... must begin with http://"),
        ('base_url: "http://host\\a/v1"', "must begin with http://"),
        ('base_url: "http://host/v1\\nX: y"', r"'http://host/v1\nX: y' must begin with"),
        ("api_version: ''", "api_version: must have 1 or more characters, not ''"),
        ("api_version: 2024-10-21", "must be text, not 2024-10-21; put it in quotes"),
        ("headers: {a: b}", "unknown key 'headers'; there is: client, model"),
        ("temprature: 0", "unknown key 'temprature'; there is: client"),
        ("temperature: 0", "did you mean 'sampling' with 'temperature' in it?"),
        ("transprot: http", "unknown key 'transprot'; did you mean 'transport'?"),
        ("models: {a: {clientt: azure}}", "'models.a.clientt'; did you mean 'client'?"),
        ("limits: {budget_usd: yes}", "limits.budget_usd: must be a number, not true"),
        ("limits: {max_rounds: on}", "limits.max_rounds: must be a whole number, not true"),
        ("policy: {x: 1}", "unknown key 'policy.x'"),
        ("limits: {budget: 1}", "unknown key 'limits.budget'; did you mean 'budget_usd'?"),
        ("preset: lean", "key 'preset' stands twice; keep one of them at line 4, column 1"),
        ("seed: 2012-13-45", "'2012-13-45' can't be read as a date at line 4, column 7"),
        (f"seed: {'9' * 5000}", "'... can't be read as a number at line 4, column 7"),
        ('family: "\\ud800"', r"'\ud800' is not text in UTF-8 at line 4"),
        ("family: [a, b", "expected ',' or ']', but got"),
        ("base_url: http://host:port/v1", "must begin with http://"),
        ("base_url: http://ho st/v1", "must begin with http://"),
    ],
)
def test_desk_with_wrong_wording_is_refused_at_load(tmp_path: Any, changes: str, said: str) -> None:
    path = tmp_path / "desk.yaml"
    path.write_text(f"preset: lean\nclient: openai\nmodel: m\n{changes}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(str(path))
    assert said in str(caught.value)


def test_request_is_refused_where_no_client_words_it() -> None:
    with pytest.raises(ConfigError, match="client 'ollama' takes no 'request'"):
        read_desk_config(
            "client: ollama\nmodel: m\nrequest: {seed: false}",
            load_preset("lean").model_dump(),
            "desk",
        )


def test_desk_without_wording_dumps_no_key_of_it() -> None:
    dump = ModelConfig(client="openai", model="m").model_dump()
    assert not {"server", "family", "request", "reasoning_effort"} & {*dump, *dump["sampling"]}


def test_desk_wording_survives_a_package() -> None:
    given = {"client": "openai", "model": "m", "request": {"seed": None}, "family": "gpt-5"}
    desk = ModelConfig.model_validate(given)
    assert ModelConfig.model_validate(desk.model_dump(mode="json")) == desk


def test_desk_variant_of_rules_has_no_wording() -> None:
    text = "client: openai\nmodel: m\nrequest: {seed: false}\nserver: groq"
    desk = read_desk_config(text, load_preset("lean").model_dump(), "desk")
    rules_only = desk_variants(desk, ()).desks["rules only"]
    assert DeskConfig.model_validate(rules_only.model_dump()).uses_only_rules


def test_family_of_a_desk_is_not_its_agents_other_model() -> None:
    desk = load_preset("lean").model_dump() | {"client": "azure", "model": "d", "family": "gpt-5"}
    desk["agents"] = [{**row, "model": "other"} for row in desk["agents"]]
    model = DeskConfig.model_validate(desk).distinct_models[0]
    assert (model.model, model.family) == ("other", None)
