"""Models scored in NumPy give what KenLM's own library gives, to the last bit."""

from __future__ import annotations

import random

import kenlm
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kun_clean import language_models, tries
from kun_clean.language_models import BUILTIN_FILE, character_lines, load, spaced
from kun_clean.tries import Table, Trie
from samples import CORPUS, needs_samples

LIBRARY = kenlm.Model(str(BUILTIN_FILE))
TRIE = Trie(BUILTIN_FILE)
PLAIN = "秋天到了，院子里的柿子红了。奶奶搬来梯子，让爷爷站在上面摘柿子，我们在下面用布兜接着。the cat sat on 3 mats"


def both(texts, folded=True):
    points, _, _ = character_lines(texts, folded=folded)
    return TRIE.scores(points), np.array([LIBRARY.score(line) for line in spaced(points)], dtype=np.float32)


@given(
    st.lists(
        st.one_of(st.text(max_size=200), st.text("秋天的 \n中国人民是了<s>/unk", max_size=400), st.just(PLAIN)),
        max_size=12,
    )
)
@example([])
@example([""])
@example(["\n\n \0\n", "<s></s><unk>", "\U0010ffff\ue000\ud7ff", "一"])
@example([PLAIN * 300, "", PLAIN, "的" * 5000 + "\n" + "。" * 3])
def test_scores_are_those_of_the_library(texts):
    """Any text has the library's score in every bit: empty and long lines, unknown characters, words of the format."""
    for folded in (True, False):
        ours, theirs = both(texts, folded)
        assert ours.tobytes() == theirs.tobytes()


@needs_samples
def test_scores_of_real_and_shuffled_text_are_those_of_the_library():
    """So have texts of five kinds, as they are and with their characters in another order."""
    texts = [line for path in sorted(CORPUS.glob("*.jsonl")) for line in path.read_text("utf-8").split("\n")[:40]]
    dice = random.Random(0)
    ours, theirs = both(texts + ["".join(dice.sample(text, len(text))) for text in texts])
    assert ours.tobytes() == theirs.tobytes()


def test_perplexities_do_not_depend_on_who_scores(monkeypatch):
    """The stage's figures are the same by the library, whatever block a text is in."""
    texts = [PLAIN[at:] * 40 + "\n" * (at % 3) + PLAIN[:at] for at in range(70)]
    ours = load("builtin")(texts)

    def refuse(path):
        raise ValueError(path)

    monkeypatch.setattr(language_models, "Trie", refuse)
    theirs = language_models._load.__wrapped__(BUILTIN_FILE, 0)(texts)
    assert ours.tobytes() == theirs.tobytes()
    assert ours.tobytes() == np.concatenate([load("builtin")([text]) for text in texts]).tobytes()


@pytest.mark.parametrize("at", [0, 96, 104])
def test_model_of_another_kind_is_left_to_the_library(at, tmp_path):
    """What is not a quantised trie is refused: files whose first line, kind or version is another one."""
    content = bytearray(BUILTIN_FILE.read_bytes())
    content[at] = 2
    (tmp_path / "other.bin").write_bytes(content)
    with pytest.raises(ValueError, match="not a quantised trie"):
        Trie(tmp_path / "other.bin")


def test_large_model_is_left_to_the_library(monkeypatch):
    """A model whose n-grams would take too much memory is refused before any of them is read."""
    monkeypatch.setattr(tries, "_MOST", 1_600_000)
    with pytest.raises(ValueError, match="too many n-grams"):
        Trie(BUILTIN_FILE)


def test_table_finds_what_is_in_it_and_nothing_else():
    """However full its slots are next to each other."""
    dice = np.random.default_rng(0)
    keys = np.unique(dice.integers(0, 1 << 40, 5000, dtype=np.uint64)) << np.uint64(16)
    table = Table(keys, np.arange(len(keys)))
    found, slots, values = table.find(np.concatenate([keys[::2], keys + np.uint64(1 << 60)]))
    assert found.tolist() == list(range(len(keys[::2])))
    assert values.tolist() == list(range(0, len(keys), 2))
    assert slots.tolist() == table.slots[::2].tolist()
