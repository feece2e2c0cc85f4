"""Evaluation: likelihoods are the model's own, traits are counted as they are defined, thresholds do what they say."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kun_training.bases import load_model, load_tokenizer, make_tiny
from kun_training.evaluation.calibrate import with_threshold
from kun_training.evaluation.generating import Generated, Sampling
from kun_training.evaluation.label import evaluate_label, held_out_pairs, traits
from kun_training.evaluation.likelihood import likelihoods, margin
from kun_training.evaluation.overlap import bigram_f1, chrf, distinct, is_copied, is_loop, leaks, main_script
from kun_training.evaluation.pictures import label_picture, score_picture
from kun_training.evaluation.ranking import cuts, recommend, roc_auc
from kun_training.evaluation.scorer import Labelled, Scored, damaged_items, read_labelled, score_report
from kun_training.examples import encode, label_examples
from kun_training.job import HELD_OUT_FILE, TRAINED_FILE
from kun_training.seeds import Pair
from tiny_models import pairs, write_lines

from kun_builder.errors import RecipeError, TrainingError
from kun_builder.prompt_contract import read_contract
from kun_builder.prompts import Prompt
from kun_builder.result.plots import to_png, to_svg

PAIRS = [Pair(row["instruction"], row["output"]) for row in pairs(12)]
PROMPT = Prompt("{text}\n指令：")


def test_likelihoods_do_not_depend_on_the_batch(tmp_path):
    """Padding and batching change nothing: each completion has the log-probability it has alone."""
    import torch

    folder = str(make_tiny(PAIRS, [], tmp_path))
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    encoded = [encode(tokenizer, example) for example in label_examples(PAIRS, PROMPT)]
    found = likelihoods(model, encoded, pad=0, batch_size=5)
    for tokens, item in zip(encoded, found, strict=True):
        ids = torch.tensor([tokens.prompt + tokens.completion])
        with torch.inference_mode():
            logprobs = model(ids).logits[0].float().log_softmax(-1)
        at = range(len(tokens.prompt), ids.shape[1])
        alone = [float(logprobs[place - 1, ids[0, place]]) for place in at]
        assert item.tokens == len(tokens.completion) - 1
        assert item.logprob == pytest.approx(sum(alone[:-1]), abs=1e-3)
        assert item.end == pytest.approx(alone[-1], abs=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_trained_model_beats_its_base(label_model):
    """On held-out pairs, human instructions are likelier by more than 2 nats per token, with the interval above 1.5."""
    held_out, trained_on = held_out_pairs([label_model / HELD_OUT_FILE], str(label_model), limit=100)
    assert trained_on == 0
    report = evaluate_label(str(label_model), held_out, read_contract(str(label_model)), Sampling(32))
    assert report.margin.mean > 2
    assert report.margin.low > 1.5
    assert report.fit.per_token == pytest.approx(report.base.per_token + report.margin.mean, abs=0.5)
    assert report.generated.empty == 0
    assert report.generated.endless < 0.5
    assert report.chrf > 20
    assert report.human.distinct_2 > 0
    assert to_png(to_svg(label_picture(report))).startswith(b"\x89PNG")
    assert json.dumps(report.to_json(), ensure_ascii=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pairs_it_was_trained_on_are_left_out(label_model, tmp_path):
    """Given all seeds again, evaluation takes only those that were held out, and says how many it left out."""
    again = write_lines(tmp_path / "all.jsonl", pairs())
    held_out, trained_on = held_out_pairs([again], str(label_model), limit=500)
    assert len(held_out) + trained_on == len(pairs())
    assert len(held_out) == len((label_model / HELD_OUT_FILE).read_text().splitlines())
    with pytest.raises(TrainingError, match="no pair to evaluate on"):
        held_out_pairs([label_model / TRAINED_FILE], str(label_model), limit=10)


def test_margin_is_paired():
    """The margin is the mean of each pair's own gain; its interval contains the mean."""
    from kun_training.evaluation.likelihood import Likelihood

    before = [Likelihood(-10.0, 5, -1.0), Likelihood(-4.0, 2, -1.0)]
    after = [Likelihood(-5.0, 5, -1.0), Likelihood(-5.0, 2, -1.0)]
    found = margin(before, after)
    assert found.mean == pytest.approx((1.0 - 0.5) / 2)
    assert found.low <= found.mean <= found.high
    assert found.improved == 0.5


