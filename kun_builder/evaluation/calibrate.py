"""Write a threshold into a recipe: the one number changes, every comment and every other character stays."""

from __future__ import annotations

from pathlib import Path

import yaml

from kun_builder.errors import RecipeError, TrainingError
from kun_builder.report import replace_file
from kun_builder.training.examples import SCORE

_OPTION = "threshold"


def write_threshold(path: Path, threshold: float) -> None:
    """Set `threshold` of the stage `score` in the recipe `path`.

    Raises TrainingError if the recipe has no such stage.
    """
    replace_file(path, with_threshold(path.read_text(encoding="utf-8"), threshold, str(path)).encode("utf-8"))


def with_threshold(text: str, threshold: float, name: str = "recipe") -> str:
    """The recipe `text` with `threshold` set for the stage `score`."""
    try:
        root = yaml.compose(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{name} is not valid YAML: {error}") from error
    stage = _stage(root)
    if stage is None:
        raise TrainingError(f"{name} names no stage `score` under `stages:`", hint="add `- score: {model: ...}` to it")
    number = f"{threshold:.6f}".rstrip("0").rstrip(".")
    if isinstance(stage, yaml.ScalarNode):  # - score
        return _replaced(text, stage.start_mark.index, stage.end_mark.index, f"{SCORE}: {{{_OPTION}: {number}}}")
    key, value = stage.value[0]
    if not isinstance(value, yaml.MappingNode):  # - score:
        at = key.end_mark.index + text[key.end_mark.index :].index(":") + 1
        return _replaced(text, at, at if _is_absent(value) else value.end_mark.index, f" {{{_OPTION}: {number}}}")
    for option, setting in value.value:
        if option.value == _OPTION:
            return _replaced(text, setting.start_mark.index, setting.end_mark.index, number)
    return _inserted(text, value, number)


def _stage(root: yaml.Node | None) -> yaml.Node | None:
    """The entry of the stage `score`, a scalar or a mapping of one."""
    if not isinstance(root, yaml.MappingNode):
        return None
    entries = next((value for key, value in root.value if key.value == "stages"), None)
    nodes: list[yaml.Node] = entries.value if isinstance(entries, yaml.SequenceNode) else []
    for entry in nodes:
        named = entry.value[0][0] if isinstance(entry, yaml.MappingNode) and entry.value else entry
        if named.value == SCORE:
            return entry
    return None


def _is_absent(node: yaml.Node) -> bool:
    return bool(node.start_mark.index == node.end_mark.index)


def _inserted(text: str, options: yaml.MappingNode, number: str) -> str:
    """`threshold` before the first of the stage's options, in the form that they have."""
    at = options.start_mark.index
    if options.flow_style:
        return _replaced(text, at + 1, at + 1, f"{_OPTION}: {number}" + (", " if options.value else ""))
    indent = " " * options.start_mark.column
    return _replaced(text, at, at, f"{_OPTION}: {number}\n{indent}")


def _replaced(text: str, start: int, end: int, new: str) -> str:
    return text[:start] + new + text[end:]
