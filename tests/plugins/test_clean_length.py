"""Stage `length`."""

from __future__ import annotations

import gigatoken
import pyarrow as pa
import pytest
from byte_tokenizers import byte_level
from hypothesis import given
from hypothesis import strategies as st
from kun_clean import length
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from kun_builder import KunError

SENTENCE = "机器学习是人工智能的一个分支，研究计算机怎样从数据中学习。Machine learning in 2026.\n"


@pytest.fixture(scope="module")
def tokenizer():
    """A byte-level BPE of a few hundred merges."""
    tokenizer = byte_level([SENTENCE * 3], 600, ["<s>"])
    tokenizer.enable_truncation(5)  # as some published files do
    return tokenizer


@pytest.fixture(scope="module")
def file(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def run(texts, **options):
    table = length.run(
        pa.table({"id": [str(i) for i in range(len(texts))], "text": pa.array(texts, pa.string())}), **options
    )
    return table["tokens"].to_pylist(), table["_reason"].to_pylist(), table["_value"].to_pylist()


def test_tokens_are_those_of_the_file(file, tokenizer):
    """The column has the exact number of tokens, whatever truncation the file asks for."""
    texts = [SENTENCE * times for times in (1, 3, 7)]
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    expected = [len(tokenizer.encode(text).ids) for text in texts]
    assert run(texts, tokenizer=str(file))[0] == expected


def test_characters_do_not_count_white_space():
    """Without a tokenizer, a token is a character that can be seen."""
    assert run(["春 眠\n不觉晓\u3000"], tokenizer="characters", min_tokens=0)[0] == [5]


def test_limits_that_no_text_meets_are_an_error():
    """Where the minimum is above the maximum, all texts would be dropped: that is a mistake, and told."""
    with pytest.raises(KunError, match="`length`: no text has 20 tokens or more and at most 10"):
        length.run(pa.table({"id": ["a"], "text": ["hello"]}), min_tokens=20, max_tokens=10, tokenizer="characters")


def test_limits_belong_to_the_texts_that_stay():
    """Exactly `min_tokens` and exactly `max_tokens` are kept; one less and one more are dropped with their number."""
    texts = ["字" * number for number in (9, 10, 20, 21)]
    tokens, reasons, values = run(texts, tokenizer="characters", min_tokens=10, max_tokens=20)
    assert tokens == [9, 10, 20, 21]
    assert reasons == ["too_short", None, None, "too_long"]
    assert values == ["9", None, None, "21"]


def test_text_far_over_the_limit_is_not_tokenized_to_its_end(file, monkeypatch):
    """Of a text far over the limit only the beginning is counted, and the decision is the same."""
    seen = []
    count = length.counter(str(file))
    monkeypatch.setattr(length, "counter", lambda name: lambda texts: seen.extend(map(len, texts)) or count(texts))
    text = "".join(chr(0x4E00 + number * 7 % 5000) for number in range(5000))
    (tokens,), reasons, _ = run([text], tokenizer="x", max_tokens=64)
    assert max(seen) == 4 * 64
    assert tokens > 64
    assert reasons == ["too_long"]


def test_long_text_of_few_tokens_is_counted_to_its_end(file):
    """A text of many characters and few tokens is not judged by its beginning."""
    assert run(["字" * 100], tokenizer="characters", max_tokens=30, min_tokens=0)[1] == ["too_long"]
    text = " " * 300 + "字" * 10
    assert run([text], tokenizer="characters", max_tokens=30, min_tokens=0)[0] == [10]


@pytest.mark.parametrize("content", [None, "{}", "no JSON"])
def test_what_is_no_tokenizer_is_named(tmp_path, content):
    """A file that is missing, or something else, is an error of one line that names it and says what can be given."""
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(KunError, match=r"tokenizer\.json is no tokenizer") as caught:
        run([SENTENCE], tokenizer=str(path))
    assert "\n" not in caught.value.message
    assert "characters" in caught.value.hint


# --- many texts --------------------------------------------------------------------------------------------------

_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    """A byte-level BPE cut and normalised as Qwen's, with control tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(_QWEN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=alphabet, special_tokens=["<|im_start|>", "<|im_end|>"], show_progress=False
    )
    tokenizer.train_from_iterator([SENTENCE * 3, "".join(length._PROBE)], trainer)
    path = tmp_path_factory.mktemp("qwen") / "tokenizer.json"
    tokenizer.save(str(path))
    return str(path)


@given(texts=st.lists(st.text() | st.sampled_from([*length._PROBE, SENTENCE, "<|im_end|>"]), min_size=1).map("".join))
def test_the_faster_tokenizer_counts_the_same(qwen, texts):
    """Whatever a text holds, counting by the thousand gives the number that the tokenizer itself gives."""
    fast = length._Fast(qwen)
    assert fast.usable
    assert fast.count([texts]) == [len(length.load(qwen).encode(texts, add_special_tokens=False))]


def test_many_texts_go_to_the_faster_tokenizer(qwen, monkeypatch):
    """From a thousand texts on, gigatoken counts; it is loaded anew before what it remembers grows large."""
    loaded = []
    load = length._Fast._load
    monkeypatch.setattr(length._Fast, "_load", lambda self: loaded.append(self) or load(self))
    monkeypatch.setattr(length, "_MEMORY", 200_000)
    length.counter.cache_clear()
    texts = [SENTENCE * (1 + number % 3) for number in range(length._MANY)]
    few = length.counter(qwen)(texts[:6])
    assert not loaded
    assert length.counter(qwen)(texts)[:6] == few
    assert len(loaded) == 1
    length.counter(qwen)(texts)
    assert len(loaded) == 2
    length.counter.cache_clear()


@pytest.mark.parametrize("fault", ["unknown", "wrong"])
def test_a_tokenizer_that_the_faster_one_does_not_know_is_not_left_to_it(qwen, monkeypatch, fault):
    """Where gigatoken refuses a tokenizer, or counts otherwise, `tokenizers` counts, and the numbers are right."""

    class Wrong:
        def encode_batch(self, texts):
            return [[0] for _ in texts]

    def from_json(content):
        if fault == "unknown":
            raise ValueError("unsupported model type")
        return Wrong()

    monkeypatch.setattr(gigatoken.Tokenizer, "from_json", from_json)
    length.counter.cache_clear()
    texts = [SENTENCE] * length._MANY
    expected = len(length.load(qwen).encode(SENTENCE, add_special_tokens=False))
    assert length.counter(qwen)(texts) == [expected] * len(texts)
    length.counter.cache_clear()


@given(st.lists(st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from(" \t\n\x1c\x85\u2028\u3000")))))
def test_characters_are_counted_without_white_space(texts):
    """`characters` counts what is left of each text where Python's own notion of white space is left out."""
    assert length.counter("characters")(texts) == [len("".join(text.split())) for text in texts]


def test_characters_of_a_shard_in_pieces():
    """Texts that lie in slices of several arrays are counted as those of one, white space of every length included."""
    pieces = [pa.array(["x", " \t春\u0085眠", "\u2028"]).slice(1), pa.array(["\u3000不\u1680觉\u00a0晓", "", "😀\n"])]
    table = pa.table({"id": list("abcde"), "text": pa.chunked_array(pieces)})
    assert length.run(table, tokenizer="characters", min_tokens=0)["tokens"].to_pylist() == [2, 0, 3, 0, 1]
    assert length.run(table.slice(2), tokenizer="characters", min_tokens=0)["tokens"].to_pylist() == [3, 0, 1]