# --- overlap -----------------------------------------------------------------------------------------------------


def test_chrf_knows_the_same_and_the_different():
    """Equal texts score 100, texts without a common character 0."""
    assert chrf(["请介绍绿茶。"], ["请介绍绿茶。"]) == pytest.approx(100)
    assert chrf(["甲乙丙丁"], ["戊己庚辛"]) == 0


@given(st.text(max_size=30), st.text(max_size=30))
def test_bigram_f1_is_symmetric_and_bounded(one, other):
    """The overlap lies between 0 and 1, and does not depend on the order."""
    value = bigram_f1(one, other)
    assert 0 <= value <= 1
    assert value == bigram_f1(other, one)


def test_traits_are_found():
    """Copies, leaks of the prompt, another language, emptiness and loops each count as what they are."""
    text = "绿茶的做法不难，先洗净，再切开，最后用小火慢慢煮熟，冬天也可以。"
    prompt = "请根据下面的文章写出问题：{text}"
    assert is_copied("先洗净，再切开，最后用小火慢慢煮熟", text)
    assert not is_copied("绿茶怎么做？", text)
    assert leaks("根据下面的文章写出问题", prompt, text)
    assert not leaks("绿茶怎么做？", prompt, text)
    assert is_loop("绿茶绿茶绿茶绿茶绿茶")
    assert not is_loop("绿茶绿茶怎么做")
    assert (main_script("绿茶 tea 怎么做"), main_script("how to make it"), main_script("…")) == ("CJK", "LATIN", "")
    pair = Pair("绿茶怎么做？", text)
    said = [Generated(text, True) for text in ("", "how to make tea", "先洗净，再切开，最后用小火慢慢煮熟")]
    found = traits([*said, Generated("绿茶怎么做", False)], [pair] * 4, prompt)
    assert (found.empty, found.wrong_language, found.copied, found.endless) == (0.25, 1 / 3, 0.25, 0.25)


def test_distinct_counts_different_pieces():
    """Distinct-n is the share of different n-grams over all texts together."""
    assert distinct(["甲甲"], 1) == 0.5
    assert distinct(["甲乙", "甲乙"], 2) == 0.5
    assert distinct([""], 2) == 0


# --- ranking -----------------------------------------------------------------------------------------------------

scores = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=20)


@given(scores, scores)
def test_auc_is_the_chance_of_the_right_order(good, bad):
    """ROC-AUC equals the share of good and bad pairs in the right order, ties counting half."""
    right = sum((g > b) + (g == b) / 2 for g in good for b in bad)
    assert roc_auc(good, bad) == pytest.approx(right / (len(good) * len(bad)))


@given(scores, scores)
def test_cuts_are_what_they_say(good, bad):
    """Each threshold's recall and share of bad rows kept are those of counting; no other one is better balanced."""
    found = cuts(good, bad)
    for cut in found:
        assert cut.recall == pytest.approx(np.mean([g >= cut.threshold for g in good]))
        assert cut.bad_kept == pytest.approx(np.mean([b >= cut.threshold for b in bad]))
    best = recommend(good, bad)
    assert best.balance == pytest.approx(max(cut.balance for cut in found))
    assert np.mean([g >= best.threshold for g in good]) == pytest.approx(best.recall)
    assert np.mean([b >= best.threshold for b in bad]) == pytest.approx(best.bad_kept)


