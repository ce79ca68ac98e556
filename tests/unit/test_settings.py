"""The environment, read once, as it is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from finagent_model._redact import KEY_MARK, make_redactor
from finagent_model.errors import BadInputError
from finagent_model.settings import SENT_IN_HEADERS, Settings


@pytest.mark.parametrize(
    "environ", [{}, {"FINAGENT_HOME": ""}, {"FINAGENT_HOME": "~/.cache/finagent"}]
)
def test_settings_expand_home(environ: dict[str, str]) -> None:
    assert Settings.load(environ).home == Path.home() / ".cache" / "finagent"


def test_settings_never_show_a_key() -> None:
    assert "sk-hidden" not in repr(Settings.load({"OPENAI_API_KEY": "sk-hidden"}))
    url = "postgresql://me:open-sesame@host/db"
    assert "sesame" not in repr(Settings.load({"FINAGENT_DATABASE": url}))


def test_settings_secrets_are_redacted() -> None:
    url = "postgresql://me:open-sesame@host/db"
    settings = Settings.load({"OPENAI_API_KEY": "sk-very-hidden", "FINAGENT_DATABASE": url})
    message = f"{url} or open-sesame; 401: sk-very-hidden"
    assert make_redactor(settings.secrets)(message) == f"{KEY_MARK} or {KEY_MARK}; 401: {KEY_MARK}"


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("postgresql://me:open/sesame@host/db", "open/sesame"),
        ("postgresql://me:open[sesame@host/db", "open[sesame"),
        ("postgresql://me:open@sesame@host/db", "open@sesame"),
        ("postgresql://me:open%2Fsesame@host/db", "open/sesame"),
        ("postgresql://me:open-sesame@host:port/db?options=a@b", "open-sesame"),
        ("postgresql://me@host/db?sslpassword=open%2Fsesame", "open/sesame"),
        ("sqlite:///bars.db?table=eod", None),
        ("postgresql://host:5432/db", None),
    ],
)
def test_settings_secrets_include_url_password(url: str, password: str | None) -> None:
    for name in ("BARS", "NEWS", "DATABASE", "UPSTREAM_SOURCE"):
        secrets = Settings.load({f"FINAGENT_{name}": url}).secrets
        assert url in secrets
        assert password in secrets if password else secrets == (url,)


def test_settings_placeholder_key_is_not_redacted() -> None:
    secrets = Settings.load({"OPENAI_API_KEY": "none"}).secrets
    assert make_redactor(secrets)("none of it") == "none of it"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"FINAGENT_SERVE_THREADS": "0"}, "FINAGENT_SERVE_THREADS"),
        ({"OPENAI_BASE_URL": "http://me:secret@host/v1"}, "must not carry a user or password"),
        ({"OPENAI_BASE_URL": "http://me:sec/ret-secret@host"}, "must not carry a user or password"),
        ({"OPENAI_BASE_URL": "http://host/v1?key=secret"}, "nor a query"),
        ({"OLLAMA_HOST": "me:secret@host:11434"}, "must not carry a user or password"),
        ({"FINAGENT_DATABASE": "secret.db"}, "FINAGENT_DATABASE: .*write one such as sqlite:///"),
        ({"FINAGENT_PLATFORM_URL": "secret.example"}, "URL: .*write it like https://"),
        ({"FINAGENT_PLATFORM_URL": "http://h:99999"}, "URL: .*Port out of range"),
        ({"FINAGENT_PLATFORM_URL": "http://me:secret@h"}, "must not carry a user or password"),
        ({"FINAGENT_TRACING": "secretly"}, "FINAGENT_TRACING"),
    ],
)
def test_settings_invalid_value_names_its_variable(environ: dict[str, str], message: str) -> None:
    with pytest.raises(BadInputError, match=message) as error:
        Settings.load(environ)
    assert "secret" not in str(error.value)


def test_settings_read_secret_from_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("open-sesame-0123\n")
    settings = Settings.load({"FINAGENT_API_TOKEN_FILE": str(file)})
    assert settings.api_token and settings.api_token.get_secret_value() == "open-sesame-0123"
    assert "open-sesame-0123" in settings.secrets


def test_settings_bad_secret_file_names_variable_and_path(tmp_path: Path) -> None:
    for name, content in (("none", None), ("empty", b" \n"), ("binary", b"\xff\xfe\x00")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInputError, match=f"FINAGENT_DATABASE_FILE: '.*/{name}'"):
            Settings.load({"FINAGENT_DATABASE_FILE": str(tmp_path / name)})


def test_settings_refuse_value_beside_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("open-sesame-0123")
    both = {"FINAGENT_API_TOKEN": "x" * 16, "FINAGENT_API_TOKEN_FILE": str(tmp_path / "token")}
    with pytest.raises(BadInputError, match="both set; keep one"):
        Settings.load(both)


def test_settings_read_openai_address_by_its_old_name() -> None:
    address = "http://127.0.0.1:8000/v1"
    assert Settings.load({"OPENAI_API_BASE": address}).openai_base_url == address
    both = {"OPENAI_API_BASE": address, "OPENAI_BASE_URL": address}
    assert Settings.load(both).openai_base_url == address


def test_settings_refuse_two_openai_addresses_that_differ() -> None:
    both = {"OPENAI_API_BASE": "http://a/v1", "OPENAI_BASE_URL": "http://b/v1"}
    with pytest.raises(BadInputError, match="OPENAI_BASE_URL and OPENAI_API_BASE are set and diff"):
        Settings.load(both)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FINAGENT_AUTOGEN_MAX_ROUNDS", "0"),
        ("FINAGENT_AUTOGEN_MAX_ROUNDS", "eight"),
        ("FINAGENT_MODEL_NAME", "my model"),
        ("FINAGENT_HOME", "~nobody-of-that-name/finagent"),
    ],
)
def test_settings_name_the_bad_variable(name: str, value: str) -> None:
    with pytest.raises(BadInputError, match=f"environment variable {name}: "):
        Settings.load({name: value})


HEADER_VARIABLES = [str(Settings.model_fields[field].alias) for field in SENT_IN_HEADERS]


@pytest.mark.parametrize("name", HEADER_VARIABLES)
@pytest.mark.parametrize("spaces", ["{}\r\n", " {}", "\ufeff{}\n", "\t{}\u00a0"])
def test_settings_strip_white_space_of_a_key(name: str, spaces: str) -> None:
    settings = Settings.load({name: spaces.format("sk-open-sesame-0123")})
    assert "sk-open-sesame-0123" in settings.secrets
    assert len(settings.secrets) == 1


@pytest.mark.parametrize("name", HEADER_VARIABLES)
@pytest.mark.parametrize("char", ["\u201c", "\u00e9", "\n", "\r\n", "\x00", "\x7f"])
def test_settings_key_that_no_header_holds_names_its_variable(name: str, char: str) -> None:
    with pytest.raises(BadInputError) as error:
        Settings.load({name: f"sk-open{char}sesame-0123"})
    said = str(error.value)
    assert said.startswith(f"environment variable {name}: character 8 of ")
    assert "sk-open" not in said and "sesame" not in said


def test_settings_key_of_blanks_counts_as_not_set() -> None:
    assert Settings.load({"OPENAI_API_KEY": " \r\n"}).openai_api_key is None


def test_settings_key_in_a_file_may_hold_a_bom(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes("\ufeffsk-open-sesame-0123\r\n".encode())
    key = Settings.load({"OPENAI_API_KEY_FILE": str(file)}).openai_api_key
    assert key and key.get_secret_value() == "sk-open-sesame-0123"
