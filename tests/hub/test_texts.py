"""A recipe whose stages only clean: a dataset of texts, without any model, built, looked at and published."""

from __future__ import annotations

import json

import pytest
from datasets import load_dataset
from finished_runs import make_run
from hub.conftest import ALICE

from kun_builder.errors import PublishError, RecipeError, RunError
from kun_builder.recipe.lock import lock
from kun_builder.recipe.recipe import load_recipe
from kun_builder.result.finished import check_licences, open_finished, open_run
from kun_builder.result.loading import check_loads
from kun_builder.result.present import write_presentation
from kun_builder.result.review import open_review
from kun_builder.result.shapes import export_run
from kun_builder.run.plan import make_plan
from kun_builder.run.runner import build

OPEN = "license: cc-by-4.0, redistributable: true, corpus: Web pages"
CLEAN = "[normalize, {length: {tokenizer: characters, min_tokens: 5}}, dedup]"
TEXTS = [
    "绿茶用八十度的水，冲泡两分钟就可以喝。",
    "石桥靠拱来承重，木桥靠梁来承重。",
    "短",
    "候鸟在秋天向南方飞去，春天再回来。",
]


def recipe_of(folder, registry, *, stages=CLEAN, split=OPEN, more="", file_format="parquet"):
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in [*TEXTS, TEXTS[0]]]
    (folder / "web.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "recipe.yaml").write_text(
        f"name: clean\nformat: {file_format}\nsplits: {{web: {{source: generic, path: web.jsonl, {split}}}}}\n"
        f"stages: {stages}\n{more}",
        "utf-8",
    )
    return load_recipe(folder / "recipe.yaml", registry, output=folder / "run")


@pytest.fixture(scope="module")
def texts(tmp_path_factory, registry):
    """A finished run of texts that may be passed on."""
    folder = tmp_path_factory.mktemp("texts")
    build(recipe_of(folder, registry), registry)
    write_presentation(folder / "run")
    return folder / "run"


@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
def test_a_run_without_models_gives_texts(tmp_path, registry, file_format):
    """Only cleaned texts are in the dataset, the others are counted; provenance has the same rows; nothing is asked."""
    recipe = recipe_of(tmp_path, registry, file_format=file_format)
    report = build(recipe, registry)
    report.check()
    assert (report.splits["web"].read, report.splits["web"].kept, report.models) == (5, 3, {})
    write_presentation(tmp_path / "run")
    found = load_dataset(str(tmp_path / "run/dataset"), split="web", cache_dir=tmp_path / "hf")
    assert found.column_names == ["text"]
    assert list(found["text"]) == [text for text in TEXTS if len(text) > 5]
    assert check_loads(open_finished(tmp_path / "run")) == {"default": {"web": 3}, "provenance": {"web": 3}}


def test_the_card_and_the_page_speak_of_texts(texts):
    """Card and page say what the rows are, and nothing of instructions, answers or models that there are not."""
    card = (texts / "dataset/README.md").read_text("utf-8")
    assert "3 texts, in Chinese, cleaned from raw text" in card
    assert "绿茶用八十度的水" in card
    assert "Thanks to those who made the corpora (Web pages), and the libraries" in card
    page = (texts / "report.html").read_text("utf-8")
    for word in ("nstruction", "annotations_creators:\n- machine", "指令</", "answer to it", "How instructions ask"):
        assert word not in card.replace("instruction data", "")
    assert "How instructions ask" not in page
    assert {path.name for path in (texts / "dataset/plots").iterdir()} >= {"funnel.png", "text-lengths.png"}


def test_the_lock_of_a_run_without_models_is_a_recipe(tmp_path, registry):
    """What was written down of a run without models runs again, and means the same."""
    recipe = recipe_of(tmp_path, registry)
    (tmp_path / "again.yaml").write_text(lock(recipe, registry, {}), "utf-8")
    again = load_recipe(tmp_path / "again.yaml", registry)
    assert (again.stages, again.models) == (recipe.stages, {})


