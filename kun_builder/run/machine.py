"""The machine that a run was made on, in the words of a card."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> str:
    """Processors that this process may use, architecture, and memory: `2 cores (x86_64), 24 GB`."""
    said = f"{cores()} {'core' if cores() == 1 else 'cores'} ({platform.machine()})"
    return f"{said}, {size / 2**30:.0f} GB" if (size := _physical()) else said


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """Bytes of memory that this process may use: the machine's, or the limit of its container; 2 GiB if none tells."""
    limits = [_physical(), *map(_limit, _CONTAINERS)]
    return min(filter(None, limits), default=2 << 30)


_CONTAINERS = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"
"""Where a container says how much memory it may use: version 2 of control groups, and version 1."""


def _limit(path: str) -> int:
    try:
        said = Path(path).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return 0
    return int(said) if said.isdecimal() else 0


def _physical() -> int:
    """Bytes of memory of the machine, 0 on a system that does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
