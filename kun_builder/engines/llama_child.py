"""llama.cpp's server in a process of its own: `python -m kun_builder.engines.llama_child '{"path": ...}'`.

The address is printed on stdout as one line once the model is loaded. The process ends when its stdin is closed or its
parent is gone, so that a killed parent leaves nothing behind.
"""

from __future__ import annotations

import json
import sys
import threading

from kun_builder.engines.child_server import follow_parent, report


def main() -> None:
    """Load the model, report, and serve until the parent lets go."""
    options = json.loads(sys.argv[1])
    follow_parent()
    import xllamacpp

    server = xllamacpp.Server(_parameters(xllamacpp.CommonParams(), **options))
    report(server.listening_address)
    threading.Event().wait()


def _parameters(
    params: object, *, path: str, name: str, threads: int, slots: int, context_length: int, verbosity: int = 2
) -> object:
    return _set(
        params,
        {
            "model.path": path,
            "model_alias": {name},
            "hostnames": ["127.0.0.1"],
            "port": 0,  # the system picks a free one
            "n_parallel": slots,
            "n_ctx": slots * context_length,  # shared out in equal parts
            "fit_params": False,
            "n_threads_http": 64,  # each open connection holds one: fewer would make /metrics wait for generations
            "cpuparams.n_threads": threads,
            "cpuparams_batch.n_threads": threads,
            "cont_batching": True,
            "endpoint_metrics": True,
            "use_jinja": True,
            "ui": False,
            "cache_ram_mib": 512,  # of prompts that no slot holds any more, each some 15 MB; the default is 8 GB
            # What one slot has read of a prompt, the others take from there: a slot that has nothing to do gives it to
            # the cache, and is chosen for what it holds only where that is nearly the whole prompt.
            "cache_idle_slots": True,
            "slot_prompt_similarity": 0.95,
            "verbosity": verbosity,
        },
    )


def _set(params: object, values: dict[str, object]) -> object:
    for name, value in values.items():
        *owners, field = name.split(".")
        target = params
        for owner in owners:
            target = getattr(target, owner)
        setattr(target, field, value)
    return params


if __name__ == "__main__":
    main()
