"""How many pairs written by people would `refine` drop? One line per filter, one column per file of pairs.

    python benchmarks/refine_false_drops.py pairs.jsonl ...

Each file has JSON lines with `instruction` and `output`. Also counted: the form check of `label`, with the answer in
the place of the text, and answers that `refine` would shorten.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from kun_method import label
from kun_method.filters import FILTERS
from kun_method.form import defect
from kun_method.refine import trim, without_question

Pair: TypeAlias = tuple[str, str]
Rates: TypeAlias = dict[str, dict[str, float]]
"""Check to file to share of pairs; the column `all` is over all pairs."""

FORM = ("too_short", "wrong_language", "prompt_leak", "several_requests", "copies_text", "not_a_request")
TRIMMED = "trimmed, not dropped"


def main(paths: Sequence[str]) -> None:
    """Print the table as Markdown."""
    if not paths:
        sys.exit(__doc__)
    pairs = {Path(path).stem: read(Path(path)) for path in paths}
    rates = measure(pairs)
    counts = {**{name: len(content) for name, content in pairs.items()}, "all": sum(map(len, pairs.values()))}
    print("| check | " + " | ".join(f"{name} ({count:,})" for name, count in counts.items()) + " |")
    print("|---|" + "---:|" * len(counts))
    for check, by_file in rates.items():
        print(f"| {check} | " + " | ".join(f"{by_file[name]:.2%}" for name in counts) + " |")


def read(path: Path) -> list[Pair]:
    """The pairs of a file."""
    with path.open(encoding="utf-8") as lines:
        return [(record["instruction"], record["output"]) for record in map(json.loads, lines)]


def measure(pairs: Mapping[str, Sequence[Pair]]) -> Rates:
    """The share of pairs in which each check finds something, after the trimming that `refine` begins with."""
    trimmed = {
        name: [(trim(asked, leftovers=False), without_question(trim(answer), asked)) for asked, answer in content]
        for name, content in pairs.items()
    }
    found = {name: [_found(pair) for pair in content] for name, content in trimmed.items()}
    shortened = {
        name: [
            {TRIMMED} if without_question(trim(output), instruction) != trim(output, leftovers=False) else set()
            for instruction, output in content
        ]
        for name, content in pairs.items()
    }
    names = [_name(check.column, check.reason) for check in FILTERS] + [_name("form", reason) for reason in FORM]
    return {**{name: _shares(found, name) for name in names}, TRIMMED: _shares(shortened, TRIMMED)}


def _found(pair: Pair) -> set[str]:
    """The names of all checks that find something in a pair."""
    names = {_name(check.column, check.reason) for check in FILTERS if check.find(*pair)}
    fault = defect(*pair, label.CHAT)
    return names | {_name("form", fault[0])} if fault else names


def _name(column: str, reason: str) -> str:
    return f"{column}: {reason}"


def _shares(found: Mapping[str, Sequence[set[str]]], name: str) -> dict[str, float]:
    hits = {file: [name in each for each in content] for file, content in found.items()}
    every = [hit for content in hits.values() for hit in content]
    return {file: sum(content) / len(content) for file, content in {**hits, "all": every}.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
