"""The kit for authors of engines, and the `generate` that answers from a script."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager

import aiohttp
import pytest

from kun_builder import (
    Completion,
    Drop,
    Engine,
    ModelInfo,
)
from kun_builder.errors import FatalError, RejectedError, TransientError
from kun_builder.testing import check_engine, fake_generate, likely

# --- generate --------------------------------------------------------------------------------------------------


def asked(answers, *parameters, **options):
    """What `generate` makes of a script: answers, requests."""

    async def go():
        async with fake_generate(answers, **options) as generate:
            got = [await generate("chat", "问", **each) for each in parameters or ({},)]
            return got, generate.requests, generate.info("chat"), await generate.count_tokens("chat", "四个字符")

    return asyncio.run(go())


def test_fake_generate_answers_from_the_script():
    """Answers come in order, or by the request; the same question costs one request."""
    got, requests, info, tokens = asked(["一", "二"], {"seed": 1}, {"seed": 2}, {"seed": 1})
    assert [completion.text for completion in got] == ["一", "二", "一"]
    assert len(requests) == 2
    assert (info.id, tokens) == ("scripted", 4)
    got, *_ = asked(lambda request: f"{request.prompt}{request.seed}", {"seed": 7}, info=ModelInfo("other"))
    assert got[0].text == "问7"


def test_fake_generate_fails_as_a_server_does():
    """Passing failures are tried again, refusals raised; empty and truncated answers follow the rules of a run."""
    got, requests, *_ = asked([TransientError("busy", status=503), "好"])
    assert (got[0].text, len(requests)) == ("好", 2)
    for error in (RejectedError("too long", status=413), FatalError("who?", status=401)):
        with pytest.raises(type(error)):
            asked(error)
    got, requests, *_ = asked(["", "好"])
    assert [request.seed for request in requests] == [None, 1]
    with pytest.raises(Drop, match="truncated"):
        asked(Completion("半", finish_reason="length"), {"on_length": "drop"})
    with pytest.raises(AssertionError, match="request 2 came, but there are 1 answers"):
        asked(["好"], {"seed": 1}, {"seed": 2})


def test_fake_generate_takes_its_time():
    """Answers come after the delay."""
    began = time.monotonic()
    asked("好", delay=0.2)
    assert time.monotonic() - began >= 0.2


def test_likely_words():
    """An answer with probabilities has the most probable word as text, and all of them as alternatives."""
    completion = likely({"好": 0.25, "差": 0.5})
    assert completion.text == "差"
    assert dict(completion.tokens[0].top)["好"] == pytest.approx(-1.386, abs=1e-3)


# --- engines ---------------------------------------------------------------------------------------------------


class Endpoint:
    """A small engine for a small protocol, with a fault on request."""

    def __init__(self, url, session, fault):
        self.url, self.session, self.fault = url, session, fault

    async def info(self):
        return ModelInfo(
            "" if self.fault == "nobody" else "small",
            logprobs=self.fault == "logprobs",
            prompt_logprobs=self.fault == "prompt",
        )

    async def healthy(self):
        try:
            async with self.session.get(f"{self.url}/health") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return self.fault == "optimist"

    async def queued(self):
        return None

    async def count_tokens(self, text):
        return len(text)

    async def complete(self, request):
        job = self._post(request)
        return await (asyncio.shield(asyncio.ensure_future(job)) if self.fault == "stubborn" else job)

    async def _post(self, request):
        try:
            async with self.session.post(f"{self.url}/ask", json={"prompt": request.prompt}) as answer:
                retry_after = answer.headers.get("Retry-After")
                if answer.status != 200 and self.fault == "careless":
                    answer.raise_for_status()
                if answer.status in (401, 403, 404):
                    raise FatalError("no", status=answer.status, endpoint=self.url)
                if answer.status in (400, 413, 422) and self.fault != "optimist":
                    raise RejectedError("no", status=answer.status, endpoint=self.url)
                if answer.status != 200:
                    wait = None if self.fault == "deaf" else float(retry_after)
                    raise TransientError("no", status=answer.status, endpoint=self.url, retry_after=wait)
                body = await answer.json()
        except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError) as error:
            if self.fault == "careless":
                raise
            raise TransientError(str(error), endpoint=self.url) from error
        return Completion(body["text"], prompt_tokens=1, completion_tokens=0 if self.fault == "free" else 1)


@asynccontextmanager
async def connect(spec, *, fault: str = ""):
    timeout = aiohttp.ClientTimeout(total=spec.timeout)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield [Endpoint(url, session, fault) for url in spec.endpoints]


SMALL = Engine(name="small", connect=connect)


def reply(path, body):
    return {"text": f"{body['prompt']}。"} if body else {}


def test_good_engine_passes():
    """An engine that does what it should passes, and the answer comes back."""
    assert check_engine(SMALL, reply).text == "床前明月光。"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nobody", "`info` does not say which model answers"),
        ("logprobs", "says that it has log-probabilities, but there is none"),
        ("prompt", "says that it can tell how likely a prompt is, and does not"),
        ("free", "tokens in and out are (1, 0): ask for usage"),
        ("careless", "status 424 raises ClientResponseError"),
        ("deaf", "does not hear `Retry-After: 7`: None"),
        ("optimist", "status 400 raises TransientError, not RejectedError"),
        ("stubborn", "the server does not notice that a request was cancelled"),
    ],
)
def test_bad_engine_is_found_out(fault, message):
    """Whatever would lose rows, money or a run is said."""
    with pytest.raises(AssertionError) as caught:
        check_engine(SMALL, reply, fault=fault)
    assert message in str(caught.value)
