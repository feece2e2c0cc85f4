"""Text that keeps an expression busy: every pattern and every rule of the plugins, on 100,000 characters."""

from __future__ import annotations

import importlib
import pkgutil
import re
from functools import partial
from pathlib import Path

import pytest
from hostile import grows_too_fast, units
from kun_clean.normalize import normalize_text
from kun_clean.pii import mask
from kun_method.context import about_question
from kun_method.filters import FILTERS
from kun_method.form import is_request, split_outline, tidy
from kun_method.raw import as_answer
from kun_method.refine import trim, without_question
from kun_method.texts import han_share, loop, prose, sentences
from kun_method.texts import units as count_units

import kun_builder

PLUGINS = Path(kun_builder.__file__).parents[1] / "plugins"


def _modules():
    names = ["kun_builder.prompts", "kun_builder.result.markdown", "kun_builder.run.redact"]
    for module in pkgutil.iter_modules([str(PLUGINS)]):
        names.append(module.name)
        if module.ispkg:
            names += [f"{module.name}.{part.name}" for part in pkgutil.iter_modules([str(PLUGINS / module.name)])]
    return [importlib.import_module(name) for name in names]


PATTERNS = {
    f"{module.__name__}.{name}": value
    for module in _modules()
    for name, value in vars(module).items()
    if isinstance(value, re.Pattern)
}


def test_the_patterns_are_found():
    """The test below looks at the patterns of all plugins."""
    assert {"kun_method.filters._TEMPLATE", "kun_clean.pii._FOUND", "kun_wanjuan._NUMBER"} <= PATTERNS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_take_linear_time(name):
    """On runs of one character, of two in turn, and of its own parts, a pattern takes time as the text's length."""
    sub = partial(PATTERNS[name].sub, "")
    slow = [why for unit in units(PATTERNS[name]) if (why := grows_too_fast(sub, unit))]
    assert not slow


def test_the_stop_watch_sees_what_is_quadratic():
    """The test above fails for patterns that are known to be slow."""
    for slow in (r"\s+$", r"^\s*#", r"[=]\s*\$?\s*$", r"[一-龥]{2,}法", r"\n\s*x"):
        sub = partial(re.compile(slow, re.MULTILINE).sub, "")
        assert any(grows_too_fast(sub, unit) for unit in units(re.compile(slow, re.MULTILINE))), slow


RULES = {
    "tidy": tidy,
    "split_outline": split_outline,
    "is_request": is_request,
    "trim": trim,
    "without_question": lambda text: without_question(text, text),
    "about_question": about_question,
    "as_answer": as_answer,
    "normalize": normalize_text,
    "pii": mask,
    "loop": loop,
    "prose": prose,
    "sentences": sentences,
    "units": count_units,
    "han_share": han_share,
    **{f"{check.reason} of {check.column}": lambda text, find=check.find: find(text, text) for check in FILTERS},
}
HOSTILE = [
    *(
        "`",
        "```",
        "*",
        "**",
        "* ",
        "- ",
        "#",
        "> ",
        "1. ",
        " ",
        "\n",
        "\u3000",
        "\r\n",
        '"',
        "“",
        "“”",
        "《",
        "《》",
        "（",
        "(",
    ),
    *(
        "a",
        "。",
        "？",
        "a.",
        "= ",
        "问题：",
        "指令：",
        "希望以上对您有帮助。",
        "请注意，仅供参考。",
        "为什么",
        "的",
        "1",
        "1-",
        "@a.",
    ),
    *("话题：天气\n", "```x\n", "```\n", "……", "是", "一二", "第一条", "\x00", "\u200b", "e\u0301", "[assistant]\n"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("begin", ["", "问题：", "“"])
def test_rules_take_linear_time(name, begin):
    """What the stages do with an answer takes time as its length, whatever stands in it again and again."""
    slow = [why for run in HOSTILE if (why := grows_too_fast(RULES[name], (begin, run)))]
    assert not slow
