"""Cleaning: speed of every stage, and good text that the default gates would drop.

    python benchmarks/cleaning.py CORPUS_FOLDER

CORPUS_FOLDER holds JSONL files with `text`. Documents are 600 characters long, as a page's worth after `length`. Speeds
are documents per CPU second, models already loaded. `duplicates.py` measures `dedup`.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from kun_clean import language, length, normalize, perplexity

SIZE = 600
SHARD = 2000


def documents(folder: Path) -> list[tuple[str, str]]:
    """(corpus, text) of all pieces of `SIZE` characters, in random order, normalised."""
    pieces = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            text = normalize.normalize_text(json.loads(line)["text"])
            pieces += [(path.stem, text[at : at + SIZE]) for at in range(0, max(1, len(text) - SIZE // 2), SIZE)]
    random.Random(0).shuffle(pieces)
    return pieces


def table(texts: list[str], splits: list[str] | None = None) -> pa.Table:
    """Rows as a stage sees them."""
    ids = [str(row) for row in range(len(texts))]
    return pa.table({"id": ids, "split": splits or ["all"] * len(texts), "text": texts})


def timed(name: str, function: Callable[[pa.Table], pa.Table], rows: pa.Table) -> pa.Table:
    """Run `function` shard by shard, print its speed, return the result."""
    function(rows.slice(0, 20))
    start = time.process_time()
    parts = [function(rows.slice(at, SHARD)) for at in range(0, len(rows), SHARD)]
    print(f"{name:34} {len(rows) / (time.process_time() - start):9,.0f} documents per CPU second")
    return pa.concat_tables(parts)


def speeds(rows: pa.Table) -> None:
    """Every stage alone."""
    timed("normalize", lambda part: normalize.run(part), rows)
    timed("normalize, simplify", lambda part: normalize.run(part, simplify=True), rows)
    timed("language", lambda part: language.run(part), rows)
    timed("length, characters", lambda part: length.run(part, tokenizer="characters"), rows)
    timed("perplexity", lambda part: perplexity.measure(part), rows.slice(0, 2 * SHARD))


def gates(pieces: list[tuple[str, str]]) -> None:
    """Good text that the gates which look at one row would drop, by corpus."""
    for corpus in sorted({name for name, _ in pieces}):
        rows = table([text for name, text in pieces if name == corpus])
        codes = Counter(language.run(rows)["language"].to_pylist())
        values = perplexity.measure(rows)["perplexity"].to_numpy()
        tokens = length.run(rows, tokenizer="characters")["tokens"].to_numpy()
        print(
            f"  {corpus:18} {len(rows):6} pieces: language {1 - codes['zh'] / len(rows):.2%} "
            f"(others: {dict((codes - Counter(zh=codes['zh'])).most_common(3))}), "
            f"perplexity above {perplexity.GARBAGE:g} {np.mean(values > perplexity.GARBAGE):.2%}, "
            f"median {np.median(values):.0f}; under 16 characters {np.mean(tokens < 16):.2%}"
        )


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    given = parser.parse_args()
    pieces = documents(given.corpus)
    texts = [text for _, text in pieces]
    print(f"{len(texts):,} documents, {sum(map(len, texts)) / len(texts):.0f} characters on average")
    speeds(table(texts))
    print("good text that the default gates would drop:")
    gates(pieces)


if __name__ == "__main__":
    main()
