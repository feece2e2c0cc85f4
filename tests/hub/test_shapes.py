"""Exports: every kept row, in the form that the trainers' own readers take."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finished_runs import make_run

from kun_builder.cli.main import main
from kun_builder.errors import PublishError, RunError
from kun_builder.files import seal, unseal
from kun_builder.result.shapes import SHAPES, export_preferences, export_run
from kun_builder.run.folder import RunFolder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(
        tmp_path_factory.mktemp("shapes") / "run", {"wudao": 30, "skypile": 10}, text="{} \u2028 \"'<|im_end|>"
    )


def kept(run, split):
    rows = pq.read_table(RunFolder(run).kept_files(split)[0], columns=["instruction", "output"]).to_pylist()
    return [(row["instruction"], row["output"]) for row in rows]


def load(folder, split="wudao"):
    from datasets import load_dataset

    return load_dataset(
        "json", data_files=str(folder / f"{split}.jsonl"), split="train", cache_dir=str(folder / "cache")
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_every_row_is_there(run, tmp_path, shape):
    """Each kept row is one line, in order, in every shape, with its very words."""
    assert export_run(run, shape, tmp_path) == {"wudao": 30, "skypile": 10}
    for split in ("wudao", "skypile"):
        lines = (tmp_path / f"{split}.jsonl").read_bytes().split(b"\n")[:-1]
        values = [json.dumps(json.loads(line), ensure_ascii=False) for line in lines]
        pairs = [[json.dumps(side, ensure_ascii=False) for side in pair] for pair in kept(run, split)]
        assert len(values) == len(pairs)
        assert all(side in value for value, pair in zip(values, pairs, strict=True) for side in pair)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["skypile.jsonl", "wudao.jsonl"]


def test_trl_reads_messages(run, tmp_path):
    """TRL takes `messages` as a conversation: prompt by the user, answer by the assistant, system text first."""
    from trl.data_utils import is_conversational

    export_run(run, "messages", tmp_path, system="你是助手。")
    rows = load(tmp_path)
    assert is_conversational(rows[0])
    assert [message["role"] for message in rows[0]["messages"]] == ["system", "user", "assistant"]
    assert [(row["messages"][1]["content"], row["messages"][2]["content"]) for row in rows] == kept(run, "wudao")


def test_trl_converts_sharegpt(run, tmp_path):
    """TRL's own conversion makes messages of `conversations`."""
    from trl.data_utils import is_conversational, is_conversational_from_value, maybe_convert_to_chatml

    export_run(run, "sharegpt", tmp_path, system="你是助手。")
    rows = load(tmp_path)
    assert is_conversational_from_value(rows[0])
    converted = rows.map(maybe_convert_to_chatml)
    assert is_conversational({"messages": converted[0]["messages"]})
    assert converted[0]["messages"][1]["content"] == kept(run, "wudao")[0][0]


def test_our_own_seed_reader_reads_all(run, tmp_path):
    """What is exported can be trained on by kun-build itself."""
    from kun_training.seeds import read_pairs

    for shape in SHAPES:
        export_run(run, shape, tmp_path / shape)
        found = list(read_pairs([tmp_path / shape / "skypile.jsonl"], []))
        assert [(pair.instruction, pair.output) for pair in found] == [
            (a.strip(), b.strip()) for a, b in kept(run, "skypile")
        ]


