"""Write thresholds into a recipe: these numbers change, every comment and every other character stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

import yaml

from kun_builder.errors import RecipeError, TrainingError
from kun_builder.files import replace_file
from kun_builder.result.limits import Limit
from kun_training.examples import SCORE


def write_threshold(path: Path, threshold: float) -> None:
    """Set `threshold` of the stage `score` in the recipe `path`.

    Raises TrainingError if the recipe has no such stage.
    """
    replace_file(path, with_threshold(path.read_text(encoding="utf-8"), threshold, str(path)).encode("utf-8"))


def write_limits(path: Path, limits: Iterable[Limit]) -> None:
    """Set all `limits` in the recipe `path`, or none; raises as `with_option` does."""
    text = path.read_text(encoding="utf-8")
    for limit in limits:
        text = with_option(text, limit.step, limit.option, limit.value, str(path))
    replace_file(path, text.encode("utf-8"))


def with_threshold(text: str, threshold: float, name: str = "recipe") -> str:
    """The recipe `text` with `threshold` set for the stage `score`."""
    return with_option(text, SCORE, "threshold", round(threshold, 6), name)


def with_option(text: str, label: str, option: str, value: float, name: str = "recipe") -> str:
    """The recipe `text` with the number `value` for `option` of the step `label`, a stage's name or, say, `score-2`.

    Raises TrainingError if the recipe has no such step, and RecipeError if it is not YAML.
    """
    try:
        root = yaml.compose(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{name} is not valid YAML: {error}") from error
    step = _step(root, label)
    if step is None:
        raise TrainingError(
            f"{name} names no stage `{label}` under `stages:`",
            hint=f"write all its stages out, `- {label}` among them; `kun-build init` shows those by default",
        )
    number = format(Decimal(repr(float(value))).normalize(), "f")
    if isinstance(step, yaml.ScalarNode):  # - score
        return _replaced(text, step.start_mark.index, step.end_mark.index, f"{step.value}: {{{option}: {number}}}")
    key, options = step.value[0]
    if not isinstance(options, yaml.MappingNode):  # - score:
        at = key.end_mark.index + text[key.end_mark.index :].index(":") + 1
        return _replaced(text, at, at if _is_absent(options) else options.end_mark.index, f" {{{option}: {number}}}")
    for known, setting in options.value:
        if known.value == option:
            return _replaced(text, setting.start_mark.index, setting.end_mark.index, number)
    return _inserted(text, options, option, number)


def _step(root: yaml.Node | None, label: str) -> yaml.Node | None:
    """The entry of a step, a scalar or a mapping of one; the second use of a stage is labelled `stage-2`."""
    if not isinstance(root, yaml.MappingNode):
        return None
    entries = next((value for key, value in root.value if key.value == "stages"), None)
    nodes: list[yaml.Node] = entries.value if isinstance(entries, yaml.SequenceNode) else []
    used: Counter[str] = Counter()
    for entry in nodes:
        named = entry.value[0][0] if isinstance(entry, yaml.MappingNode) and entry.value else entry
        used[named.value] += 1
        if label == (named.value if used[named.value] == 1 else f"{named.value}-{used[named.value]}"):
            return entry
    return None


def _is_absent(node: yaml.Node) -> bool:
    return bool(node.start_mark.index == node.end_mark.index)


def _inserted(text: str, options: yaml.MappingNode, option: str, number: str) -> str:
    """`option` before the first of the stage's options, in the form that they have."""
    at = options.start_mark.index
    if options.flow_style:
        return _replaced(text, at + 1, at + 1, f"{option}: {number}" + (", " if options.value else ""))
    indent = " " * options.start_mark.column
    return _replaced(text, at, at, f"{option}: {number}\n{indent}")


def _replaced(text: str, start: int, end: int, new: str) -> str:
    return text[:start] + new + text[end:]
