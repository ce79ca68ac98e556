"""The errors of the upstream project's adapter, and the name that it is registered by."""

from __future__ import annotations

from finagent_model.errors import ExternalAnalystError, ExternalSourceError

NAME = "upstream"
"""What a desk, a package, a record's key and the shell call the project."""


class UpstreamSourceError(ExternalSourceError):
    """The upstream project's files are missing, or are not what the pin says."""


class UpstreamError(ExternalAnalystError):
    """The upstream project's code gave nothing that can be used; `code` is one word for how."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(NAME, code, reason)
