"""The stage `example`, by the kit of kun-builder."""

import kun_example

from kun_builder.testing import check_stage

(STAGE,) = kun_example.kun_stages()


def test_topic() -> None:
    """The model's answer becomes the topic."""
    result = check_stage(STAGE, ["雨后天空中还悬着许多小水滴。", "晒被子最好选在晴天。"], answers=["彩虹。", "家务"])
    assert [row["topic"] for row in result.rows] == ["彩虹", "家务"]


def test_no_topic() -> None:
    """An answer that is too long to be a topic drops the row."""
    assert check_stage(STAGE, ["雨后天空中还悬着许多小水滴。"], answers="很" * 50).reasons == ["no_topic"]
