"""A training that kills itself at a chosen call."""

TRAP = """
import os, pkgutil, signal, sys
owner, name, fatal = pkgutil.resolve_name(sys.argv[1]), sys.argv[2], int(sys.argv[3])
original, calls = getattr(owner, name), []
def trap(*given, **named):
    calls.append(1)
    if len(calls) == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*given, **named)
setattr(owner, name, trap)
from finagent_model.cli import app
app(["train", *sys.argv[4:]])
"""
"""Arguments: the owner of an attribute, its name, the call of it that never returns, options."""
