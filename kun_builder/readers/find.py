"""From what a recipe says in `path:` to files, and from files to the names that row ids carry."""

from __future__ import annotations

import glob
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from kun_builder.errors import SourceError, shown
from kun_builder.readers.addresses import is_address, matches, public
from kun_builder.readers.remote_find import find_objects


def find_files(path: str, patterns: Sequence[str], split: str) -> list[str]:
    """The files behind `path`: a file, a glob (`**` goes through folders), or a folder and all below it; or objects
    behind an address such as `s3://bucket/folder/*.jsonl`.

    From a folder come files that match one of `patterns`, in the order of their names; hidden ones, cards (`README.md`)
    and licenses are left out. Raises SourceError, which names `split` and the nearest folder that exists, if there is
    none.
    """
    if is_address(path):
        return find_objects(path, patterns, split)
    place = os.path.expanduser(path)
    found = [place] if os.path.exists(place) else sorted(_expand(place))
    files = [file for entry in found for file in (_walk(entry, patterns) if os.path.isdir(entry) else [entry])]
    if not files:
        raise SourceError(f"split `{split}`: no file at {shown(path)}{_why(Path(place), found, patterns)}", hint=_HINT)
    if odd := next(filter(_is_odd, files), ""):
        what = f"split `{split}`: {shown(odd)} is a pipe, a socket or a device, and would be waited for without end"
        raise SourceError(what, hint="inputs are read more than once: write it to a file, or take it out of `path:`")
    return files


def _is_odd(file: str) -> bool:
    try:
        mode = os.stat(file).st_mode
    except OSError:  # told where it is opened
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


_HINT = "`path:` takes a file, a folder, a glob, or a list of these, relative to the recipe"


def _expand(pattern: str) -> list[str]:
    """The files that a glob finds. A folder or file that exists under the very name is taken literally, brackets and
    all; if nothing is found then, brackets in the rest are literal too."""
    place, rest = "", Path(pattern).parts
    while rest and os.path.exists(os.path.join(place, rest[0])):
        place, rest = os.path.join(place, rest[0]), rest[1:]
    for tail in (os.path.join(*rest), os.path.join(*rest).replace("[", "[[]")):
        if found := glob.glob(os.path.join(glob.escape(place), tail), recursive=True):
            return found
    return []


def _walk(folder: str, patterns: Sequence[str]) -> Iterable[str]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and matches(os.path.join(root, name), patterns):
                yield os.path.join(root, name)


def _why(path: Path, found: Sequence[str], patterns: Sequence[str]) -> str:
    if found:
        return f": it has none that matches {' or '.join(patterns)}"
    there = next(filter(os.path.isdir, path.absolute().parents))  # Path.is_dir raises for names that are too long
    names = sorted(entry.name for entry in there.iterdir() if not entry.name.startswith("."))
    some = shown(", ".join(names[:5])) + (", ..." if len(names) > 5 else "")
    return f"; the nearest folder that exists is {shown(there)} ({f'it holds {some}' if names else 'it is empty'})"


def name_inputs(inputs: Iterable[str], depth: int) -> dict[str, str]:
    """Each input under the name that row ids carry: its last `depth` parts, more only where two would be the same.

    An input that is listed twice counts once. The order stays.
    """
    parts: dict[tuple[str, ...], str] = {}
    for entry in inputs:
        parts.setdefault(_parts(entry), entry)
    depths = dict.fromkeys(parts, depth)
    while True:
        names = defaultdict(list)
        for path in parts:
            names[str(PurePosixPath(*path[-depths[path] :]))].append(path)
        same = [path for paths in names.values() if len(paths) > 1 for path in paths if depths[path] < len(path)]
        if not same:
            return _printable({name: parts[paths[0]] for name, paths in names.items()})
        for path in same:
            depths[path] += 1


def _parts(entry: str) -> tuple[str, ...]:
    """The parts of an input's place. The query of a web address is the first: a name has it only if it must."""
    if is_address(entry):
        bare = public(entry)
        return (entry[len(bare) :], *Path(bare).parts)
    return Path(os.path.abspath(entry) if os.path.exists(entry) else entry).parts


def _printable(names: dict[str, str]) -> dict[str, str]:
    """The names as they can stand in ids: control characters and bytes that are not UTF-8 are escaped."""
    safe: dict[str, str] = {}
    for name, entry in names.items():
        plain = shown(name)
        while plain in safe or (plain != name and plain in names):
            plain += "~"
        safe[plain] = entry
    return safe
