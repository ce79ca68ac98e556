"""A database by its SQLAlchemy URL: opened, and spoken of without its password."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

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
        raise ValueError(hidden(str(error), url)) from None


def reason_of(error: Exception, url: URL) -> str:
    """What a driver says, in one line and without the URL's secrets."""
    return hidden(" ".join(str(getattr(error, "orig", None) or error).split()), url)


def hidden(text: str, url: URL) -> str:
    """`text` without the URL's secrets, should a driver have quoted one."""
    secrets = [str(value) for key, value in url.query.items() if "pass" in key.lower()]
    if url.password:
        secrets += [url.password, quote(url.password, safe="")]
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return text
