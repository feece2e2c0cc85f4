"""Run folders of earlier versions stay readable: each in `old_runs/` was left by the code of the day in its name.

They are whole builds of eight short texts of ours by the method as it was then, with the journal of their answers. What
the commands draw anew, pictures and page, is not in them, nor are the shards, which a finished run no longer needs.
"""

import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hub.conftest import ALICE

OLD = sorted((Path(__file__).parents[1] / "old_runs").iterdir())


@pytest.fixture(params=OLD, ids=lambda path: path.name.partition(".")[0])
def run(request, tmp_path, monkeypatch):
    """The folder of an old run, with its answers in the user's cache."""
    with tarfile.open(request.param) as packed:
        packed.extractall(tmp_path, filter="data")
    monkeypatch.setenv("KUN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "run"


@pytest.mark.slow
def test_its_page_and_card_are_written_anew(kun, run):
    """The page shows its rows, and the card what the report counts, with pictures of today."""
    code, out, err = kun("report", run, "--no-open")
    assert code == 0, err
    page = Path(out.strip()).read_text("utf-8")
    assert "泡一壶好茶要看三件事" in page
    assert "broken_json" in page
    card = (run / "dataset/README.md").read_text("utf-8")
    assert "license: cc-by-4.0" in card
    assert "agreeable" in card
    assert (run / "dataset/plots/funnel.png").stat().st_size > 1000


def test_its_rows_are_explained_with_what_models_said(kun, run):
    """A kept row has every step and, out of a journal of then, prompt and answer; a dropped one has its reason."""
    code, out, err = kun("explain", run, "open/open.jsonl:0", "--json")
    assert code == 0, err
    story = json.loads(out)
    assert story["outcome"]["outcome"] == "kept"
    assert [step["step"] for step in story["steps"]] == [
        *("normalize", "language", "length", "dedup", "label", "refine", "score", "polish", "refine-2")
    ]
    asked = {step["step"]: request for step in story["steps"] for request in step["requests"]}
    assert asked["label"]["answer"] == story["values"]["instruction"]
    assert "泡一壶好茶" in asked["polish"]["prompt"][-1]["content"]
    code, out, err = kun("explain", run, "open/open.jsonl:4")
    assert code == 0, err
    assert "dropped by dedup: duplicate (open/open.jsonl:1)" in out


def test_its_rows_are_exported_and_reviewed(kun, run, tmp_path):
    """A trainer's files have all kept rows, and a reviewer gets the page with pairs to judge."""
    code, out, err = kun("export", run, "--shape", "messages", "--json")
    assert (code, json.loads(out)["rows"]) == (0, {"open": 4, "closed": 2}), err
    page = tmp_path / "page.html"
    code, out, err = kun("review", run, "--file", page)
    assert code == 0, err
    assert "泡一壶好茶要看三件事" in page.read_text("utf-8")


def test_it_can_be_published(zygote, run):
    """All that is checked before a push holds, licences and counts included; texts of a closed corpus stay here."""
    done = zygote.run("publish_worker:push", run=str(run), repo="alice/waters", token=ALICE, dry_run=True)
    assert done.get("rows") == {"open": 4, "closed": 2}, done
    assert {"data/open-00000-of-00001.parquet", "provenance/closed-00000-of-00001.parquet"} <= {*done["added"]}
    published = pq.read_table(run / "dataset/provenance/closed-00000-of-00001.parquet")
    assert "海水一天涨落两次" not in str(published.to_pylist()[0].get("text"))
