"""A YAML file as plain data that remembers its lines, so that every complaint about it can say where.

YAML 1.1 as PyYAML reads it, with two differences: `1e-3` is a number, and dates stay strings. Mapping keys are always
strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from kun_builder.errors import RecipeError, shown

Place: TypeAlias = tuple[str | int, ...]
"""Where something stands in the data: keys and list positions from the top."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_HALF = "half of a surrogate pair is not a character"
_PLAIN = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_DEEPEST = 40
"""Levels of a recipe at most: what is deeper is no setting, and deeper still breaks what reads it recursively."""
_MOST = 100_000
"""Values at most beyond one for each character: so many come only of anchors that repeat anchors that repeat ..."""
_LARGEST = 2**63
_FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with our two differences, and without a way to fill the memory."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Resolve `<<:`, each key once: merges of merges of merges would have a key more often than memory can hold."""
        super().flatten_mapping(node)
        once = {k.value if isinstance(k, yaml.ScalarNode) else id(k): (k, value) for k, value in node.value}
        node.value = list(once.values())


class Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back unchanged; texts of several lines become literal blocks."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _class in (_Loader, Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


class _TooMany(Exception):
    """The recipe has more values than anybody writes."""


_TOO_DEEP = f"nested in more than {_DEEPEST} levels"


class RecipeFile:
    """`data` of a YAML file, and the complaints about it; `check` raises all of them, in the order of the lines."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.data: dict[str, Any] = {}
        self._lines: dict[Place, int] = {(): 1}
        self._complaints: list[tuple[int, str]] = []
        self._left = len(text) + _MOST
        try:
            self._load(text)
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self._complain_at(line, f"the character U+{error.character:04X} is not allowed in YAML")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            context = f" {error.context}" if error.context else ""
            self._complain_at(mark.line + 1 if mark else 1, f"not YAML: {error.problem}{context}")
        except RecursionError:  # within PyYAML, before anything here sees how deep it is
            self._complain_at(1, _TOO_DEEP)
        except _TooMany:
            self._complain_at(1, "anchors are repeated so often that there is no end to it")
        self.check()

    @classmethod
    def read(cls, path: Path) -> RecipeFile:
        """Read `path`. Raises RecipeError if it is missing, no file, not UTF-8 or not a YAML mapping."""
        if str(path) == "-" or path.is_fifo():
            raise RecipeError(
                f"{path}: a recipe is read more than once, and what it names is looked for beside it",
                hint="write it to a file, and give its name",
            )
        try:
            return cls(path, path.read_bytes().decode("utf-8-sig"))
        except FileNotFoundError as error:
            raise RecipeError(f"{path}: no such recipe", hint="`kun-build init` writes one to start from") from error
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise RecipeError(f"{path}:{line}: not UTF-8 at byte {error.start}") from error
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error

    def complain(self, place: Place, what: str) -> None:
        """Note that `what` is wrong at `place`."""
        self._complain_at(self.line(place), what)

    def line(self, place: Place) -> int:
        """Line of `place`, or of the nearest thing around it that has one."""
        while place not in self._lines:
            place = place[:-1]
        return self._lines[place]

    def check(self) -> None:
        """Raise RecipeError if there are complaints."""
        if self._complaints:
            lines = dict.fromkeys(f"{self.path}:{line}: {what}" for line, what in sorted(self._complaints))
            raise RecipeError("\n".join(lines))

    def strings(self) -> Iterator[tuple[Place, str]]:
        """Every string value with its place."""
        return _strings((), self.data)

    def _complain_at(self, line: int, what: str) -> None:
        self._complaints.append((line, shown(what)))

    def _load(self, text: str) -> None:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if isinstance(node, yaml.MappingNode):
                self.data = self._mapping(loader, node, (), ())
            else:
                self._complain_at(1, "a recipe is a mapping with at least `models:` and `splits:`")
        finally:
            loader.dispose()

    def _value(self, loader: yaml.SafeLoader, node: yaml.Node, place: Place, above: tuple[yaml.Node, ...]) -> Any:
        """What `node` stands for; notes the line of everything in it."""
        self._left -= 1
        if self._left < 0:
            raise _TooMany
        if node in above or len(above) >= _DEEPEST:
            self.complain(place, "an anchor contains itself" if node in above else _TOO_DEEP)
            return None
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN:
            self.complain(place, f"the tag `{node.tag}` means nothing here")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, place, (*above, node))
        if isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self._lines[(*place, number)] = item.start_mark.line + 1
            return [self._value(loader, item, (*place, n), (*above, node)) for n, item in enumerate(node.value)]
        return self._scalar(loader, node, place)

    def _scalar(self, loader: yaml.SafeLoader, node: yaml.Node, place: Place) -> Any:
        """The text, number, truth or nothing that `node` stands for."""
        try:
            value = loader.construct_object(node)
        except ValueError:  # for example `!!int x`, or a number of thousands of digits
            self.complain(place, f"`{node.value[:40]}` is no {node.tag.rpartition(':')[2]}")
            return None
        if value != value or (isinstance(value, int) and abs(value) >= _LARGEST):  # no JSON, which is sent and written
            self.complain(place, f"`{node.value[:40]}` is no number that can be used")
            return None
        if not isinstance(value, str | int | float | None):
            self.complain(place, f"the tag `{node.tag}` means nothing here")
            return None
        if isinstance(value, str) and _SURROGATE.search(value):
            try:  # JSON writes characters beyond U+FFFF as two escapes
                return value.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                self.complain(place, _HALF)
        return value

    def _mapping(
        self, loader: yaml.SafeLoader, node: yaml.MappingNode, place: Place, above: tuple[yaml.Node, ...]
    ) -> dict[str, Any]:
        self._check_keys(node)
        loader.flatten_mapping(node)  # resolves `<<:`; what is merged comes first, so that own keys win
        data = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                self._lines[(*place, key.value)] = key.start_mark.line + 1
                data[key.value] = self._value(loader, value, (*place, key.value), above)
        return data

    def _check_keys(self, node: yaml.MappingNode) -> None:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._complain_at(line, "a key must be a single word")
            elif _SURROGATE.search(key.value):
                self._complain_at(line, _HALF)
            elif key.value in seen and key.value != "<<":
                self._complain_at(line, f"`{key.value}` stands here and in line {seen[key.value]}")
            else:
                seen[key.value] = line


def _strings(place: Place, value: Any) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _strings((*place, key), item)
