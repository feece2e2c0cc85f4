"""Calibration with verdicts: the thresholds do to the judged rows what they say, and are written where they belong."""

import json
import random
from dataclasses import replace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kun_training.evaluation.calibrate import with_option, write_limits
from kun_training.evaluation.pictures import thresholds_picture
from kun_training.evaluation.thresholds import calibrate, limits_in, usable
from tiny_models import write_lines

from kun_builder.declarations import Quantity
from kun_builder.errors import TrainingError
from kun_builder.report import StepFacts
from kun_builder.result.limits import Limit, limits_of
from kun_builder.result.plots import to_png, to_svg
from kun_builder.result.verdicts import weights
from kun_builder.run.verdicts import Verdict

SCORE = Limit("score", "score", "threshold", "score", 0.3)
LENGTH = Limit("shape", "shape", "most_noise", "noise", 9.0, at_least=False)


def verdicts(rows):
    return [Verdict(good=good, id=str(number), measured=values) for number, (good, values) in enumerate(rows)]


def mixed(count=80, seed=0):
    """Good ones score high and are not noisy; one bad one in two shows by its score, the others by their noise."""
    chance = random.Random(seed)
    rows = []
    for number in range(count):
        good = number % 2 == 0
        low, noisy = (False, False) if good else (number % 4 == 1, number % 4 == 3)
        score = chance.uniform(0.1, 0.55) if low else chance.uniform(0.5, 1)
        rows.append((good, {"score": score, "noise": chance.uniform(4.5, 9) if noisy else chance.uniform(0, 5)}))
    return verdicts(rows)


def by_hand(found, rows):
    """Precision and recall of the chosen thresholds, counted row by row."""
    weight = weights(rows)
    passed = [all(limit.keeps(v.measured.get(limit.column)) for limit in found.after) for v in rows]
    kept = sum(w for w, p in zip(weight, passed, strict=True) if p)
    right = sum(w for v, w, p in zip(rows, weight, passed, strict=True) if p and v.good)
    return right / kept, right / sum(w for v, w in zip(rows, weight, strict=True) if v.good)


def test_several_thresholds_together():
    """What no threshold reaches alone, two reach together, whichever side they keep; each is near where it belongs."""
    rows = mixed()
    with pytest.raises(TrainingError, match=r"no threshold reaches a precision of 0\.95"):
        calibrate(rows, [SCORE], 0.95, least=30)
    found = calibrate(rows, [SCORE, LENGTH], 0.95, least=30)
    chosen = {limit.name: limit.value for limit in found.after}
    assert 0.45 < chosen["score.threshold"] < 0.6
    assert 4 < chosen["shape.most_noise"] < 5.5
    assert (found.figures_after.precision, found.figures_after.recall) == pytest.approx(by_hand(found, rows))
    assert found.figures_after.precision >= 0.95
    assert found.figures_after.recall > 0.85
    assert found.held_out.precision > 0.8


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.2, 0.5, 0.9, None])), min_size=2, max_size=25),
    st.sampled_from([0.3, 0.6, 1.0]),
)
def test_figures_are_those_of_counting(rows, wanted):
    """For any verdicts: precision is reached, figures are what counting gives, no other cut is better."""
    judged = verdicts([(good, {} if value is None else {"score": value}) for good, value in rows])
    try:
        found = calibrate(judged, [SCORE], wanted, least=1)
    except TrainingError:
        return
    assert (found.figures_after.precision, found.figures_after.recall) == pytest.approx(by_hand(found, judged))
    assert found.figures_after.precision >= wanted
    for cut in (0.0, 0.1, 0.3, 0.7):
        other = replace(found, after=(replace(SCORE, value=cut),))
        passed = [v for v in judged if other.after[0].keeps(v.measured.get("score"))]
        if passed and by_hand(other, judged)[0] >= wanted:
            assert by_hand(other, judged)[1] <= found.figures_after.recall + 1e-9


def test_noise_does_not_calibrate():
    """A measure that knows nothing of good and bad may fit the verdicts, but not those it was not chosen by."""
    chance = random.Random(3)
    rows = verdicts([(number % 2 == 0, {"score": chance.random()}) for number in range(60)])
    found = calibrate(rows, [SCORE], 0.6, least=5)
    assert found.figures_after.precision >= 0.6 > found.held_out.precision


def test_strata_weigh():
    """A bad row that stands for a hundred others moves the threshold that a single one leaves where it is."""
    rows = [(True, {"score": 0.4 + number / 100}) for number in range(40)] + [(False, {"score": 0.5})] * 2
    rows += [(False, {"score": 0.1})] * 10
    light = verdicts(rows)
    heavy = [v if v.good else replace(v, stratum="far", stratum_rows=1200) for v in light]
    assert calibrate(light, [SCORE], 0.9).after[0].value < 0.41
    assert calibrate(heavy, [SCORE], 0.9).after[0].value > 0.5


