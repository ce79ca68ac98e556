"""The command line `finagent`. Results go to stdout, messages and progress to stderr.

Heavy imports stay inside the commands, so that `--help` is quick. Exit codes: 0 a result was
produced (a signal's `status` says how it went), 2 bad input, 3 no data (or no database to keep it
in), 4 the model could not be loaded (or, with `--strict`, a signal whose status is a failure of the
desk), 5 the gate refused, or a check failed that something is as it was registered or written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.cli.__main__ import app
else:
    # Lazily: a plug-in's commands import our options, and the app mounts the plug-in's commands.
    __getattr__ = lazy_exports(__name__, {"__main__": ["app"]})

__all__ = ["app"]
