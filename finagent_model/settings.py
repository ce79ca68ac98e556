"""Settings from environment variables (keys, addresses, folders), and database URLs.

The environment is read once, in `Settings.load()`, and passed in from there; only `_secrets` looks
at it as well, for what to redact. A database is opened
by its SQLAlchemy URL, and no error message shows the URL's password.
"""

from __future__ import annotations

import os
import string
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from finagent_model._base import requirement
from finagent_model._secrets import FILE_SUFFIX, find_address_secrets, may_carry_key
from finagent_model.errors import BadInputError

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine


OTHER_NAMES = {"OPENAI_BASE_URL": "OPENAI_API_BASE"}
"""Names that other programs have for a variable, read where ours is not set."""
SENT_IN_HEADERS = (
    *("openai_api_key", "azure_openai_api_key", "anthropic_api_key", "ollama_api_key"),
    "component_api_key",
    *("serve_token", "approval_token", "api_token", "api_write_token", "api_read_token"),
    "platform_token",
)
"""Fields whose values are sent in a header of HTTP, by us or to us."""
BLANKS = f"{string.whitespace}\u00a0\ufeff"
"""What may stand around a value in a file or a pasted text, a byte order mark included."""
MIN_TOKEN_CHARS = 16
"""Characters of a token that callers must send."""


