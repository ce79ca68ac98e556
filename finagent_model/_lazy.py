"""Export a package's public names without importing what defines them.

`import finagent_model` must cost milliseconds and read nothing, and a command that needs one name
of a package must not pay for the others. So each `__init__` names its exports twice: once for type
checkers, and once, through `lazy_exports`, for the interpreter (PEP 562).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any


def lazy_exports(package: str, names: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of `package`, which imports a module when its name is asked for.

    `names` maps a module, relative to the package, to the names that it exports. The function
    raises AttributeError for any other name, as Python expects of it.
    """
    module_of = {name: module for module, exported in names.items() for name in exported}

    def __getattr__(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{module_of[name]}"), name)

    return __getattr__


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Make no search for cyclic garbage in the block.

    Imports make objects by the hundred thousand and no garbage: the searches take a fifth of them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
