"""What a card says of a user's own corpus and of the numbers that any plugin's stage measures; built for real."""

from __future__ import annotations

import json
import re
from pathlib import Path

import datasets
import pytest
import yaml
from click.testing import CliRunner

from kun_builder.cli.explain import _lines
from kun_builder.cli.main import cli
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe
from kun_builder.report import StepFacts
from kun_builder.result.cards.metadata import _size
from kun_builder.result.explain import explain
from kun_builder.result.finished import open_run
from kun_builder.result.present import write_presentation
from kun_builder.result.stats import owners
from kun_builder.run.runner import build

STAGES = """
import pyarrow as pa

from kun_builder import BatchStage, Quantity, drop_rows, hookimpl

kun_api = 1


def make(table):
    texts = table["text"]
    return table.append_column("instruction", texts).append_column("output", texts)


def vouch(table, *, least_support: float = 0.3, threshold: float = 0.5):
    lengths = [len(text) for text in table["text"].to_pylist()]
    support = [length / 40 for length in lengths]
    score = [1 - length / 80 for length in lengths]
    for name, values in (("support", support), ("pair_score", score)):
        table = table.append_column(name, pa.array(values))
    table = drop_rows(table, [value < least_support for value in support], "unsupported", support)
    return drop_rows(table, [value < threshold for value in score], "low_pair_score", score)


def odd(table, *, column: str = "score"):
    return table.append_column(column, pa.array(["high"] * len(table)))


SAID = {
    "support": Quantity(title="how far it is vouched for", unit="texts", better="higher", least="least_support"),
    "pair_score": Quantity(least="threshold"),
}


@hookimpl
def kun_stages():
    return [
        BatchStage(name="make", run=make, adds={"instruction": "string", "output": "string"}),
        BatchStage(name="vouch", run=vouch, adds={"support": "double", "pair_score": "double"}, quantities=SAID),
        BatchStage(name="odd", run=odd, adds={"score": "string"}),
    ]
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with forty texts of 1 to 40 characters, and a function that writes a recipe for them."""
    monkeypatch.setenv("KUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/checks.py").write_text(STAGES)
    lines = [json.dumps({"text": "月" * number}, ensure_ascii=False) for number in range(1, 41)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), "utf-8")

    def write(split="", stages="[make, vouch]", more=""):
        (tmp_path / "recipe.yaml").write_text(
            f"name: t\nmodels: {{chat: {{}}}}\nplugins: {{dirs: [plugins]}}\nstages: {stages}\n"
            f"splits: {{web: {{source: generic, path: in.jsonl{split}}}}}\n{more}",
            "utf-8",
        )
        return tmp_path / "recipe.yaml"

    return write


def built(path):
    registry = load_plugins((Path("plugins"),))
    recipe = load_recipe(path, registry)
    build(recipe, registry)
    write_presentation(recipe.output)
    return recipe.output, (recipe.output / "dataset/README.md").read_text("utf-8")


