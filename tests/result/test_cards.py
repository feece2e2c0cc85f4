"""Cards: what they say, that nothing foreign leaves its place in them, and that `datasets` reads their metadata.

The snapshots in tests/cards/ are whole cards; `UPDATE_CARDS=1 pytest tests/publishing/test_cards.py` writes them anew.
"""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from finished_runs import make_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from kun_builder.cli import reproduce
from kun_builder.errors import PublishError, RecipeError
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe
from kun_builder.report import StepFacts, Usage
from kun_builder.result import markdown, release
from kun_builder.result.card_facts import card_facts, config_facts
from kun_builder.result.cards import cards
from kun_builder.result.cards.metadata import check_card
from kun_builder.result.finished import open_finished, open_run
from kun_builder.result.own_words import BEGIN, END, merge, section, words_of
from kun_builder.result.release import Base, compose, present

CARDS = Path(__file__).parents[1] / "cards"
CLOSED = {
    "redistributable": False,
    "license": "WuDao agreement",
    "citation": "@article{wudao,\n  title={WuDaoCorpora}\n}",
}
HOSTILE = (
    "``` \n````\n</details></summary><script>alert(1)</script> # Heading\n# Heading\n---\nlicense: mit\n---\n"
    "| a | b |\n|---|---|\n{{ 7*7 }}{% for x in y %}<!-- [a](javascript:alert(1)) ![b](http://evil.example/x.png)\u202e"
)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Pictures are drawn elsewhere; here only their names matter."""
    monkeypatch.setattr(release, "to_svg", lambda chart: chart["title"])
    monkeypatch.setattr(release, "to_png", str.encode)


def card_of(run, base=None):
    return compose(run, base or Base(), "my-org/my-kun").files["README.md"].decode()


def check_snapshot(name, text):
    path = CARDS / name
    if os.environ.get("UPDATE_CARDS"):
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8"), f"the card changed: if it should, UPDATE_CARDS=1 writes tests/cards/{name}"


def test_first_release(tmp_path):
    """The card of a first release of two open corpora."""
    run = make_run(tmp_path / "run", {"wudao": 30, "skypile": 20})
    check_snapshot("first.md", card_of(open_finished(run)))


def test_incremental_release(tmp_path):
    """The card of a second release with a corpus that may not be passed on: changes, acknowledgement, two runs."""
    first = compose(open_finished(make_run(tmp_path / "one", {"wudao": 30, "skypile": 20})), Base(), "my-org/my-kun")
    lock = first.files["recipe.lock.yaml"]
    run = make_run(
        tmp_path / "two",
        {"wudao": 25},
        seed=1,
        threshold=0.6,
        sources={"wudao": CLOSED},
        publish={"license": "", "license_acknowledged": True},
    )
    base = Base(
        manifest=first.manifest,
        read=lambda path: lock,
        digests=lambda split: release.digest_rows(release.rows_of(open_run(tmp_path / "one").kept[split])),
    )
    check_snapshot("incremental.md", card_of(open_finished(run), base))


def test_the_command_that_builds_again_is_complete(tmp_path):
    """The command in both halves of a card is one that `reproduce` takes, with the input of every split."""
    run = make_run(tmp_path / "run", {"wudao": 3, "sky.pile": 2})
    lines = [line for line in card_of(open_finished(run)).splitlines() if line.startswith("kun-build reproduce")]
    assert len(lines) == 2
    for line in lines:
        given = reproduce.command.make_context("reproduce", shlex.split(line)[2:]).params
        assert given["repo"] == "my-org/my-kun"
        assert given["paths"] == ("wudao=PATH", "sky.pile=PATH")


def test_card_of_a_folder(tmp_path):
    """A card that nobody has published says how to load the folder, and what is still to be acknowledged."""
    run = make_run(tmp_path / "run", {"wudao": 9}, sources={"wudao": CLOSED})
    text = present(open_run(run), "runs/my-kun/dataset")["README.md"].decode()
    assert 'load_dataset("runs/my-kun/dataset")' in text
    assert "kun-build runs/my-kun/dataset/recipe.lock.yaml" in text
    assert "**Not to be published yet**" in text
    assert "The publisher has" not in text


@pytest.mark.parametrize(
    ("stages", "said", "unsaid"),
    [
        (
            ("label", "score", "polish", "pii", "decontaminate"),
            ("rewrote", "by pattern"),
            ("test sets", "passages of raw"),
        ),
        (("label",), ("passages of raw", "test sets", "No step looked"), ("rewrote", "A score", "judged")),
        (("made_up",), ("made from raw text by the",), ("back-translation", "judged", "guessed", "from the web")),
        (("label", "verify"), ("held against each other", "guessed from its answer"), ("judged",)),
    ],
)
def test_only_what_is_true_of_the_steps(tmp_path, stages, said, unsaid):
    """What a card says of the method and of its limits depends on the steps that ran."""
    run = open_run(make_run(tmp_path / "run", {"wudao": 9}))
    step = replace(run.report.steps[0], options={})
    steps = tuple(replace(step, stage=stage, label=stage) for stage in stages)
    text = present(replace(run, report=replace(run.report, steps=steps)), "x/y")["README.md"].decode()
    prose = text.split("## English")[1].split("## 中文")[0]
    assert all(words in prose for words in said)
    assert not [words for words in unsaid if words in prose]


def test_the_prompt_that_was_used(tmp_path):
    """Of a prompt for chat models and one for others, the card has that which the model was given."""
    models = {"chat": {"prompt": "chat"}, "base": {"prompt": "completion"}}
    options = {"chat_prompt": "a\nb", "completion_prompt": "c\nd", "model": "chat", "top_p": 0.9, "seed": None}
    step = StepFacts(label="a", stage="a", options=options, models=("chat",))
    assert cards.prompts(step, models) == {"chat_prompt": "a\nb"}
    assert cards.prompts(replace(step, models=("base",)), models) == {"completion_prompt": "c\nd"}
    assert cards.settings(step) == {"top_p": 0.9}


def structure(text):
    """What a Markdown reader makes of a card: headings, raw HTML, links and pictures, tables, fences."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text.split("\n---\n", 1)[1])
    inline = [child for token in tokens for child in token.children or ()]
    return {
        "headings": [t.content for o, t in pairwise(tokens) if o.type == "heading_open"],
        "html": [t.content for t in (*tokens, *inline) if t.type in ("html_block", "html_inline")],
        "links": [t.attrs for t in inline if t.type in ("link_open", "image")],
        "cells": sum(t.type == "td_open" for t in tokens),
        "fences": sum(t.type == "fence" for t in tokens),
    }