def test_texts_are_published_and_read_back(texts, hub, zygote):
    """The Hub serves the texts; pushing again changes nothing, and pairs do not go into the same repository."""
    done = zygote.run("publish_worker:push", run=str(texts), repo="alice/texts", token=ALICE)
    assert done.get("verified"), done
    assert done["changes"]["splits"]["web"] == {"rows": 3, "added": 3, "removed": 0, "changed": 0}
    rows = zygote.run("publish_worker:load", repo="alice/texts", token=ALICE)["web"]
    assert [row["text"] for row in rows] == [text for text in TEXTS if len(text) > 5]
    again = zygote.run("publish_worker:push", run=str(texts), repo="alice/texts", token=ALICE)
    assert not again["changed"]


def test_texts_and_pairs_are_no_one_dataset(texts, hub, zygote, tmp_path):
    """A repository of texts takes no pairs beside them: a configuration has one set of columns."""
    done = zygote.run("publish_worker:push", run=str(texts), repo="alice/mixed", token=ALICE)
    assert done.get("verified"), done
    pairs = make_run(tmp_path / "pairs", {"wudao": 4})
    refused = zygote.run("publish_worker:push", run=str(pairs), repo="alice/mixed", token=ALICE)
    assert "one dataset, one kind of row" in refused["error"]


@pytest.mark.parametrize("split", ["", "license: cc-by-4.0", "license: other, redistributable: false"])
def test_texts_that_may_not_be_passed_on_stay(tmp_path, registry, split):
    """The dataset is there for its owner, but cannot be published, whatever was acknowledged; so before the work."""
    recipe = recipe_of(tmp_path, registry, split=split, more="publish: {license_acknowledged: true}\n")
    report = build(recipe, registry)
    write_presentation(tmp_path / "run")
    with pytest.raises(PublishError, match="the dataset is the text of these sources") as refused:
        open_finished(tmp_path / "run")
    assert "redistributable: true" in refused.value.hint
    with pytest.raises(PublishError, match="the dataset is the text"):
        check_licences(report.splits, {}, texts=not make_plan(recipe, registry).pairs)
    assert open_run(tmp_path / "run").withheld == {"web"}
    assert "Not to be published**" in (tmp_path / "run/dataset/README.md").read_text("utf-8")


def test_what_needs_pairs_says_so(texts, tmp_path):
    """Texts are neither exported as pairs nor reviewed: the error says what is missing."""
    with pytest.raises(RunError, match="texts and no pairs"):
        export_run(texts, "pairs", tmp_path / "out")
    with pytest.raises(RunError, match="texts and no pairs"):
        open_review(texts)


def test_a_stage_that_asks_needs_a_model(tmp_path, registry):
    """A recipe without models whose stages ask one is refused before anything is read."""
    with pytest.raises(RecipeError, match="`models` must name at least one model"):
        recipe_of(tmp_path, registry, stages="[normalize, label, polish]")


@pytest.mark.parametrize("stages", ["[normalize, score]", "[normalize, refine]"])
def test_a_recipe_of_pairs_that_lacks_a_stage_is_no_recipe_of_texts(tmp_path, registry, stages):
    """Where a stage works on single rows, pairs were meant: that nothing adds an instruction is still an error."""
    recipe = recipe_of(tmp_path, registry, stages=stages, more="models: {chat: {}}\n")
    with pytest.raises(RecipeError, match="no stage of the recipe adds `instruction` and `output`"):
        make_plan(recipe, registry)


def test_tokens_of_no_model(tmp_path, registry):
    """Without a model, a stage that counts tokens must be told of which kind, before anything is read."""
    recipe = recipe_of(tmp_path, registry, stages="[normalize, length]")
    with pytest.raises(RecipeError, match="stage `length` counts tokens") as refused:
        build(recipe, registry)
    assert "characters" in refused.value.hint
