"""Stage `dedup`."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, concatenate_datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from kun_clean import buckets, clusters, dedup, minhash, shingles, similarity

from kun_builder.errors import RunError
from kun_builder.run.crew import LocalCrew
from kun_builder.run.workspace import LocalWorkspace
from kun_builder.status import Status
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


def dataset(texts, splits=None, shard=None, ngram=5):
    """Measured rows, shard by shard, as the stage sees them."""
    splits = splits or ["wudao"] * len(texts)
    ids = [f"{split}/{row}" for row, split in enumerate(splits)]
    table = pa.table({"id": ids, "split": splits, "text": pa.array(texts, pa.string())})
    starts = range(0, len(texts), shard or len(texts))
    return concatenate_datasets(
        [Dataset(dedup.measure(table.slice(at, shard or len(texts)), ngram=ngram)) for at in starts]
    )


def drops(texts, splits=None, shard=None, memory=1 << 28, workers=1, **options):
    """What the stage says of these texts, with so many bytes of memory and so many processes."""
    with TemporaryDirectory() as folder:
        work = LocalWorkspace(Path(folder), memory, workers, len(texts), Status(), LocalCrew(dict))
        return dedup.run(dataset(texts, splits, shard, options.get("ngram", 5)), work, **options)


def jaccard(one, other, width=5):
    """The similarity of two texts by the sets of their shingles, as Python has them."""
    values, ends = shingles.units([one, other])
    both = [part.tolist() for part in np.split(values, ends[:-1])]
    sets = [{tuple(units[at : at + width]) for at in range(max(1, len(units) - width + 1))} for units in both]
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
        assert jaccard(chain[row], chain[kept_row]) >= 0.8


@pytest.mark.parametrize("size", [20, 60, 130, 600, 5000])
def test_estimate_is_good_at_every_size(size):
    """The sketch estimates the similarity within its standard error, for texts below and above 64 shingles."""
    pairs = [
        (prose(seed, size), changed(prose(seed, size), max(1, size // 60), seed))
        for seed in range(min(150, 60_000 // size))
    ]
    sketches = minhash.sketch(shingles.units([text for pair in pairs for text in pair]), 5)
    estimate = (sketches[::2] == sketches[1::2]).mean(axis=1)
    error = estimate - np.array([jaccard(*pair) for pair in pairs])
    assert abs(error.mean()) < 4 * 0.063 / len(pairs) ** 0.5
    assert error.std() < 0.075


def test_words_are_units_where_there_are_spaces():
    """English is compared word by word: copies with a few other words are found, other texts are not."""
    source = random.Random(0)
    vocabulary = ["".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(500)]
    words = source.choices(vocabulary, k=400)
    near = [*words[:200], "something", "else", *words[202:]]
    other = source.choices(vocabulary, k=400)
    assert [row for row, *_ in drops([" ".join(words), " ".join(near), " ".join(other)])] == [1]
    assert shingles.units(["three short words", "三个汉字", "...", "！？"])[1].tolist() == [3, 7, 10, 12]


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
    number, height = buckets.bands(threshold)
    assert number == minhash.LANES // height
    meet = [1 - (1 - threshold**h) ** (minhash.LANES // h) for h in (height, height + 1)]
    assert meet[0] >= 0.99 > meet[1]


def test_sketches_stay_the_same():
    """Sketches of finished shards must fit those of later runs: a change of the method needs a new stage version."""
    records = minhash.records(["今天天气很好，我们去公园。", "hello world", prose(1)], 5)
    assert hashlib.sha256(records.tobytes()).hexdigest()[:16] == "d87b5081ac2a5ccf"


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the test corpora are not here")
def test_near_copies_of_real_text_are_found():
    """Of articles with 1 % of the characters replaced, those that reach the threshold are found, and no others."""
    lines = (CORPUS / "wiki_drcd_hant.jsonl").read_text(encoding="utf-8").splitlines()[::4]
    texts = [json.loads(line)["text"][:600] for line in lines]
    copies = [changed(text, round(0.01 * len(text)), seed) for seed, text in enumerate(texts)]
    found = {row: int(kept.split("/")[1]) for row, _, kept in drops(texts + copies)}
    alike = [row + len(texts) for row, text in enumerate(texts) if jaccard(text, copies[row]) >= 0.8]
    assert len(alike) > 400
    assert len({*alike} & {*found}) >= 0.97 * len(alike)
    assert all(jaccard((texts + copies)[row], texts[kept]) >= 0.8 for row, kept in found.items())


@given(st.lists(st.text("天地玄黄宇宙，。ab ", max_size=40), min_size=2, max_size=12), st.integers(1, 7), st.randoms())
def test_similarity_is_that_of_the_sets(texts, width, chance):
    """Many pairs at once have the similarity that each has by Python's sets, short and empty texts too."""
    pairs = [(chance.randrange(len(texts)), chance.randrange(len(texts))) for _ in range(20)]
    first, second = np.array(pairs).T
    expected = [jaccard(texts[one], texts[other], width) for one, other in pairs]
    assert similarity.jaccard(texts, first, second, width).tolist() == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 14)), max_size=60), st.integers(0, 1 << 30))
