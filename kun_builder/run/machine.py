"""The machine that a run was made on, in the words of a card."""

from __future__ import annotations

import os
import platform


def machine() -> str:
    """Processors that this process may use, architecture, and memory: `2 cores (x86_64), 24 GB`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    said = f"{cores} {'core' if cores == 1 else 'cores'} ({platform.machine()})"
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):  # a system that does not tell
        return said
    return f"{said}, {memory / 2**30:.0f} GB"