@pytest.mark.parametrize("hostile", [HOSTILE, "~~~\n" + "`" * 50, "\x00\x1b[31m\u2028"])
def test_corpus_text_stays_in_its_place(tmp_path, hostile):
    """Whatever rows contain, the card has the headings, HTML, links, tables and metadata of one with plain rows."""
    plain = card_of(open_finished(make_run(tmp_path / "plain", {"wudao": 9}, text="plain")))
    wild = card_of(open_finished(make_run(tmp_path / "wild", {"wudao": 9}, text=hostile)))
    assert structure(wild) == structure(plain)
    heads = [yaml.safe_load(text.split("---\n")[1]) for text in (plain, wild)]
    for head in heads:
        for info in head["dataset_info"]:
            info["splits"], info["download_size"], info["dataset_size"] = [], 0, 0
    assert heads[0] == heads[1]
    assert "49" not in wild.split("### From raw text")[0].split("### Examples")[1]


def test_facts_of_a_source_stay_in_their_place(tmp_path):
    """Licence, homepage and citation come from plugins: they, too, are put in as text."""
    wild = {"license": f"x{HOSTILE}", "homepage": "javascript:alert(1)", "citation": HOSTILE, "source": "a|b](c)<b>"}
    text = card_of(open_finished(make_run(tmp_path / "run", {"wudao": 9}, sources={"wudao": wild})))
    found = structure(text)
    assert not [tag for tag in found["html"] if "script" in tag or "<b>" in tag]
    assert not [link for link in found["links"] if "evil" in str(link) or "javascript" in str(link)]
    assert found["headings"].count("Heading") == 0


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=200))
def test_escaping(text):
    """Any text, escaped, is one paragraph of plain text, one cell of a table, or one closed block of code."""
    parser = MarkdownIt("commonmark").enable("table")
    fenced = parser.parse(markdown.fence(text))
    assert [token.type for token in fenced] == ["fence"]
    row = parser.parse(f"| a | b |\n|---|---|\n| x {markdown.words(text)} | {markdown.code(text)} |\n")
    assert sum(token.type == "td_open" for token in row) == 2
    inline = [child.type for token in row for child in token.children or ()]
    assert set(inline) <= {"text", "code_inline", "text_special"}


def test_missing_fact_stops_publishing(tmp_path, monkeypatch):
    """A template that asks for what is not there stops the publishing, instead of leaving a hole."""
    monkeypatch.setattr(cards, "template", lambda name: "# {{ facts.title }} {{ facts.nobody_knows }}")
    with pytest.raises(PublishError, match="nobody_knows"):
        card_of(open_finished(make_run(tmp_path / "run", {"wudao": 3})))


def test_metadata_that_reads_back_otherwise(tmp_path):
    """A card whose metadata `datasets` would read in another way is not published."""
    run = open_run(make_run(tmp_path / "run", {"wudao": 3}))
    text = present(run, "x/y")["README.md"].decode().replace("data/wudao-*.parquet", "data/*.parquet")
    splits = {name: release._split_entry(run, name, "run") for name in run.report.splits}
    facts = card_facts("x/y", run, splits, {"run": release._run_entry(run)}, [])
    with pytest.raises(PublishError, match="default"):
        check_card(text, facts)


def test_a_card_is_read_back_before_it_is_handed_on(tmp_path, monkeypatch):
    """A card for a run that does not read back as it was meant stops the publishing."""
    run = open_run(make_run(tmp_path / "run", {"wudao": 3}))
    monkeypatch.setattr(release, "card", lambda facts: cards.card(facts).replace("data/wudao-*", "data/other-*"))
    with pytest.raises(PublishError, match="`default` does not read back"):
        present(run, "x/y")


