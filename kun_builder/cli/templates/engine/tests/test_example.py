"""The engine `example`, by the kit of kun-builder."""

import kun_example
from server import ANSWER, reply

from kun_builder.testing import check_engine


def test_engine() -> None:
    """It answers, sorts failures by status, hears Retry-After, and lets go when it is cancelled."""
    (engine,) = kun_example.kun_engines()
    assert check_engine(engine, reply, prompt="chat").text == ANSWER