def test_what_no_threshold_brings_back_is_left_out():
    """Rows rejected by a threshold take part; rows rejected for another reason of the same step do not."""
    rows = [(number < 10, {"score": 0.5 + number / 100}) for number in range(20)]
    below = [Verdict(good=True, id="a", reason="score: low_score", value=0.2, measured={"score": 0.20004})]
    other = [
        Verdict(good=True, id="b", reason="refine: stammer"),
        Verdict(good=True, id="c", reason="score: unparseable"),
    ]
    other.append(Verdict(good=True, id="d", reason="score: off_topic", measured={"score": 0.1}))
    other.append(Verdict(good=True, id="e", reason="score: too_short", value=3.0, measured={"score": 0.1}))
    assert calibrate(verdicts(rows) + below + other, [SCORE], 0.5, least=1).judged == 21


def test_a_recipe_that_was_calibrated_already():
    """The run's rejected rows count as before, wherever the recipe's thresholds are now."""
    rows = verdicts([(number % 5 > 0, {"score": 0.3 + number / 100}) for number in range(20)])
    rows += [
        Verdict(good=False, id=f"x{n}", reason="score: low_score", value=n / 50, measured={"score": n / 50})
        for n in range(10)
    ]
    first = calibrate(rows, [SCORE], 0.79)
    again = calibrate(rows, first.after, 0.79)
    assert first.judged == again.judged == 30
    assert again.after == again.before == first.after
    assert again.figures_before == first.figures_after


def test_fewer_verdicts_than_have_to_pass():
    """The message names their number, not a precision of so few."""
    rows = verdicts([(number > 2, {"score": number / 10}) for number in range(7)])
    with pytest.raises(TrainingError, match="decide about 7 of the judged pairs; 10 have to pass"):
        calibrate(rows, [SCORE], 0.9)


def test_too_little_to_choose_from():
    """All good, all bad, or nothing measured: there is nothing to choose, and the message says so."""
    for rows in ([(True, {"score": 0.5}), (True, {"score": 0.6})], [(True, {}), (False, {})]):
        with pytest.raises(TrainingError, match="pairs are judged, with values of"):
            calibrate(verdicts(rows), [SCORE], 0.9)
    with pytest.raises(TrainingError, match="0 good and 0 bad"):
        calibrate([], [SCORE], 0.9)


def test_the_picture_is_drawn():
    """Precision and yield are drawn over each threshold."""
    found = calibrate(mixed(), [SCORE, LENGTH], 0.9)
    assert [len(curve) > 20 for curve in found.curves.values()] == [True, True]
    assert to_png(to_svg(thresholds_picture(found))).startswith(b"\x89PNG")


# --- which threshold cuts what -------------------------------------------------------------------------------------


def test_limits_by_names():
    """In a report that declares nothing, `threshold` cuts the last column, `least_` and `most_` the one they name."""
    adds = {"support": "double", "novelty": "double", "pair_score": "double", "words": "int64"}
    options = {"threshold": 0.9, "least_support": 0.8, "max_novelty": 0.7, "max_new_tokens": 5, "least_words": 3}
    options |= {"temperature": 0.1, "min_gone": 1.0, "model": "chat", "least_novelty": True}
    steps = [StepFacts(label="verify-2", stage="verify", options=options, adds=adds)]
    assert limits_of(steps) == [
        Limit("verify-2", "verify", "threshold", "pair_score", 0.9),
        Limit("verify-2", "verify", "least_support", "support", 0.8),
        Limit("verify-2", "verify", "max_novelty", "novelty", 0.7, at_least=False),
    ]


def test_limits_of_older_reports():
    """A step that does not say what it adds is known by its own name."""
    steps = [StepFacts(label=name, stage=name, options={"threshold": 0.5}) for name in ("score", "dedup")]
    assert limits_of(steps, ("score", "pair_score")) == [Limit("score", "score", "threshold", "score", 0.5)]


def test_limits_that_are_declared():
    """Where a stage declares what its options limit, their names mean nothing: neither `least_x` nor `threshold`."""
    quantities = {"x": Quantity(least="from_here"), "y": Quantity(most="threshold"), "z": Quantity()}
    options = {"from_here": 1.0, "threshold": 2.0, "least_z": 3.0}
    steps = [
        StepFacts(label="a", stage="a", options=options, adds=dict.fromkeys("xyz", "double"), quantities=quantities)
    ]
    assert limits_of(steps) == [
        Limit("a", "a", "from_here", "x", 1.0),
        Limit("a", "a", "threshold", "y", 2.0, at_least=False),
    ]


def test_a_limit_lets_pass_what_was_not_measured():
    """Both sides of a limit, its very value, and nothing."""
    assert [SCORE.keeps(value) for value in (0.2, 0.3, 0.4, None)] == [False, True, True, True]
    assert [LENGTH.keeps(value) for value in (8.0, 9.0, 9.5, None)] == [True, True, False, True]