def test_columns_of_two_releases_clash(tmp_path):
    """A column that is text in one split and a number in another is refused, with both splits named."""
    run = open_run(make_run(tmp_path / "run", {"wudao": 3, "skypile": 3}))
    entries = {name: release._split_entry(run, name, "run") for name in run.report.splits}
    entries["skypile"]["configs"]["provenance"]["features"]["score"] = {"dtype": "string", "_type": "Value"}
    with pytest.raises(PublishError, match=r"`score` of provenance is .* in split `skypile`"):
        config_facts("provenance", entries)


def test_licence_names(tmp_path):
    """A licence that the Hub knows is named as the Hub does; any other is `other` with its name."""
    run = open_run(make_run(tmp_path / "run", {"wudao": 3}))
    for name, expected in (("CC-BY-4.0", {"license": "cc-by-4.0"}), ("My terms", {"license": "other"})):
        head = yaml.safe_load(present(replace(run, license=name), "x/y")["README.md"].decode().split("---\n")[1])
        assert {"license": head["license"]} == expected
        assert head.get("license_name") == (name if expected["license"] == "other" else None)


WORDS = {
    "authors": ["Li Bai", "Du Fu"],
    "contact": "bai@example.org",
    "hardware": "8 x A100 80 GB",
    "notes": "## Why\n\nBecause *we* wanted it.\n",
}


def test_what_a_person_signs(tmp_path):
    """A card has an example as JSON, uses, authors, contact, citations, thanks, costs, hardware and own words."""
    run = open_finished(make_run(tmp_path / "run", {"wudao": 9}, publish=WORDS))
    use = Usage(
        stage="label",
        model="chat",
        requests=1234,
        prompt_tokens=5678,
        completion_tokens=91011,
        reasoning_tokens=8000,
        cost=1.5,
    )
    run = replace(run, report=replace(run.report, usage=(use,), machine="2 cores (x86_64), 8 GB", seconds=3725.0))
    text = card_of(run)
    example = json.loads(text.split("```json\n")[1].split("```")[0])
    assert example.keys() == {"instruction", "output"}
    assert f"{BEGIN}\n## Why\n\nBecause *we* wanted it.\n{END}" in text
    assert "Authors: Li Bai, Du Fu. Contact: bai@example.org." in text.replace(r"\@", "@")
    assert "| label | chat | 1,234 | 5,678 | 91,011 (thinking · 思考 8,000) | 1.50 |" in text
    assert "1 h 2 min for its last start" in text
    assert r"2 cores (x86\_64), 8 GB" in text
    assert "8 x A100 80 GB" in text
    assert "author = {Li Bai and Du Fu}" in text
    assert "url = {https://huggingface.co/datasets/my-org/my-kun}" in text
    assert "### Uses" in text
    assert "2308.06259" in text
    assert "the models (org/chat-7b)" in text


def test_a_citation_of_ones_own(tmp_path):
    """A citation that the recipe gives stands in the place of the one that is made."""
    own = {"citation": "@article{li726, title={Moon}}"}
    text = card_of(open_finished(make_run(tmp_path / "run", {"wudao": 9}, publish=own)))
    assert "@article{li726, title={Moon}}" in text
    assert "@misc{my-kun" not in text


@pytest.mark.parametrize(
    ("recipe", "before", "published", "expected"),
    [
        ("new", {}, None, "new"),
        ("", {"recipe": "", "shown": ""}, "theirs", "theirs"),
        ("old", {"recipe": "old", "shown": "old"}, "old, and theirs", "old, and theirs"),
        ("new", {"recipe": "old", "shown": "old"}, "old, and theirs", "new, and theirs"),
        ("new", {"recipe": "old", "shown": "old"}, "all theirs", "all theirs\n\nnew"),
        ("old", {"recipe": "old", "shown": "old"}, "", ""),
        ("", {"recipe": "old", "shown": "old"}, None, "old"),
    ],
)
def test_own_words_are_merged(recipe, before, published, expected):
    """What the recipe says anew goes into what stands on the Hub, whose changes stay; nothing comes back unasked."""
    assert merge(recipe, before, published) == expected
    again = {"recipe": recipe, "shown": expected}
    assert merge(recipe, again, expected) == expected, "a second push changes nothing"


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"]), max_size=80))
def test_own_words_come_back(words):
    """Any words stand in the section, and are read back from the card; none of them ends it."""
    assert words_of(f"# t\n\n{section(words)}\n\nrest") == words.replace("\r\n", "\n").strip()


def test_notes_of_a_file(tmp_path):
    """The recipe's file of notes is read beside it, and its words are in the lock file; a missing one is named."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "models: {chat: {}}\nsplits: {web: {source: generic, path: x.jsonl}}\npublish: {notes: words.md}\n"
    )
    with pytest.raises(RecipeError, match=r"recipe.yaml:3: .*words.md"):
        load_recipe(recipe, load_plugins())
    (tmp_path / "words.md").write_text("我们的话。")
    assert load_recipe(recipe, load_plugins()).publish.notes == "我们的话。\n"
