"""Who may ask: which pages a change may come from, and where a server may listen."""

from __future__ import annotations

import pytest
from pydantic import SecretStr
from starlette.requests import Request
from typer.testing import CliRunner

from finagent_model.cli import app
from finagent_model.errors import BadInputError
from finagent_model.serving.auth import (
    AuthError,
    require_same_origin,
    require_this_machine,
    require_token_for_host,
)


def request(method: str = "POST", **headers: str) -> Request:
    named = {"host": "127.0.0.1:5001", **{k.replace("_", "-"): v for k, v in headers.items()}}
    pairs = [(name.encode(), value.encode("latin-1", "replace")) for name, value in named.items()]
    return Request({"type": "http", "method": method, "headers": pairs})


@pytest.mark.parametrize("browser_only", [True, False])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:5002"},
        {"origin": "null"},
        {"origin": "http://["},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"origin": "http://127.0.0.1:5001", "sec_fetch_site": "cross-site"},
    ],
)
def test_same_origin_refuses_other_page(headers: dict[str, str], browser_only: bool) -> None:
    with pytest.raises(AuthError, match="changes are made from"):
        require_same_origin(request(**headers), browser_only=browser_only)


@pytest.mark.parametrize(
    "headers", [{"origin": "http://127.0.0.1:5001"}, {"sec_fetch_site": "same-origin"}]
)
def test_same_origin_passes_own_page(headers: dict[str, str]) -> None:
    require_same_origin(request(**headers), browser_only=True)


def test_same_origin_passes_program_unless_browser_only() -> None:
    require_same_origin(request())
    with pytest.raises(AuthError):
        require_same_origin(request(), browser_only=True)


def test_same_origin_passes_reading_from_anywhere() -> None:
    require_same_origin(request("GET", origin="http://evil.example"), browser_only=True)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "evil_host.example",
        "localhost:99999x",
        "localhost:",
        "localhost, evil.example",
        "2130706433",
        "0.0.0.0",
        "\u0661\u0662\u0667.0.0.1",
        "",
    ],
)
def test_this_machine_refuses_any_other_host(host: str) -> None:
    named = request(host=host)
    named.scope |= {"client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 5001)}
    with pytest.raises(AuthError, match="set VARIABLE"):
        require_this_machine(named, "set VARIABLE")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:5001", "LOCALHOST", "[::1]:5001"])
def test_this_machine_passes_its_own_names(host: str) -> None:
    named = request(host=host)
    named.scope |= {"client": ("::1", 50000)}
    require_this_machine(named, "set VARIABLE")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "desk.example", "192.0.2.7", ""])
def test_host_beyond_this_machine_needs_token(host: str) -> None:
    with pytest.raises(BadInputError, match=r"lets other machines in.*set VARIABLE"):
        require_token_for_host(host, None, "VARIABLE", "it could spend")
    require_token_for_host(host, SecretStr("token"), "VARIABLE", "it could spend")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_host_of_this_machine_needs_no_token(host: str) -> None:
    require_token_for_host(host, None, "VARIABLE", "it could spend")


def test_serve_command_refuses_other_host_without_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FINAGENT_SERVE_TOKEN", raising=False)
    done = CliRunner().invoke(app, ["serve", "--host", "0.0.0.0"])
    assert done.exit_code == 2
    assert "whoever reaches the desk could spend its budget" in " ".join(done.stderr.split())
    assert "set FINAGENT_SERVE_TOKEN, or leave --host out" in " ".join(done.stderr.split())
