"""From what a recipe says in `path:` to files, and from files to the names that row ids carry."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from kun_builder.errors import SourceError


def find_files(path: str, patterns: Sequence[str], split: str) -> list[str]:
    """The files behind `path`: a file, a glob (`**` goes through folders), or a folder and all below it.

    From a folder come files that match one of `patterns`, hidden ones left out, in the order of their names. Raises
    SourceError, which names `split` and the nearest folder that exists, if there is none.
    """
    place = os.path.expanduser(path)
    found = [place] if os.path.exists(place) else sorted(glob.glob(place, recursive=True))
    files = [file for entry in found for file in (_walk(entry, patterns) if os.path.isdir(entry) else [entry])]
    if not files:
        raise SourceError(f"split `{split}`: no file at {path}{_why(Path(place), found, patterns)}", hint=_HINT)
    return files


_HINT = "`path:` takes a file, a folder, a glob, or a list of these, relative to the recipe"


def _walk(folder: str, patterns: Sequence[str]) -> Iterable[str]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(root, name)
            if not name.startswith(".") and any(path.match(pattern) for pattern in patterns):
                yield str(path)


def _why(path: Path, found: Sequence[str], patterns: Sequence[str]) -> str:
    if found:
        return f": it has none that matches {' or '.join(patterns)}"
    there = next(folder for folder in path.absolute().parents if folder.is_dir())
    names = sorted(entry.name for entry in there.iterdir() if not entry.name.startswith("."))
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"; the nearest folder that exists is {there} ({f'it holds {shown}' if names else 'it is empty'})"


def name_inputs(inputs: Iterable[str], depth: int) -> dict[str, str]:
    """Each input under the name that row ids carry: its last `depth` parts, more only where two would be the same.

    An input that is listed twice counts once. The order stays.
    """
    parts: dict[tuple[str, ...], str] = {}
    for entry in inputs:
        parts.setdefault(Path(os.path.abspath(entry) if os.path.exists(entry) else entry).parts, entry)
    depths = dict.fromkeys(parts, depth)
    while True:
        names = defaultdict(list)
        for path in parts:
            names[str(PurePosixPath(*path[-depths[path] :]))].append(path)
        same = [path for paths in names.values() if len(paths) > 1 for path in paths if depths[path] < len(path)]
        if not same:
            return {_printable(name): parts[paths[0]] for name, paths in names.items()}
        for path in same:
            depths[path] += 1


def _printable(name: str) -> str:
    """A file name that is not UTF-8 keeps its bytes as escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
