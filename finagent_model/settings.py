"""What the environment decides: keys, addresses, folders. Read once, in `Settings.load()`, and
passed in from there.

A database by its SQLAlchemy URL: opened, and spoken of without its password.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from finagent_model.errors import BadInputError

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine


def keep_to_ourselves() -> None:
    """Tell MLflow not to report its use over the network, and not to print addresses of runs among
    results, unless the environment has said already. To be called before `mlflow` is imported: then
    it decides.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


class Settings(BaseModel):
    """Frozen; every field's variable is its upper-case name, with the prefix FINAGENT_ unless it
    says otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    openai_api_key: SecretStr | None = Field(None, alias="OPENAI_API_KEY")
    """Key for the client `openai`. A local server takes any value, but there must be one."""
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
    component_api_key: SecretStr | None = Field(None, alias="FINAGENT_COMPONENT_API_KEY")
    """Given to a client of kind `component` as its `api_key`."""
    components: tuple[str, ...] = Field((), alias="FINAGENT_COMPONENTS")
    """Classes, by comma, that component JSON may name beside AutoGen's own clients."""
    bars: SecretStr | None = Field(None, alias="FINAGENT_BARS")
    """Name of a source of bars (`data/named.py`), which may be a URL with a password; empty means
    the embedded data.
    """
    news: SecretStr | None = Field(None, alias="FINAGENT_NEWS")
    """The same of dated news; empty means the embedded events when bars are embedded too, else
    none.
    """
    fundamentals: SecretStr | None = Field(None, alias="FINAGENT_FUNDAMENTALS")
    """The same of dated facts about companies, such as revenue; empty means none."""
    upstream_source: SecretStr | None = Field(None, alias="FINAGENT_UPSTREAM_SOURCE")
    """Clone or address that `finagent upstream fetch` takes; empty means the project's own."""
    home: Path = Field(Path("~/.cache/finagent"), alias="FINAGENT_HOME", validate_default=True)
    """Where replies recorded outside a package are kept, so that no call is paid for twice, and
    finagent.db.
    """
    serve_threads: int = Field(64, ge=1, le=1024, alias="FINAGENT_SERVE_THREADS")
    """Requests that `finagent serve` works on at once."""
    approval_token: SecretStr | None = Field(None, alias="FINAGENT_APPROVAL_TOKEN")
    """Who sends it may approve and reject over HTTP; without it, callers on the same machine."""

    database: SecretStr | None = Field(None, alias="FINAGENT_DATABASE")
    """SQLAlchemy URL of the database of artifacts and conversations; empty means finagent.db in
    FINAGENT_HOME.
    """
    api_token: SecretStr | None = Field(None, alias="FINAGENT_API_TOKEN")
    """Who sends it may read and write artifacts over HTTP; without it everybody who reaches the
    server reads, and callers on the same machine write. `finagent ui` asks for it, too; without it
    its pages are for this machine.
    """
    platform_url: str | None = Field(None, alias="FINAGENT_PLATFORM_URL")
    """Address of a trading platform that is sent every decision's artifacts; empty means none."""
    platform_token: SecretStr | None = Field(None, alias="FINAGENT_PLATFORM_TOKEN")
    """Sent to that platform as a bearer token."""
    tracing: bool = Field(False, alias="FINAGENT_TRACING")
    """Whether each decision leaves a trace in MLflow."""
    mlflow_ui_url: str | None = Field(None, alias="FINAGENT_MLFLOW_UI_URL")
    """Address of MLflow's pages as a browser reaches them; `finagent ui` links there."""
    airflow_ui_url: str | None = Field(None, alias="FINAGENT_AIRFLOW_UI_URL")
    """The same of Airflow's."""

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
    def _no_credentials(cls, value: str | None) -> str | None:
        if value and "@" in value.partition("://")[2].partition("/")[0]:
            raise ValueError("must not carry a user or password; keys have variables of their own")
        return value

    @field_validator("platform_url", "mlflow_ui_url", "airflow_ui_url")
    @classmethod
    def _over_http(cls, value: str | None) -> str | None:
        if value:
            read = urlsplit(value)
            if read.scheme not in ("http", "https") or not read.hostname or read.port == 0:
                raise ValueError("is no address; write it like https://platform.example")
        return value

    @field_validator("components", mode="before")
    @classmethod
    def _by_comma(cls, value: object) -> object:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator("database")
    @classmethod
    def _an_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not all(value.get_secret_value().partition("://")[:2]):
            raise ValueError(
                "is no SQLAlchemy URL; write one such as sqlite:///finagent.db "
                "or postgresql+psycopg2://user:password@host/name"
            )
        return value

    @field_validator("home")
    @classmethod
    def _at_home(cls, value: Path) -> Path:
        return value.expanduser()

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no record, trace or signal may hold; a URL's password is one by itself too."""
        given = [v.get_secret_value() for v in vars(self).values() if isinstance(v, SecretStr)]
        for named in (self.bars, self.news, self.fundamentals, self.upstream_source):
            if named and "://" not in named.get_secret_value():
                given.remove(named.get_secret_value())  # a word or a path
        passwords = (p for text in given for p in _passwords(text))
        given += [spelled for p in passwords for spelled in (p, unquote(p))]
        return tuple(dict.fromkeys(secret for secret in given if secret))

    @classmethod
    def variables(cls) -> tuple[str, ...]:
        """Every environment variable that is read, in order."""
        return tuple(str(field.alias) for field in cls.model_fields.values())

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read the environment; an empty variable counts as not set. Raises BadInputError."""
        given = os.environ if environ is None else environ
        try:
            return cls.model_validate({k: given[k] for k in cls.variables() if given.get(k)})
        except ValidationError as error:
            first = error.errors()[0]
            raise BadInputError(f"environment variable {first['loc'][0]}: {first['msg']}") from None


def _passwords(url: str) -> Iterator[str]:
    """Of a URL however it is misspelt: to its first @, as SQLAlchemy reads it, to its last, and
    what its query calls one. Empty ones too.
    """
    rest = url.partition("://")[2]
    if "@" in rest:
        for user in (rest.partition("@")[0], rest.rpartition("@")[0]):
            yield user.partition(":")[2]
    yield from (value for key, value in parse_qsl(rest.partition("?")[2]) if "pass" in key.lower())


DRIVER = "postgresql+psycopg2"
WAIT_S = 10
"""Seconds that PostgreSQL may take to connect, unless the URL says otherwise, and to get a lock.
For SQLite it is `?timeout=` in the URL, 5 where it is left out.
"""


def read_url(text: str) -> URL:
    """PostgreSQL without a driver's name is by psycopg2, which the extra `postgres` brings; for
    SQLAlchemy it would be psycopg 3. Raises ValueError, which quotes nothing: what can't be read
    may hold a part of a password.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        read = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError("no SQLAlchemy URL") from None
    if read.host is not None and text.count("@") > 1:
        raise ValueError("an @ in a password must be percent-encoded")
    return read.set(drivername=DRIVER) if read.drivername == "postgresql" else read


def engine_of(url: URL) -> Engine:
    """Connects nowhere; a connection lives for one use. Raises ValueError without a driver."""
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import SQLAlchemyError

    try:
        waits = url.get_dialect().driver in ("psycopg", "psycopg2")
        bounded = (
            {"connect_timeout": WAIT_S} if waits and "connect_timeout" not in url.query else {}
        )
        return create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=bounded)
    except (SQLAlchemyError, ImportError) as error:
        raise ValueError(hide_password(str(error), url)) from None


def reason_of(error: Exception, url: URL) -> str:
    """What a driver says, in one line and without the URL's secrets."""
    return hide_password(" ".join(str(getattr(error, "orig", None) or error).split()), url)


def hide_password(text: str, url: URL) -> str:
    """`text` without the URL's secrets, should a driver have quoted one."""
    secrets = [str(value) for key, value in url.query.items() if "pass" in key.lower()]
    if url.password:
        secrets += [url.password, quote(url.password, safe="")]
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return text
