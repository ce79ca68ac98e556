"""What the environment decides: keys, addresses, folders. Read once, in `Settings.load()`, and
passed in from there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from finagent_model.errors import BadInputError

SHORTEST_SECRET = 8
"""Characters; what is shorter is a placeholder for a local server and part of many words."""


class Settings(BaseModel):
    """Frozen; every field's variable is its upper-case name, with the prefix FINAGENT_ unless it
    says otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    openai_api_key: SecretStr | None = Field(None, alias="OPENAI_API_KEY")
    """Key for the client `openai`. A local server takes any value, but there must be one."""
    openai_base_url: str | None = Field(None, alias="OPENAI_BASE_URL")
    """Address of any OpenAI-compatible server; empty means OpenAI's own."""
    bars: Path | None = Field(None, alias="FINAGENT_BARS")
    """Folder of CSV or Parquet bars, one file a symbol; empty means the embedded data."""
    news: Path | None = Field(None, alias="FINAGENT_NEWS")
    """JSONL of dated news; empty means the embedded events when bars are embedded too, else none.
    """
    home: Path = Field(Path("~/.cache/finagent"), alias="FINAGENT_HOME", validate_default=True)
    """Where replies recorded outside a package are kept, so that no call is paid for twice."""
    serve_threads: int = Field(64, ge=1, le=1024, alias="FINAGENT_SERVE_THREADS")
    """Requests that `finagent serve` works on at once."""
    database: SecretStr | None = Field(None, alias="FINAGENT_DATABASE")
    """SQLAlchemy URL of a database that conversations are written to beside their runs."""
    tracing: bool = Field(False, alias="FINAGENT_TRACING")
    """Whether each decision leaves a trace in MLflow."""

    @field_validator("openai_base_url")
    @classmethod
    def _no_credentials(cls, value: str | None) -> str | None:
        if value and "@" in value.partition("://")[2].partition("/")[0]:
            raise ValueError("must not carry a user or password; use OPENAI_API_KEY")
        return value

    @field_validator("database")
    @classmethod
    def _an_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not all(value.get_secret_value().partition("://")[:2]):
            raise ValueError(
                "is no SQLAlchemy URL; write one such as sqlite:///conversations.db "
                "or postgresql+psycopg2://user:password@host/name"
            )
        return value

    @field_validator("home")
    @classmethod
    def _at_home(cls, value: Path) -> Path:
        return value.expanduser()

    def redact(self, text: str) -> str:
        """`text` without our keys and passwords, should a server or a model have echoed one."""
        for secret in self._secrets():
            text = text.replace(secret, "[key]")
        return text

    def _secrets(self) -> list[str]:
        """Whole values first: a database's password is a part of its URL."""
        given = [v.get_secret_value() for v in vars(self).values() if isinstance(v, SecretStr)]
        if self.database:
            given.append(urlsplit(self.database.get_secret_value()).password or "")
        return [secret for secret in given if len(secret) >= SHORTEST_SECRET]

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