def test_limits_that_were_measured():
    """A threshold whose column has one value or none in the verdicts cannot be chosen."""
    rows = verdicts([(True, {"score": 0.5, "noise": 1.0}), (False, {"score": 0.6, "noise": 1.0})])
    assert usable(rows, [SCORE, LENGTH]) == [SCORE]


# --- the recipe ----------------------------------------------------------------------------------------------------

RECIPE = """\
models: {chat: {}}   # embedded
splits: {wiki: {source: generic, path: wiki.jsonl}}
stages:
  - normalize
  - label
  - score: {threshold: 0.3}   # a guess
  - polish
  - score   # again
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "wiki.jsonl").touch()
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def test_options_of_any_step():
    """The second use of a stage is found by its label; a tiny number and one near 1 are read back as they were."""
    text = with_option(RECIPE, "score-2", "threshold", 1e-7)
    assert "- score: {threshold: 0.0000001}   # again" in text
    text = with_option(text, "score", "threshold", 0.99999997)
    stages = yaml.safe_load(text)["stages"]
    assert (stages[2]["score"]["threshold"], stages[4]["score"]["threshold"]) == (0.99999997, 1e-7)
    with pytest.raises(TrainingError, match="names no stage `verify`"):
        with_option(RECIPE, "verify", "threshold", 0.5)


def test_all_thresholds_are_written_or_none(recipe):
    """Where one of them has no place in the recipe, it stays as it was."""
    with pytest.raises(TrainingError, match="names no stage `shape`"):
        write_limits(recipe, [replace(SCORE, value=0.7), LENGTH])
    assert recipe.read_text() == RECIPE


def test_limits_of_a_recipe(recipe, registry):
    """Labels, defaults and columns are those of the stages."""
    from kun_builder.recipe.recipe import load_recipe

    found = limits_in(load_recipe(recipe, registry), registry)
    assert [(limit.name, limit.column, limit.value) for limit in found if limit.stage == "score"] == [
        ("score.threshold", "score", 0.3),
        ("score-2.threshold", "score", 0.3),
    ]


def test_from_verdicts_to_the_recipe(kun, recipe, tmp_path):
    """`calibrate --run` reads the run's verdicts, writes the threshold, leaves figures and a picture in the run."""
    rows = [{"id": str(n), "good": n >= 20, "measured": {"score": n / 40}, "instruction": "甲"} for n in range(40)]
    write_lines(tmp_path / "run/verdicts/me.jsonl", rows)
    code, out, err = kun(
        "calibrate", recipe, "--run", tmp_path / "run", "--measure", "score.threshold", "--precision", "1"
    )
    assert code == 0, err
    assert yaml.safe_load(recipe.read_text())["stages"][2]["score"]["threshold"] == pytest.approx(0.49, abs=0.02)
    assert recipe.read_text().replace("0.49", "0.3") == RECIPE
    assert "20 of 40" in out
    assert json.loads((tmp_path / "run/calibration.json").read_text())["figures_after"]["precision"] == 1
    assert (tmp_path / "run/calibration.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_nobody_judged(kun, recipe, tmp_path):
    """Without a verdict in the run, the message says how to get some."""
    (tmp_path / "run").mkdir()
    code, _, err = kun("calibrate", recipe, "--run", tmp_path / "run")
    assert code == 1
    assert "has no verdicts" in err
    assert "kun-build review" in err
    assert recipe.read_text() == RECIPE


def test_only_thresholds_that_move_are_written(kun, recipe, tmp_path):
    """The second score has nothing to say and gets no number; a second calibration leaves the recipe as it is."""
    judged = write_lines(tmp_path / "v.jsonl", [{"good": n >= 20, "score": n / 40, "support": 1.0} for n in range(40)])
    code, _, err = kun("calibrate", recipe, "--verdicts", judged, "--precision", "1")
    assert code == 0, err
    assert recipe.read_text().replace("0.49", "0.3") == RECIPE
    code, _, err = kun("calibrate", recipe, "--verdicts", judged, "--precision", "1")
    assert code == 0, err
    assert "can stay as it is" in err
    assert recipe.read_text().replace("0.49", "0.3") == RECIPE


def test_dry_run_and_wrong_usage(kun, recipe, tmp_path):
    """`--dry-run` writes nothing; an unknown threshold and a missing source of verdicts are wrong usage."""
    judged = write_lines(tmp_path / "v.jsonl", [{"good": n >= 20, "score": n / 40} for n in range(40)])
    code, out, err = kun("calibrate", recipe, "--verdicts", judged, "--dry-run", "-q", "--measure", "score.threshold")
    assert (code, recipe.read_text()) == (0, RECIPE), err
    assert out.startswith("score.threshold 0.4")
    code, _, err = kun("calibrate", recipe, "--verdicts", judged, "--measure", "scor.threshold")
    assert code == 2
    assert "did you mean `score.threshold`?" in err
    code, _, err = kun("calibrate", recipe)
    assert code == 2
    assert "give --run DIR or --verdicts FILE" in err
