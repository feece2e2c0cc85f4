"""A run that lost everything is a failed run: against a real server, with stages that fail each row alike."""

import json
import subprocess

import pytest
from places import KUN_BUILD
from servers.agreeable import agreeable

PLUGIN = """
from kun_builder import RowStage, hookimpl

kun_api = 1


async def run(row, generate, *, of: int = 1, model: str = "chat"):
    if int(row["text"].split("号")[0]) % 100 < of:
        raise ValueError(f"no such thing as {row['text'][:4]}")
    return row


@hookimpl
def kun_stages():
    return [RowStage(name="fails", run=run)]
"""


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Builds a recipe with the given stages and lines over 100 rows; the process, and the run folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUN_CACHE", str(tmp_path / "cache"))
    rows = [json.dumps({"text": f"{n}号文字，说的是第{n}件事情。"}, ensure_ascii=False) for n in range(100)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), "utf-8")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/fails.py").write_text(PLUGIN, "utf-8")

    def run(stages, *lines):
        with agreeable() as url:
            text = f"name: lost\nmodels: {{chat: {{endpoints: ['{url}'], model: agreeable}}}}\n"
            text += "splits: {web: {source: generic, path: rows.jsonl}}\n"
            text += f"plugins: {{dirs: [plugins]}}\nstages: {stages}\n" + "\n".join(lines)
            (tmp_path / "recipe.yaml").write_text(text, "utf-8")
            return subprocess.run([KUN_BUILD, "recipe.yaml"], capture_output=True, text=True, timeout=100)

    return run


def test_a_run_that_keeps_nothing_fails_and_names_the_first_record(build):
    """An option that drops every row: exit status 1, the reason, a record with its fields, and no traceback."""
    done = build("[{length: {min_tokens: 500, tokenizer: characters}}, label, polish]")
    assert done.returncode == 1
    assert "no row was kept of 100: stage `length` lost 100 as `too_short`" in done.stderr
    assert "; the first is web/rows.jsonl:0: 14 (it has id, split, " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("of", "status"), [(96, 1), (50, 0)])
def test_a_stage_that_loses_nearly_all_rows_to_one_error_fails_the_run(build, of, status):
    """Errors of nearly all rows are the run's, those of some are the rows' own."""
    done = build(f"[{{fails: {{of: {of}}}}}, label, polish]", "stop_after_failures: 0")
    assert done.returncode == status, done.stderr
    assert ("4 of 100 rows were kept: stage `fails` lost 96 as `ValueError`" in done.stderr) is bool(status)
    again = build(f"[{{fails: {{of: {of}}}}}, label, polish]", "stop_after_failures: 0")
    assert again.returncode == status  # finished or not, it says what it is worth


def test_rows_that_fail_alike_one_after_the_other_end_the_run_early(build, tmp_path):
    """`stop_after_failures` ends a run before all rows are spent, and names error, row and cure."""
    done = build("[{fails: {of: 100}}, label, polish]", "stop_after_failures: 30")
    assert done.returncode == 1
    assert "the last 30 rows all failed at stage `fails` as `ValueError`: no such thing as" in done.stderr
    assert "stop_after_failures: 0" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs/lost/report.json").exists()


OWN = """
from kun_builder import RowStage, hookimpl

kun_api = 1


async def run(row, generate):
    value = {value}
    return {{**row, "instruction": "谁写了这段文字？", "output": row["text"], "score": value, "tokens": value}}


@hookimpl
def kun_stages():
    adds = {{"instruction": "string", "output": "string", "score": "{kind}", "tokens": "{kind}"}}
    return [RowStage(name="own", run=run, adds=adds)]
"""


@pytest.mark.parametrize(
    ("kind", "value"), [("string", "row['text'][:1]"), ("bool", "True"), ("list<double>", "[0.5]"), ("int64", "None")]
)
def test_any_column_called_score_survives(build, tmp_path, kind, value):
    """A plugin's `score` and `tokens` of any type: the run, its card and its page are there; no model is needed."""
    (tmp_path / "plugins/own.py").write_text(OWN.format(kind=kind, value=value), "utf-8")
    done = build("[own]")
    assert done.returncode == 0, done.stderr
    assert "could not be written" not in done.stderr
    assert (tmp_path / "runs/lost/dataset/README.md").exists()
    assert (tmp_path / "runs/lost/report.html").exists()
