"""Addresses as people write them, headers of their own, proxies: against loopback servers that keep what they get."""

import asyncio

import pytest
from aiohttp import web
from servers.loopback import loopback

from kun_builder import ModelSpec, Request
from kun_builder.engines.address import Address, proxy_for
from kun_builder.engines.http import Server, open_session
from kun_builder.engines.openai import connect
from kun_builder.errors import FatalError, ModelError, TransientError

REQUEST = Request(({"role": "user", "content": "好吗？"},), max_new_tokens=8)


def answer(text="好"):
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})


def run(handler, suffix="", **spec):
    """What an endpoint at the handler's address plus `suffix` answers to one request."""

    async def asked():
        async with loopback(handler) as url:
            given = ModelSpec(name="chat", engine="openai", endpoints=(url + suffix,), **{"model": "m", **spec})
            async with connect(given) as (endpoint,):
                await endpoint.info()
                return await endpoint.complete(REQUEST), await endpoint.healthy()

    return asyncio.run(asked())


@pytest.mark.parametrize(
    ("suffix", "api", "root"),
    [
        *((suffix, "/v1", "") for suffix in ("", "/", "/v1", "/v1/", "/v1/chat/completions")),
        ("/gateway/v1", "/gateway/v1", "/gateway"),
        ("/api/v3/", "/api/v3", "/api/v3"),
        ("/v1beta/openai", "/v1beta/openai", "/v1beta/openai"),
        ("/openai/deployments/m/chat/completions?api-version=2024-10-21", "/openai/deployments/m", None),
    ],
)
def test_an_address_with_a_path_is_used_as_it_is(suffix, api, root):
    """Without a path the API is at `/v1`, with one exactly there, and a query goes along with every request."""
    seen = []

    async def handler(request):
        seen.append((request.path, request.query_string))
        return answer() if request.path == f"{api}/chat/completions" else web.Response(status=404)

    completion, healthy = run(handler, suffix)
    assert (completion.text, healthy) == ("好", True)
    assert {query for _, query in seen} == {suffix.partition("?")[2]}
    assert root is None or f"{root}/health" in dict(seen)


def test_headers_of_ones_own_go_along_with_every_request():
    """They come before ours, whatever their case, and no error repeats what is in them."""
    seen = []

    async def handler(request):
        seen.append(request.headers)
        if request.headers.get("api-key") == "wrong-one":
            return web.Response(status=403, text="wrong-one is not known")
        return answer()

    run(handler, api_key="other", headers={"authorization": "Basic abc", "api-key": "s3cret-key"})
    assert seen
    assert {(h.getone("Authorization"), h["api-key"]) for h in seen} == {("Basic abc", "s3cret-key")}
    with pytest.raises(FatalError) as caught:
        run(handler, headers={"api-key": "wrong-one"})
    assert "wrong-one" not in str(caught.value)
    assert "***" in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
def test_a_list_of_models_that_a_key_may_not_see_is_not_needed(status):
    """Where `model` is given the chat itself decides whether the server can be used, and it counts as alive."""

    async def handler(request):
        return answer() if request.method == "POST" else web.json_response({"error": "Missing scopes"}, status=status)

    completion, healthy = run(handler)
    assert (completion.text, healthy) == ("好", True)
    with pytest.raises(FatalError, match=str(status)):
        run(handler, model="")


# --- proxies ---------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _without_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("10.0.0.0/8", "http://10.1.2.3:8000", True),
        ("10.0.0.0/8", "http://11.1.2.3:8000", False),
        ("gpu9, fd00::/8", "http://[fd00::1]:8000", True),
        ("10.0.0.0/8", "http://[fd00::1]:8000", False),
        ("10.1.2.3", "http://10.1.2.3", True),
        ("gpu1:8000", "http://gpu1:8000", True),
        ("gpu1:8000", "http://gpu1:8001", False),
        ("10.1.2.3:80", "http://10.1.2.3", True),
        ("gpu1", "http://GPU1:8000", True),
        (".lan", "http://gpu1.lan", True),
        ("*.lan", "http://gpu1.lan", True),
        ("lan", "http://gpu1.lan", True),
        ("lan", "http://wlan", False),
        ("*", "http://gpu1", True),
        ("", "http://gpu1", False),
        (" , ", "http://gpu1", False),
        ("", "http://127.0.0.1:8000", True),
    ],
)
def test_no_proxy_names_hosts_ports_and_networks(monkeypatch, no_proxy, url, direct):
    """`no_proxy` is read as curl and the Hub's libraries read it, ports and networks included."""
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert (proxy_for(Address.read(url)) is None) is direct


def test_a_proxy_is_used_and_named_in_what_goes_wrong_behind_it(monkeypatch):
    """Requests go through the proxy with its password; an error names the proxy, its variable and the server."""
    seen = []

    async def handler(request):
        seen.append((request.raw_path, request.headers["Proxy-Authorization"]))
        return web.Response(status=503, text="no route, says me:pass-word")

    async def ask():
        async with loopback(handler) as url, open_session() as session:
            monkeypatch.setenv("HTTP_PROXY", url.replace("//", "//me:pass-word@"))
            await Server(session, "http://gpu1.invalid:8000", timeout=5).post("/v1/chat/completions", {})

    with pytest.raises(TransientError) as caught:
        asyncio.run(ask())
    assert seen[0][0] == "http://gpu1.invalid:8000/v1/chat/completions"
    said = str(caught.value)
    assert "gpu1.invalid:8000" in said
    assert "the proxy http://127.0.0.1" in said
    assert "HTTP_PROXY" in said
    assert "pass-word" not in said


@pytest.mark.parametrize("value", ["http://127.0.0.1:9", "127.0.0.1:9"])
def test_a_dead_proxy_is_to_blame_and_not_the_server(monkeypatch, value):
    """A proxy that nobody answers at is named with its variable, and the cure is `no_proxy`."""
    monkeypatch.setenv("http_proxy", value)

    async def ask():
        async with open_session() as session:
            await Server(session, "http://127.0.0.2:8000", timeout=5).get("/v1/models")

    with pytest.raises(TransientError, match=r"through the proxy http://127.0.0.1:9 \(http_proxy") as caught:
        asyncio.run(ask())
    assert "no_proxy" in caught.value.hint


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("http_proxy", "socks5://127.0.0.1:9", "the proxy socks5://127.0.0.1:9 (http_proxy in the environment)"),
        ("ALL_PROXY", "socks5h://me:secret@127.0.0.1:9", "the proxy socks5h://127.0.0.1:9 (ALL_PROXY"),
        ("http_proxy", "http://", "http_proxy in the environment is not the address of a proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_at_once(monkeypatch, variable, value, said):
    """A proxy of another protocol ends the start with its name; the cure is another one, or none."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ModelError) as caught:
        proxy_for(Address.read("http://gpu1:8000"))
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "no_proxy" in caught.value.hint
