"""Completion by the shell, as README tells to switch it on."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
(EVAL,) = re.findall(r'^    (eval "\$\(_KUN_BUILD_COMPLETE=bash_source .*?\)")', README, re.MULTILINE)
ASK = """
compopt() { FILES=$2; }
COMP_WORDS=(kun-build "$@"); COMP_CWORD=$#
_kun_build_completion kun-build
echo "$FILES:${COMPREPLY[*]}"
"""


def completed(*words):
    """What bash offers for the last of the words: `default` for files, and words."""
    command = ["bash", "--norc", "-c", EVAL + ASK, "bash", *words]
    path = f"{BIN}:/usr/bin:/bin"
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": path}, timeout=200)
    files, _, offered = done.stdout.rstrip("\n").partition(":")
    return files, offered.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "files", "offered"),
    [
        (["pl"], "default", {"plan", "plugins"}),
        (["tra"], "default", {"train"}),
        (["my-rec"], "default", set()),
        (["--time"], "", {"--time-limit"}),
        (["recipe.yaml", "--time"], "", {"--time-limit"}),
        (["plan", "--samp"], "", {"--sample"}),
        (["plan", "rec"], "default", set()),
        (["build", "recipe.yaml", "--log-format", ""], "", {"text", "json"}),
    ],
)
def test_bash_completes(words, files, offered):
    """Commands, those of packages too, options, their values, and files where a recipe may stand."""
    found = completed(*words)
    assert (found[0], set(found[1])) == (files, offered)
