"""Where the external analysts are: opinions from outside the desk, each one a plug-in.

Nothing here imports a plug-in before it is used: a desk without one, and `finagent --help`, must
not pay for it. `finagent_model.agents.external` says what a plug-in has to be.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from finagent_model.errors import ConfigError

if TYPE_CHECKING:
    from finagent_model.config.knowledge import Knowledge

EXTERNAL_ANALYSTS = {"upstream": "finagent_model.contrib.upstream:plugin"}
"""Name of each analyst, as a desk, a preset and the shell call it, to its `module:attribute`. To
register another analyst, add its name here.
"""
DEFAULT_EXTERNAL = next(iter(EXTERNAL_ANALYSTS))
"""The analyst with a key of its own in an agent's row; the others are named by `external`."""


def load_plugin(name: str) -> Any:
    """Import and return the plug-in registered as `name`. Raises ConfigError if there is none."""
    require_registered(name)
    module, _, attribute = EXTERNAL_ANALYSTS[name].partition(":")
    return getattr(import_module(module), attribute)


def read_analyst_knowledge(name: str) -> Knowledge | None:
    """Return what the registered analyst may remember; None for one that uses no chat model.

    The plug-in declares it, see `ExternalPlugin.knowledge_cutoff`. Raises ConfigError.
    """
    # Imported here: a help page needs the names alone, and no YAML.
    from finagent_model.config.knowledge import UNKNOWN, read_declared

    plugin = load_plugin(name)
    try:
        # Foreign code that says nothing may well ask a model.
        return read_declared(plugin, name, absent=UNKNOWN)
    except TypeError as error:
        raise ConfigError(f"external analyst {name!r}: {error}") from None


def load_commands(name: str) -> Any:
    """Return the shell commands (a Typer app) of the registered analyst; None if it has none."""
    module, _, _ = EXTERNAL_ANALYSTS[name].partition(":")
    return getattr(import_module(module), "commands", None)


def require_registered(name: str) -> None:
    """Raise ConfigError where no external analyst is registered as `name`."""
    if name not in EXTERNAL_ANALYSTS:
        names = ", ".join(EXTERNAL_ANALYSTS)
        raise ConfigError(f"unknown external analyst {name!r}; there is: {names}")
