"""Trains a language model for the stage `perplexity`.

    python -m kun_clean.train_perplexity TEXTS.jsonl... --output MODEL.bin

Builds KenLM's trainer from its source archive on PyPI (needs a C++ compiler, cmake and boost: on Debian `cmake
libboost-program-options-dev libboost-system-dev libboost-thread-dev zlib1g-dev libbz2-dev liblzma-dev`), trains 5-grams
of folded characters, prunes them, and writes a trie quantised to 8 bits. Beside it goes MODEL.json: what it was made of
and how, and the perplexities of text that it has not seen: each file by a model of the others, and every `--held-out`
file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .language_models import FOLDED, character_lines, load, spaced
from .normalize import normalize_text

ARCHIVE = "kenlm-0.3.0.tar.gz"
ARCHIVE_SHA256 = "c4628bb9fb63c8a6f9240035b8b037385cfc404cb72e933cf48878291edac1e8"
TRAIN = ("-o", "5", "--prune", "0", "0", "1", "1", "1", "--discount_fallback", "--skip_symbols", "-S", "1G")
BUILD = ("-a", "22", "-q", "8", "-b", "8", "trie")
EXCERPT = 500
"""Characters of a text that the figures are measured on: what a document has after the stage `length`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m kun_clean.train_perplexity", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "texts", nargs="+", type=Path, help="JSONL with `text`, and `source` and `license` for the record"
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--held-out", nargs="*", type=Path, default=[], help="JSONL that is only measured")
    parser.add_argument("--kenlm", type=Path, help="folder with lmplz and build_binary; without it they are built")
    given = parser.parse_args(arguments)
    with TemporaryDirectory() as scratch:
        programs = given.kenlm or build_kenlm(Path(scratch))
        corpora = {path.stem: read(path) for path in given.texts}
        train(programs, [row["text"] for rows in corpora.values() for row in rows], given.output)
        record = {
            "file": given.output.name,
            "sha256": sha256(given.output),
            "bytes": given.output.stat().st_size,
            "tokens": "characters, folded by kun_clean.characters.folding",
            "trainer": {"archive": ARCHIVE, "sha256": ARCHIVE_SHA256, "lmplz": TRAIN, "build_binary": BUILD},
            "trained_on": [about(path, corpora[path.stem]) for path in given.texts],
            "perplexities_of_unseen_text": unseen(programs, corpora, given.held_out, given.output, Path(scratch)),
        }
    text = json.dumps(record, ensure_ascii=False, indent=2) + "\n"
    given.output.with_suffix(".json").write_text(text, encoding="utf-8")
    print(text)


def build_kenlm(folder: Path) -> Path:
    """Fetch KenLM's source, check it, compile the two programs; returns their folder."""
    run(sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "kenlm", "kenlm==0.3.0", "-d", folder)
    if sha256(folder / ARCHIVE) != ARCHIVE_SHA256:
        raise SystemExit(f"{ARCHIVE} is not the archive that this script was written for")
    with tarfile.open(folder / ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    build = folder / "build"
    run("cmake", "-S", folder / ARCHIVE.removesuffix(".tar.gz"), "-B", build, "-DCMAKE_BUILD_TYPE=Release")
    run("cmake", "--build", build, "--parallel", "2", "--target", "lmplz", "build_binary")
    return build / "bin"


def train(programs: Path, texts: Sequence[str], output: Path) -> None:
    """Write a model of `texts` to `output`."""
    points, lengths, _ = character_lines([normalize_text(text) for text in texts], folded=True)
    with TemporaryDirectory() as scratch:
        arpa = Path(scratch, "model.arpa")
        sentences = [line for line, length in zip(spaced(points), lengths, strict=True) if length]
        Path(scratch, "text").write_text("\n".join([FOLDED, *sentences]) + "\n", encoding="utf-8")
        run(programs / "lmplz", *TRAIN, "-T", scratch, "--text", Path(scratch, "text"), "--arpa", arpa)
        run(programs / "build_binary", *BUILD, arpa, output)


def unseen(
    programs: Path, corpora: dict[str, list[dict[str, Any]]], held_out: Sequence[Path], output: Path, scratch: Path
) -> dict[str, dict[str, float]]:
    """Figures of each corpus by a model of the others, and of held-out files, plain and shuffled, by `output`."""
    figures = {}
    for name, rows in corpora.items():
        model = scratch / f"without-{name}.bin"
        train(programs, [row["text"] for other in corpora if other != name for row in corpora[other]], model)
        figures[f"{name}, by a model without it"] = percentiles(model, [row["text"][:EXCERPT] for row in rows])
    for path in held_out:
        texts = [row["text"][:EXCERPT] for row in read(path)]
        figures[path.stem] = percentiles(output, texts)
        figures[f"{path.stem}, characters shuffled"] = percentiles(output, [shuffled(text) for text in texts])
    return figures


def percentiles(model: Path, texts: Sequence[str]) -> dict[str, float]:
    """Rows and percentiles 1, 5, 50, 95, 99 of the perplexities of `texts`."""
    import numpy as np

    values = load(str(model.resolve()))([normalize_text(text) for text in texts])
    at = (1, 5, 50, 95, 99)
    found = {f"p{p}": round(float(v), 1) for p, v in zip(at, np.percentile(values, at), strict=True)}
    return {"rows": len(texts), **found}


def shuffled(text: str) -> str:
    """The characters of `text` in an order that is the same every time."""
    return "".join(random.Random(len(text)).sample(text, len(text)))


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSONL file."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def about(path: Path, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a corpus is, for the record."""
    licenses = sorted({str(row.get("license", "unknown")) for row in rows})
    characters = sum(len(row["text"]) for row in rows)
    return {
        "file": path.name,
        "sha256": sha256(path),
        "rows": len(rows),
        "characters": characters,
        "licenses": licenses,
    }


def sha256(path: Path) -> str:
    """Digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run(*command: str | Path) -> None:
    """Run a program; what it says goes to stderr."""
    subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
