"""A finished run is one value: what is read from its files is read once."""

import sys
from collections import Counter
from dataclasses import replace

import pytest
from finished_runs import make_run

import kun_builder
from kun_builder.errors import PublishError, RunError
from kun_builder.files import seal, unseal
from kun_builder.report import read_report
from kun_builder.result.finished import open_run
from kun_builder.result.release import Base, compose
from kun_builder.run.folder import RunFolder


def test_each_data_file_is_hashed_once(tmp_path):
    """Composing a release, and composing it again on a newer head, reads every data file once."""
    run = open_run(make_run(tmp_path / "run", {"wudao": 30, "skypile": 20}))
    opened, watching = Counter(), True

    def watch(event, arguments):
        if watching and event == "open":
            opened[str(arguments[0])] += 1

    sys.addaudithook(watch)  # it stays for good, so it is told when to look away
    first, second = (compose(run, Base(), "alice/x") for _ in range(2))
    watching = False
    assert first.facts == second.facts
    assert run.files
    assert {path: opened[str(file)] for path, file in run.files.items()} == dict.fromkeys(run.files, 1)


def changed(path, change):
    """The report in `path` after `change` has been made to its JSON, written as a version of the future would."""
    data = unseal(path.read_bytes())
    data["usage"] = [{"stage": "label", "model": "chat", "requests": 3}]
    change(data)
    path.write_bytes(seal({**data, "version": "99.0"}))
    return path


def test_a_report_of_a_later_version_is_read_without_what_that_has_added(tmp_path):
    """New entries at any place of a later version's report are left out; all that this version knows is read."""
    run = make_run(tmp_path / "run", {"wudao": 8})
    known = read_report(changed(run / "report.json", lambda data: None))

    def add(data):
        split = data["splits"]["wudao"]
        for place in (data, split, split["stages"][0], data["steps"][0], data["usage"][0]):
            place["carbon"] = {"grams": 5}

    assert read_report(changed(run / "report.json", add)) == known
    assert open_run(run).report.usage[0].requests == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.pop("seed"),
        lambda data: data.pop("splits"),
        lambda data: data.update(splits=[]),
        lambda data: data["splits"].update(wudao="8 rows"),
        lambda data: data.update(steps=[3]),
        lambda data: data["usage"][0].pop("model"),
    ],
    ids=["field", "splits", "list", "split", "step", "usage"],
)
def test_a_report_that_cannot_be_read_says_which_version_can(tmp_path, change):
    """If something is missing or has another form, the error names both versions, and which of them to use."""
    report = changed(make_run(tmp_path / "run", {"wudao": 4}) / "report.json", change)
    with pytest.raises(RunError, match=f"by kun-builder 99.0, and kun-builder {kun_builder.__version__}") as refused:
        open_run(tmp_path / "run")
    assert str(report) in refused.value.message
    assert refused.value.hint == "open the run with kun-builder 99.0"


@pytest.mark.parametrize("content", [b"", b"{", b"3", b"[]", b"{}", b'{"version": 7}'])
def test_a_report_that_is_none_is_said_to_be_damaged(tmp_path, content):
    """A file that no version has written is named, with the cure."""
    run = make_run(tmp_path / "run", {"wudao": 4})
    (run / "report.json").write_bytes(content)
    with pytest.raises(RunError, match=r"report\.json is damaged") as refused:
        open_run(run)
    assert "run kun-build again" in refused.value.hint


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda file: file.unlink(), "has no file of `wudao`"),
        (lambda file: file.write_bytes(b""), "of split `wudao` is damaged"),
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), "of split `wudao` is damaged"),
    ],
    ids=["lost", "empty", "cut"],
)
def test_rows_that_are_lost_or_damaged_are_said_to_be(tmp_path, damage, says):
    """Whatever looks at a run names the folder and split, and the cure."""
    run = make_run(tmp_path / "run", {"wudao": 4})
    for file in (run / "kept").glob("*.parquet"):
        damage(file)
    with pytest.raises(PublishError, match=says) as refused:
        open_run(run)
    assert "kun-build" in refused.value.hint


def test_a_report_is_not_believed_where_one_digit_is_another(tmp_path):
    """Counts that still add up are no proof: the report has a digest of itself."""
    path = make_run(tmp_path / "run", {"wudao": 4}) / "report.json"
    path.write_bytes(path.read_bytes().replace(b'"seed": 0', b'"seed": 1'))
    with pytest.raises(RunError, match="it is not as it was written"):
        read_report(path)


@pytest.mark.parametrize("name", ["kept/*", "dataset/data/*", "dataset/provenance/*", "rejected/*"])
def test_a_result_with_another_byte_is_neither_shown_nor_published_nor_finished(tmp_path, name):
    """The file is named, with the cure; and a build does not take the run for finished, but writes the result again."""
    folder = RunFolder(make_run(tmp_path / "run", {"wudao": 4}))
    report = read_report(folder.report_path)
    report = replace(report, files=folder.digests(report.splits, report.format))
    report.write(folder.report_path)
    assert folder.finished(report.signature) == open_run(folder.path).report == report
    (file,) = folder.path.glob(name)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(PublishError, match=r"is not as the run wrote it|damaged") as refused:
        open_run(folder.path)
    assert file.name in refused.value.message
    assert "kun-build" in refused.value.hint
    assert folder.finished(report.signature) is None
