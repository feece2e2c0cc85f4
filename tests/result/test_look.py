"""docs/look.md: its pictures are there, and docs/look.py takes them of any finished run."""

import importlib.util
import re
import struct
from pathlib import Path

from finished_runs import make_run

DOCS = Path(__file__).parents[2] / "docs"


def size(picture: Path) -> tuple[int, int]:
    return struct.unpack(">II", picture.read_bytes()[16:24])


def test_pictures_can_be_taken_again(browser, tmp_path):
    """Each picture of the page is one that the script takes, of the same size, and small."""
    spec = importlib.util.spec_from_file_location("look", DOCS / "look.py")
    look = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(look)
    look.main(make_run(tmp_path / "run", {"wudao": 30}), tmp_path)
    taken = {path.name for path in tmp_path.glob("*.png")}
    named = set(re.findall(r"\]\((look-\w+\.png)\)", (DOCS / "look.md").read_text("utf-8")))
    assert taken == named == {path.name for path in DOCS.glob("look-*.png")}
    for name in named:
        assert size(DOCS / name) == size(tmp_path / name) == look.SIZE
        assert (DOCS / name).stat().st_size < 150_000
