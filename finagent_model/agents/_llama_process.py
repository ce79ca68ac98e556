"""The llama.cpp server as a process of its own, run as a script by `local_server.LlamaServer`.

It reads one line of JSON (`model`, `key`, `threads`, `slots`, `context`, `parent`), writes one line
(`address` or `error`), and serves until its input ends or its parent is gone. So it outlives no
parent, however that ends. It imports nothing of this package: a crash of llama.cpp ends this
process alone, and none of our keys is in it.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
from typing import Any, NoReturn

POLL_S = 1.0
"""How often it looks whether its parent is still there."""


def make_parameters(library: Any, request: dict[str, Any]) -> Any:
    """Return llama.cpp's parameters for one model on a free port of this machine."""
    params = library.CommonParams()
    params.model.path = request["model"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    # Other users of this machine reach the port, too.
    params.api_keys = [request["key"]]
    params.n_parallel = request["slots"]
    params.n_ctx = request["context"]
    params.kv_unified = True  # a long prompt may take what the other slots leave free
    params.cache_ram_mib = 0  # prompts are cached in their slots; the default takes 8 GiB more
    params.cpuparams.n_threads = request["threads"]
    params.cpuparams_batch.n_threads = request["threads"]
    params.warmup = False
    params.fit_params = False
    params.ui = False
    params.verbosity = 1  # errors alone
    return params


def end_with_parent(parent: int) -> NoReturn:
    """Wait until the input ends or the parent is gone, then end the process."""
    # Who was forked from the parent keeps the input open, so that its id is looked at as well.
    while os.getppid() == parent:
        if select.select([0], [], [], POLL_S)[0] and not os.read(0, 4096):
            break
    # Not sys.exit: the server's threads may be in the middle of a reply.
    os._exit(0)


def main() -> None:
    """Serve one model."""
    out = os.fdopen(os.dup(1), "w")
    # What llama.cpp prints must not get between our lines.
    os.dup2(2, 1)
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=end_with_parent, args=(request["parent"],), daemon=True).start()
    try:
        import xllamacpp

        server = xllamacpp.Server(make_parameters(xllamacpp, request))
        answer = {"address": server.listening_address}
    except Exception as error:  # the library raises RuntimeError for whatever it is
        answer = {"error": f"{type(error).__name__}: {error}"}
    out.write(json.dumps(answer) + "\n")
    out.flush()
    if "address" in answer:
        threading.Event().wait()


if __name__ == "__main__":
    main()