def head(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_undeclared(project):
    """Of a corpus that nobody has described, the card says that nothing is declared, and gives it no name."""
    folder, card = built(project())
    assert "| `web` | 29 | not named | not declared | no: its SHA-256 |" in card
    assert "the licence of its source is **not declared**, so its raw text is not part of this dataset" in card
    assert "may not be passed on" not in card
    assert "No licence has been declared for this dataset" in card
    assert head(card)["license"] == "unknown"
    assert "source_datasets" not in head(card)
    assert "text_sha256" in open_run(folder).config_of("provenance", "web")["features"]


def test_declared(project):
    """What a split declares is on the card, and its text is in the provenance if it may be passed on."""
    said = ", license: cc-by-4.0, redistributable: true, corpus: 'Moon | texts', homepage: 'https://example.org/m'"
    folder, card = built(project(said + ", citation: 'Li Bai, Moon, 726'"))
    assert r"| `web` | 29 | Moon \| texts (<https://example.org/m>) | cc-by-4.0 | yes |" in card
    assert "Li Bai, Moon, 726" in card
    assert head(card)["source_datasets"] == ["extended|other-moon-texts"]
    assert head(card)["license"] == "cc-by-4.0"
    assert "text" in open_run(folder).config_of("provenance", "web")["features"]
    locked = yaml.safe_load((folder / "recipe.lock.yaml").read_text("utf-8"))
    assert locked["splits"]["web"]["corpus"] == "Moon | texts"


def test_declared_later(project):
    """A licence that is added to a finished run renews its card and its provenance, and no row is made again."""
    folder, _ = built(project())
    shards = {path: path.stat().st_mtime_ns for path in (folder / "shards").rglob("*.arrow")}
    _, card = built(project(", license: mit, redistributable: true"))
    assert "| not named | mit | yes |" in card
    assert {path: path.stat().st_mtime_ns for path in (folder / "shards").rglob("*.arrow")} == shards


def test_licence_without_a_word_on_passing_on(project):
    """A licence alone does not say that the raw text may be passed on: it stays, and the card says why."""
    _, card = built(project(", license: mit"))
    assert "mit; whether the source may be passed on is **not declared**, so its raw text is not part" in card


def test_title_of_the_corpus(project):
    """`title` is the field of a heading for files of one's own; where it is plainly the corpus's title, it is that."""
    assert "| not named |" in built(project(", title: text"))[1]
    assert "| My own texts |" in built(project(", title: My own texts"))[1]
    assert "| 月亮的语料 |" in built(project(", title: 月亮的语料"))[1]


def test_other_licence(project):
    """A licence that the Hub does not know has a name and an address in the metadata, and both in the text."""
    said = "publish: {license: other, license_name: moon-terms, license_link: 'https://example.org/terms'}"
    _, card = built(project(more=said))
    assert {name: head(card)[name] for name in ("license", "license_name", "license_link")} == {
        "license": "other",
        "license_name": "moon-terms",
        "license_link": "https://example.org/terms",
    }
    assert "published under moon-terms (<https://example.org/terms>)" in card


def test_sizes():
    """Every number of rows has one of the Hub's names for sizes."""
    known = json.loads((Path(datasets.__file__).parents[0] / "utils/resources/size_categories.json").read_text())
    found = [_size(10**power) for power in range(14)]
    assert [name for name in dict.fromkeys(found) if name not in known] == []
    assert found[2:5] == ["n<1K", "1K<n<10K", "10K<n<100K"]
    assert found[7:10] == ["10M<n<100M", "100M<n<1B", "1B<n<10B"]


def test_any_stage_is_measured(project):
    """Columns of numbers of a stage that nobody has heard of are in card, page, pictures and `explain`, with limits."""
    folder, card = built(project())
    assert "| `support` (texts) ↑ | `web` | vouch | ≥ 0.3 | 27.5 % |" in card
    assert "| `support` | float64 | how far it is vouched for | how far it is vouched for |" in card
    assert "![how far it is vouched for (higher is better): kept and rejected rows" in card
    assert "| `pair_score` | `web` | vouch | ≥ 0.5 | 0.0 % |" in card
    assert re.search(r"vouch: unsupported \| 11 \(27\.5%\) \|", card)
    assert {"measure-support.png", "measure-pair_score.png"} <= {p.name for p in (folder / "dataset/plots").iterdir()}
    page = (folder / "report.html").read_text("utf-8")
    assert "unsupported" in page
    assert "how far it is vouched for" in page
    assert "pair_score" in page
    story = explain(open_run(folder), "web/in.jsonl:4")
    assert "  support: 0.125 (at least 0.3)" in list(_lines(story))


def test_a_cut_that_did_not_happen(project):
    """A split that is too small for a cut by percentile is said not to be cut, and no line is drawn."""
    path, said = project(stages="[perplexity, make]"), "月食发生在满月的时候。地球走到太阳和月亮之间，影子落在月面上"
    Path("in.jsonl").write_text("\n".join(json.dumps({"text": said[:end]}) for end in range(20, 30)))
    folder, card = built(path)
    assert "| `perplexity` (per token) | `web` | perplexity | not applied · 未裁剪 | - |" in card
    one = open_run(folder).stats["web"].measures["perplexity"]
    assert (one.cut_below, one.cut_above, one.beyond) == (None, None, 0)


def test_a_column_of_another_kind(project):
    """A plugin's column `score` of words costs neither the run nor its card."""
    _, card = built(project(stages="[make, odd]"))
    assert "### Measured values" not in card


def test_a_card_that_fails_does_not_cost_the_run(project, monkeypatch):
    """What goes wrong in card and pictures is said; the run is complete and its exit status is that of a success."""
    monkeypatch.setattr("kun_builder.result.release.to_png", lambda svg: 1 // 0)
    project()
    done = CliRunner().invoke(cli, ["recipe.yaml", "--output", "run"])
    assert done.exit_code == 0, done.output
    assert "card and report page could not be written: integer division" in done.stderr
    assert json.loads(Path("run/report.json").read_text())["splits"]["web"]["kept"] == 29


def test_limits_by_name():
    """In older reports, an option that is named after a column limits it; a threshold limits the last number."""
    limits = {"min_tokens": 3, "max_tokens": 9}
    step = StepFacts(label="a", stage="a", adds={"tokens": "int64"}, options=limits)
    scored = {"support": "double", "pair_score": "double", "note": "string"}
    other = StepFacts(label="b", stage="b", adds=scored, options={"threshold": 0.9, "min_support": True})
    found = owners([step, other])
    assert (found["tokens"].least, found["tokens"].most, found["tokens"].alone) == (3, 9, True)
    assert (found["pair_score"].least, found["support"].least, found["support"].alone) == (0.9, None, False)
    assert "note" not in found


def test_no_model_wrote_it(project):
    """Where no model took part, the card does not say that one wrote the rows, nor thanks any."""
    _, card = built(project())
    assert "written by language models" not in card
    assert "由语言模型写成" not in card
    assert "arXiv" not in card.split("### Citation")[1], "Kun's method had no part in it"
