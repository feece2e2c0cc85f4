"""Seeds: every record ends up in exactly one place, and held-out pairs stay held out."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kun_training.request import seed_files
from kun_training.section import Training
from kun_training.seeds import Pair, check_pairs, is_held_out, load_seeds, read_pairs, select, write_pairs
from samples import SEEDS, needs_samples, samples

from kun_builder.errors import SourceError, TrainingError

FORMS = [
    {"instruction": "问", "input": "", "output": "答"},
    {"messages": [{"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}]},
    {
        "messages": [
            {"role": "system", "content": "你是"},
            {"role": "user", "content": "问"},
            {"role": "assistant", "content": "答"},
            {"role": "user", "content": "再问"},
            {"role": "assistant", "content": "再答"},
        ]
    },
    {"conversations": [{"from": "human", "value": "问"}, {"from": "gpt", "value": "答"}]},
    {"prompt": "问", "completion": "答"},
    {"prompt": [{"role": "user", "content": "问"}], "completion": [{"role": "assistant", "content": "答"}]},
]


def lines(path, rows):
    text = "\n".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(text + "\n", "utf-8")
    return path


@pytest.mark.parametrize("form", FORMS)
def test_the_usual_forms_are_the_same_pair(tmp_path, form):
    """Each usual form of a record is read as its first instruction and answer."""
    (pair,) = read_pairs([lines(tmp_path / "a.jsonl", [form])], [])
    assert (pair.instruction, pair.output, pair.place) == ("问", "答", "a.jsonl:1")


def test_an_input_belongs_to_the_instruction(tmp_path):
    """Alpaca's `input` follows its instruction after an empty line."""
    (pair,) = read_pairs(
        [lines(tmp_path / "a.jsonl", [{"instruction": "翻译", "input": "春", "output": "spring"}])], []
    )
    assert pair.instruction == "翻译\n\n春"


def test_files_are_lines_arrays_and_parquet(tmp_path):
    """The same records are read from JSONL with a byte order mark, from a JSON array and from Parquet."""
    rows = [{"instruction": f"问{n}", "output": f"答{n}"} for n in range(3)]
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n".join(json.dumps(row).encode() for row in rows))
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1), "utf-8")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    read = [[p.instruction for p in read_pairs([tmp_path / f"a.{end}"], [])] for end in ("jsonl", "json", "parquet")]
    assert read == [["问0", "问1", "问2"]] * 3


def test_seeds_are_read_as_a_corpus_is(tmp_path):
    """Packed files are read, and a broken element of an array costs itself, with its reason and place."""
    rows = [{"instruction": f"问{n}", "output": f"答{n}"} for n in range(3)]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"\n".join(json.dumps(row).encode() for row in rows)))
    assert [pair.place for pair in read_pairs([tmp_path / "a.jsonl.gz"], [])] == [f"a.jsonl.gz:{n}" for n in (1, 2, 3)]
    parts = [json.dumps(rows[0]), '{"instruction": "问" oh}', json.dumps(rows[2])]
    (tmp_path / "b.json").write_text(f"[{', '.join(parts)}]", "utf-8")
    refused = []
    assert [pair.instruction for pair in read_pairs([tmp_path / "b.json"], refused)] == ["问0", "问2"]
    assert [(one.place, one.reason) for one in refused] == [("b.json:2", "unreadable")]
    assert refused[0].value.startswith("broken_json")


def test_a_cut_off_seed_file_is_an_error(tmp_path):
    """A file that breaks off stops the training, named, and with the record from which on it cannot be read."""
    rows = [{"instruction": f"{n}" * 99, "output": "o"} for n in range(99)]
    whole = gzip.compress(b"\n".join(json.dumps(row).encode() for row in rows))
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingError, match=r"a\.jsonl\.gz cannot be read from record \d+ on: broken_file"):
        list(read_pairs([tmp_path / "a.jsonl.gz"], []))


def test_each_fault_has_its_reason(tmp_path):
    """A record that is no use is refused with its place and a reason, and the others are read on."""
    rows = [
        {"instruction": "请介绍绿茶的来历。", "output": "绿茶很早就有。"},
        "{broken",
        "[1]",
        {"question": "?"},
        {"instruction": " ", "output": "答"},
        {"instruction": "问题长不长呢", "output": "长" * 9000},
        {"instruction": "怎样挑选一斤好的绿茶", "output": "怎样挑选一斤好的绿茶？看颜色。"},
        {"instruction": "换一个问法", "output": "绿茶 很早就有。"},
        {"messages": [{"role": "assistant", "content": "答"}]},
        {"instruction": 3, "output": "答"},
    ]
    seeds = load_seeds([lines(tmp_path / "a.jsonl", rows)], held_out=0)
    assert sorted((int(r.place.split(":")[1]), r.reason) for r in seeds.refused) == [
        (2, "unreadable"),
        (3, "unreadable"),
        (4, "unknown_form"),
        (5, "empty"),
        (6, "too_long"),
        (7, "instruction_in_answer"),
        (8, "duplicate"),
        (9, "unknown_form"),
        (10, "unknown_form"),
    ]
    assert (len(seeds.train), seeds.read) == (1, 10)


