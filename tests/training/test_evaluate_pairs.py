"""`evaluate pairs`: blind comparisons with places exchanged, marks by a rubric, and what becomes of the result."""

import json
import re
import shutil

import pytest
from finished_runs import make_run
from kun_training.commands.evaluate_pairs import doubts
from kun_training.evaluation.opponents import (
    Side,
    against_dataset,
    against_raw,
    against_run,
    matches_with,
    mixed_up,
    opponents,
    sample_rows,
    side,
)
from kun_training.evaluation.pairs import CRITERIA, evaluate_pairs, write_evaluation
from servers.judging import judging
from tiny_models import write_lines

from kun_builder.errors import RunError, TrainingError
from kun_builder.recipe.plugins import load_plugins
from kun_builder.result.verdicts import read_evaluation
from kun_builder.types import ModelSpec

pytestmark = pytest.mark.usefixtures("own_cache")

FIRST, SECOND = re.compile(r"【甲】\n(.*)\n\n【乙】", re.DOTALL), re.compile(r"【乙】\n(.*)\n\n哪一份", re.DOTALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("pairs") / "run", {"wudao": 30, "skypile": 10})


@pytest.fixture(scope="module")
def engines():
    return load_plugins().engines


def sides(prompt):
    return FIRST.search(prompt)[1], SECOND.search(prompt)[1]


def likes_polish(prompt):
    """Prefers the answer that says 分三步, wherever it stands; everything is worth a 4 or a 5."""
    if "【甲】" not in prompt:
        return {"4": 0.5, "5": 0.3, "哪": 0.2}
    first, second = ("分三步" in side for side in sides(prompt))
    return {"C": 0.9, "A": 0.1} if first == second else {"A" if first else "B": 0.8, "C": 0.2}


def reads(prompt):
    """Prefers the answer about what the question asks for, and of two of them the polished one."""
    if "\n" not in prompt:
        return "C"  # the engine asks whether anybody is there
    if "【甲】" not in prompt:
        asked, answer = re.search(r"问题：请..(.*)。\n\n回答：(.*)", prompt).groups()
        return "4" if asked in answer else "1" if "属实" in prompt else "4"

    def worth(side):
        asked, answer = re.search(r"问题：请..(.*)。\n回答：(.*)", side, re.DOTALL).groups()
        return (asked in answer) * (1 + ("分三步" in answer))

    first, second = map(worth, sides(prompt))
    return "C" if first == second else "A" if first > second else "B"


def likes_the_first(prompt):
    """A judge with a bias for the first place."""
    return {"A": 0.9, "B": 0.1} if "【甲】" in prompt else "3"


def judged(run, engines, say, tmp_path, **options):
    with judging(say) as (url, asked):
        spec = ModelSpec(name="judge", engine="openai", endpoints=(url,), model="org/judge", revision="1")
        return evaluate_pairs(run, spec, engines, journal=tmp_path / "journal", **options), asked


def test_polished_against_raw(run, engines, tmp_path):
    """A judge that likes the polished answers lets them win all, in both orders; marks are expected values."""
    found, _ = judged(run, engines, likes_polish, tmp_path, sample=12)
    raw = found["comparisons"]["raw"]
    assert (raw["wins"], raw["ties"], raw["losses"], raw["consistent"]) == (12, 0, 0, 1.0)
    assert raw["rate"] == {"value": 1.0, "low": pytest.approx(12 / (12 + 1.96**2)), "high": 1.0}, "twelve are not all"
    assert (raw["first"], raw["chance"], raw["same"], raw["sure"]) == (0.5, 0.5, 0, True)
    assert found["marks"].keys() == CRITERIA.keys()
    assert all(mark["mean"]["value"] == pytest.approx((4 * 0.5 + 5 * 0.3) / 0.8) for mark in found["marks"].values())
    assert all(mark["rows"] == 12 for mark in found["marks"].values())
    assert found["judge"]["id"] == "org/judge"


def test_a_bias_for_a_place_wins_nothing(run, engines, tmp_path):
    """Each match is asked in both orders, and a judge that always takes the first place finds ties only."""
    found, asked = judged(run, engines, likes_the_first, tmp_path, sample=8, rubric=False)
    raw = found["comparisons"]["raw"]
    assert (raw["wins"], raw["ties"], raw["losses"], raw["consistent"]) == (0, 8, 0, 0.0)
    assert raw["rate"]["low"] < 0.3 < 0.7 < raw["rate"]["high"], "nothing is known of how they compare"
    assert (raw["first"], raw["sure"], found["control"]["sure"]) == (1.0, False, False)
    assert found["marks"] == {}
    orders = {sides(prompt) for prompt in asked}
    assert len(orders) >= 8
    assert all((second, first) in orders for first, second in orders)


