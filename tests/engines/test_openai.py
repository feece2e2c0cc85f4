"""OpenAI-style servers that differ in what they take: small loopback servers, each strict in the way of a real one."""

import asyncio

import pytest
from aiohttp import web
from servers.strict import CHAT, Strict, run

from kun_builder import ModelSpec, Request
from kun_builder.engines import openai
from kun_builder.engines.manners import no_secrets
from kun_builder.errors import FatalError, ModelError, RejectedError
from kun_builder.recipe.plugins import load_plugins

FULL = Request(
    CHAT, 64, temperature=0.7, top_p=0.9, repetition_penalty=1.1, seed=3, stop=("。",), top_logprobs=2, choices=()
)


def test_only_what_is_set_is_sent():
    """A plain greedy request has nothing but model, messages, max_tokens and temperature in it."""
    server = Strict("temperature")
    run(server, lambda endpoint: endpoint.complete(Request(CHAT)))
    assert server.bodies == [{"model": "tiny", "messages": list(CHAT), "max_tokens": 512, "temperature": 0.0}]


def test_fields_are_named_as_the_protocol_names_them():
    """Every field of a request arrives under its standard name, in chat and in completion requests."""
    server = Strict("temperature", "top_p", "repetition_penalty", "seed", "stop", "logprobs", "top_logprobs")
    run(server, lambda endpoint: endpoint.complete(FULL))
    fields = {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.1, "seed": 3, "stop": ["。"], "max_tokens": 64}
    assert server.bodies == [
        {"model": "tiny", "messages": list(CHAT), **fields, "logprobs": True, "top_logprobs": 2},
    ]


@pytest.mark.parametrize("status", [400, 422])
def test_refused_fields_are_learnt_and_no_row_pays(status, caplog):
    """A server that refuses some fields answers all of 40 rows sent at once; one warning names the fields."""
    server = Strict("temperature", "top_p", "stop", status=status)

    async def work(endpoint):
        return await asyncio.gather(*(endpoint.complete(FULL) for _ in range(40)))

    answers = run(server, work)
    assert [answer.text for answer in answers] == ["是。也是。"] * 40
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning.endswith(" refuses logprobs, repetition_penalty, seed, top_logprobs: left out from now on")
    rows = [body for body in server.bodies if body["max_tokens"] == 64]
    probes = len(server.bodies) - len(rows)
    assert len(rows) == 80
    assert probes < 12


def test_a_refused_stop_string_is_cut_here():
    """Where the server refuses `stop`, the answer still ends before the stop string."""
    answer = run(Strict("temperature"), lambda endpoint: endpoint.complete(Request(CHAT, stop=("。",))))
    assert answer.text == "是"


def test_too_many_alternatives_become_five():
    """A server with a limit of five alternatives per token, as the original protocol has, is asked for five."""
    server = Strict(
        "temperature", "logprobs", "top_logprobs", status=400, check=lambda body: body.get("top_logprobs", 0) <= 5
    )

    async def work(endpoint):
        for _ in range(2):
            await endpoint.complete(Request(CHAT, top_logprobs=20))

    run(server, work)
    assert [body["top_logprobs"] for body in server.bodies if body["max_tokens"] == 512] == [20, 5, 5]


def test_a_row_that_is_itself_at_fault_is_rejected():
    """Rows that are too long are rejected each for itself, at the price of one short question for all of them."""
    server = Strict(
        "temperature", "seed", "top_p", status=400, check=lambda body: len(body["messages"][0]["content"]) < 100
    )

    async def work(endpoint):
        rows = [Request(({"role": "user", "content": "茶" * n},), temperature=1, seed=n) for n in (500, 50, 600, 700)]
        return await asyncio.gather(*(endpoint.complete(row) for row in rows), return_exceptions=True)

    results = run(server, work)
    assert [type(result).__name__ for result in results] == [
        "RejectedError",
        "Completion",
        "RejectedError",
        "RejectedError",
    ]
    assert sum(body["max_tokens"] == 16 for body in server.bodies) == 1


def test_a_server_that_refuses_everything_stops_the_run():
    """A server pinned to another model, which answers 400 to everything, is no fault of any row."""
    with pytest.raises(FatalError, match="even a short question"):
        run(Strict(status=400, check=lambda body: False), lambda endpoint: endpoint.complete(Request(CHAT)))


TOP = {"token": "好", "logprob": -0.25, "top_logprobs": [{"token": "好", "logprob": -0.25}]}
WITH_LOGPROBS = {"choices": [{"message": {"content": "好"}, "finish_reason": "length", "logprobs": {"content": [TOP]}}]}


def test_logprobs_that_are_silently_ignored_are_noticed():
    """`info` asks for one token and tells whether log-probabilities came with it."""
    assert run(Strict("temperature", "logprobs", "top_logprobs"), lambda endpoint: endpoint.info()).logprobs is False
    server = Strict("temperature", "logprobs", "top_logprobs", answer=lambda body: WITH_LOGPROBS)
    info = run(server, lambda endpoint: endpoint.info())
    assert (info.id, info.context_length, info.logprobs, info.tokenizer) == ("tiny", 2048, True, "tiny")


