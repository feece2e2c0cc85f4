"""Cleaning: speed of every stage, copies found and missed by `dedup`, and good text that the default gates would drop.

    python benchmarks/cleaning.py CORPUS_FOLDER [--search-rows 1000000]

CORPUS_FOLDER holds JSONL files with `text`. Documents are 600 characters long, as a page's worth after `length`. For
`dedup`, exact copies (5 %, other spacing and punctuation) and near copies (10 %, 2 % of the characters
replaced) of random documents are put among them. Speeds are documents per CPU second, models already loaded.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset
from kun_clean import dedup, language, length, minhash, normalize, perplexity

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


def copies(pieces: list[tuple[str, str]]) -> None:
    """Plant copies, and count those that `dedup` finds, and what it drops besides."""
    source = random.Random(1)
    alphabet = sorted({character for _, text in pieces[:200] for character in text if character.isalnum()})
    rows = [(text, -1, "") for _, text in pieces]
    for number in source.sample(range(len(pieces)), len(pieces) * 15 // 100):
        corpus, text = pieces[number]
        exact = source.random() < 1 / 3
        copy = respaced(text) if exact else changed(text, alphabet, source)
        rows.append((copy, number, "exact" if exact else f"near, {corpus}"))
    order = list(range(len(rows)))
    source.shuffle(order)
    place = {number: at for at, number in enumerate(order)}
    measured = timed("dedup, sketches", lambda part: dedup.measure(part), table([rows[number][0] for number in order]))
    start = time.process_time()
    drops = dedup.run(Dataset(measured.select(["id", "split", "_minhash"])))
    print(f"{'dedup, search':34} {len(rows) / (time.process_time() - start):9,.0f} documents per CPU second")
    second = {max(place[copy], place[number]): kind for copy, (_, number, kind) in enumerate(rows) if kind}
    found = Counter(second[row] for row, _, _ in drops if row in second)
    for kind, planted in sorted(Counter(second.values()).items()):
        print(f"  copies found, {kind:22} {found[kind]:5} of {planted:5} ({found[kind] / planted:.1%})")
    others = [(row, int(str(kept))) for row, _, kept in drops if row not in second]
    true = np.array([jaccard(rows[order[row]][0], rows[order[kept]][0]) for row, kept in others])
    far, near = np.sum(true < 0.7), np.sum(true >= 0.8)
    print(f"  dropped besides: {len(others)} of {len(pieces)}; their exact similarity to the row that stays:")
    print(f"    0.8 and more {near}, 0.7 to 0.8 {len(true) - near - far}, less {far}")


def respaced(text: str) -> str:
    """The same words with other spacing and punctuation."""
    return text.replace("，", ", ").replace("。", " .\n")


def changed(text: str, alphabet: list[str], source: random.Random) -> str:
    """`text` with 2 % of its characters replaced."""
    characters = list(text)
    for at in source.sample(range(len(text)), round(len(text) * 0.02)):
        characters[at] = source.choice(alphabet)
    return "".join(characters)


def jaccard(one: str, other: str) -> float:
    """The exact similarity that sketches estimate."""
    width = minhash.WIDTH
    first, second = (
        {tuple(found[at : at + width].tolist()) for at in range(max(1, len(found) - width + 1))}
        for found in minhash.units([one, other])
    )
    return len(first & second) / len(first | second)


def search(count: int) -> None:
    """Search among `count` random sketches, every tenth a near copy of the one before, and print time and memory."""
    source = np.random.default_rng(0)
    sketches = source.integers(0, 256, (count, minhash.RECORD), dtype=np.uint8)
    sketches[9::10, minhash.DIGEST + 30 :] = sketches[8::10, minhash.DIGEST + 30 :][: len(sketches[9::10])]
    offsets = pa.py_buffer(np.arange(0, (SHARD + 1) * minhash.RECORD, minhash.RECORD, dtype=np.int32))
    chunks = [
        pa.Array.from_buffers(pa.binary(), len(part), [None, offsets, pa.py_buffer(part)])
        for part in (sketches[at : at + SHARD] for at in range(0, count, SHARD))
    ]
    ids = pa.array(np.arange(count)).cast(pa.string())
    dataset = Dataset(pa.table({"id": ids, "split": pa.repeat("all", count), "_minhash": pa.chunked_array(chunks)}))
    start = time.process_time()
    drops = dedup.run(dataset)
    seconds = time.process_time() - start
    tracemalloc.start()
    dedup.run(dataset)
    peak = tracemalloc.get_traced_memory()[1] / count
    tracemalloc.stop()
    print(f"search among {count:,} sketches: {seconds:.1f} CPU seconds, {len(drops):,} found, {peak:.0f} bytes a row")


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
    parser.add_argument("--search-rows", type=int, default=1_000_000)
    given = parser.parse_args()
    search(given.search_rows)
    pieces = documents(given.corpus)
    texts = [text for _, text in pieces]
    print(f"{len(texts):,} documents, {sum(map(len, texts)) / len(texts):.0f} characters on average")
    speeds(table(texts))
    copies(pieces)
    print("good text that the default gates would drop:")
    gates(pieces)


if __name__ == "__main__":
    main()