def test_a_judge_that_reads_passes_its_test(run, engines, tmp_path):
    """Answers of other rows to the same questions lose, and get lower marks where that is what the mark is for."""
    found, _ = judged(run, engines, reads, tmp_path, sample=15)
    control, marks = found["control"], found["marks"]
    assert control["wins"] + control["ties"] == 15, "two rows about the same are a tie"
    assert control["wins"] >= 10
    assert control["sure"]
    assert found["comparisons"]["raw"]["sure"]
    assert (marks["correct"]["mean"]["value"], marks["correct"]["rows"]) == (4, 15)
    assert marks["correct"]["control"]["value"] < 2
    assert marks["correct"]["sure"]
    assert marks["fluent"]["control"]["value"] == 4
    assert marks["fluent"]["sure"], "the answer to another question may be fluent"
    assert not marks["complete"]["sure"], "this judge gives it a 4 whatever it says"


def test_the_judge_is_blind(run, engines, tmp_path):
    """Nothing in a prompt says which pair is ours, where it is from or how it was made."""
    _, asked = judged(run, engines, likes_polish, tmp_path, sample=4)
    assert asked
    assert not [prompt for prompt in asked if re.search(r"raw|polish|wudao|skypile|0\.\d|润色|原文", prompt)]


def test_nothing_is_asked_twice(run, engines, tmp_path):
    """The same evaluation again comes out of the journal."""
    first, asked = judged(run, engines, likes_polish, tmp_path, sample=5)
    again, none = judged(run, engines, likes_polish, tmp_path, sample=5)
    assert asked
    assert len([prompt for prompt in none if "资料" in prompt]) == 0
    assert (first["comparisons"], first["marks"]) == (again["comparisons"], again["marks"])


def test_answers_that_cannot_be_read_are_counted(run, engines, tmp_path):
    """A judge that chats has no result, and the report says for how many pairs."""
    found, _ = judged(run, engines, lambda prompt: "A 和 B 都很好", tmp_path, sample=6)
    raw = found["comparisons"]["raw"]
    assert raw["unread"] == {"unread_answer": 6}
    assert (raw["wins"], raw["ties"], raw["losses"]) == (0, 0, 0)
    assert found["marks"] == {}


def test_a_server_without_log_probabilities(run, engines, tmp_path):
    """The letter is read out of the answer."""

    def say(prompt):
        return max(said, key=said.get) if not isinstance(said := likes_polish(prompt), str) else said

    found, _ = judged(run, engines, say, tmp_path, sample=5)
    assert found["comparisons"]["raw"]["wins"] == 5
    assert found["marks"]["fluent"]["mean"]["value"] == 4


# --- opponents ----------------------------------------------------------------------------------------------------


def test_a_sample_is_of_all_splits(run):
    """Rows are drawn over all splits, the same ones for the same seed, never one twice."""
    rows = sample_rows(run, 20)
    assert {row["split"] for row in rows} == {"wudao", "skypile"}
    assert len({row["id"] for row in rows}) == 20
    assert [row["id"] for row in rows] == [row["id"] for row in sample_rows(run, 20)]
    assert [row["id"] for row in rows] != [row["id"] for row in sample_rows(run, 20, seed=1)]
    assert len(sample_rows(run, 1000)) == 40


def test_against_raw_answers(run):
    """The raw side has the same question, and what the polishing model was given."""
    rows = sample_rows(run, 3)
    for row, match in zip(rows, against_raw(rows), strict=True):
        assert match.ours == Side(row["instruction"], row["output"])
        assert match.theirs == Side(row["instruction"], row["raw_answer"])
        assert match.text == row["text"]


def test_against_another_run(run, tmp_path):
    """Rows meet those of the same text; runs without a common text are an error."""
    other = make_run(tmp_path / "other", {"wudao": 10}, seed=1)
    matches = against_run(sample_rows(run, 40), other)
    assert len(matches) == 10
    assert all(match.ours != match.theirs for match in matches)
    with pytest.raises(RunError, match="no row drawn here is kept"):
        against_run(sample_rows(run, 40), make_run(tmp_path / "far", {"web": 3}))


def test_against_datasets(run, tmp_path):
    """A file of pairs in any usual form, and a folder that `load_dataset` reads, are opponents."""
    rows = sample_rows(run, 4)
    record = {"messages": [{"role": "user", "content": "甲？"}, {"role": "assistant", "content": "乙。"}]}
    file = write_lines(tmp_path / "pairs.jsonl", [record])
    assert {match.theirs for match in matches_with(rows, str(file))} == {Side("甲？", "乙。")}
    shutil.copytree(run / "dataset", tmp_path / "dataset")
    matches = matches_with(rows, str(tmp_path / "dataset"))
    assert all("分三步" in match.theirs.output for match in matches)
    assert len(matches) == 4
    assert all(match.text == "" for match in matches)


def test_what_is_no_opponent_is_named(run, tmp_path):
    """A file without pairs, and a name that is nothing."""
    rows = sample_rows(run, 2)
    with pytest.raises(TrainingError, match="holds no pair"):
        against_dataset(rows, str(write_lines(tmp_path / "a.jsonl", [{"text": "甲"}])))
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="neither a run, nor a file, nor a dataset"):
        against_dataset(rows, str(tmp_path / "empty"))


