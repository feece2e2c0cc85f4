"""Which pairs people judge: half of them kept, each kind of row in its share, the same ones again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finished_runs import make_run

from kun_builder.errors import RunError
from kun_builder.report import read_report
from kun_builder.result.limits import Limit
from kun_builder.result.review import open_review
from kun_builder.result.review_draw import Stratum, _nearness, allot, draw
from kun_builder.run.folder import RunFolder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("draw") / "run", {"wudao": 200, "skypile": 40})


def test_strata(run):
    """Kept rows near and far from the threshold and rejected rows of each reason that have an instruction are drawn."""
    drawn = draw(RunFolder(run), read_report(run / "report.json"), sample=60)
    counts = Counter(pair["stratum"] for pair in drawn)
    assert counts == {
        "kept, near a threshold": 15,
        "kept, far from all thresholds": 15,
        "rejected, score: below_threshold": 30,
    }
    rows = {pair["stratum"]: pair["stratum_rows"] for pair in drawn}
    assert rows["kept, near a threshold"] + rows["kept, far from all thresholds"] == 240
    near = [pair["measured"]["score"] for pair in drawn if pair["stratum"] == "kept, near a threshold"]
    far = [pair["measured"]["score"] for pair in drawn if pair["stratum"] == "kept, far from all thresholds"]
    assert max(near) <= min(far)
    assert {pair["value"] for pair in drawn} == {None, 0.21}, "of rejected ones, the number that they were rejected for"


def test_a_row_is_as_near_as_its_nearest_threshold(tmp_path):
    """Each threshold has its nearest rows; a value that was not measured is near to nothing."""
    columns = {"position": [0, 1, 2, 3], "score": [0.51, 0.7, 0.8, 0.9], "fit": [0.9, 0.31, 0.7, None]}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    limits = [Limit("a", "a", "threshold", "score", 0.5), Limit("b", "b", "threshold", "fit", 0.3)]
    rows, near = _nearness([tmp_path / "rows.parquet"], limits)
    assert (rows, near.tolist()) == (4, [0.0, 0.0, 0.25, 0.75])


def test_the_same_seed_draws_the_same_pairs(run):
    """A page can be written again; another seed draws others."""
    report = read_report(run / "report.json")
    ids = [[pair["id"] for pair in draw(RunFolder(run), report, seed=seed)] for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]
    assert len(set(ids[0])) == 60


def test_no_pair_to_judge_is_an_error(tmp_path):
    """A run in which no row got an instruction, or none at all, is named."""
    with pytest.raises(RunError, match=r"report\.json does not exist"):
        open_review(tmp_path)
    run = make_run(tmp_path / "empty", {"wudao": 0})
    with pytest.raises(RunError, match=r"no row of .* has an instruction to judge"):
        open_review(run)


def test_places_are_shared_out():
    """Half of the sample is of kept rows; what one side lacks, the other gets; no more is drawn than there is."""

    def strata(*sizes):
        return [Stratum(str(size), [("a", 0)] * abs(size), size > 0) for size in sizes]

    assert allot(strata(100, 100, -100, -100), 60) == [15, 15, 15, 15]
    assert allot(strata(100, 100, -3), 60) == [29, 28, 3]
    assert allot(strata(4, 5, -100), 60) == [4, 5, 51]
    assert allot(strata(4, -2), 60) == [4, 2]