def test_no_pair_left_is_an_error(tmp_path):
    """Files without a usable pair stop the training with the counts and the forms that are known."""
    with pytest.raises(TrainingError, match=r"1 records refused") as caught:
        load_seeds([lines(tmp_path / "a.jsonl", ["{}"])])
    assert "messages" in caught.value.hint
    with pytest.raises(TrainingError, match=r"missing\.jsonl does not exist"):
        load_seeds([tmp_path / "missing.jsonl"])


texts = st.text("甲乙丙丁 ab", min_size=1, max_size=4)
some_pairs = st.lists(st.builds(Pair, texts, texts, score=st.none() | st.floats(0, 1)), max_size=30)


@given(some_pairs, st.floats(0, 0.9), st.integers(0, 3), st.none() | st.floats(0, 1), st.none() | st.integers(1, 9))
def test_nothing_is_lost_and_nothing_crosses_over(tmp_path_factory, drawn, share, seed, least, most):
    """Every record is trained on, held out or refused; no instruction and no answer is on both sides."""
    path = tmp_path_factory.mktemp("seeds") / "a.jsonl"
    write_pairs(path, drawn)
    try:
        seeds = load_seeds([path], held_out=share, seed=seed, min_score=least, max_pairs=most)
    except TrainingError:
        return
    assert seeds.read == len(drawn)
    for side in (lambda p: "".join(p.instruction.split()).casefold(), lambda p: "".join(p.output.split()).casefold()):
        assert not {side(p) for p in seeds.train} & {side(p) for p in seeds.held_out}
    if most:
        assert len(seeds.train) <= most


@given(some_pairs, st.floats(0, 0.9))
def test_more_seeds_move_no_pair(drawn, share):
    """Whether a pair is held out depends on its instruction alone, whatever white space it has."""
    for pair in drawn:
        assert is_held_out(pair, share, 0) == is_held_out(Pair(f" {pair.instruction}\n", "别的"), share, 0)


def test_the_held_out_share_is_about_as_asked():
    """Of 2,000 instructions, about the asked share is held out."""
    held = sum(is_held_out(Pair(f"问题{n}", ""), 0.1, 0) for n in range(2000))
    assert 150 < held < 250


def test_selection_takes_the_best_and_keeps_the_order():
    """`max_pairs` keeps the pairs of the highest score, in the order of the file; unscored ones go first to go."""
    drawn = [Pair(str(n), str(n), score=s) for n, s in enumerate([0.2, None, 0.9, 0.5])]
    refused = []
    assert [p.instruction for p in select(drawn, refused, min_score=0.3, max_pairs=2)] == ["2", "3"]
    assert sorted(r.reason for r in refused) == ["beyond_max_pairs", "low_score"]


def test_written_pairs_come_back(tmp_path):
    """What `write_pairs` writes, `read_pairs` reads, tags and scores included."""
    pair = Pair("问\n题", "答", text="原文", score=0.25, tag="augmented")
    write_pairs(tmp_path / "a.jsonl", [pair])
    (back,) = read_pairs([tmp_path / "a.jsonl"], [])
    assert (back.instruction, back.output, back.text, back.score, back.tag) == (
        "问\n题",
        "答",
        "原文",
        0.25,
        "augmented",
    )


@needs_samples
def test_checks_drop_few_human_pairs():
    """On seeds written by people, the checks refuse at most 4 %, nearly all of them true duplicates."""
    refused, files = [], samples(SEEDS, "*.jsonl")
    kept = list(check_pairs(read_pairs(files, refused), refused, max_chars=8000))
    assert len(refused) <= 0.04 * (len(kept) + len(refused))
    assert sum(item.reason not in ("duplicate", "instruction_in_answer") for item in refused) <= 5


def test_seeds_in_a_bucket_are_read_as_files_are(s3, tmp_path):
    """An address in `seeds:` of a recipe, with a glob, gives the pairs and places of the same files."""
    body = lines(tmp_path / "a.jsonl", [*FORMS, "{cut"]).read_bytes()
    address = s3.put("seeds", {"in/a.jsonl": body, "in/b.txt": b"no seeds"})
    found = seed_files(Training(seeds=(f"{address}/in/*.jsonl",)), tmp_path)
    refused, same = [], []
    assert list(read_pairs(found, refused)) == list(read_pairs([tmp_path / "a.jsonl"], same))
    assert refused == same
    assert len(refused) == 1
    with pytest.raises(SourceError, match="no file at s3://seeds/out"):
        seed_files(Training(seeds=("s3://seeds/out/*.jsonl",)), tmp_path)
