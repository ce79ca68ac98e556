"""Which commit of the upstream project is used, and what it must hash to."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Self

from pydantic import Field

from finagent_model.domain.row import Row

_HASH = Field(pattern=r"^[0-9a-f]{40}$")


class Pin(Row):
    """All hashes are Git's own (SHA-1)."""

    repository: str
    commit: str = _HASH
    tree: str = _HASH
    """Of everything that the commit holds."""
    folder: str
    """The part that is used."""
    folder_tree: str = _HASH
    licence: str
    licence_blob: str = _HASH
    """Of the file LICENSE, which goes wherever the folder goes."""

    @classmethod
    def load(cls) -> Self:
        """As `upstream.lock` beside this file has it."""
        return cls.read((files(__package__) / "upstream.lock").read_text())

    @classmethod
    def read(cls, text: str) -> Self:
        """From TOML. Raises ValueError."""
        return cls.model_validate(tomllib.loads(text))

    @property
    def text(self) -> str:
        """The inverse, for a package."""
        return "".join(f'{name} = "{value}"\n' for name, value in self.model_dump().items())
