"""Stage `dedup`."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, concatenate_datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from kun_clean import dedup, minhash

from kun_builder.testing import check_stage

CORPUS = Path(__file__).parents[3] / "shared" / "data" / "corpus"
HAN = [chr(point) for point in range(0x4E00, 0x5200)]


def prose(seed, length=300):
    """Random Chinese text with punctuation."""
    source = random.Random(seed)
    return "".join(source.choice(HAN) if at % 12 else "，" for at in range(1, length + 1))


def changed(text, count, seed=0):
    """`text` with `count` characters replaced."""
    source = random.Random(seed)
    characters = list(text)
    for at in source.sample(range(len(text)), count):
        characters[at] = source.choice("甲乙丙丁戊己庚辛壬癸")
    return "".join(characters)


def dataset(texts, splits=None, shard=None):
    """Measured rows, shard by shard, as the stage sees them."""
    splits = splits or ["wudao"] * len(texts)
    ids = [f"{split}/{row}" for row, split in enumerate(splits)]
    table = pa.table({"id": ids, "split": splits, "text": pa.array(texts, pa.string())})
    shards = [dedup.measure(table.slice(at, shard or len(texts))) for at in range(0, len(texts), shard or len(texts))]
    return concatenate_datasets([Dataset(part.select(["id", "split", "_minhash"])) for part in shards])


def drops(texts, splits=None, shard=None, **options):
    return dedup.run(dataset(texts, splits, shard), **options)


def jaccard(one, other):
    sets = [
        {tuple(units[at : at + 5].tolist()) for at in range(len(units) - 4)} for units in minhash.units([one, other])
    ]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_first_of_the_copies_stays():
    """Copies are dropped in favour of the first in input order, with its id."""
    one, other = prose(1), prose(2)
    assert drops([one, other, one, one]) == [(2, "duplicate", "wudao/0"), (3, "duplicate", "wudao/0")]


@pytest.mark.parametrize(
    "copy",
    [
        "今天 天气 很好! 我们去\n公园.\n\nHELLO",
        "今天天氣很好，我們去公園。hello",
        "今天天气很好、我们去公园……ｈｅｌｌｏ",
    ],
)
def test_exact_copies_are_known_in_other_clothes(copy):
    """White space, punctuation, width, case and script do not make another text."""
    assert drops(["今天天气很好，我们去公园。hello", copy]) == [(1, "duplicate", "wudao/0")]


def test_near_copies_are_dropped_and_others_kept():
    """Texts with a few changed characters are near-duplicates; texts that share half of theirs are not."""
    text = prose(1, 600)
    half = text[:300] + prose(2, 300)
    assert drops([text, changed(text, 6), half, prose(3, 600)]) == [(1, "near_duplicate", "wudao/0")]


def test_likeness_is_not_passed_on():
    """A row is dropped only for a row that stays: the far end of a chain stays if it is unlike the near end."""
    text = prose(1, 600)
    chain = [text]
    for step in range(4):
        chain.append(changed(chain[-1], 9, seed=step))
    found = drops(chain)
    dropped = {row for row, *_ in found}
    assert 0 not in dropped
    assert dropped
    assert dropped != {1, 2, 3, 4}
    for row, _, kept in found:
        kept_row = int(kept.split("/")[1])
        assert kept_row not in dropped
        assert jaccard(chain[row], chain[kept_row]) > 0.7


@pytest.mark.parametrize("size", [20, 60, 130, 600, 5000])
def test_estimate_is_good_at_every_size(size):
    """The sketch estimates the similarity within its standard error, for texts below and above 128 shingles."""
    pairs = [
        (prose(seed, size), changed(prose(seed, size), max(1, size // 60), seed))
        for seed in range(min(150, 60_000 // size))
    ]
    sketches = minhash.sketch(minhash.units([text for pair in pairs for text in pair]))
    estimate = (sketches[::2] == sketches[1::2]).mean(axis=1)
    error = estimate - np.array([jaccard(*pair) for pair in pairs])
    assert abs(error.mean()) < 4 * 0.044 / len(pairs) ** 0.5
    assert error.std() < 0.055


def test_words_are_units_where_there_are_spaces():
    """English is compared word by word: copies with a few other words are found, other texts are not."""
    source = random.Random(0)
    vocabulary = ["".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(500)]
    words = source.choices(vocabulary, k=400)
    near = [*words[:200], "something", "else", *words[202:]]
    other = source.choices(vocabulary, k=400)
    assert [row for row, *_ in drops([" ".join(words), " ".join(near), " ".join(other)])] == [1]
    assert [len(units) for units in minhash.units(["three short words", "三个汉字", "...", "！？"])] == [3, 4, 3, 2]


def test_texts_of_punctuation_only_are_not_all_the_same():
    """A text without letters is compared by what it has."""
    assert drops(["？！", "。。。", "？！", ""]) == [(2, "duplicate", "wudao/0")]


def test_scope_split_compares_within_splits():
    """With `scope: split`, a text may stand once in each split."""
    text, splits = prose(1), ["wudao", "wanjuan", "wudao", "wanjuan"]
    texts = [text, text, changed(text, 1), text]
    assert [(row, kept) for row, _, kept in drops(texts, splits)] == [(1, "wudao/0"), (2, "wudao/0"), (3, "wudao/0")]
    within = drops(texts, splits, scope="split")
    assert [(row, kept) for row, _, kept in within] == [(2, "wudao/0"), (3, "wanjuan/1")]


def test_a_cluster_keeps_as_many_rows_as_its_cap():
    """The head and the first rows like it stay; the others are dropped with its id, exact copies and near ones."""
    text = prose(1, 600)
    texts = [text, changed(text, 2), prose(2), text, changed(text, 3, seed=1), prose(2)]
    assert [row for row, *_ in drops(texts)] == [1, 3, 4, 5]
    capped = [(3, "duplicate", "wudao/0"), (4, "near_duplicate", "wudao/0")]
    assert drops(texts, max_per_cluster=2) == capped
    assert drops(texts, max_per_cluster=3) == capped[1:]
    assert drops(texts, max_per_cluster=4) == []


def test_any_column_of_text_is_compared():
    """With `column: instruction`, rows are alike by their instructions, whatever their texts are."""
    rows = [
        {"text": prose(seed), "instruction": ask}
        for seed, ask in enumerate(["月食为何发红？", "蛋羹怎么蒸？", "月食，为何发红"])
    ]
    found = check_stage(dedup.stage, rows, column="instruction")
    assert found.dropped == {"test/rows.jsonl:2": ("duplicate", "test/rows.jsonl:0")}
    assert not check_stage(dedup.stage, rows).dropped


def test_higher_threshold_keeps_more():
    """The threshold decides."""
    text = prose(1, 600)
    texts = [text, changed(text, 8)]
    assert [len(drops(texts, threshold=threshold)) for threshold in (0.5, 0.8, 0.99, 1.0)] == [1, 1, 0, 0]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12)), min_size=1, max_size=30), st.integers(1, 30))
def test_something_of_every_cluster_stays_for_any_shards(rows, shard):
    """Dropped rows name a kept, earlier row; one row of each family stays; shards make no difference."""
    texts = [changed(prose(family, 200), changes, seed=changes) for family, changes in rows]
    found = drops(texts)
    dropped = {row for row, *_ in found}
    assert len(dropped) == len(found)
    for row, _, kept in found:
        at = int(kept.split("/")[1])
        assert at < row
        assert at not in dropped
        assert rows[at][0] == rows[row][0]
    assert {family for family, _ in rows} == {rows[row][0] for row in range(len(rows)) if row not in dropped}
    assert drops(texts, shard=shard) == found


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.95])
def test_bands_let_pairs_at_the_threshold_meet(threshold):
    """A pair at the threshold meets in a band in 99 of 100 cases; one row more in a band would break that."""
    height = dedup.band_height(threshold)
    meet = [1 - (1 - threshold**h) ** (minhash.LANES // h) for h in (height, height + 1)]
    assert meet[0] >= 0.99 > meet[1]


def test_sketches_stay_the_same():
    """Sketches of finished shards must fit those of later runs: a change of the method needs a new stage version."""
    records = minhash.records(["今天天气很好，我们去公园。", "hello world", prose(1)])
    assert hashlib.sha256(b"".join(records)).hexdigest()[:16] == "82f587aafa0623be"


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the test corpora are not here")
def test_near_copies_of_real_text_are_found():
    """Of articles with 2 % of the characters replaced, 95 % and more are found, and no other article is dropped."""
    lines = (CORPUS / "wiki_drcd_hant.jsonl").read_text(encoding="utf-8").splitlines()[::4]
    texts = [json.loads(line)["text"][:600] for line in lines]
    copies = [changed(text, round(0.02 * len(text)), seed) for seed, text in enumerate(texts)]
    found = drops(texts + copies)
    originals = [row for row, *_ in found if row < len(texts)]
    matched = [row for row, _, kept in found if kept == f"wudao/{row - len(texts)}"]
    assert len(originals) <= 0.01 * len(texts)
    assert len(matched) >= 0.95 * len(texts)