def test_conversations_go_on(run, tmp_path):
    """Turns behind a pair are messages in their order, of rows that have any; TRL reads both lengths from one file."""
    from trl.data_utils import is_conversational

    path = RunFolder(make_run(tmp_path / "run", {"wudao": 3})).kept_files("wudao")[0]
    table = pq.read_table(path)
    path.unlink()  # the dataset's file is the same one
    pq.write_table(
        table.append_column("turns", pa.array([["再问？", "再答。"], [], None], pa.list_(pa.string()))), path
    )
    for shape in SHAPES:
        export_run(tmp_path / "run", shape, tmp_path / shape)
    messages = load(tmp_path / "messages")["messages"]
    assert [len(turns) for turns in messages] == [4, 2, 2]
    assert all(is_conversational({"messages": turns}) for turns in messages)
    assert messages[0][2:] == [{"role": "user", "content": "再问？"}, {"role": "assistant", "content": "再答。"}]
    assert load(tmp_path / "sharegpt")["conversations"][0][3] == {"from": "gpt", "value": "再答。"}
    assert set(load(tmp_path / "pairs")[0]) == {"instruction", "output"}


# --- preferences --------------------------------------------------------------------------------------------------


@pytest.fixture
def two_runs(tmp_path):
    """Two runs over the same texts and instructions; the second has other answers, its scores are changed by row."""
    runs = [make_run(tmp_path / str(seed), {"wudao": 30}, seed=seed) for seed in (0, 1)]
    path = RunFolder(runs[1]).kept_files("wudao")[0]
    table = pq.read_table(path)
    scores = table["score"].to_pylist()
    changed = [score - (0.3, -0.3, 0.01)[number % 3] for number, score in enumerate(scores)]
    at = table.schema.get_field_index("score")
    path.unlink()  # the dataset's file is the same one
    pq.write_table(table.set_column(at, "score", [changed]), path)
    return runs


def test_the_better_of_two_answers_is_chosen(two_runs, tmp_path):
    """Of two answers that differ enough, the higher is chosen, whichever run it is from; near ones make no pair."""
    out = tmp_path / "out"
    assert export_preferences(*two_runs, out, by="score") == {"wudao": 20}
    rows = [json.loads(line) for line in (out / "wudao.jsonl").read_text("utf-8").splitlines()]
    first, second = (dict(zip(range(30), kept(run, "wudao"), strict=True)) for run in two_runs)
    at = [number for number in range(30) if number % 3 != 2]
    for number, row in zip(at, rows, strict=True):
        better, worse = (first, second) if number % 3 == 0 else (second, first)
        assert row["prompt"] == [{"role": "user", "content": first[number][0]}]
        assert row["chosen"] == [{"role": "assistant", "content": better[number][1]}]
        assert row["rejected"] == [{"role": "assistant", "content": worse[number][1]}]


def declare(run, *steps):
    """Put steps behind those of a run, which declare nothing: (columns they add, which side of a number is better)."""
    path = RunFolder(run).report_path
    said = unseal(path.read_bytes())
    for step in said["steps"]:
        step.setdefault("quantities", {})
    for adds, better in steps:
        quantities = {name: {"better": side} for name, side in better.items()}
        said["steps"].append({"label": "x", "stage": "x", "adds": adds, "quantities": quantities})
    path.write_bytes(seal(said))


def chosen(runs, out, **options):
    export_preferences(*runs, out, **options)
    return [json.loads(line)["chosen"] for line in (out / "wudao.jsonl").read_text("utf-8").splitlines()]


def test_the_stages_say_which_answer_is_better(two_runs, tmp_path):
    """Without `by`, it is the last number behind the answers whose stage has declared a better side, and that side."""
    declare(two_runs[0])
    with pytest.raises(RunError, match=r"no step of .* says which of two answers is the better one") as caught:
        export_preferences(*two_runs, tmp_path / "out")
    assert "--by names a column" in caught.value.hint
    declare(two_runs[0], ({"perplexity": "double"}, {"perplexity": "lower"}))  # of the text: no answer is there yet
    declare(two_runs[0], ({"output": "string"}, {}), ({"score": "double"}, {"score": "higher"}))
    declare(two_runs[0], ({"tokens": "int64"}, {"tokens": ""}))
    higher = chosen(two_runs, tmp_path / "out")
    assert higher == chosen(two_runs, tmp_path / "named", by="score")
    declare(two_runs[0], ({"score": "double"}, {"score": "lower"}))
    lower = chosen(two_runs, tmp_path / "lower")
    assert len(lower) == len(higher) == 20
    assert all(one != other for one, other in zip(lower, higher, strict=True))
    assert chosen(two_runs, tmp_path / "also", by="score") == lower


