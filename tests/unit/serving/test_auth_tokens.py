"""Who may ask: a token is compared, and guesses at it are limited by who guesses."""

from __future__ import annotations

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from finagent_model.errors import BadInputError
from finagent_model.serving.auth import AuthError, TokenThrottle, caller_address
from finagent_model.settings import Settings
from finagent_model.store.api import api_app

TOKEN = SecretStr("open-sesame-0123")


def test_throttle_looks_at_ten_wrong_tokens_then_one_each_pause() -> None:
    now = [0.0]
    throttle = TokenThrottle(lambda: now[0])
    assert not any(throttle.check("a", "wrong", TOKEN) for _ in range(10))
    with pytest.raises(AuthError, match="try again in 6 s") as error:
        throttle.check("a", TOKEN.get_secret_value(), TOKEN)
    assert error.value.status == 429
    now[0] = 6.0
    assert not throttle.check("a", "wrong", TOKEN)
    with pytest.raises(AuthError):
        throttle.check("a", "wrong", TOKEN)
    now[0] = 12.0
    assert throttle.check("a", TOKEN.get_secret_value(), TOKEN)


def test_throttle_refuses_nobody_else() -> None:
    throttle = TokenThrottle(lambda: 0.0)
    for _ in range(10):
        throttle.check("a", "wrong", TOKEN)
    assert throttle.check("b", TOKEN.get_secret_value(), TOKEN)


def test_throttle_right_token_forgives_no_wrong_one() -> None:
    throttle = TokenThrottle(lambda: 0.0)
    for _ in range(10):
        throttle.check("a", "wrong", TOKEN)
        with_right = [throttle.check("b", TOKEN.get_secret_value(), TOKEN)]
        assert with_right == [True]
        throttle.check("c", TOKEN.get_secret_value(), TOKEN)
        throttle.check("c", "wrong at another", TOKEN)
    with pytest.raises(AuthError):
        throttle.check("c", TOKEN.get_secret_value(), TOKEN)


def test_throttle_counts_no_missing_token() -> None:
    throttle = TokenThrottle(lambda: 0.0)
    assert not any(throttle.check("a", "", TOKEN) for _ in range(50))
    assert throttle.check("a", TOKEN.get_secret_value(), TOKEN)


@pytest.mark.parametrize(
    ("host", "caller"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "::ffff:10.0.0.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
    ],
)
def test_caller_address_is_network_of_ipv6(host: str, caller: str) -> None:
    from starlette.requests import Request

    assert caller_address(Request({"type": "http", "client": (host, 1)})) == caller


def test_bearer_tokens_are_throttled(tmp_path: object) -> None:
    app = api_app(
        Settings.load(
            {"FINAGENT_HOME": str(tmp_path), "FINAGENT_API_TOKEN": TOKEN.get_secret_value()}
        )
    )
    stranger, owner = (TestClient(app, client=(host, 1)) for host in ("10.0.0.7", "10.0.0.8"))
    wrong = {"authorization": "Bearer wrong"}
    answers = [stranger.get("/api/artifacts", headers=wrong) for _ in range(11)]
    assert [a.status_code for a in answers] == [401] * 10 + [429]
    assert answers[-1].json()["error"] == "too_many_requests"
    assert int(answers[-1].headers["retry-after"]) in (5, 6)
    right = {"authorization": f"Bearer {TOKEN.get_secret_value()}"}
    assert stranger.get("/api/artifacts", headers=right).status_code == 429
    assert owner.get("/api/artifacts", headers=right).status_code == 200


@pytest.mark.parametrize("name", ["FINAGENT_API_TOKEN", "FINAGENT_APPROVAL_TOKEN"])
def test_short_token_is_refused_with_a_way_to_make_one(name: str) -> None:
    with pytest.raises(BadInputError, match=f"{name}: .*openssl rand -hex 32") as error:
        Settings.load({name: "x" * 15})
    assert "x" * 15 not in str(error.value)