def test_rows_are_decided_as_if_one_after_the_other(meetings, seed):
    """Those stay that are like no earlier row of their buckets which stays; the others name one that they are like."""
    meetings = sorted(set(meetings))
    bucket, row = np.array(meetings, dtype=np.int64).reshape(-1, 2).T

    def like(one, other):
        return hash((seed, one, other)) % 3 == 0

    together = {(one, other) for at, one in meetings for b, other in meetings if at == b and one < other}
    stays = []
    for other in range(15):
        if not any((one, other) in together and like(one, other) for one in stays):
            stays.append(other)
    found = clusters.heads(
        bucket, row, 15, lambda ones, others: np.array([*map(like, ones.tolist(), others.tolist())], dtype=bool)
    )
    assert np.flatnonzero(found < 0).tolist() == stays
    for other in np.flatnonzero(found >= 0).tolist():
        assert found[other] in stays
        assert (found[other], other) in together
        assert like(int(found[other]), other)


FAMILIES = [changed(prose(number % 9, 120), number % 7, seed=number) for number in range(90)]


@settings(deadline=None, max_examples=15)
@given(
    memory=st.integers(8_000, 200_000), workers=st.integers(1, 3), at_once=st.integers(4, 100), shard=st.integers(4, 90)
)
def test_the_same_rows_stay_for_any_memory_and_partitions(memory, workers, at_once, shard):
    """Partitions, shares, ranges of rows and shards are how the work is cut, and decide nothing."""
    splits = ["one" if number % 3 else "two" for number in range(len(FAMILIES))]
    options = {"threshold": 0.7, "scope": "split" if memory % 2 else "all"}
    with pytest.MonkeyPatch.context() as patch:
        expected = drops(FAMILIES, splits, **options)
        patch.setattr(dedup, "_AT_ONCE", at_once)
        patch.setattr(LocalWorkspace, "map", lambda self, function, items: map(function, items))
        assert drops(FAMILIES, splits, shard, memory, workers, **options) == expected
    assert 40 < len(expected) < 85


@pytest.mark.slow
def test_the_same_rows_stay_for_any_number_of_processes():
    """Several processes find what one does."""
    assert drops(FAMILIES, workers=3, memory=20_000) == drops(FAMILIES)


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(monkeypatch):
    """What buckets need is known from the number of rows; the error has the place, the need and the rest."""
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    with pytest.raises(RunError, match=r"needs 0 MB for a while, and its disk has 0 MB left") as caught:
        drops(FAMILIES)
    assert "free some disk space" in caught.value.hint


def test_shorter_shingles_find_short_texts_alike():
    """One character in a question of 15 leaves a third of its runs of five, and more of its runs of two."""
    asked = ["月食的时候月亮为什么会发红呢？", "月食的时候月亮为何会发红呢？"]
    assert drops(asked, threshold=0.6) == []
    assert drops(asked, threshold=0.6, ngram=2) == [(1, "near_duplicate", "wudao/0")]
