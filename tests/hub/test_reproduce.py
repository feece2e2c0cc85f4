"""Building a published dataset again: what is built, and how what came out is compared with what is published."""

from __future__ import annotations

import json

import pytest
import yaml
from finished_runs import make_run
from hub.conftest import ALICE
from hub.test_hub_rules import push

from kun_builder.files import seal, unseal

LOCK = {
    "name": "my-kun",
    "seed": 3,
    "models": {"chat": {"engine": "openai", "model": "org/chat"}},
    "stages": ["normalize"],
    "lock": {"limit": 5},
}


def lock(*splits, **changes):
    """A lock file as a build with these splits writes it."""
    named = {name: {"source": "generic", "path": [f"their/{name}.jsonl"]} for name in splits}
    return yaml.safe_dump({**LOCK, "splits": named, **changes}).encode()


@pytest.fixture
def rebuild(hub, zygote, published, tmp_path):
    """Builds the repository again; its lock file names both splits of `first_run`."""
    hub.write(published, {"recipe.lock.yaml": lock("wudao", "skypile")})

    def run(run, *splits, repo=published):
        paths = {name: [f"here/{name}.jsonl"] for name in splits or ("wudao", "skypile")}
        folder = str(tmp_path / "again")
        return zygote.run(
            "publish_worker:rebuild", repo=repo, token=ALICE, folder=folder, run=str(run), paths=paths
        ) | {"folder": folder}

    return run


def test_what_is_built(rebuild, first_run):
    """One recipe with the splits, the inputs that the user has named, and the limit of then, in a folder of its own."""
    done = rebuild(first_run)
    ((path, recipe, limit),) = done["built"]
    assert path.startswith(done["folder"])
    assert recipe["splits"] == {
        name: {"source": "generic", "path": [f"here/{name}.jsonl"]} for name in ("wudao", "skypile")
    }
    assert (recipe["seed"], recipe["stages"], limit) == (3, [{"normalize": {}}], 5)


@pytest.mark.parametrize(
    "facts",
    [{"limit": None}, {"limit": 0}, {"limit": -1}, {"limit": "5"}, {}, 7],
    ids=["none", "zero", "below", "text", "absent", "number"],
)
def test_a_limit_that_is_none(hub, rebuild, published, first_run, facts):
    """Without a limit, or with something that cannot be one, the whole input is built from."""
    hub.write(published, {"recipe.lock.yaml": lock("wudao", "skypile", lock=facts)})
    assert rebuild(first_run)["built"][0][2] is None


def test_the_same_rows(hub, rebuild, published, first_run):
    """The published run itself is found identical, split by split, with nothing that has drifted."""
    done = rebuild(first_run)
    assert done["identical"]
    assert done["splits"] == [
        {"split": name, "published": n, "rebuilt": n, "same": n, "different": 0, "missing": 0, "extra": 0}
        for name, n in (("wudao", 30), ("skypile", 20))
    ]
    assert done["drift"] == []
    assert (done["repo"], done["commit"]) == (published, hub.repo(published).branches["main"])


def test_other_rows(rebuild, tmp_path):
    """Rows that are missing, new or different are counted, by their ids; each of the three ends the identity."""
    other = make_run(tmp_path / "run", {"wudao": 28, "skypile": 23}, change={"茶的冲泡": "茶的泡法"})
    done = rebuild(other)
    assert done["splits"] == [
        {"split": "wudao", "published": 30, "rebuilt": 28, "same": 24, "different": 4, "missing": 2, "extra": 0},
        {"split": "skypile", "published": 20, "rebuilt": 23, "same": 17, "different": 3, "missing": 0, "extra": 3},
    ]
    assert not done["identical"]


@pytest.mark.parametrize(
    ("rows", "change"), [(28, {}), (32, {}), (30, {"茶的冲泡": "茶的泡法"})], ids=["missing", "extra", "different"]
)
def test_one_split_that_differs_is_enough(rebuild, tmp_path, rows, change):
    """A dataset is identical if all of its splits are, in number and content."""
    assert not rebuild(make_run(tmp_path / "run", {"wudao": rows, "skypile": 20}, change=change))["identical"]


def test_what_has_drifted(rebuild, tmp_path):
    """Other versions of steps, models and kun-builder are named, as they were and as they are."""
    run = make_run(tmp_path / "run", {"wudao": 30, "skypile": 20})
    report = unseal((run / "report.json").read_bytes())
    report["version"] = "9.9"
    report["models"]["chat"]["revision"] = "def456"
    report["steps"][0]["version"] = "2"
    del report["steps"][1]
    (run / "report.json").write_bytes(seal(report))
    done = rebuild(run)
    assert done["identical"]
    assert done["drift"] == [
        "perplexity: kun-builder 0.1.0, stage version 1 → kun-builder 0.1.0, stage version 2",
        "label: kun-builder 0.1.0, stage version 1 → absent",
        "model chat: org/chat-7b abc123 → org/chat-7b def456",
        "kun-builder: 0.1.0 → 9.9",
    ]


def test_a_dataset_of_two_runs(hub, rebuild, zygote, published, second_run, tmp_path):
    """Each run is built with its own splits only; if one of them lacks an input, none is built."""
    assert push(zygote, second_run, published, replace=True)["verified"]
    manifest = json.loads(hub.read(published, ".kun/manifest.json"))
    split_of = {
        run: [name for name, split in manifest["splits"].items() if split["run"] == run] for run in manifest["runs"]
    }
    hub.write(published, {run["lock"]: lock(*split_of[key]) for key, run in manifest["runs"].items()})
    all_of_it = make_run(tmp_path / "run", {"wudao": 25, "wanjuan": 10, "skypile": 20}, seed=1, threshold=0.6)
    done = rebuild(all_of_it, "wudao", "wanjuan", "skypile")
    assert sorted(sorted(recipe["splits"]) for _, recipe, _ in done["built"]) == [["skypile"], ["wanjuan", "wudao"]]
    assert len({path for path, _, _ in done["built"]}) == 2
    same = {split["split"]: split["same"] for split in done["splits"]}
    assert same == {"wudao": 25, "wanjuan": 10, "skypile": 0}, "skypile is of the first run, which had another seed"
    refused = rebuild(all_of_it, "wudao", "wanjuan")
    assert "split `skypile`: where is its input here?" in refused["error"]
    assert refused["built"] == []


def test_a_dataset_of_somebody_else(hub, rebuild, published, first_run):
    """What kun-builder has not published cannot be built again, and nothing is tried."""
    hub.write(published, {".kun/manifest.json": None})
    refused = rebuild(first_run)
    assert refused["error"] == f"{published} was not published by kun-builder"
    assert refused["hint"] == "there is no .kun/manifest.json in it"
    assert refused["built"] == []
