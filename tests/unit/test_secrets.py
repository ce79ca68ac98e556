"""No secret of the environment is in a message or printed, however it is spelt."""

from __future__ import annotations

import logging
import string
import sys
import traceback
from base64 import b64encode
from pathlib import Path

import pytest

from finagent_model._redact import KEY_MARK
from finagent_model._secrets import (
    environment_secrets,
    find_secrets,
    redact_message,
    redact_output,
    redact_process,
)
from finagent_model.config.desk_config import build_desk_config, load_preset
from finagent_model.errors import BadInputError, ConfigError, TrackingError

PEM = (
    "-----BEGIN PRIVATE KEY-----\nMIICanary0lineOne12345\nCanary0lineTwo678901==\n"
    "-----END PRIVATE KEY-----"
)


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("MLFLOW_TRACKING_URI", "http://me:canary-pw@host:5000", "canary-pw"),
        ("MLFLOW_TRACKING_URI", "http://me:can%2Fary%20pw@host", "can/ary pw"),
        ("MLFLOW_TRACKING_URI", "http://me:can@ary/pw@host", "can@ary/pw"),
        ("MLFLOW_TRACKING_URI", "postgresql://me:can ary pw@host/db", "can ary pw"),
        ("MLFLOW_TRACKING_URI", "https://canaryToken0123456789@host", "canaryToken0123456789"),
        ("MLFLOW_TRACKING_URI", "https://canaryToken0123456789:x@host", "canaryToken0123456789"),
        ("FINAGENT_DATABASE", "postgresql://host/db?sslpassword=canary-pw", "canary-pw"),
        ("ANY_URL", "https://host/a?x=1&access_token=canary-pw#top", "canary-pw"),
        ("ANY_URL", "https://host/a?x=canaryWord0123456", "canaryWord0123456"),
        ("ANY_URL", "https://host/hooks/T0/canaryWord0123456789", "canaryWord0123456789"),
        ("ANY_URL", "https://host/a#canaryWord0123456", "canaryWord0123456"),
        ("TWO_URLS", "http://a:canary-one@h,http://b:canary-two@h", "canary-two"),
        ("ANY_DSN", "host=db user=me password=canary-pw dbname=x", "canary-pw"),
        ("AIRFLOW_CONN_X", '{"conn_type": "s3", "password": "canary-pw"}', "canary-pw"),
        ("AWS_SECRET_ACCESS_KEY", "canary/secret+key", "canary/secret+key"),
        ("MLFLOW_TRACKING_PASSWORD", "canary-pw", "canary-pw"),
        ("PGPASSWORD", "canary-pw", "canary-pw"),
        ("AIRFLOW_CONN_X", '{"password": "canary,pw; 9"}', "canary,pw; 9"),
        ("ANY_DSN", "host=db password='canary pw'", "canary pw"),
        ("ANY_URL", "//me:canary-pw@host/db", "canary-pw"),
        ("FINAGENT_DATABASE", "postgresql:/me:canary-pw@host/db", "canary-pw"),
        ("SIGNING_KEY", PEM, "MIICanary0lineOne12345"),
        ("SIGNING_KEY", PEM.replace("\n", "\\n"), "Canary0lineTwo678901=="),
    ],
)
def test_find_secrets_finds_what_variable_hides(name: str, value: str, secret: str) -> None:
    assert secret in find_secrets({name: value})


def test_find_secrets_reads_named_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("canary-token\n")
    (tmp_path / "url").write_text("postgresql://me:canary-pw@host/db\n")
    named = {n: str(tmp_path / n) for n in ("token", "url", "none")}
    environ = {
        "FINAGENT_API_TOKEN_FILE": named["token"],
        "FINAGENT_DATABASE_FILE": named["url"],
        "FINAGENT_PLATFORM_TOKEN_FILE": named["none"],
    }
    assert {"canary-token", "canary-pw"} <= set(find_secrets(environ))


def test_find_secrets_leaves_paths_and_names() -> None:
    environ = {
        "PATH": "/usr/bin:/bin",
        "PWD": "/home/ann/some-folder-2024",
        "SSH_AUTH_SOCK": "/etc/passwd",  # a file that is there
        "MLFLOW_TRACKING_URI": "sqlite:////data/folder-0123456789abc/mlflow.db",
        "FINAGENT_BARS": "sqlite:///bars.db?table=eod",
        "FINAGENT_DATABASE": "postgresql://finagent@host:5432/finagent",
    }
    assert [s for s in find_secrets(environ) if len(s) >= 8] == []