def test_a_run_from_before_declarations_is_compared_by_its_threshold(two_runs, tmp_path):
    """Its report does not say which side is better; a threshold keeps the higher values of its column."""
    assert chosen(two_runs, tmp_path / "out") == chosen(two_runs, tmp_path / "named", by="score")


def test_a_number_before_the_answers_says_nothing_of_them(two_runs, tmp_path):
    """A declared number of a step before the one that adds `output` is not what answers are compared by."""
    declare(two_runs[0], ({"score": "double"}, {"score": "higher"}), ({"output": "string"}, {}))
    with pytest.raises(RunError, match="says which of two answers"):
        export_preferences(*two_runs, tmp_path / "out")


def test_trl_reads_preferences(two_runs, tmp_path):
    """TRL takes them as conversational preference data."""
    from trl.data_utils import is_conversational

    export_preferences(*two_runs, tmp_path / "out", by="score", system="你是助手。")
    row = load(tmp_path / "out")[0]
    assert is_conversational(row)
    assert set(row) == {"prompt", "chosen", "rejected"}
    assert row["prompt"][0] == {"role": "system", "content": "你是助手。"}


def test_no_preferences_is_an_error(two_runs, tmp_path):
    """Runs without a common instruction, a column that nobody measured, and a margin that nothing reaches."""
    other = make_run(tmp_path / "far", {"web": 3})
    for runs, options in (((two_runs[0], other), {}), (two_runs, {"by": "pair_score"}), (two_runs, {"margin": 0.9})):
        with pytest.raises(RunError, match="have no two answers"):
            export_preferences(*runs, tmp_path / "out", **{"by": "score", **options})
    assert not (tmp_path / "out").exists(), "nothing is left that a trainer may take for a dataset"


# --- the command ---------------------------------------------------------------------------------------------------


def test_raw_text_that_must_stay_here_is_refused(tmp_path):
    """An answer that repeats the raw text of a closed source is not exported, as it is not published."""
    text = "这一段文字属于一个不得再分发的语料，任何人都不能把它原样传播出去。"
    run = make_run(tmp_path / "run", {"wudao": 2}, sources={"wudao": {"redistributable": False}})
    path = RunFolder(run).kept_files("wudao")[0]
    table = pq.read_table(path)
    for name in ("text", "output"):
        table = table.set_column(table.schema.get_field_index(name), name, [[text] * 2])
    path.unlink()
    pq.write_table(table, path)
    with pytest.raises(PublishError, match="contains the whole raw text"):
        export_run(run, "messages", tmp_path / "out")
    at = table.schema.get_field_index("output")
    turns = pa.array([["问？", text], []], pa.list_(pa.string()))
    pq.write_table(table.set_column(at, "output", [["答"] * 2]).append_column("turns", turns), path)
    with pytest.raises(PublishError, match="its turns contains the whole raw text"):
        export_run(run, "messages", tmp_path / "out")


def test_the_command(run, tmp_path, monkeypatch, capsys):
    """`kun-build export` writes into the run's folder and says where; dpo without a second run is wrong usage."""

    def kun(*args):
        monkeypatch.setattr("sys.argv", ["kun-build", "export", *map(str, args)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    code, out, err = kun(run, "--shape", "messages", "--output", tmp_path / "m", "--json")
    assert (code, json.loads(out)["rows"]) == (0, {"wudao": 30, "skypile": 10}), err
    for args in (("--shape", "dpo"), ("--shape", "pairs", "--against", run)):
        code, _, err = kun(run, *args)
        assert code == 2
        assert "--shape dpo and --against RUN go together" in err
