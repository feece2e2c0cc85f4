"""From an address in `path:` to the addresses of objects: the same ones, in the same order, as with files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kun_builder.errors import SourceError, shown
from kun_builder.readers.addresses import matches, public
from kun_builder.readers.remote import cure, file_system, told


def find_objects(path: str, patterns: Sequence[str], split: str) -> list[str]:
    """The objects behind `path`: one, a glob, or a folder and all below it, hidden ones left out.

    Raises SourceError, which names `split` and the address, if there is none or the server refuses.
    """
    fs, place = file_system(path)
    fs.invalidate_cache()  # what was listed before may have changed
    with told(path, "cannot be looked at"):
        found = _entries(fs, place)
        names = [name for entry, about in sorted(found.items()) for name in _files(fs, entry, about, patterns)]
        if not names:
            where = f"split `{split}`: no file at {shown(public(path))}"
            raise SourceError(f"{where}{_reason(fs, place, list(found), patterns)}", hint=f"{_HINT}; {cure(path)}")
        return [fs.unstrip_protocol(name) for name in names]


_HINT = "`path:` takes the address of an object, a folder, a glob, or a list of these"


def _entries(fs: Any, place: str) -> dict[str, dict[str, Any]]:
    """What is there under this very name, or else by this glob."""
    try:
        return {place: fs.info(place)}
    except (FileNotFoundError, PermissionError) as error:  # who may list need not be allowed to ask for any name
        if not _signs(fs, place):
            if isinstance(error, PermissionError) or _web(fs):  # there FileNotFoundError stands for any failure
                raise
            return {}
    globs = (_literal(fs, place), place.replace("[", "[[]"))
    found: dict[str, dict[str, Any]] = next(filter(None, (fs.glob(glob, detail=True) for glob in globs)), {})
    if found and place.endswith("/**"):
        found[place.removesuffix("/**")] = {"type": "directory"}
    fixed = next(number for number, part in enumerate(place.split("/")) if _signs(fs, part))
    return {name: about for name, about in found.items() if "/." in place or not _hidden(name.split("/")[fixed:])}


def _web(fs: Any) -> bool:
    return "https" in fs.protocol


def _signs(fs: Any, place: str) -> bool:
    """Whether a place is a glob. In web addresses, `?` begins the query."""
    return any(sign in place for sign in ("*[" if _web(fs) else "*?["))


def _hidden(parts: Sequence[str]) -> bool:
    return any(part.startswith(".") for part in parts)


def _literal(fs: Any, pattern: str) -> str:
    """The glob with the brackets escaped that belong to folders of this very name."""
    parts = pattern.split("/")
    for number, part in enumerate(parts[:-1]):
        if "*" in part or "?" in part:
            break
        if "[" in part and fs.exists("/".join(pattern.split("/")[: number + 1])):
            parts[number] = part.replace("[", "[[]")
    return "/".join(parts)


def _files(fs: Any, entry: str, about: dict[str, Any], patterns: Sequence[str]) -> Iterator[str]:
    if about["type"] != "directory":
        yield from () if entry.endswith("/") else [entry]  # an empty object stands for a folder
        return
    root = entry.rstrip("/") + "/"
    below = {name: name.removeprefix(root).split("/") for name in fs.find(entry) if not name.endswith("/")}
    for name in sorted(below, key=lambda name: _walked(below[name])):
        if not _hidden(below[name]) and matches(name, patterns):
            yield name


def _walked(parts: Sequence[str]) -> list[tuple[bool, str]]:
    """Sorts as `os.walk` goes: the files of a folder before those of its folders."""
    return [*((True, part) for part in parts[:-1]), (False, parts[-1])]


def _reason(fs: Any, place: str, found: Sequence[str], patterns: Sequence[str]) -> str:
    if found:
        return f": it has none that matches {' or '.join(patterns)}"
    if _web(fs):
        return ""
    folder = place.rstrip("/")
    while "/" in folder:
        folder = folder.rpartition("/")[0]
        try:
            names = sorted(name.rstrip("/").rpartition("/")[2] for name in fs.ls(folder, detail=False))
        except (FileNotFoundError, PermissionError, NotImplementedError):
            continue
        some = shown(", ".join(names[:5])) + (", ..." if len(names) > 5 else "")
        return (
            f"; the nearest folder that exists is {shown(fs.unstrip_protocol(folder))} (it holds {some or 'nothing'})"
        )
    return f"; there is no {shown(fs.unstrip_protocol(folder))} either, or it may not be listed"
