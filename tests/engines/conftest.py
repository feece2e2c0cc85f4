"""The 0.5B model in its server, started once for all tests that are marked `model`."""

import asyncio
from dataclasses import dataclass

import pytest

from kun_builder import Endpoint, ModelSpec
from kun_builder.engines import llamacpp

SMALL = "qwen2.5-coder-0.5b"


@dataclass
class Small:
    """The embedded server: `run(coroutine)` runs in its event loop."""

    endpoint: Endpoint
    runner: asyncio.Runner

    def run(self, work):
        return self.runner.run(work)


@pytest.fixture(scope="session")
def small():
    """A running 0.5B model with two slots of 1,024 tokens."""
    with asyncio.Runner() as runner:
        connection = llamacpp.connect(ModelSpec(name="small", model=SMALL, context_length=1024), slots=2)
        (endpoint,) = runner.run(connection.__aenter__())
        runner.run(endpoint.count_tokens("茶"))  # starts it
        try:
            yield Small(endpoint, runner)
        finally:
            runner.run(connection.__aexit__(None, None, None))