def test_same_pairs_are_ties_and_cost_nothing(run, engines, tmp_path):
    """A run against itself is all ties without a question."""
    found, asked = judged(run, engines, likes_polish, tmp_path, against=[str(run)], sample=5, rubric=False)
    itself = found["comparisons"]["run my-kun"]
    assert (itself["ties"], itself["same"]) == (5, 5)
    assert not [prompt for prompt in asked if "【甲】" in prompt and sides(prompt)[0] == sides(prompt)[1]]


def test_runs_of_one_name_are_told_apart(run, tmp_path):
    """Two older runs of a recipe are two opponents."""
    others = [str(make_run(tmp_path / name, {"wudao": 30}, seed=seed)) for seed, name in enumerate("ab", 1)]
    found = opponents(sample_rows(run, 40), [*others, *others, "raw"])
    assert list(found) == ["run my-kun", "run my-kun (2)", "raw"]
    first, second = (found[name][0].theirs.output for name in list(found)[:2])
    assert ("（1）" in first, "（2）" in second) == (True, True)


def test_answers_of_other_rows(run):
    """Each row's question meets the answer of another row, as many as a test of the judge needs; one row has none."""
    rows = sample_rows(run, 40)
    mixed = mixed_up(rows)
    assert len(mixed) == 20
    assert all(match.ours.instruction == match.theirs.instruction for match in mixed)
    assert all(match.ours in map(side, rows) for match in mixed)
    assert sorted(match.ours.output for match in mixed) == sorted(match.theirs.output for match in mixed)
    assert sum(match.ours.output == match.theirs.output for match in mixed) < 5
    assert mixed_up(rows[:1]) == []


# --- the result ---------------------------------------------------------------------------------------------------


def test_results_of_one_judge_stand_beside_each_other(run, engines, tmp_path):
    """A second opponent joins the first; another judge replaces all; a run built anew has no result."""
    place = tmp_path / "copy"
    shutil.copytree(run, place)
    found, _ = judged(place, engines, likes_polish, tmp_path, sample=3)
    write_evaluation(place, found)
    write_evaluation(place, {**found, "comparisons": {"old": found["comparisons"]["raw"]}, "marks": {}})
    both = read_evaluation(place, found["signature"])
    assert set(both["comparisons"]) == {"raw", "old"}
    assert both["marks"] == json.loads(json.dumps(found["marks"]))
    write_evaluation(place, {**found, "judge": {"id": "other", "revision": ""}, "comparisons": {}})
    assert read_evaluation(place, found["signature"])["comparisons"] == {}
    assert read_evaluation(place, "another signature") is None
    (place / "evaluation.json").write_text("[]")
    with pytest.raises(RunError, match=r"evaluation\.json is damaged"):
        read_evaluation(place, found["signature"])


def test_the_command(kun, run, tmp_path):
    """A judge that the recipe does not name is asked at --endpoint; the result is printed and written into the run."""
    place = tmp_path / "copy"
    shutil.copytree(run, place)
    with judging(likes_polish) as (url, _):
        code, out, err = kun("evaluate", "pairs", place, "--judge", "org/judge", "--endpoint", url, "--sample", "4")
    assert code == 0, err
    assert re.search(r"raw\s+4\s+0\s+0\s+1\.000\s+0\.510 to 1\.000", out)
    assert "the judge does not tell the answers from those of other rows" in err
    assert "self-contained" in out
    assert json.loads((place / "evaluation.json").read_text())["pairs"] == 4


def test_doubts_are_said(run, engines, tmp_path):
    """A judge with a bias is told of in numbers; of one that reads there is nothing to say."""
    found, _ = judged(run, engines, likes_the_first, tmp_path, sample=8)
    control, raw, marks = doubts(found)
    assert "of 8 it preferred 0, and 0 of the others'" in control
    assert raw.startswith("raw: with the places exchanged the judge says the same of 0% of 8 pairs")
    assert "correct, complete" in marks
    found, _ = judged(run, engines, reads, tmp_path / "other", sample=15, rubric=False)
    assert doubts(found) == []


def test_a_judge_of_the_recipe(kun, run, tmp_path):
    """A model of the recipe is asked where the recipe says; a name that is none is wrong usage."""
    place = tmp_path / "copy"
    shutil.copytree(run, place)
    recipe = tmp_path / "recipe.yaml"
    with judging(likes_polish) as (url, _):
        recipe.write_text(f"models: {{big: {{endpoints: ['{url}'], model: org/judge}}}}\nsplits: {{}}\n")
        call = ("evaluate", "pairs", place, "--recipe", recipe, "--sample", "2", "--json", "--no-rubric")
        code, out, err = kun(*call, "--judge", "big")
        assert code == 0, err
        assert json.loads(out)["comparisons"]["raw"]["wins"] == 2
        code, _, err = kun(*call, "--judge", "bigg")
    assert code == 2
    assert "has no model `bigg`; did you mean `big`?" in err