def test_a_perfect_scorer():
    """Where good and bad do not overlap, AUC is 1 and the threshold lies between them."""
    items = [Scored(Labelled("甲", "", True, "human"), 0.9)] * 3 + [
        Scored(Labelled("乙", "", False, "shuffled"), 0.2)
    ] * 3
    items.append(Scored(Labelled("丙", "", False, "shuffled"), None, "unparseable_score"))
    report = score_report("r", items)
    assert (report.auc, report.kinds, report.unscored) == (1.0, {"shuffled": 1.0}, {"unparseable_score": 1})
    assert 0.2 < report.recommended.threshold < 0.9
    assert to_png(to_svg(score_picture(report))).startswith(b"\x89PNG")


def test_no_scores_is_an_error():
    """A scorer whose answers cannot be read has no figures, but the reasons."""
    with pytest.raises(TrainingError, match="unparseable_score 2"):
        score_report("r", [Scored(Labelled("甲", "", True, "human"), None, "unparseable_score")] * 2)


def test_each_pair_is_damaged_in_every_way():
    """Every pair gives its human instruction and one bad one of each kind."""
    items = damaged_items(PAIRS, ("shuffled", "truncated", "repeated"))
    assert sum(item.good for item in items) == len(PAIRS)
    assert {item.kind for item in items} == {"human", "shuffled", "truncated", "repeated"}
    assert len(items) == 4 * len(PAIRS)


def test_labelled_files(tmp_path):
    """Judgements may be booleans, numbers or words; a line that is none of it is named."""
    rows = [{"instruction": "甲", "good": value} for value in (True, 0, "good", "差")]
    found = read_labelled(write_lines(tmp_path / "a.jsonl", rows))
    assert sorted(item.good for item in found) == [False, False, True, True]
    with pytest.raises(TrainingError, match=r"a\.jsonl:2"):
        read_labelled(write_lines(tmp_path / "a.jsonl", [rows[0], {"instruction": "乙", "good": "maybe"}]))


# --- calibration -------------------------------------------------------------------------------------------------

RECIPE = """\
# my recipe
models: {{chat: {{}}}}   # embedded
stages:
  - label: {{temperature: 0.7}}   # warm
{stage}
  - polish   # last
"""
STAGES = {
    "  - score: {model: chat, threshold: 0.5}   # a guess": "  - score: {model: chat, threshold: 0.42}   # a guess",
    "  - score: {model: chat}   # no threshold": "  - score: {threshold: 0.42, model: chat}   # no threshold",
    "  - score   # bare": "  - score: {threshold: 0.42}   # bare",
    "  - score:   # empty": "  - score: {threshold: 0.42}   # empty",
    "  - score: {}": "  - score: {threshold: 0.42}",
    "  - score:\n      model: chat   # who": "  - score:\n      threshold: 0.42\n      model: chat   # who",
    "  - score:\n      threshold: 0.9 # a\n      model: m": "  - score:\n      threshold: 0.42 # a\n      model: m",
}


@pytest.mark.parametrize(("before", "after"), STAGES.items())
def test_only_the_threshold_changes(before, after):
    """In every way of writing the stage, the threshold is set, and every other character stays."""
    text = RECIPE.format(stage=before)
    assert with_threshold(text, 0.42) == RECIPE.format(stage=after)


@given(st.floats(0, 1, allow_subnormal=False))
def test_a_threshold_written_is_a_threshold_read(value):
    """The recipe stays YAML, with the number that was written, to six digits."""
    import yaml

    for before in STAGES:
        stages = yaml.safe_load(with_threshold(RECIPE.format(stage=before), value))["stages"]
        assert math.isclose(stages[1]["score"]["threshold"], value, abs_tol=1e-6)


def test_a_recipe_without_score_is_an_error():
    """There is nothing to calibrate without the stage, or without YAML."""
    with pytest.raises(TrainingError, match="names no stage `score`"):
        with_threshold("stages: [label]\n", 0.5)
    with pytest.raises(RecipeError):
        with_threshold("stages: [", 0.5)