@pytest.mark.parametrize(
    "extra",
    [{"api_key": "abcdef"}, {"a": [{"proxy_password": "x"}]}, {"user": "sk-abcdefgh"}, {"h": ["Bearer abcdefg"]}],
)
def test_a_secret_in_extra_body_is_refused(extra):
    """It would stand in the lock file; the message names the field and the cure, and never its value."""
    with pytest.raises(ValueError, match=r"looks like a secret in `\w*`.*api_key: \$\{NAME\}") as caught:
        no_secrets(extra)
    assert not {"abcdef", "sk-abcdefgh", "Bearer abcdefg"} & set(str(caught.value).split("`"))


def test_plain_fields_of_extra_body_are_no_secrets():
    """Names that only sound like one, and nested mappings, pass as they are."""
    extra = {
        "max_tokens": 9,
        "top_k": 20,
        "chat_template_kwargs": {"enable_thinking": False},
        "guided_json": {"a": ["b"]},
    }
    assert no_secrets(extra) is extra
    assert "extra_body" in {option.name for option in load_plugins().engines["openai"].options}


RUNNING = {
    "vllm": 'vllm:num_requests_running{engine="0",model_name="a"} 5.0\nvllm:num_requests_running{engine="1"} 6.0\n',
    "sglang": 'sglang:num_running_reqs{model_name="a"} 11.0\n',
    "llama.cpp": "llamacpp:requests_processing 11\n",
    "tgi": "tgi_batch_current_size 11\n",
    "two names": "tgi_batch_current_size 11\nvllm:num_requests_running 11\n",
    "not told": "",
}
WAITING = {
    "vllm": 'vllm:num_requests_waiting{engine="0",model_name="a"} 3.0\nvllm:num_requests_waiting{engine="1"} 4.0\n',
    "sglang": '# TYPE sglang:num_queue_reqs gauge\nsglang:num_queue_reqs{model_name="a"} 7.0\n',
    "llama.cpp": "# HELP llamacpp:requests_deferred Number\nllamacpp:requests_deferred 7\n",
    "tgi": "# TYPE tgi_queue_size gauge\ntgi_queue_size 7\n",
    "two names": 'tgi_queue_size 7\nvllm:num_requests_waiting{engine="0"} 5\nvllm:num_requests_waiting{engine="1"} 2\n',
    "not told": "up 1\n",
}


@pytest.mark.parametrize("server", [*WAITING, "no metrics"])
def test_the_queue_is_read_from_whatever_metrics_there_are(server):
    """The numbers of requests that wait and that run come from each server's own figures, once where it has two names
    for the same; None and 0 where it gives none."""

    async def handler(request):
        told = server in WAITING
        return web.Response(text=RUNNING[server] + WAITING[server]) if told else web.Response(status=404)

    async def look(endpoint):
        return await endpoint.queued(), endpoint.running

    assert run(handler, look) == ((None, 0) if server.startswith("no") else (7, 11))


@pytest.mark.parametrize("routes", [{"/health"}, {"/v1/models"}, set()])
def test_health_never_raises(routes):
    """A server is healthy if `/health` or, without one, `/v1/models` answers, or it has neither; a dead one is not."""

    async def handler(request):
        return web.Response(status=200 if request.path in routes else 404)

    assert run(handler, lambda endpoint: endpoint.healthy()) is True

    async def gone(endpoint):
        return await endpoint.healthy(), await endpoint.queued()

    async def nobody():
        async with openai.connect(ModelSpec(name="m", endpoints=("http://127.0.0.1:9",))) as (endpoint,):
            return await gone(endpoint)

    assert asyncio.run(nobody()) == (False, None)


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ({"count": 3, "max_model_len": 9, "tokens": [1, 2, 3]}, 3),
        ({"tokens": [1, 2, 3]}, 3),
        ([{"id": 1, "text": "", "start": 0, "stop": 0}, {"id": 2, "text": "茶", "start": 0, "stop": 1}], 1),
        (None, 6),
    ],
)
def test_tokens_are_counted_in_each_servers_shape(answer, count, tmp_path):
    """vLLM's, llama.cpp's and TGI's `/tokenize` are understood; with no tokenizer at all, bytes are the upper limit."""

    async def handler(request):
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": "tiny"}]})
        if answer is None or request.method == "GET":
            return web.Response(status=404)
        body = await request.json()
        assert body["prompt"] == body["content"] == body["inputs"] == "绿茶"
        return web.json_response(answer)

    missing = str(tmp_path / "tokenizer.json")
    assert run(handler, lambda endpoint: endpoint.count_tokens("绿茶"), tokenizer=missing) == count


def test_the_model_must_be_clear():
    """A server with several models needs `model` in the recipe, and the error lists them; a named one is used."""

    async def handler(request):
        return web.json_response({"data": [{"id": "a"}, {"id": "b", "root": "org/b", "max_model_len": 7}]})

    with pytest.raises(ModelError, match="serves 2 models") as caught:
        run(handler, lambda endpoint: endpoint.info())
    assert "a, b" in caught.value.hint

    async def work(endpoint):
        return await endpoint._introduce()

    assert run(handler, work, model="b").tokenizer == "org/b"
    with pytest.raises(ModelError, match="no endpoints"):
        asyncio.run(openai.connect(ModelSpec(name="m")).__aenter__())


def test_rejections_reach_the_caller_with_the_servers_words():
    """A rejected row's error says what the server said of it."""
    server = Strict("temperature", status=400, check=lambda body: body["max_tokens"] == 16)
    with pytest.raises(RejectedError, match="400: Unexpected fields"):
        run(server, lambda endpoint: endpoint.complete(Request(CHAT)))
