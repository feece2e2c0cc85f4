"""The kit for plugin authors: what the engine relies on, checked in a line of a test.

    def test_poems(tmp_path):
        rows = check_source(SOURCE, "tests/poems.zip")
        assert rows[0]["text"] == "床前明月光"

    def test_ask():
        result = check_stage(STAGE, ["床前明月光"], answers="这是谁的诗？")
        assert result.rows[0]["instruction"] == "这是谁的诗？"

Whatever breaks the engine's rules raises AssertionError, which says what to do.
"""

from kun_builder.testing.engines import check_engine
from kun_builder.testing.fakes import Answer, FakeGenerate, fake_generate, likely
from kun_builder.testing.presets import check_preset
from kun_builder.testing.sections import check_section
from kun_builder.testing.sources import check_source
from kun_builder.testing.stages import StageResult, check_stage

__all__ = [
    "Answer",
    "FakeGenerate",
    "StageResult",
    "check_engine",
    "check_preset",
    "check_section",
    "check_source",
    "check_stage",
    "fake_generate",
    "likely",
]
