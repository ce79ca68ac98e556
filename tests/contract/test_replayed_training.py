"""A training recorded against a model server and replayed with the server down: the same bytes."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from support.fake_llm import FakeProvider, Fault, Protocol, ProviderRequest
from support.places import AS_OF, Place, small_options

pytestmark = pytest.mark.slow

KEY = "sk-test-0123456789-very-secret"


def decision(asked: ProviderRequest) -> dict[str, Any]:
    """Another one each day, by what was asked alone."""
    number = int(sha256(json.dumps(asked.body).encode()).hexdigest(), 16)
    unknown = ("support_level", "resistance_level", "suggested_entry_price")
    return dict.fromkeys((*unknown, "suggested_stop_loss", "suggested_take_profit")) | {
        "action": ("BUY", "HOLD", "SELL")[number % 3],
        "confidence_score": number % 101,
        "reasoning": "The reports point this way today.",
        "key_factors": [],
        "trend": "neutral",
        "position_size_percent": 50.0,
    }


def packages(place: Place) -> list[dict[str, bytes]]:
    """Every file of every package that was logged there."""
    manifests = sorted((place.folder / "mlruns").rglob("manifest.json"))
    return [{p.name: p.read_bytes() for p in found.parent.iterdir()} for found in manifests]


def test_a_recorded_training_with_failures_is_replayed_to_the_byte(tmp_path: Path) -> None:
    place, config = Place(tmp_path), tmp_path / "desk.yaml"
    train = ["train", *small_options(), "--config", str(config), "--json"]
    with FakeProvider() as llm:
        llm.replies["Executor"] = decision
        llm.fail(Fault.BAD_KEY, agent="RiskManager", first=9)
        address = llm.address(Protocol.OPENAI)
        desk = f"client: openai\nmodel: stub\nbase_url: {address}\n"
        # How many calls an open circuit breaker refuses depends on the machine's speed.
        config.write_text(f"{desk}traffic:\n  break_after: 0\n")
        recorded = place.finagent(*train, OPENAI_API_KEY=KEY)
    assert recorded.returncode == 0, recorded.stderr
    found = json.loads(place.finagent("cassette", "stats", "--json").stdout)
    assert (found["errors"], [group["model"] for group in found["models"]]) == (9, ["stub"])
    assert place.finagent("cassette", "verify", OPENAI_API_KEY=KEY).returncode == 0

    replayed = place.finagent(*train, "--mode", "replay")
    assert replayed.returncode == 0, replayed.stderr
    report = json.loads(replayed.stdout)["report"].splitlines()
    assert report[0].startswith("NO evidence of an edge after costs: what stub has read is unknown")
    first, second = packages(place)
    assert first == second
    assert first["cassette.jsonl"].count(b"model_error") == 9
    assert KEY.encode() not in b"".join(first.values())

    rerun = place.finagent("backtest", "--json", FINAGENT_HOME=str(tmp_path / "empty"))
    assert rerun.returncode == 0, rerun.stderr
    assert json.loads(rerun.stdout)[0]["same_as_registered"] is True

    config.write_text(config.read_text().replace("model: stub", "model: other"))
    asked = ["predict", "FB", "--as-of", AS_OF, "--config", str(config), "--mode", "replay"]
    missed = place.finagent(*asked)
    assert missed.returncode == 0, missed.stderr
    assert "the nearest is" in missed.stdout
    assert "model ('stub' there, 'other' here)" in missed.stdout