def configure_mlflow_environment() -> None:
    """Turn off MLflow's telemetry, printed run addresses and progress bars, unless variables set
    them.

    Call it before `mlflow` is imported.
    """
    # MLflow reads the variables at import. Printed addresses would end up among the CLI's results.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # Bars of each downloaded file would break our own, and end up in logs.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def shorten_mlflow_waits() -> None:
    """Let MLflow give a server up after one retry, unless variables say otherwise.

    For who waits at a screen: MLflow's own retries take minutes, without a word.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")


class Settings(BaseModel):
    """The settings of a process; each field's alias is its environment variable. Immutable."""

    # SecretStr fields show as stars wherever settings are printed or logged.
    model_config = ConfigDict(frozen=True, extra="forbid")

    openai_api_key: SecretStr | None = Field(None, alias="OPENAI_API_KEY")
    """Key for the client `openai`. A local server accepts any value but needs one."""
    openai_base_url: str | None = Field(None, alias="OPENAI_BASE_URL")
    """Address of any OpenAI-compatible server; empty means OpenAI's own."""
    azure_openai_api_key: SecretStr | None = Field(None, alias="AZURE_OPENAI_API_KEY")
    """Key for the client `azure`."""
    azure_openai_endpoint: str | None = Field(None, alias="AZURE_OPENAI_ENDPOINT")
    """Address of the Azure resource, such as https://NAME.openai.azure.com."""
    anthropic_api_key: SecretStr | None = Field(None, alias="ANTHROPIC_API_KEY")
    """Key for the client `anthropic`."""
    anthropic_base_url: str | None = Field(None, alias="ANTHROPIC_BASE_URL")
    """Address of a server that speaks Anthropic's protocol; empty means Anthropic's own."""
    ollama_host: str | None = Field(None, alias="OLLAMA_HOST")
    """Address of Ollama; empty means http://127.0.0.1:11434."""
    ollama_api_key: SecretStr | None = Field(None, alias="OLLAMA_API_KEY")
    """Key for the client `ollama`, where its server asks for one, as ollama.com does."""
    component_api_key: SecretStr | None = Field(None, alias="FINAGENT_COMPONENT_API_KEY")
    """The `api_key` of a client of kind `component`."""
    components: tuple[str, ...] = Field((), alias="FINAGENT_COMPONENTS")
    """Classes, separated by commas, that component JSON may name beside AutoGen's own clients."""
    autogen_max_rounds: int | None = Field(None, ge=1, le=100, alias="FINAGENT_AUTOGEN_MAX_ROUNDS")
    """Most messages of a conversation, for desks that are read from a configuration: one that
    allows more is narrowed. A trained version keeps the number that it was backtested with.
    """
    bars: SecretStr | None = Field(None, alias="FINAGENT_BARS")
    """Name of a source of bars (see `data/source_registry.py`), which may be a URL with a password;
    empty means the embedded data.
    """
    news: SecretStr | None = Field(None, alias="FINAGENT_NEWS")
    """Name of a source of dated news; empty means the embedded events when bars are embedded too,
    else none.
    """
    fundamentals: SecretStr | None = Field(None, alias="FINAGENT_FUNDAMENTALS")
    """Name of a source of dated facts about companies, such as revenue; empty means none."""
    upstream_source: SecretStr | None = Field(None, alias="FINAGENT_UPSTREAM_SOURCE")
    """Clone or address for `finagent upstream fetch`; empty means the project's own."""
    home: Path = Field(Path("~/.cache/finagent"), alias="FINAGENT_HOME", validate_default=True)
    """Folder of finagent.db and of replies recorded outside a package, so that no call is paid for
    twice.
    """
    serve_threads: int = Field(64, ge=1, le=1024, alias="FINAGENT_SERVE_THREADS")
    """Requests that `finagent serve` handles concurrently, in each of its processes."""
    serve_token: SecretStr | None = Field(None, alias="FINAGENT_SERVE_TOKEN")
    """Token to ask `finagent serve`; without one, only callers on the same machine may."""
    approval_token: SecretStr | None = Field(None, alias="FINAGENT_APPROVAL_TOKEN")
    """Token to list, approve and reject over HTTP; without one, only callers on the same machine
    may.
    """
    database: SecretStr | None = Field(None, alias="FINAGENT_DATABASE")
    """SQLAlchemy URL of the database of artifacts and conversations; empty means finagent.db in
    FINAGENT_HOME.
    """
    api_token: SecretStr | None = Field(None, alias="FINAGENT_API_TOKEN")
    """Token to read and write artifacts over HTTP, and to log in to `finagent ui`.

    Without any token for artifacts, they and the pages are for callers on the same machine alone.
    """
    api_write_token: SecretStr | None = Field(None, alias="FINAGENT_API_WRITE_TOKEN")
    """Token to read and write artifacts over HTTP, which opens no page."""
    api_read_token: SecretStr | None = Field(None, alias="FINAGENT_API_READ_TOKEN")
    """Token to read artifacts over HTTP, and nothing else."""
    platform_url: str | None = Field(None, alias="FINAGENT_PLATFORM_URL")
    """Address of a trading platform that receives every decision's artifacts; empty means none."""
    platform_token: SecretStr | None = Field(None, alias="FINAGENT_PLATFORM_TOKEN")
    """Sent to that platform as a bearer token."""
    signing_key: SecretStr | None = Field(None, alias="FINAGENT_SIGNING_KEY")
    """Ed25519 key, 32 bytes in base64, by which `finagent promote` signs a version; empty means
    that nothing is signed.
    """
    trusted_keys: tuple[str, ...] = Field((), alias="FINAGENT_TRUSTED_KEYS")
    """Public keys, separated by commas, whose signatures of a version are accepted."""
    require_signature: bool = Field(False, alias="FINAGENT_REQUIRE_SIGNATURE")
    """Whether only versions that a trusted key has signed can be loaded."""
    model_name: str = Field(
        "finagent", pattern=r"^[A-Za-z0-9_\-]{1,100}$", alias="FINAGENT_MODEL_NAME"
    )
    """Registered model of trainings and commands that name none."""
    tracing: bool = Field(False, alias="FINAGENT_TRACING")
    """Whether each decision leaves a trace in MLflow."""
    mlflow_ui_url: str | None = Field(None, alias="FINAGENT_MLFLOW_UI_URL")
    """Address of MLflow's pages as a browser reaches them; `finagent ui` links there."""
    airflow_ui_url: str | None = Field(None, alias="FINAGENT_AIRFLOW_UI_URL")
    """Address of Airflow's pages as a browser reaches them; `finagent ui` links there."""

    @field_validator(
        "openai_base_url",
        "azure_openai_endpoint",
        "anthropic_base_url",
        "ollama_host",
        "platform_url",
        "mlflow_ui_url",
        "airflow_ui_url",
    )
    @classmethod
    def _reject_credentials(cls, value: str | None) -> str | None:
        if value and may_carry_key(value):
            raise ValueError(
                "must not carry a user or password, nor a query; give keys in their own variables"
            )
        return value

    @field_validator("platform_url", "mlflow_ui_url", "airflow_ui_url")
    @classmethod
    def _require_http(cls, value: str | None) -> str | None:
        if value:
            url = urlsplit(value)
            if url.scheme not in ("http", "https") or not url.hostname or url.port == 0:
                raise ValueError("is not an address; write it like https://platform.example")
        return value

    @field_validator(*SENT_IN_HEADERS)
    @classmethod
    def _require_header_text(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value() if value else ""
        odd = next((i for i, char in enumerate(text, 1) if not " " <= char <= "~"), None)
        if odd is not None:
            raise ValueError(
                f"character {odd} of {len(text)} is not a letter, digit or sign that a request can "
                "carry, such as a curly quote or a line break; copy the value again"
            )
        return value

    @field_validator("api_read_token")
    @classmethod
    def _require_other_token(
        cls, value: SecretStr | None, info: ValidationInfo
    ) -> SecretStr | None:
        writers = (info.data.get("api_token"), info.data.get("api_write_token"))
        if value is not None and value in writers:
            raise ValueError("is a token that may write, too; give readers a separate token")
        return value

    @field_validator(
        "approval_token", "api_token", "api_read_token", "api_write_token", "serve_token"
    )
    @classmethod
    def _require_long_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value and len(value.get_secret_value()) < MIN_TOKEN_CHARS:
            raise ValueError(
                f"has {len(value.get_secret_value())} characters, and a token that short can be "
                f"guessed: it needs {MIN_TOKEN_CHARS}; make one with `openssl rand -hex 32`"
            )
        return value

    @field_validator("require_signature")
    @classmethod
    def _require_trusted_keys(cls, value: bool, info: ValidationInfo) -> bool:
        # Without a trusted key nobody could tell a signature from a forged one.
        if value and not info.data.get("trusted_keys"):
            raise ValueError(
                "needs FINAGENT_TRUSTED_KEYS, the public keys whose signatures are accepted; "
                "`finagent signing-key` makes a pair"
            )
        return value

    @field_validator("components", "trusted_keys", mode="before")
    @classmethod
    def _split_list(cls, value: object) -> object:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator("database")
    @classmethod
    def _check_database_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not all(value.get_secret_value().partition("://")[:2]):
            raise ValueError(
                "is not a SQLAlchemy URL; write one such as sqlite:///finagent.db "
                "or postgresql+psycopg2://user:password@host/name"
            )
        return value

    @field_validator("home")
    @classmethod
    def _expand_home(cls, value: Path) -> Path:
        # A shell expands ~, but a container or a DAG passes it on as it is.
        try:
            return value.expanduser()
        except RuntimeError:
            raise ValueError("names a user that is unknown; write the whole path") from None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that no record, trace or signal may contain: keys, URLs and their passwords."""
        texts = [v.get_secret_value() for v in vars(self).values() if isinstance(v, SecretStr)]
        for source in (self.bars, self.news, self.fundamentals, self.upstream_source):
            if source and "://" not in source.get_secret_value():
                # A name or a path is no secret, and redacting it would damage messages.
                texts.remove(source.get_secret_value())
        texts += [found for text in texts for found in find_address_secrets(text)]
        return tuple(dict.fromkeys(text for text in texts if text))

    @classmethod
    def variable_names(cls) -> tuple[str, ...]:
        """Return every environment variable that is read, in the order of the fields."""
        return tuple(str(field.alias) for field in cls.model_fields.values())

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read the settings from `environ`, by default the process's environment.

        An empty variable counts as not set; white space around a key or a token is dropped. What
        may be secret can be in a file, which the variable with `_FILE` at its end names. Raises
        BadInputError naming the variable.
        """
        variables = os.environ if environ is None else environ
        values = {n: variables[n] for n in cls.variable_names() if variables.get(n)}
        for name in (str(cls.model_fields[field].alias) for field in SENT_IN_HEADERS):
            # A file with Windows line ends leaves a \r at the end of a value.
            if stripped := values.pop(name, "").strip(BLANKS):
                values[name] = stripped
        for name, other in OTHER_NAMES.items():
            if not variables.get(other):
                continue
            if values.setdefault(name, variables[other]) != variables[other]:
                raise BadInputError(
                    f"environment variables {name} and {other} are set and differ; keep one"
                )
        for name, field in ((str(f.alias), f) for f in cls.model_fields.values()):
            path = variables.get(f"{name}{FILE_SUFFIX}")
            if path and field.annotation == SecretStr | None:
                values[name] = _read_secret_file(name, path, is_given=name in values)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            # Without the value: it may be a secret.
            raise BadInputError(
                f"environment variable {first['loc'][0]}: {requirement(first)}"
            ) from None


def _read_secret_file(name: str, path: str, *, is_given: bool) -> str:
    """Return the secret in the file, without the blanks around it. Raises BadInputError."""
    variable = f"{name}{FILE_SUFFIX}"
    if is_given:
        raise BadInputError(f"environment variables {name} and {variable} are both set; keep one")
    try:
        text = Path(path).read_text().strip(BLANKS)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise BadInputError(
            f"environment variable {variable}: {path!r} can't be read ({reason}); name a file that "
            "holds the value"
        ) from None
    if not text:
        raise BadInputError(
            f"environment variable {variable}: {path!r} is empty; write the value into it, or "
            "leave the variable out"
        )
    return text


POSTGRES_DRIVER = "postgresql+psycopg2"
DATABASE_TIMEOUT_S = 10
"""Seconds that PostgreSQL may take to connect, unless the URL says otherwise, and to get a lock.
For SQLite it is `?timeout=` in the URL; where it is left out, a writer waits 30.
"""


def parse_database_url(text: str) -> URL:
    """Parse a SQLAlchemy URL; PostgreSQL without a driver's name gets psycopg2.

    Raises ValueError, whose message quotes nothing of `text`: it may hold a part of a password.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError("no SQLAlchemy URL") from None
    if url.host is not None and text.count("@") > 1:
        raise ValueError("an @ in a password must be percent-encoded")
    # The extra `postgres` brings psycopg2; SQLAlchemy itself would look for psycopg 3.
    return url.set(drivername=POSTGRES_DRIVER) if url.drivername == "postgresql" else url


def create_database_engine(url: URL) -> Engine:
    """Return an engine that has not connected yet. Raises ValueError without a driver."""
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import SQLAlchemyError

    try:
        is_postgres = url.get_dialect().driver in ("psycopg", "psycopg2")
        needs_timeout = is_postgres and "connect_timeout" not in url.query
        connect_args = {"connect_timeout": DATABASE_TIMEOUT_S} if needs_timeout else {}
        # NullPool: a connection lives for one use, so forks and long pauses can't break it.
        return create_engine(
            url, poolclass=NullPool, hide_parameters=True, connect_args=connect_args
        )
    except (SQLAlchemyError, ImportError) as error:
        raise ValueError(mask_password(str(error), url)) from None


def driver_error_message(error: Exception, url: URL) -> str:
    """Return the driver's message in one line, without the URL's secrets."""
    return mask_password(" ".join(str(getattr(error, "orig", None) or error).split()), url)


def mask_password(text: str, url: URL) -> str:
    """Return `text` with the URL's secrets replaced by `***`, in case a driver quoted one."""
    secrets = [str(value) for key, value in url.query.items() if "pass" in key.lower()]
    if url.password:
        secrets += [url.password, quote(url.password, safe="")]
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return text
