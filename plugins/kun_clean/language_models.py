"""KenLM models of text: where they come from, what their tokens are, and how they score a shard.

Three kinds of model are understood, told apart by what the model itself brings:

    built in                    5-grams of folded characters (see `characters.folding`), trained by `train_perplexity`
    a KenLM file                n-grams of single characters, white space left out; a model that `train_perplexity` made
                                knows a marker word, and its characters are folded
    a KenLM file `X.arpa.bin`   with a SentencePiece model `X.sp.model` beside it: n-grams of its pieces, after digits
                                became 0 and punctuation ASCII, as CCNet (arXiv 1911.00359) and edugp/kenlm have it

A file is a path, or a file on the Hub written `org/name/path/in/repository`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kun_builder import KunError

from .characters import code_points, folding
from .shingles import blocks
from .tries import Trie

if TYPE_CHECKING:
    from .characters import Array

BUILTIN = "builtin"
BUILTIN_FILE = Path(__file__).parent / "data" / "zh_char5.bin"
FOLDED = "<kun-folded>"
"""Word in the vocabulary of models over folded characters. In a text, each of its characters is a token of its own."""

_HUB_FILE = re.compile(r"(?P<repo>\w[\w.-]{0,95}/\w[\w.-]{0,95})/(?P<file>[\w.-]+(?:/[\w.-]+)*)", re.ASCII)


def load(name: str) -> Callable[[Sequence[str]], Array]:
    """The model called `name`, as a function from texts to perplexities per token (double).

    Lines are sentences: each is scored with its beginning and end, and its end counts as a token. Raises KunError.
    """
    path = BUILTIN_FILE if name == BUILTIN else _find(name)
    return _load(path, path.stat().st_mtime_ns)


@cache
def _load(path: Path, changed: int) -> Callable[[Sequence[str]], Array]:
    """The model in a file that was changed at the time `changed`."""
    import kenlm

    try:
        model = kenlm.Model(str(path))
    except (OSError, RuntimeError) as error:
        raise KunError(
            f"perplexity: {path} is no KenLM model: {str(error).splitlines()[0]}",
            hint="`model:` takes what `lmplz` or `build_binary` wrote",
        ) from error
    pieces = _beside(path)
    if pieces.exists():
        return partial(_score_pieces, model, _sentencepiece(pieces))
    try:
        score = Trie(path).scores
    except ValueError:
        score = partial(_by_library, model)
    return partial(_score_characters, score, FOLDED in model)


def _find(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_file():
        return path
    hub = _HUB_FILE.fullmatch(name)
    if hub is None:
        raise KunError(
            f"perplexity: there is no language model `{name}`",
            hint=f"`model:` takes `{BUILTIN}`, a KenLM file, or one on the Hub: edugp/kenlm/wikipedia/zh.arpa.bin",
        )
    return _download(hub["repo"], hub["file"])


@cache
def _download(repo: str, file: str) -> Path:
    """The model and, if there is one, its SentencePiece model, in the Hub's own cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = Path(hf_hub_download(repo, file))
    except (HfHubHTTPError, OSError) as error:
        raise KunError(
            f"perplexity: {file} of {repo} cannot be had from the Hub: {str(error).splitlines()[0]}",
            hint="check the name, or give the path of a file; HF_TOKEN opens private repositories",
        ) from error
    try:
        hf_hub_download(repo, str(_beside(Path(file))))
    except LocalEntryNotFoundError as error:
        raise KunError(f"perplexity: the Hub went away while {repo} was being read", hint="run again") from error
    except EntryNotFoundError:
        pass  # a model over characters
    return path


def _beside(path: Path) -> Path:
    return path.with_name(re.sub(r"(\.arpa)?(\.bin)?$", "", path.name) + ".sp.model")


# --- characters ------------------------------------------------------------------------------------------------


def character_lines(texts: Sequence[str], *, folded: bool) -> tuple[Array, Array, Array]:
    """The visible characters of all lines, as code points (uint32) with a line feed behind each line; how many
    characters each line has, and the text that it belongs to."""
    import numpy as np

    points, lengths = code_points([text + "\n" for text in texts])
    seen = folding().take(points)
    visible = np.flatnonzero(seen != ord(" "))
    points = (seen if folded else points).take(visible)
    ends = np.flatnonzero(points == ord("\n"))
    text_of = np.searchsorted(np.cumsum(lengths), visible.take(ends), side="right")
    return points, np.diff(ends, prepend=-1) - 1, text_of


def spaced(points: Array) -> list[str]:
    """Lines of `character_lines` as strings with a space after each character, which KenLM takes for words."""
    import numpy as np

    both = np.full((len(points), 2), ord(" "), dtype="<u4")
    both[:, 0] = points
    return both.tobytes().decode("utf-32-le").split("\n")[:-1]


def _by_library(model: Any, points: Array) -> Array:
    import numpy as np

    return np.array([model.score(line) for line in spaced(points)], dtype=np.float32)


def _score_characters(score: Callable[[Array], Array], folded: bool, texts: Sequence[str]) -> Array:
    """Perplexities by `score`, which gives the logarithm of the probability of each of the lines that it gets."""
    import numpy as np

    parts = [_perplexities(score, folded, block) for block in blocks(texts)]
    return np.concatenate([np.zeros(0), *parts])


def _perplexities(score: Callable[[Array], Array], folded: bool, texts: Sequence[str]) -> Array:
    import numpy as np

    points, lengths, text_of = character_lines(texts, folded=folded)
    scores, tokens = np.where(lengths > 0, score(points), 0), np.where(lengths > 0, lengths + 1, 0)
    total = np.bincount(text_of, weights=scores, minlength=len(texts))
    count = np.bincount(text_of, weights=tokens, minlength=len(texts))
    nothing = score(np.array([ord("\n")], dtype=np.uint32))
    perplexities: Array = 10.0 ** (-np.where(count, total, nothing) / np.maximum(count, 1))
    return perplexities


# --- pieces ----------------------------------------------------------------------------------------------------

_PUNCTUATION = str.maketrans(
    {
        "。": ".",
        "、": ",",
        "…": "...",
        **dict.fromkeys("“”„«»『』「」《》", '"'),
        **dict.fromkeys("‘’´`", "'"),
        **dict.fromkeys("【〔〖", "["),
        **dict.fromkeys("】〕〗", "]"),
        **dict.fromkeys("—–━", "-"),
    }
)
_DIGIT = re.compile(r"\d")


@cache
def _sentencepiece(path: Path) -> Any:
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise KunError(
            f"perplexity: {path.name} is a SentencePiece model, and its package is not installed",
            hint="pip install sentencepiece",
        ) from error
    return SentencePieceProcessor(model_file=str(path))


def _score_pieces(model: Any, processor: Any, texts: Sequence[str]) -> Array:
    import numpy as np

    plain = [_DIGIT.sub("0", unicodedata.normalize("NFKC", text.translate(_PUNCTUATION))) for text in texts]
    pieces = processor.encode(plain, out_type=str)
    scores = np.array([model.score(" ".join(piece)) for piece in pieces])
    perplexities: Array = 10.0 ** (-scores / np.array([len(piece) + 1 for piece in pieces]))
    return perplexities
