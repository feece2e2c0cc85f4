import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kun_builder.errors import SourceError
from kun_builder.readers import find_files, name_inputs


@pytest.fixture
def tree(tmp_path):
    plain = ("b/2.jsonl", "a/1.jsonl", "a/1.txt", "a/.hidden.jsonl", ".git/3.jsonl", "a/deep/4.jsonl")
    for name in (*plain, "[x].jsonl", "data[1]/5.jsonl", "data[1]/[x] y/6.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", ["[x].jsonl", "a/1.jsonl", "a/deep/4.jsonl", "b/2.jsonl", "data[1]/5.jsonl", "data[1]/[x] y/6.jsonl"]),
        ("a", ["a/1.jsonl", "a/deep/4.jsonl"]),
        ("a/1.txt", ["a/1.txt"]),
        ("[x].jsonl", ["[x].jsonl"]),
        ("*/*.jsonl", ["a/1.jsonl", "b/2.jsonl", "data[1]/5.jsonl"]),
        ("a/**/*.jsonl", ["a/1.jsonl", "a/deep/4.jsonl"]),
        ("[ab]", ["a/1.jsonl", "a/deep/4.jsonl", "b/2.jsonl"]),
        (".git/3.jsonl", [".git/3.jsonl"]),
        ("data[1]/*.jsonl", ["data[1]/5.jsonl"]),
        ("data[1]/**/*.jsonl", ["data[1]/5.jsonl", "data[1]/[x] y/6.jsonl"]),
        ("*/[x] y/*.jsonl", ["data[1]/[x] y/6.jsonl"]),
        ("data[1]/[x] y/[67].jsonl", ["data[1]/[x] y/6.jsonl"]),
        ("d*[[]1]/5.jsonl", ["data[1]/5.jsonl"]),
    ],
)
def test_files_folders_and_globs(tree, path, expected):
    """A path is a file, a folder with all below it, or a glob of either; the order is that of the names."""
    found = find_files(str(tree / path), ("*.jsonl",), "wiki")
    assert [os.path.relpath(file, tree) for file in found] == expected


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (
            "a/missing/x.jsonl",
            r"split `wiki`: no file at .*x\.jsonl; the nearest folder that exists is .*/a \(it holds 1",
        ),
        ("c/*.jsonl", r"the nearest folder that exists is .* \(it holds \[x\]\.jsonl, a, b, data\[1\]\)"),
        ("a/**x.jsonl", r"the nearest folder that exists is .*/a \("),
        (f"a/{'x' * 300}/1.jsonl", r"the nearest folder that exists is .*/a \("),
        ("b", r"it has none that matches \*\.txt or \*\.md"),
    ],
)
def test_nothing_found_says_where_it_looked(tree, path, says):
    """A path without files is an error that names the split and the nearest folder, or the patterns."""
    with pytest.raises(SourceError, match=says) as error:
        find_files(str(tree / path), ("*.txt", "*.md"), "wiki")
    assert "path:" in error.value.hint


def test_a_card_beside_the_data_is_no_data(tmp_path):
    """From the folder of a downloaded dataset comes its data; a card that is named, or found by a glob, is taken."""
    for name in ("README.md", "LICENSE.txt", "poem.md", "en/readme.md", "en/part.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = find_files(str(tmp_path), ("*.txt", "*.md"), "wiki")
    assert [os.path.relpath(file, tmp_path) for file in found] == ["poem.md", "en/part.txt"]
    assert len(find_files(str(tmp_path / "README.md"), ("*.txt", "*.md"), "wiki")) == 1
    assert len(find_files(str(tmp_path / "*.md"), ("*.txt", "*.md"), "wiki")) == 2


def test_capitals_are_the_same_format(tree):
    """Files whose endings are in capitals are no less of a folder than the others."""
    (tree / "b/3.JSONL").write_text("{}")
    (tree / "b/4.JsonL.GZ").write_text("{}")
    found = find_files(str(tree / "b"), ("*.jsonl", "*.jsonl.gz"), "wiki")
    assert [os.path.basename(file) for file in found] == ["2.jsonl", "3.JSONL", "4.JsonL.GZ"]


def test_a_pipe_is_not_waited_for(tree):
    """Nothing would ever come out of a pipe in a folder: it is told before anything is read."""
    os.mkfifo(tree / "b/5.jsonl")
    for path in ("b", "b/5.jsonl"):
        with pytest.raises(SourceError, match=r"split `wiki`: .*/b/5\.jsonl is a pipe, a socket or a device"):
            find_files(str(tree / path), ("*.jsonl",), "wiki")


def test_names_are_as_short_as_they_can_be():
    """Only inputs that would share a name get longer ones; the order stays and doubles count once."""
    paths = ["/d/one/part-0.jsonl", "/d/two/part-0.jsonl", "/d/two/part-1.jsonl", "/e/two/part-0.jsonl"]
    assert list(name_inputs([*paths, paths[0]], 1)) == [
        "one/part-0.jsonl", "d/two/part-0.jsonl", "part-1.jsonl", "e/two/part-0.jsonl"
    ]  # fmt: skip
    assert list(name_inputs(paths[:3], 2)) == ["one/part-0.jsonl", "two/part-0.jsonl", "two/part-1.jsonl"]
    assert name_inputs(["org/name"], 2) == {"org/name": "org/name"}
    assert list(name_inputs(["/d/caf\udce9.jsonl"], 1)) == ["caf\\xe9.jsonl"]


def test_names_do_not_steer_a_terminal():
    """What would steer a terminal is escaped in the names that ids carry, and two names never become one."""
    inputs = ["/d/a\x1b[31m\nb\u202e.jsonl", "/d/a\\x1b[31m\\nb\\u202e.jsonl", "/d/全\u3000角.jsonl"]
    names = name_inputs(inputs, 1)
    assert list(names.values()) == inputs
    assert list(names)[1:] == ["a\\x1b[31m\\nb\\u202e.jsonl", "全\u3000角.jsonl"]
    assert all(char.isprintable() or char == "\u3000" for name in names for char in name)


PART = st.sampled_from(["a", "b", "c", "part-0"])


@given(st.lists(st.lists(PART, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))), st.integers(1, 3))
def test_every_input_has_a_name_of_its_own(paths, depth):
    """Names are unique, end as their paths do, and lead back to them."""
    names = name_inputs(paths, depth)
    assert list(names.values()) == list(dict.fromkeys(paths))
    assert all(path.endswith(name) for name, path in names.items())
