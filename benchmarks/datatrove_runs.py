"""What `peers.py` has datatrove do, under the Python in whose environment that is installed.

    python datatrove_runs.py length|cleaning DOCUMENTS FOLDER LANGUAGE_MODEL

One process, one task. In `cleaning`, its near-duplicates are sought as its documentation does it, in four passes, but
over characters: over words, as it would take them from a text without spaces, it finds no near copy.
"""

from __future__ import annotations

import sys
from pathlib import Path

from datatrove.data import Document
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.filters import LambdaFilter, LanguageFilter
from datatrove.pipeline.formatters import FTFYFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.lid import FastTextLID
from datatrove.utils.word_tokenizers import WordTokenizer
from fasttext.FastText import _FastText


class GivenModel(FastTextLID):
    """The model of a file, in place of one that would be downloaded."""

    def __init__(self, languages: list[str], path: str) -> None:
        super().__init__(languages)
        self._path = path

    @property
    def model(self) -> _FastText:
        """See `FastTextLID`: loaded when it is needed, since pipelines are copied before."""
        self._model = self._model or _FastText(self._path)
        return self._model


class Characters(WordTokenizer):
    """Every character that can be seen is a word."""

    def word_tokenize(self, text: str) -> list[str]:
        """See `WordTokenizer`."""
        return [character for character in text if not character.isspace()]

    def sent_tokenize(self, text: str) -> list[str]:
        """See `WordTokenizer`."""
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """See `WordTokenizer`."""
        return [(at, at + 1) for at, character in enumerate(text) if not character.isspace()]


def fits(document: Document) -> bool:
    """Whether the text has 16 to 700 characters."""
    return 16 <= len(document.text) <= 700


def run(name: str, steps: list[PipelineStep], folder: Path, tasks: int = 1) -> None:
    """Run one pipeline in this process, its tasks one after the other."""
    LocalPipelineExecutor(steps, tasks=tasks, workers=1, logging_dir=str(folder / "logs" / name)).run()


def reader(path: Path) -> JsonlReader:
    """Reads the file, or the files of the folder."""
    return JsonlReader(str(path)) if path.is_dir() else JsonlReader(str(path.parent), glob_pattern=path.name)


def length(source: Path, folder: Path) -> None:
    """Read, cut by length, write."""
    run("length", [reader(source), LambdaFilter(fits), JsonlWriter(str(folder / "kept"), compression=None)], folder)


def cleaning(source: Path, folder: Path, model: str) -> None:
    """Encoding and control characters, language, length, near-duplicates."""
    language = LanguageFilter(["zh"])
    language.model = GivenModel(["zh"], model)
    clean, found = folder / "clean", {name: str(folder / name) for name in ("signatures", "buckets", "remove")}
    written = JsonlWriter(str(clean), compression=None)
    run("clean", [reader(source), FTFYFormatter(), language, LambdaFilter(fits), written], folder)
    config = MinhashConfig()
    signatures = MinhashDedupSignature(found["signatures"], config, language=Characters())
    run("signatures", [reader(clean), signatures], folder)
    buckets = MinhashDedupBuckets(found["signatures"], found["buckets"], config=config)
    run("buckets", [buckets], folder, tasks=config.num_buckets)
    run("cluster", [MinhashDedupCluster(found["buckets"], found["remove"], config=config)], folder)
    kept = JsonlWriter(str(folder / "kept"), compression=None)
    run("filter", [reader(clean), MinhashDedupFilter(found["remove"]), kept], folder)


if __name__ == "__main__":
    what, source, folder, model = sys.argv[1:]
    if what == "length":
        length(Path(source), Path(folder))
    else:
        cleaning(Path(source), Path(folder), model)