@pytest.mark.parametrize(
    "spelt",
    [
        "can/ary+pw 99",
        "can%2Fary%2Bpw%2099",
        "can%2fary%2bpw+99",
        "can%252Fary%252Bpw%252099",
        r"can\/ary\u002bpw 99",
        "CAN/ARY+PW 99",
        b64encode(b"can/ary+pw 99").decode(),
        f"Basic {b64encode(b'me:can/ary+pw 99').decode()}",
    ],
)
def test_redact_message_finds_every_spelling(monkeypatch: pytest.MonkeyPatch, spelt: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:can%2Fary%2Bpw%2099@host")
    assert redact_message(f"it said {spelt!s} twice").endswith(f"{KEY_MARK} twice")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:pw@host/a?b=1 failed", "http://host/a?b=1 failed"),
        ("postgresql://me:***@host/db", "postgresql://me:***@host/db"),
        (
            "https://host/a?X-Amz-Signature=abc&b=1",
            f"https://host/a?X-Amz-Signature={KEY_MARK}&b=1",
        ),
        ("{'Authorization': 'Bearer abcdefgh'}", f"{{'Authorization': 'Bearer {KEY_MARK}'}}"),
        ("(b'authorization', b'Basic YWJjZGVmZ2g=')", f"(b'authorization', b'Basic {KEY_MARK}')"),
        ("x-api-key: abcdefgh; next", f"x-api-key: {KEY_MARK}; next"),
        (f"said {PEM} twice", f"said {KEY_MARK} twice"),
        ("send it as 'Authorization: Bearer TOKEN'", "send it as 'Authorization: Bearer TOKEN'"),
        ("a basic understanding of it", "a basic understanding of it"),
    ],
    # pytest puts a test's name into the environment, where addresses would be searched.
    ids=["user", "masked", "query", "header", "raw", "key", "pem", "hint", "prose"],
)
def test_redact_message_knows_shapes(text: str, shown: str) -> None:
    assert redact_message(text) == shown


def test_error_message_is_redacted_as_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINAGENT_PLATFORM_TOKEN", "canary-token")
    quoted = KeyError("no canary-token here")
    for error in (BadInputError("no canary-token here"), TrackingError("no canary-token here")):
        assert str(error) == f"no {KEY_MARK} here"
        assert "canary" not in repr(error) + "".join(traceback.format_exception(error))
    assert "canary" not in repr(BadInputError(quoted))


def test_redact_message_again_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:canary-pw-0123@host")
    header = b64encode(b"me:canary-pw-0123").decode()
    text = (
        f"('Authorization', 'Basic {header}') Authorization: Bearer canary-pw-0123, "
        f"https://a:b@host/?token=canary-pw-0123&key=x, {PEM} canary-pw"
    )
    once = redact_message(text)
    assert "canary" not in once
    assert header not in once
    assert redact_message(once) == once
    hint = "write postgresql+psycopg2://user:password@host/name"
    assert redact_message(hint) == hint


def test_redact_message_finds_secret_that_was_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINAGENT_PLATFORM_TOKEN", "canary-token")
    assert redact_message("it said canary-to") == f"it said {KEY_MARK}"
    assert redact_message("it said canary") == "it said canary"  # too short to be told apart
    for dots in ("...", "'...", " ...", "…"):
        text = redact_message(f"it said 'canary-to{dots} and 'canary-tok{dots} in full")
        assert text == f"it said '{KEY_MARK}{dots} and '{KEY_MARK}{dots} in full"


def test_error_about_a_long_secret_does_not_quote_its_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = string.ascii_letters + string.digits
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", key)
    with pytest.raises(ConfigError) as caught:
        build_desk_config({"transport": key}, load_preset().model_dump(), "desk")
    assert str(caught.value) == f"desk: transport: must be 'autogen' or 'http', not '{KEY_MARK}'..."


def test_environment_secrets_follow_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "canary-token" not in environment_secrets()
    monkeypatch.setenv("FINAGENT_API_TOKEN", "canary-token")
    assert "canary-token" in environment_secrets()


def test_redact_output_covers_logs_and_tracebacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:canary-pw@host")
    with redact_output():
        print("printed canary-pw, http://you:other@host")
        sys.stderr.writelines(["error canary-pw\n", "http://you:other@host\n"])
        handler = logging.StreamHandler()
        handler.emit(logging.makeLogRecord({"msg": "logged canary-pw"}))
        try:
            raise KeyError("canary-pw")
        except KeyError:
            traceback.print_exc()
        assert not hasattr(sys.stdout, "buffer")
    printed, told = capsys.readouterr()
    assert "canary" not in printed + told
    assert "http://you:other@host" in printed  # a result stays as it is
    assert "other" not in told
    assert all(word in told for word in ("error", "logged", "KeyError"))


def test_redact_process_covers_handlers_that_are_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:canary-pw@host")
    for name in ("stdout", "stderr"):  # put back after the test
        monkeypatch.setattr(sys, name, getattr(sys, name))
    server, access = logging.getLogger("server"), logging.getLogger("server.access")
    for logger, stream in ((server, sys.stderr), (access, sys.stdout)):
        monkeypatch.setattr(logger, "handlers", [logging.StreamHandler(stream)])
    redact_process()
    redact_process()  # a second app in the process
    try:
        raise KeyError("canary-pw")
    except KeyError:
        server.exception("failed on canary-pw")
    access.warning("GET /?token=canary-pw")
    print("printed canary-pw")
    printed, told = capsys.readouterr()
    assert "canary" not in printed + told
    assert "KeyError" in told
    assert "GET /" in printed


def test_rest_alone_redacts_what_its_server_prints(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from finagent_model.store.api import from_environment

    monkeypatch.setenv("FINAGENT_HOME", str(tmp_path))
    monkeypatch.setenv("FINAGENT_API_TOKEN", "canary-token-0123")
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    from_environment()
    sys.stderr.write("a trace with canary-token-0123")
    assert "canary" not in capsys.readouterr().err
