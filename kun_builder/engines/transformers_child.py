"""transformers' server in a process of its own: `python -m kun_builder.engines.transformers_child '{"model": ...}'`.

The address is printed on stdout as one line once the model is loaded.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from kun_builder.engines.child_server import follow_parent, report


def main() -> None:
    """Load the model, report, and serve until the parent lets go."""
    options = json.loads(sys.argv[1])
    follow_parent()
    import torch
    from transformers.cli.serve import Serve

    torch.set_num_threads(options["threads"])
    dtype = "auto" if torch.accelerator.is_available() else "float32"  # a CPU is several times slower with 16 bits
    # One request after the other: its continuous batching takes the first request's sampling for all.
    where = {"host": "127.0.0.1", "port": 0, "log_level": "error", "non_blocking": True}
    serve = Serve(force_model=options["model"], dtype=dtype, **where)
    while not serve.server.started:
        time.sleep(0.01)
    port = serve.server.servers[0].sockets[0].getsockname()[1]
    report(f"http://127.0.0.1:{port}")
    threading.Event().wait()


if __name__ == "__main__":
    main()
